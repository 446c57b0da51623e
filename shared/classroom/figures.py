"""Pictures: the drawn figures of assets/ and the plots that the notebooks share.

Notable: one palette for drawings and plots. The drawings carry plain presentation attributes only,
no style sheet, marker or script, so that JupyterLab, Colab, GitHub and nbconvert all show the
same. Plot helpers take plain numbers and return (fig, ax). Used by every notebook, built in none.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

Numbers = Sequence[float]  # a list, an array or a tensor
Table = Sequence[Numbers]

ASSETS = Path(__file__).resolve().parents[2] / "assets"
COLOURS = {
    "blue": "#2b6cb0",
    "orange": "#c9580c",
    "green": "#25795a",
    "purple": "#7450a8",
    "gold": "#b7860b",
    "grey": "#5f6b7a",
    "ink": "#1f2d3a",  # text
    "paper": "#fcfbf8",  # the card behind every figure
    "line": "#d5d2ca",
}
LINE = 84  # characters in a line of a strip
NAMED = 12  # words that a map can name one by one
# How a word stands in a strip. Tokens are plain text: a $ in them does not begin a formula.
WORD = dict(size=9.5, family="DejaVu Sans Mono", ha="center", va="center", parse_math=False)
# How a constant loss is drawn, by its name; any other name as the floor, grey and dashed.
LEVELS = {"uniform": ("purple", "-."), "bigram": ("gold", "-."), "ideal reader": ("green", ":")}
HEAT = LinearSegmentedColormap.from_list("course", ["#fdf6ec", "#f6c583", "#dd7a2a", "#8f3606"])
FUTURE = "#e4e7ec"  # what a causal mask forbids
CARD = {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 1}  # under words on a plot


class Picture:
    """A figure of assets/: an SVG image, or its description where there is no front-end."""

    def __init__(self, name: str, svg: str, alt: str) -> None:
        self.name, self.svg, self.alt = name, svg, alt

    def __repr__(self) -> str:
        return f"[figure {self.name}: {self.alt}]"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": repr(self)}


def picture(name: str, lit: str | None = None, alt: str | None = None) -> Picture:
    """Read assets/NAME.svg; `lit` lights one chapter of a map; `alt` replaces its description.

    Raises FileNotFoundError for an unknown name and ValueError for a chapter the figure lacks.
    """
    names = sorted(file.stem for file in ASSETS.glob("*.svg"))
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise FileNotFoundError(f"assets/ holds no figure {name!r}; near names: {', '.join(near)}")
    svg = (ASSETS / f"{name}.svg").read_text(encoding="utf-8").strip()
    if lit is not None:
        chapters = re.findall(r'data-chapter="([^"]+)"', svg)
        if lit not in chapters:
            raise ValueError(f"figure {name!r} has no chapter {lit!r}; it has {chapters}")
        mark = {lit: ' stroke-width="4"'}
        dim = ' opacity="0.4"'
        svg = re.sub(r'data-chapter="([^"]+)"', lambda m: m[0] + mark.get(m[1], dim), svg)
    title = re.search(r"<title>(.*?)</title>", svg)[1]
    alt = alt or unescape(title)
    return Picture(name, svg.replace(f"<title>{title}<", f"<title>{escape(alt, False)}<"), alt)


def show(name: str, lit: str | None = None, alt: str | None = None) -> None:
    """Display assets/NAME.svg in a notebook; for the arguments and errors see `picture`."""
    display(picture(name, lit, alt))


def style() -> None:
    """Set the course's look for matplotlib: the palette, DejaVu Sans, quiet axes, small PNGs."""
    ink, grey, paper = COLOURS["ink"], COLOURS["grey"], COLOURS["paper"]
    cycle = [COLOURS[name] for name in ("blue", "orange", "green", "purple", "gold", "grey")]
    mpl.rc("axes", prop_cycle=mpl.cycler(color=cycle), edgecolor=grey, labelcolor=ink)
    mpl.rc("axes", facecolor=paper, titlelocation="left", titlesize=12, titlepad=10)
    mpl.rc("axes.spines", top=False, right=False)
    mpl.rc("figure", **{"figsize": (7.2, 3.6), "constrained_layout.use": True})
    mpl.rc(("figure", "savefig"), dpi=90, facecolor=paper)
    mpl.rc("font", family="DejaVu Sans", size=10.5)  # comes with matplotlib: the same everywhere
    mpl.rc("text", color=ink)
    mpl.rc(("xtick", "ytick"), color=grey)
    mpl.rc("grid", color=COLOURS["line"])


def visible(token: str) -> str:
    """A token as it can be shown: a space as ␣, a line break as ↵."""
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def _title(ax: Axes, title: str | None) -> None:
    """Write a title as plain text: it may quote a token, and a $ in it begins no formula."""
    ax.set_title(title or "", parse_math=False)


def _known(values: Numbers) -> tuple[np.ndarray, float, str]:
    """A curve with gaps for what is no number, the height of its end, and a word about it.

    Of a run that exploded one wants to see what came before.
    """
    values = np.asarray(values, dtype=float)
    fine = np.isfinite(values)
    ending = f", then {values[-1]:.0f}" if len(values) and not fine[-1] else ""
    return np.where(fine, values, np.nan), float([0, *values[fine]][-1]), ending


def _end_labels(ax: Axes, labels: Sequence[tuple[float, str, str]], gap: float = 0.075) -> None:
    """Write (height, text, colour) labels right of the axes, pushed apart so that none overlap."""
    low, high = ax.get_ylim()
    labels = sorted(labels)
    heights = [(y - low) / (high - low) for y, _, _ in labels]
    for i in range(1, len(heights)):  # upwards from the lowest label,
        heights[i] = max(heights[i], heights[i - 1] + gap)
    for above, i in enumerate(reversed(range(len(heights)))):  # then down from the top
        heights[i] = min(heights[i], 1 - gap * above)
    place = {"xycoords": ax.get_yaxis_transform(), "textcoords": ax.transAxes, "va": "center"}
    place |= {"parse_math": False}  # a name may hold a $
    for (y, text, colour), height in zip(labels, heights, strict=True):
        lead = {"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkB": 0, "relpos": (0, 0.5)}
        ax.annotate(text, (1, y), (1.035, height), arrowprops=lead, color=colour, **place)


def loss_curves(
    curves: Mapping[str, tuple[Numbers, Numbers]],
    levels: Mapping[str, float] | None = None,
    ylabel: str = "loss (nats per token)",
    title: str | None = None,
    marks: Mapping[str, float] | None = None,
    ylim: tuple[float, float] | None = None,
) -> tuple[Figure, Axes]:
    """Losses over steps: `curves` maps a name to (steps, losses), `levels` to a constant loss.

    Levels (uniform guess, bigram, entropy floor) carry their value, each in a style of its own
    (`LEVELS`); `marks` maps what happened to the step at which it did; `ylim` looks closer at a
    part of the axis. A curve called validation has its colour also when it is alone.
    """
    fig, ax = plt.subplots()
    labels = []  # (height, text, colour)
    for number, (name, (steps, losses)) in enumerate(curves.items()):
        values, height, ending = _known(losses)
        (line,) = ax.plot(steps, values, color="C1" if name == "validation" else f"C{number}")
        labels.append((height, name + ending, line.get_color()))
    for name, level in (levels or {}).items():
        if not np.isfinite(level) or (ylim and not ylim[0] <= level <= ylim[1]):
            continue
        colour, dashes = LEVELS.get(name, ("grey", (0, (5, 3))))
        ax.axhline(level, color=COLOURS[colour], linestyle=dashes, linewidth=1.4, zorder=1)
        labels.append((float(level), f"{name} {level:.3f}", COLOURS[colour]))
    high = max([ax.get_ylim()[1], *(height for height, _, _ in labels)])
    ax.set(xlabel="training steps", ylim=ylim or (0, 1.04 * high))
    for text, step in (marks or {}).items():
        ax.axvline(step, color=COLOURS["line"], linewidth=1.2, zorder=0)
        ax.annotate(text, (step, 1), (4, -3), xycoords=("data", "axes fraction"), va="top",
                    textcoords="offset points", fontsize=9, color=COLOURS["grey"], zorder=5,
                    bbox=CARD)  # fmt: skip
    ax.set_ylabel(ylabel, parse_math=False)
    _title(ax, title)
    ax.margins(x=0)
    _end_labels(ax, labels)
    return fig, ax


def recall_panels(
    runs: Mapping[str, tuple[Numbers, Mapping[str, Numbers]]],
    counts: Mapping[str, int],
    title: str | None = None,
    background: Sequence[str] = (),
) -> tuple[Figure, Any]:
    """Recall (0 to 1) over training, a small panel for each kind of thing a tale must repeat.

    `runs` maps a name to (steps, {kind: values}); `counts` says how many mentions of a kind the
    test holds, in the order of the panels. Runs named in `background` are grey: solid, dashed, …
    """
    grey = zip(background, ("-", "--", ":", "-."), strict=False)
    looks = {name: {"color": COLOURS["grey"], "linestyle": style} for name, style in grey}
    front = [name for name in runs if name not in looks]
    looks |= {name: {"color": f"C{number}"} for number, name in enumerate(front)}
    columns = min(4, len(counts))
    rows = -(-len(counts) // columns)
    fig, axes = plt.subplots(
        rows, columns, sharex=True, sharey=True, squeeze=False,
        figsize=(9, 0.5 + 1.75 * rows), layout="constrained",
    )  # fmt: skip
    for ax in axes.flat[len(counts) :]:
        ax.set_axis_off()
    for ax, (kind, count) in zip(axes.flat, counts.items(), strict=False):
        for name, (steps, recalled) in runs.items():
            ax.plot(steps, recalled[kind], label=name, **looks[name])
        ax.set(ylim=(0, 1.04))
        ax.set_title(f"{kind} ({count})", fontsize=10)
        ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
        ax.grid(axis="y")
    fig.supxlabel("training steps", fontsize=10, x=0.06, ha="left")  # right: the legend
    if len(runs) > 1:
        names = axes.flat[0].get_legend_handles_labels()
        fig.legend(*names, loc="outside lower right", ncols=4, fontsize=9, frameon=False)
    if title is not None:
        fig.suptitle(title, fontsize=11)
    return fig, axes


def _flow(tokens: Sequence[str]) -> tuple[list[str], list[tuple[float, int]]]:
    """Tokens as a text of several lines: what to write, and where, as (x, line)."""
    texts = [visible(token.strip() or token) for token in tokens]
    x, line, places = 0.0, 0, []
    for text in texts:
        if x and x + len(text) + 1 > LINE:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += len(text) + 1.35
    return texts, places


def surprise_strip(
    words: Sequence[str], model_nats: Numbers, floor_nats: Numbers | None = None, title: str = ""
) -> tuple[Figure, Axes]:
    """A tale's words, darker = more nats of surprise; the thin bar below: the least possible."""
    floors = floor_nats if floor_nats is not None else [0.0] * len(words)
    top = float(max(1.0, *model_nats, *floors))
    texts, places = _flow(words)
    line = places[-1][1]
    fig, ax = plt.subplots(figsize=(9.2, 0.9 + 0.44 * (line + 1)))
    for text, (x, row), nats, floor in zip(texts, places, model_nats, floors, strict=True):
        share, width = nats / top, len(text) + 1
        ax.add_patch(Rectangle((x, row), width, 0.56, color=HEAT(share), lw=0))
        ax.add_patch(Rectangle((x, row + 0.6), width, 0.2, color=HEAT(floor / top), lw=0))
        ink = COLOURS["paper" if share > 0.6 else "ink"]
        ax.text(x + width / 2, row + 0.3, text, color=ink, **WORD)
    ax.set(xlim=(0, LINE), ylim=(line + 0.95, -0.1))
    _title(ax, title)
    ax.axis("off")
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, top), HEAT)
    label = "nats" + (" (word: model, bar below: floor)" if floor_nats is not None else "")
    fig.colorbar(scale, ax=ax, orientation="horizontal", aspect=50, shrink=0.6, label=label)
    return fig, ax


def _heat_table(
    matrix: Table,
    labels: Sequence[str],
    top: float,
    numbers: str,
    title: str | None,
    words: dict[str, str],
) -> tuple[Figure, Axes]:
    """A square table coloured up to `top`, zeros empty, with the same labels on both sides."""
    table = np.asarray(matrix, dtype=float)
    side = 1.2 + 0.36 * len(labels)
    fig, ax = plt.subplots(figsize=(side, side))
    ax.imshow(table / max(top, 1e-12), cmap=HEAT, vmin=0, vmax=1)
    for row, column in np.argwhere(table > 0) if numbers else ():
        ink = COLOURS["paper" if table[row, column] > 0.6 * top else "ink"]
        text = numbers.format(table[row, column])
        ax.text(column, row, text, ha="center", va="center", color=ink, size=9)
    names = [visible(label) for label in labels]
    turn = {"rotation": 90} if max(map(len, names)) > 3 else {}
    ax.set_xticks(range(len(names)), names, parse_math=False, **turn)
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelcolor=COLOURS["ink"])
    ax.spines[:].set_visible(False)
    ax.xaxis.set_label_position("top")
    ax.set(**words)
    _title(ax, title)
    return fig, ax


def count_table(
    matrix: Table, labels: Sequence[str], title: str | None = None, numbers: str = "{:.0f}"
) -> tuple[Figure, Axes]:
    """Counts of pairs: row this token, column the next; `numbers` formats a cell ("" for none)."""
    words = {"xlabel": "next", "ylabel": "this"}
    top = np.max(np.asarray(matrix, dtype=float))
    return _heat_table(matrix, labels, top, numbers, title, words)


def attention_map(
    weights: Table,
    labels: Sequence[str],
    title: str | None = None,
    top: float = 1.0,
    causal: bool = False,
) -> tuple[Figure, Axes]:
    """Attention weights (tokens, tokens): row who looks, column at whom; numbers if they fit.

    `top` is the weight of the darkest colour; `causal` paints grey where nobody may look.
    """
    rows = [[float(weight) for weight in row] for row in weights]
    words = {"xlabel": "at whom", "ylabel": "who looks"}
    fig, ax = _heat_table(rows, labels, top, "{:.2f}" if len(labels) <= 8 else "", title, words)
    if causal:
        future = np.triu(np.ones((len(rows), len(rows))), k=1)
        ax.imshow(np.ma.masked_equal(future, 0), cmap=ListedColormap([FUTURE]))
    return fig, ax


def attention_strip(
    tokens: Sequence[str],
    weights: Numbers,
    looking: int,
    title: str | None = None,
    ticks: Mapping[float, str] | None = None,
) -> tuple[Figure, Axes]:
    """A text in which token number `looking`, framed in blue, looks back: darker = more weight.

    `weights` has one number per token up to and including the one that looks; `ticks` asks for a
    bar of the colours and says what stands beside it, {0.5: "filtered"}.
    """
    texts, places = _flow(tokens)
    lines = places[-1][1] + 1
    fig, ax = plt.subplots(figsize=(9.2, 0.5 + 0.3 * lines + (0.55 if ticks else 0)))
    for at, (text, (x, line)) in enumerate(zip(texts, places, strict=True)):
        weight = float(weights[at]) if at <= looking else 0.0
        frame = {"edgecolor": COLOURS["blue"], "lw": 2, "zorder": 3} if at == looking else {"lw": 0}
        colour = HEAT(weight) if at <= looking else "none"
        ax.add_patch(Rectangle((x, line), len(text) + 1, 0.72, facecolor=colour, **frame))
        ink = COLOURS["paper" if weight > 0.6 else "ink" if at <= looking else "grey"]
        ax.text(x + (len(text) + 1) / 2, line + 0.36, text, color=ink, zorder=4, **WORD)
    ax.set(xlim=(-0.3, LINE), ylim=(lines, -0.1))
    _title(ax, title)
    ax.axis("off")
    if ticks:
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), HEAT)
        bar = fig.colorbar(scale, ax=ax, orientation="horizontal", aspect=50, shrink=0.6)
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
    return fig, ax


def word_map(
    ax: Axes, places: Mapping[str, Table], words: Mapping[str, Sequence[str]], title: str
) -> None:
    """Draw kinds of words at their places, {kind: (words, 2)}; name the kinds when they are apart.

    Each kind keeps its colour in every map of the same `words`. Where all kinds lie in one cloud,
    or there is only one, every word is named instead; if there are too many, a legend of the kinds.
    """
    clouds = {kind: np.asarray(dots) for kind, dots in places.items()}
    middles = np.array([dots.mean(axis=0) for dots in clouds.values()])
    inside = np.mean([dots.std() for dots in (d - d.mean(axis=0) for d in clouds.values())])
    apart = len(clouds) > 1 and middles.std() > 2 * inside
    every = np.concatenate([*clouds.values()])
    place = {"textcoords": "offset points", "size": 10}
    for kind, dots in clouds.items():
        colour = f"C{list(words).index(kind)}"
        ax.scatter(*dots.T, s=18, color=colour, label=kind)
        if apart:
            middle = dots.mean(axis=0)
            ax.annotate(kind, middle, (0, 9), ha="center", color=colour, **place)
        elif len(every) <= NAMED:
            for word, dot in zip(words[kind], dots, strict=True):
                right, up = ((every - dot) / np.ptp(every, axis=0)).T
                free = not ((0 < right) & (right < 0.3) & (abs(up - 0.04) < 0.09)).any()
                ax.annotate(word, dot, (3, 3) if free else (0, -13), **place)
    if not apart and len(every) > NAMED:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False)
    ax.set(title=title, xticks=[], yticks=[])
    ax.margins(0.15)


def head_scores(
    scores: Mapping[str, Table],
    title: str | None = None,
    top: float = 1.0,
    grey_layers: Sequence[int] = (),
) -> tuple[Figure, Any]:
    """One small table per score, rows layers, columns heads; what rounds to 0 has no number.

    `top` is the number of the darkest colour; `grey_layers` (from 1) are shown without theirs.
    """
    columns = 4
    rows = -(-len(scores) // columns)
    fig, grid = plt.subplots(rows, columns, squeeze=False, figsize=(8.8, 0.4 + 2.1 * rows))
    for ax in grid.flat:
        ax.axis("off")
    for ax, (name, values) in zip(grid.flat, scores.items(), strict=False):
        table = np.asarray(values, dtype=float).copy()
        table[[layer - 1 for layer in grey_layers]] = np.nan
        ax.axis("on")
        ax.set_facecolor(FUTURE)
        ax.imshow(np.ma.masked_invalid(table), cmap=HEAT, vmin=0, vmax=top)
        for row, column in np.argwhere(np.round(abs(np.nan_to_num(table)), 2) > 0):
            ink = COLOURS["paper" if table[row, column] > 0.6 * top else "ink"]
            text = f"{table[row, column]:.2f}"
            ax.text(column, row, text, ha="center", va="center", color=ink, size=10.5)
        ax.set_title(name, size=11, pad=4, parse_math=False)
        for side, count in zip("yx", table.shape, strict=True):
            ax.set(**{f"{side}ticks": range(count), f"{side}ticklabels": range(1, count + 1)})
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    for row in grid:
        row[0].set_ylabel("layer")
    grid[-1, 0].set_xlabel("head")
    fig.suptitle(title or "", x=0.01, ha="left", size=12, parse_math=False)
    return fig, grid


def loss_surface(
    xs: Numbers,
    ys: Numbers,
    losses: Table,
    path: Table | None = None,
    labels: tuple[str, str] = ("first weight", "second weight"),
    title: str | None = None,
) -> tuple[Figure, Axes]:
    """Contours of losses[row: ys][column: xs] over two weights, with a descent `path` of (x, y)."""
    fig, ax = plt.subplots(figsize=(5.6, 4.4))
    filled = ax.contourf(xs, ys, losses, levels=16, cmap=HEAT)
    ax.contour(xs, ys, losses, levels=filled.levels, colors=COLOURS["paper"], linewidths=0.6)
    if path is not None:
        across, up = np.asarray(path, dtype=float).T
        ax.plot(across, up, color=COLOURS["blue"], marker="o", markersize=3, linewidth=1.5)
        lift = 4 if up[0] > up[-1] else -4  # beside the path, not on it
        for text, i, y in (("start", 0, lift), ("end", -1, -lift)):
            ax.annotate(
                text, (across[i], up[i]), (8, y), textcoords="offset points", va="center",
                color=COLOURS["blue"], weight="bold", zorder=5,
                bbox=CARD | {"alpha": 0.85},
            )  # fmt: skip
    ax.set_xlabel(labels[0], parse_math=False)
    ax.set_ylabel(labels[1], parse_math=False)
    _title(ax, title)
    fig.colorbar(filled, ax=ax, label="loss")
    return fig, ax


def lr_schedule(lrs: Numbers, title: str | None = None) -> tuple[Figure, Axes]:
    """The learning rate of every step, its peak and its last value marked."""
    fig, ax = plt.subplots(figsize=(7.2, 2.6))
    ax.plot(range(len(lrs)), lrs)
    peak = int(np.argmax(lrs))
    for step in sorted({peak, len(lrs) - 1}):
        ax.plot(step, lrs[step], "o", color=COLOURS["orange"], clip_on=False)
        ax.text(step, lrs[step], f"   {lrs[step]:.2g} at step {step:,}", va="bottom")
    ax.set(xlabel="step", ylabel="learning rate", ylim=(0, 1.15 * max(lrs)))
    _title(ax, title)
    return fig, ax


def series(history: Sequence[Mapping[str, float]], name: str) -> tuple[list[int], list[float]]:
    """The steps and values of one column of a training history, where it was recorded."""
    rows = [(row["step"] + 1, row[name]) for row in history if name in row]
    return [step for step, _ in rows], [value for _, value in rows]
