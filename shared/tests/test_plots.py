"""The plots of the warm-up: names, numbers and arrows stand where they belong."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from shared.classroom import figures, plots

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    figures.style()
    yield
    plt.close("all")


def words(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_lines_differ_in_colour_and_mark_and_are_named_at_their_ends():
    _, ax = plt.subplots()
    curves = {"up $x$": ([0, 1], [0.0, 2.0]), "down": (range(2), torch.tensor([2.0, 1.0]))}
    plots.lines(ax, curves, nudge={"down": -7}, first=2)
    assert words(ax) == ["up $x$", "down"] and not ax.texts[0].get_parse_math()
    assert [text.xy for text in ax.texts] == [(1, 2.0), (1, 1.0)]
    assert [text.xyann for text in ax.texts] == [(8, 0), (8, -7)]
    looks = [(line.get_color(), line.get_marker()) for line in ax.lines]
    assert looks == [("C2", "^"), ("C3", "D")]


def test_a_descent_that_leaves_its_map_ends_with_an_arrow_at_the_frame():
    side = torch.linspace(-3, 3, 5)
    flat = [[0.0] * 4 + [1.0]] * 5
    paths = {"stays": [(0, 0), (1, 1)], "leaves": [(0, 0), (1, 2), (2, 6)]}
    _, axes = plots.descents(side, side, flat, paths)
    assert [ax.get_title("left") for ax in axes] == ["stays", "leaves"]
    assert [len(ax.lines[0].get_xdata()) for ax in axes] == [2, 2]
    assert [len(ax.texts) for ax in axes] == [0, 1]
    assert axes[1].texts[0].xy == pytest.approx((1.25, 3))


def test_a_kink_is_drawn_where_the_sum_is_0_and_its_arrow_points_to_where_it_is_more():
    _, ax = plt.subplots()
    weights = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, -2.0]])
    plots.kinks(ax, weights, torch.tensor([-1.0, 9.0, 1.0]), -0.5, 1.5)
    numbers = [text for text in words(ax) if text]
    assert numbers == ["0", "2"]  # the line of neuron 1 lies outside
    rows = [weights[0].numpy(), weights[2].numpy()]
    arrows = [text for text in ax.texts if not text.get_text()]
    for line, row, bias, arrow in zip(ax.lines, rows, (-1.0, 1.0), arrows, strict=True):
        assert np.asarray(line.get_xydata()) @ row + bias == pytest.approx(0, abs=1e-6)
        assert (np.asarray(arrow.xy) - arrow.xyann) @ row > 0


def test_the_map_of_answers_names_the_border_and_the_corners_hold_the_answers():
    _, ax = plt.subplots()
    side = np.linspace(-0.5, 1.5, 9)
    plots.answer_map(ax, side, side[:, None] + 0 * side)
    plots.corners(ax, [[0, 0], [0, 1]], torch.tensor([0.0, 1.0]))
    assert words(ax) == ["0", "1"]
    bar = ax.figure.axes[1]
    assert "0.5: border" in [tick.get_text() for tick in bar.get_yticklabels()]


def test_recall_by_distance_shows_what_is_in_sight_twice():
    columns = [4, 9, 17], [0.9, 0.7, 0.1], [3, 4, 5], [90, 20, 70]
    _, (left, right) = plots.recall_by_distance(*columns, window=16, guess=0.1)
    assert [len(ax.collections[0].get_offsets()) for ax in (left, right)] == [3, 2]
    assert words(right) == ["4", "9"]
    assert [text.xy for text in right.texts] == [(90, 0.9), (20, 0.7)]
