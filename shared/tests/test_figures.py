"""Figures and widgets: what a notebook shows is stable, and moving a slider moves the picture."""

import re
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.text import Text
from torch import nn

from shared.classroom import figures, widgets
from shared.classroom.formulas import formula, known_formulas, typeset
from shared.classroom.heads import attention_weights
from shared.gpt import GPTConfig, GPTModel
from shared.tokenizers import BPETokenizer, CharTokenizer

matplotlib.use("Agg")
NAMES = sorted(file.stem for file in figures.ASSETS.glob("*.svg"))
CHAPTERS = ["bigram", "01", "02", "03", "04", "05", "06"]


@pytest.fixture(autouse=True)
def close_figures():
    figures.style()
    yield
    plt.close("all")


@pytest.mark.parametrize("name", NAMES)
def test_drawing_is_valid_and_of_one_visual_language(name):
    text = (figures.ASSETS / f"{name}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert len(text.encode()) < 30_000
    # No width of its own: as an image it then fits any page, a narrow or a printed one too.
    assert root.get("viewBox").startswith("0 0 900 ") and root.get("width") is None
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    # Plain shapes only: sites that show notebooks drop style sheets, markers and scripts.
    assert tags <= {"svg", "title", "g", "rect", "path", "circle", "text", "tspan"}
    assert all(float(size) >= 14 for size in re.findall(r'font-size="([\d.]+)"', text))
    assert len(re.search("<title>(.+)</title>", text)[1]) > 40


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_of_the_map_can_be_lit(chapter):
    plain = figures.picture("course-map").svg
    lit = figures.picture("course-map", lit=chapter).svg
    assert lit.count('opacity="0.4"') - plain.count('opacity="0.4"') == len(CHAPTERS) - 1
    assert f'data-chapter="{chapter}" stroke-width="4"' in lit


def test_without_a_front_end_a_drawing_is_its_description(capsys):
    figures.show("bigram-counts")
    assert capsys.readouterr().out.startswith("[figure bigram-counts: ")
    shown = figures.picture("course-map", alt="a <b> c")
    assert "a <b> c" in repr(shown) and "<title>a &lt;b&gt; c</title>" in shown.svg


def test_unknown_drawings_and_chapters_are_refused_with_near_ones():
    with pytest.raises(FileNotFoundError, match="bigram-counts"):
        figures.picture("bigram-count")
    with pytest.raises(ValueError, match="'09'.*'04'"):
        figures.picture("course-map", lit="09")


@pytest.mark.parametrize("name", known_formulas())
def test_every_formula_is_typeset_in_the_look_of_the_figures(name, capsys):
    drawn = typeset(name)
    root = ElementTree.fromstring(drawn.svg)
    assert root.get("viewBox").startswith("0 0 900 ") and len(drawn.svg) < 30_000
    assert {element.tag.rpartition("}")[2] for element in root} == {"title", "rect", "path"}
    assert "\\" not in drawn.svg and "$" not in drawn.svg
    left, top, width, height = box(root)
    assert 40 < left and left + width < 860 and 10 < top
    assert top + height < float(root.get("viewBox").split()[3]) - 10
    formula(name)
    said = capsys.readouterr().out
    assert said.startswith(f"[figure formula {name}: ") and "\\" not in said


def box(root) -> tuple[float, float, float, float]:
    """Left, top, width and height of a formula's letters."""
    path = root.find("{*}path")
    moved = [float(number) for number in re.findall(r"[-\d.]+", path.get("transform"))]
    numbers = np.array([float(number) for number in re.findall(r"-?[\d.]+", path.get("d"))])
    points = numbers.reshape(-1, 2) + moved
    return *points.min(axis=0), *np.ptp(points, axis=0)


def test_an_unknown_formula_is_refused_with_near_ones():
    with pytest.raises(KeyError, match="softmax"):
        typeset("softmaxx")


def words(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_curves_are_labelled_at_their_ends():
    curves = {"training": ([0, 10], [7.0, 0.5]), "validation": ([0, 10], [7.0, 0.52])}
    _, ax = figures.loss_curves(curves, {"floor": 0.34, "uniform": 7.6})
    assert words(ax) == ["floor 0.340", "training", "validation", "uniform 7.600"]
    _, ax = figures.loss_curves(curves, {"uniform": 7.6}, marks={"tales begin": 5}, ylim=(0.2, 1))
    assert words(ax) == ["tales begin", "training", "validation"]


def test_recall_has_a_panel_for_each_kind_with_its_count():
    runs = {name: ([0, 100], {"names": [0.0, 1.0], "sounds": [0.0, 0.5]}) for name in "ab"}
    _, axes = figures.recall_panels(runs, {"names": 815, "sounds": 18}, "when")
    assert [ax.get_title("left") for ax in axes.flat] == ["names (815)", "sounds (18)"]
    assert [list(line.get_ydata()) for line in axes[0, 1].lines] == [[0.0, 0.5]] * 2
    _, axes = figures.recall_panels(runs, {"names": 815}, background=["b"])
    looks = [(line.get_color(), line.get_linestyle()) for line in axes[0, 0].lines]
    assert looks == [("C0", "-"), (figures.COLOURS["grey"], "-")]


def test_strips_hold_every_word_in_several_lines():
    tale = ["once"] * 50
    surprise = figures.surprise_strip(tale, [0.5] * 50, [0.1] * 50)
    for _, ax in (surprise, figures.attention_strip(tale, [0.1] * 10, looking=9)):
        assert words(ax) == tale and len({text.get_position()[1] for text in ax.texts}) > 2


def test_tables_write_numbers_leave_zeros_empty_and_show_spaces():
    _, ax = figures.count_table([[0, 2], [1, 3]], ["a", " "])
    assert words(ax) == ["2", "1", "3"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "␣"]
    _, ax = figures.attention_map([[1.0, 0.0], [0.25, 0.75]], ["the", " owl"])
    assert words(ax) == ["1.00", "0.25", "0.75"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("who looks", "at whom")
    _, grid = figures.head_scores({"names": torch.tensor([[0.5, 0.6], [0.7, 0.9]])})
    assert words(grid[0, 0]) == ["0.50", "0.60", "0.70", "0.90"]


def test_a_word_map_names_kinds_that_are_apart_and_words_that_are_not():
    kinds = {"animals": ["hen", "owl"], "colours": ["red", "blue"]}
    near, far = np.array([[0.0, 0.0], [0.1, 0.1]]), np.array([[9.0, 9.0], [9.1, 9.1]])
    _, axes = plt.subplots(1, 3)
    figures.word_map(axes[0], {"animals": near, "colours": far}, kinds, "apart")
    figures.word_map(axes[1], {"animals": near, "colours": near[::-1]}, kinds, "mixed")
    figures.word_map(axes[2], {"colours": far}, kinds, "one kind")
    assert [words(ax) for ax in axes] == [
        ["animals", "colours"], ["hen", "owl", "red", "blue"], ["red", "blue"],
    ]  # fmt: skip


def test_a_word_map_of_many_words_in_one_cloud_has_a_legend_of_their_kinds():
    kinds = {"animals": ["hen"] * 7, "colours": ["red"] * 7}
    dots = np.random.default_rng(1).normal(size=(14, 2))
    _, ax = plt.subplots()
    figures.word_map(ax, {"animals": dots[:7], "colours": dots[7:]}, kinds, "mixed")
    assert words(ax) == []
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["animals", "colours"]


def test_a_map_of_attention_has_its_own_scale_and_paints_the_future_grey():
    weights = [[1.0, 0.0], [0.8, 0.2]]
    _, plain = figures.attention_map(weights, ["the", "owl"])
    _, ax = figures.attention_map(weights, ["the", "owl"], top=0.5, causal=True)
    colours = [float(each.images[0].norm(each.images[0].get_array())[1, 1]) for each in (plain, ax)]
    assert colours == pytest.approx([0.2, 0.4])  # 0 is the lightest, 1 the darkest
    assert len(plain.images) == 1
    hidden = np.ma.getmaskarray(ax.images[1].get_array())
    assert hidden.tolist() == [[True, False], [True, True]]  # grey lies above the diagonal alone


def test_a_strip_of_attention_says_what_its_colours_mean_when_asked():
    strip = [["a", "b"], [0.3, 0.7], 1]
    fig, _ = figures.attention_strip(*strip)
    assert len(fig.axes) == 1
    fig, _ = figures.attention_strip(*strip, ticks={0.5: "filtered"})
    assert [tick.get_text() for tick in fig.axes[1].get_xticklabels()] == ["filtered"]


class Fixed(nn.Module):
    """Gives the same next-token distribution after every prompt."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Parameter(torch.log(torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01])))

    def forward(self, ids, cache=None):
        return self.scores.expand(*ids.shape, 5)


LETTERS = CharTokenizer("abcd<")
LETTERS.eot_id = 4


def test_a_dollar_in_a_token_is_a_dollar_in_every_figure():
    money = ["$$", "$_$", "x$y^2$z"]
    numbers = [[1.0, 1.0, 1.0]] * 3
    names = [*money, "a", "b"]
    tokenizer = SimpleNamespace(encode=lambda text: [0, 1, 2], decode=lambda ids: names[ids[0]])
    drawn = [
        figures.surprise_strip(money, [1, 2, 3]),
        figures.attention_strip(money, [0.1, 0.2, 0.7], 2),
        figures.attention_map(numbers, money),
        figures.count_table(numbers, money),
        figures.loss_curves({name: ([0, 1], [2.0, 1.0]) for name in money}),
        widgets.tokenizer_figure({"money": tokenizer}, "any"),
        widgets.sampling_figure(Fixed(), tokenizer, "a"),
    ]
    for fig, _ in drawn:
        fig.canvas.draw()
        shown = [text for text in fig.findobj(Text) if "$" in text.get_text()]
        assert {text.get_text() for text in shown} == set(money)
        assert not any(text.get_parse_math() for text in shown)


def test_sampling_explorer_moves_its_bars_and_explains_a_bad_prompt():
    explorer = widgets.SamplingExplorer(Fixed(), LETTERS, "ab")

    def bars():
        return [float(cell) for cell in re.findall(r"<td>([\d.]+)</td>", explorer.bars.value)]

    assert bars() == [0.5, 0.3, 0.15, 0.04, 0.01]
    explorer.temperature.value = 0  # as sure as can be
    assert bars() == [1, 0, 0, 0, 0]
    explorer.temperature.value, explorer.top_k.value = 1, 2
    assert bars() == [0.625, 0.375, 0, 0, 0] and "2 tokens left" in explorer.bars.value
    explorer.prompt.value = "xyz"
    assert explorer.bars.value.startswith("<i>")
    explorer.prompt.value = "a<"
    assert bars() == [0.625, 0.375, 0, 0, 0] and "&lt;" in explorer.bars.value


def test_sampling_explorer_writes_by_its_seed_and_leaves_the_notebooks_random_numbers_alone():
    model = GPTModel(GPTConfig(5, context_length=16, emb_dim=8, n_heads=2, n_layers=1))
    explorer = widgets.SamplingExplorer(model, LETTERS, "ab", max_new_tokens=8)
    before = torch.get_rng_state()
    explorer.button.click()
    first = explorer.text.value
    assert "<b>ab</b>" in first and "temperature 1.0, seed 1" in first
    explorer.seed.value = 2
    assert explorer.text.value != first
    explorer.seed.value = 1
    assert explorer.text.value == first
    assert torch.equal(torch.get_rng_state(), before) and model.training


def test_playground_cuts_what_is_typed_with_the_chosen_tokenizer():
    single = BPETokenizer.train("a", 256, special_tokens=())
    tokenizers = {"letters": CharTokenizer("abc <>"), "bytes": single}
    box = widgets.TokenizerPlayground(tokenizers, "a <")
    assert "3 tokens for 3 characters" in box.count.value
    assert ">␣</span>" in box.tokens.value and "&lt;" in box.tokens.value
    box.text.value = "aé"
    assert "é" in box.tokens.value and box.count.value == ""  # the reason, no count
    box.choice.value = "bytes"
    assert "3 tokens for 2 characters" in box.count.value
    assert "c3" in box.tokens.value and "a9" in box.tokens.value  # a half character as its byte
    with pytest.raises(ValueError, match="no tokenizer to play with"):
        widgets.TokenizerPlayground({}, "a")


def test_merge_stepper_merges_one_by_one():
    tokenizer = BPETokenizer.train("low low low lower", 256 + 3, special_tokens=())
    stepper, seen = widgets.MergeStepper(tokenizer, "low"), []
    for step in range(4):
        stepper.step.value = step
        seen.append(int(re.search(r"(\d+) tokens", stepper.count.value)[1]))
    assert seen[0] == 3 and seen[-1] == 1 and seen == sorted(seen, reverse=True)
    assert "the last one" in stepper.count.value


def test_attention_explorer_shows_the_row_of_layer_head_and_token():
    torch.manual_seed(1)
    model = GPTModel(GPTConfig(8, 12, 16, n_heads=2, n_layers=3, drop_rate=0.0, init_std=0.5))
    box = widgets.AttentionExplorer(model, LETTERS, "abadcab")
    box.layer.value, box.head.value, box.token.value = 3, 2, 4
    weights = attention_weights(model, torch.tensor([4, *LETTERS.encode("abadcab")]))
    shown = [float(weight) for weight in re.findall(r'title="([0-9.]+)"', box.tokens.value)]
    assert shown == pytest.approx(weights[2, 1, 4].tolist(), abs=6e-4)
    box.text.value = "abcabcabcabc"
    assert "do not fit" in box.tokens.value
    box.layer.value, box.text.value = 2, "cab"
    assert box.token.max == box.token.value == 3 and box.tokens.value.count("<span") == 4


def test_figure_explorer_draws_what_the_slider_says_and_leaves_no_figure_open():
    seen = []

    def draw(value):
        seen.append(value)
        return plt.subplots()[0]

    explorer = widgets.FigureExplorer(draw, "rate", 0.5, 0, 1)
    explorer.slider.value = 0.75
    assert seen == [0.5, 0.75] and not plt.get_fignums()
    assert bytes(explorer.image.value).startswith(b"\x89PNG")
    assert repr(explorer).startswith("figure explorer: run this cell")
