"""Plots of the warm-up whose drawing would stand between a sentence and its picture.

Notable: like the plots of figures.py they take plain numbers. `lines` is the plot with names at
the ends of its curves; the others belong to one page each of bigram/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from shared.classroom.figures import CARD, COLOURS, HEAT, Numbers, Table

MARKS = "os^Dvp"


def lines(
    ax: Axes,
    curves: Mapping[str, tuple[Numbers, Numbers]],
    nudge: Mapping[str, float] | None = None,
    every: int = 1,
    first: int = 0,
) -> None:
    """Draw {name: (xs, ys)}, each in a colour and with marks of its own, named at its right end.

    `nudge` lifts a name by so many points where two would meet; of a long curve every `every`-th
    point has a mark; `first` is the number of the first colour.
    """
    for number, (name, (xs, ys)) in enumerate(curves.items(), start=first):
        colour = f"C{number % 6}"
        ax.plot(xs, ys, color=colour, marker=MARKS[number % 6], markersize=5, markevery=every)
        place = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
        lift = (nudge or {}).get(name, 0)
        ax.annotate(name, (xs[-1], ys[-1]), (8, lift), color=colour, parse_math=False, **place)


def descents(
    xs: Numbers, ys: Numbers, losses: Table, paths: Mapping[str, Table]
) -> tuple[Figure, Sequence[Axes]]:
    """A row of small maps of one loss, each with a descent {title: its (x, y)}, cut at the frame.

    An arrow shows where a path leaves the map.
    """
    xs, ys = np.asarray(xs), np.asarray(ys)
    fig, axes = plt.subplots(1, len(paths), figsize=(9.2, 3.0), sharey=True)
    for ax, (title, path) in zip(axes, paths.items(), strict=True):
        ax.contourf(xs, ys, losses, levels=16, cmap=HEAT)
        across, up = np.asarray(path, dtype=float).T
        inside = (abs(across) <= xs.max()) & (abs(up) <= ys.max())
        out = len(path) if inside.all() else int(np.argmin(inside))
        look = {"color": COLOURS["blue"], "linewidth": 1.3, "zorder": 3}
        ax.plot(across[:out], up[:out], marker="o", markersize=3, **look)
        if out < len(path):
            arrow = {"arrowstyle": "-|>", "mutation_scale": 14, "shrinkA": 0, "shrinkB": 0} | look
            last, after = np.array([across[out - 1], up[out - 1]]), np.array([across[out], up[out]])
            ax.annotate("", last + _share(last, after, xs, ys) * (after - last), last,
                        arrowprops=arrow)  # fmt: skip
        ax.set(xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]), aspect="equal", xlabel="x")
        ax.set_title(title, fontsize=10.5)
    axes[0].set_ylabel("y")
    return fig, axes


def _share(inside: np.ndarray, outside: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> float:
    """How much of the way from one point to the other lies within the frame."""
    way = outside - inside
    edge = np.where(way > 0, [xs[-1], ys[-1]], [xs[0], ys[0]])
    return float(np.min((edge - inside)[way != 0] / way[way != 0]))


def corners(ax: Axes, questions: Table, answers: Numbers) -> None:
    """The four questions of exclusive or as circles in a square, with the answer in each."""
    for (x, y), answer in zip(questions, answers, strict=True):
        ax.text(x, y, f"{float(answer):.0f}", ha="center", va="center", weight="bold", zorder=6,
                bbox={"boxstyle": "circle", "facecolor": "white"})  # fmt: skip
    ax.set(xlabel="first input", ylabel="second input")


def answer_map(ax: Axes, side: Numbers, heights: Table) -> None:
    """The answers of a network on a square, heights[row: second input][column: first input].

    One half, the border between "0" and "1", is the pale middle of the colours, and a dark line.
    """
    middle = TwoSlopeNorm(0.5, vmin=-0.5, vmax=2.5)
    levels = np.arange(-0.75, 2.76, 0.25)
    look = {"cmap": "RdYlBu_r", "norm": middle, "extend": "both"}
    filled = ax.contourf(side, side, heights, levels, **look)
    ax.contour(side, side, heights, levels=[0.5], colors=COLOURS["ink"], linewidths=2)
    bar = ax.figure.colorbar(filled, ax=ax, label="the network's answer")
    bar.set_ticks([-0.5, 0, 0.5, 1, 1.5, 2, 2.5], labels=["−0.5", "0", "0.5: border", "1", "1.5",
                                                          "2", "2.5"])  # fmt: skip
    ax.set(aspect="equal", xlabel="first input", ylabel="second input")


def kinks(ax: Axes, weights: Table, biases: Numbers, low: float, high: float) -> None:
    """Where each hidden neuron has its kink, a line weights · x + bias = 0 of the square.

    The arrow on a line points to the side where the neuron is active. A neuron whose kink lies
    outside the square is not drawn.
    """
    for number, (row, bias) in enumerate(zip(np.asarray(weights), np.asarray(biases), strict=True)):
        along = np.array([-row[1], row[0]]) / np.hypot(*row)
        foot = -bias * row / (row @ row)  # the point of the line that is nearest to (0, 0)
        points = foot + np.linspace(-4, 4, 2001)[:, None] * along
        points = points[((points > low) & (points < high)).all(axis=1)]
        if len(points) < 2:
            continue
        colour = f"C{number % 6}"
        ax.plot(*points[[0, -1]].T, "-" if number < 6 else "--", color=colour, linewidth=1.4)
        at = points[int(len(points) * (0.2 + 0.6 * (number % 4) / 3))]
        end = at + 0.16 * row / np.hypot(*row)
        arrow = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0, "lw": 1.4}
        ax.annotate("", end, at, arrowprops=arrow)
        ax.text(*(at - 0.06 * row / np.hypot(*row)), str(number), color=colour, ha="center",
                va="center", size=9, weight="bold", bbox=CARD)  # fmt: skip
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")


def recall_by_distance(
    distances: Numbers, shares: Numbers, cases: Numbers, seen: Numbers, window: int, guess: float
) -> tuple[Figure, Sequence[Axes]]:
    """How much is recalled, left over the distance, right over how often a distance was seen.

    The area of a dot is the number of cases. The left panel has the counts of `seen` as bars below
    and a line where the `window` ends; the right one holds the distances in sight, by their names.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.8))
    blue, grey = COLOURS["blue"], COLOURS["grey"]
    areas = 6 * np.asarray(cases)
    near = np.asarray(distances) <= window
    for x, ax, shown in ((distances, left, near | True), (seen, right, near)):
        dots = [np.asarray(values)[shown] for values in (x, shares, areas)]
        ax.scatter(dots[0], dots[1], dots[2], color=blue, alpha=0.75, linewidth=0, zorder=3)
        ticks = [0, 0.25, 0.5, 0.75, 1]
        ax.set_yticks(ticks, labels=[f"{tick:.0%}" for tick in ticks])
    left.axhline(guess, color=grey, linestyle="--", linewidth=1)
    left.bar(distances, 0.3 * np.asarray(seen) / max(seen), bottom=-0.4, color=COLOURS["line"])
    left.text(distances[0] - 0.5, -0.06, "how often seen in training", color=grey, size=9)
    left.axvline(window + 0.5, color=COLOURS["orange"], linewidth=1.2)
    left.text(window + 0.7, 0.98, "out of sight", color=COLOURS["orange"], va="center")
    left.text(distances[0] - 0.5, guess + 0.03, "guess", color=grey, size=9)
    for x, y, name, area in zip(seen, shares, distances, areas, strict=True):
        if name <= window:
            place = {"textcoords": "offset points", "va": "center", "size": 9}
            right.annotate(str(name), (x, y), (2 + area**0.5 / 2, -5), **place)
    left.set(xlabel="tokens back", ylabel="share recalled", ylim=(-0.42, 1.08))
    left.set_xticks(range(4, 21, 4))
    lowest = min(shares[i] for i in np.flatnonzero(near))
    right.set(xscale="log", xlabel="examples in training", ylim=(lowest - 0.08, 1.05))
    right.set_xticks([20, 50, 100, 200], labels=["20", "50", "100", "200"])
    right.minorticks_off()
    return fig, (left, right)
