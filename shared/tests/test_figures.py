"""Figures and widgets: what a notebook shows is stable, and moving a slider moves the picture."""

import re
from xml.etree import ElementTree

import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

from shared.classroom import figures, widgets
from shared.attention import attention_weights
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


# --- the drawings ---


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


def test_drawing_has_a_description_for_front_ends_without_images():
    shown = figures.picture("course-map")
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == repr(shown)
    assert bundle["image/svg+xml"].startswith("<svg") and "course-map" in repr(shown)
    assert "<b>" in repr(figures.picture("course-map", alt="a <b> c"))
    assert "<title>a &lt;b&gt; c</title>" in figures.picture("course-map", alt="a <b> c").svg


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_of_the_map_can_be_lit(chapter):
    plain = figures.picture("course-map").svg
    lit = figures.picture("course-map", lit=chapter).svg
    ElementTree.fromstring(lit)
    assert lit.count('opacity="0.4"') - plain.count('opacity="0.4"') == len(CHAPTERS) - 1
    assert f'data-chapter="{chapter}" stroke-width="4"' in lit


def test_show_prints_the_description_without_a_front_end(capsys):
    figures.show("bigram-counts")
    assert capsys.readouterr().out.startswith("[figure bigram-counts: ")


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(FileNotFoundError, match="bigram-counts"):
        figures.picture("bigram-count")
    with pytest.raises(FileNotFoundError, match="course-map"):
        figures.picture("../README")
    with pytest.raises(ValueError, match="'09'.*'04'"):
        figures.picture("course-map", lit="09")
    with pytest.raises(ValueError, match="no chapter"):
        figures.picture("decoding", lit="04")


# --- the plots ---


def test_loss_curves_name_curves_and_levels_without_overlap():
    steps = [0, 10, 20]
    curves = {"training": (steps, [7.0, 2.0, 0.5]), "validation": (steps, [7.0, 2.1, 0.52])}
    levels = {"uniform": 7.6, "bigram": 1.75, "floor": 0.34}
    fig, ax = figures.loss_curves(curves, levels)
    fig.canvas.draw()
    boxes = [matplotlib.text.Text.get_window_extent(text) for text in ax.texts]
    assert [text.get_text() for text in ax.texts][0] == "floor 0.34" and len(boxes) == 5
    assert all(low.y1 <= high.y0 + 1 for low, high in zip(boxes, boxes[1:], strict=False))


def test_end_labels_stay_inside_when_all_curves_end_at_the_top():
    kinds = {kind: [0.0, 1.0] for kind in ("names", "objects", "colours", "animals")}
    fig, ax = figures.recall_curves([0, 100], kinds)
    fig.canvas.draw()
    tops = [text.get_window_extent().y1 for text in ax.texts]
    assert len(tops) == 4 and max(tops) <= ax.get_window_extent().y1 + 12


def test_probability_bars_mark_the_target_and_show_white_space():
    _, ax = figures.probability_bars([" fox", "\n"], torch.tensor([0.75, 0.25]), target="\n")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["␣fox", "↵"]
    assert matplotlib.colors.to_hex(ax.patches[1].get_facecolor()) == figures.COLOURS["orange"]


def test_surprise_strip_wraps_and_keeps_every_word():
    words = ["once"] * 50
    _, ax = figures.surprise_strip(words, [0.5] * 50, [0.1] * 50)
    assert len(ax.texts) == 50 and len({text.get_position()[1] for text in ax.texts}) > 2
    assert max(text.get_position()[0] for text in ax.texts) < figures.LINE
    with pytest.raises(ValueError):
        figures.surprise_strip(words, [0.5] * 49)


def test_count_table_writes_counts_and_leaves_zeros_empty():
    _, ax = figures.count_table([[0, 2], [1, 3]], ["a", " "])
    assert [text.get_text() for text in ax.texts] == ["2", "1", "3"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "␣"]


def test_attention_map_has_a_row_for_who_looks_and_leaves_the_future_empty():
    weights = [[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.2, 0.3, 0.5]]
    fig, ax = figures.attention_map(weights, ["the", " owl", "s"])
    assert [text.get_text() for text in ax.texts] == ["1.0", "0.2", "0.8", "0.2", "0.3", "0.5"]
    assert ax.get_ylabel() == "who looks" and ax.get_xlabel() == "at whom"
    assert ax.get_yticklabels()[1].get_text() == "␣owl"
    many = [str(i) for i in range(9)]
    assert not figures.attention_map([[1 / 9] * 9] * 9, many)[1].texts


def test_attention_strip_shades_what_is_looked_at_and_frames_who_looks():
    _, ax = figures.attention_strip(["the", " owl", " sang", "."], [0.1, 0.7, 0.2], 2)
    assert [text.get_text() for text in ax.texts] == ["the", "owl", "sang", "."]
    colours = [patch.get_facecolor() for patch in ax.patches]
    assert colours[1] == figures.HEAT(0.7) and colours[3] == (0, 0, 0, 0)  # nobody sees the future
    assert [patch.get_linewidth() for patch in ax.patches] == [0, 0, 2, 0]


def test_head_scores_have_a_panel_each_and_count_layers_from_one():
    scores = {"foods": [[0.1, 0.2], [0.3, 0.4]], "names": torch.tensor([[0.5, 0.6], [0.7, 0.9]])}
    _, grid = figures.head_scores(scores, "who looks")
    shown = [ax for ax in grid.flat if ax.axison]
    assert [ax.get_title("left") for ax in shown] == ["foods", "names"]
    assert [text.get_text() for text in shown[1].texts] == ["0.50", "0.60", "0.70", "0.90"]
    assert [label.get_text() for label in shown[0].get_yticklabels()] == ["1", "2"]


def test_loss_surface_and_schedule_draw_their_data():
    _, ax = figures.loss_surface([0, 1], [0, 1, 2], [[3, 2], [2, 1], [1, 0]], [(0, 0), (1, 2)])
    assert ax.lines[0].get_xydata().tolist() == [[0, 0], [1, 2]]
    _, ax = figures.lr_schedule([0.0, 1e-3, 1e-4])
    assert [text.get_text().strip() for text in ax.texts] == [
        "1.0e-03 at step 1",
        "1.0e-04 at step 2",
    ]


# --- the sampling explorer ---


class Letters:
    """A tokenizer of five letters; refuses others as CharTokenizer does."""

    eot_id = 4

    def encode(self, text):
        if set(text) - set("abcd<"):
            raise ValueError(f"unknown character in {text!r}")
        return ["abcd<".index(letter) for letter in text]

    def decode(self, ids):
        return "".join("abcd<"[i] for i in ids)


class Fixed(nn.Module):
    """Gives the same next-token distribution after every prompt."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Parameter(torch.log(torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01])))
        self.dropout = nn.Dropout(0.5)
        self.runs = 0

    def forward(self, ids, cache=None):
        self.runs += 1
        return self.dropout(self.scores.expand(*ids.shape, 5))


@pytest.fixture
def explorer(monkeypatch):
    def generate(model, ids, length, temperature, top_k, top_p, eos_id):
        probs = widgets.next_token_probs(model.scores.detach(), temperature, top_k, top_p)
        return torch.cat([ids, probs.multinomial(length, replacement=True)[None]], dim=1)

    monkeypatch.setattr(widgets, "generate", generate)
    return widgets.sampling_explorer(Fixed(), Letters(), "ab", max_new_tokens=20)


def numbers(explorer):
    return [float(cell) for cell in re.findall(r"<td>([\d.]+)</td>", explorer.bars.value)]


def test_sliders_change_the_bars_at_once_and_do_not_run_the_model(explorer):
    assert numbers(explorer) == [0.5, 0.3, 0.15, 0.04, 0.01]
    runs = explorer.model.runs
    explorer.temperature.value = 0.5
    assert numbers(explorer)[0] > 0.6
    explorer.temperature.value = 0
    assert numbers(explorer) == [1, 0, 0, 0, 0]
    explorer.temperature.value = 1
    explorer.top_k.value = 2
    assert numbers(explorer) == [0.625, 0.375, 0, 0, 0] and "2 tokens left" in explorer.bars.value
    explorer.top_k.value = 0
    explorer.top_p.value = 0.45
    assert numbers(explorer)[0] == 1
    explorer.top_p.value = 1
    assert numbers(explorer) == [0.5, 0.3, 0.15, 0.04, 0.01] and explorer.model.runs == runs


def test_write_button_writes_with_the_seed_and_leaves_the_notebooks_randomness_alone(explorer):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    explorer.button.click()
    assert torch.equal(torch.rand(1), expected)
    first = explorer.text.value
    assert "<b>ab</b>" in first and "temperature 1.0, seed 1" in first
    explorer.seed.value = 2
    second = explorer.text.value
    explorer.seed.value = 1
    assert explorer.text.value == first != second


def test_explorer_writes_with_a_real_model():
    model = GPTModel(GPTConfig(5, context_length=16, emb_dim=8, n_heads=2, n_layers=1))
    explorer = widgets.sampling_explorer(model, Letters(), "ab", max_new_tokens=4)
    explorer.button.click()
    assert "<b>ab</b>" in explorer.text.value
    explorer.prompt.value = "a" * 17  # longer than the context: the model's own words are shown
    assert "16" in explorer.bars.value and model.training


def test_explorer_explains_bad_prompts_and_recovers(explorer):
    explorer.prompt.value = ""
    assert "the prompt is empty" in explorer.bars.value
    explorer.prompt.value = "<x>"
    assert "&lt;x&gt;" in explorer.bars.value
    explorer.top_k.value = 3
    explorer.button.click()
    assert explorer.text.value == ""
    explorer.prompt.value = "a<"
    assert len(numbers(explorer)) == 5 and "&lt;" in explorer.bars.value


def test_explorer_restores_training_mode_and_has_words_without_a_front_end(explorer):
    assert explorer.model.training
    assert len(repr(explorer)) <= 110 and repr(explorer).startswith("sampling explorer")


def test_sampling_figure_shows_each_setting():
    settings = [{}, {"temperature": 0.5}, {"temperature": 1.5}, {"top_k": 3}, {"top_p": 0.7}]
    fig, axes = widgets.sampling_figure(Fixed(), Letters(), "ab", settings)
    assert [ax.get_title("left") for ax in axes][-2:] == ["top-k 3", "top-p 0.7"]
    after = [[bar.get_width() for bar in ax.patches[5:]] for ax in axes]
    assert after[0] == pytest.approx([0.5, 0.3, 0.15, 0.04, 0.01])
    assert after[1][0] > after[0][0] > after[2][0]
    assert after[3][3:] == [0, 0] and after[4] == pytest.approx([0.625, 0.375, 0, 0, 0], abs=1e-6)


# --- the tokenizer playground ---


class Bytes:
    """A tokenizer whose every token is one byte, as the worst case of byte pair encoding."""

    tokens = {i: bytes([i]) for i in range(256)}

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


@pytest.fixture
def playground():
    chars = CharTokenizer("abc <>")
    return widgets.tokenizer_playground({"characters": chars, "bytes": Bytes()}, "a <c")


def test_typing_changes_tokens_and_count(playground):
    assert "4 tokens for 4 characters" in playground.count.value
    assert ">␣</span>" in playground.tokens.value and "&lt;" in playground.tokens.value
    playground.text.value = "abba"
    assert playground.tokens.value.count("<small>") == 4
    playground.text.value = ""
    assert "0 tokens for 0 characters" in playground.count.value


def test_another_tokenizer_cuts_the_same_text_and_half_characters_show_as_bytes(playground):
    playground.text.value = "aé"
    assert "é" in playground.tokens.value and playground.count.value == ""  # the reason, no count
    playground.choice.value = "bytes"
    assert "3 tokens for 2 characters" in playground.count.value
    assert "c3" in playground.tokens.value and "a9" in playground.tokens.value


def test_playground_without_tokenizers_is_refused_and_has_words_without_a_front_end(playground):
    with pytest.raises(ValueError, match="no tokenizer to play with"):
        widgets.tokenizer_playground({}, "a")
    assert repr(playground).startswith("tokenizer playground")


def test_merge_stepper_merges_one_by_one():
    tokenizer = BPETokenizer.train("low low low lower", 256 + 3, special_tokens=())
    stepper = widgets.merge_stepper(tokenizer, "low")
    seen = []
    for step in range(4):
        stepper.step.value = step
        seen.append(int(re.search(r"(\d+) tokens", stepper.count.value)[1]))
    assert seen[0] == 3 and seen[-1] == 1 and seen == sorted(seen, reverse=True)
    assert "the last one" in stepper.count.value
    stepper.text.value = "zoo"
    assert "3 tokens for 3 characters" in stepper.count.value
    assert repr(stepper).startswith("merge stepper")


def test_tokenizer_figure_shows_every_token_of_every_tokenizer():
    fig, axes = widgets.tokenizer_figure({"one": CharTokenizer("abc"), "two": Bytes()}, "cab")
    assert [ax.get_title("left") for ax in axes][0] == "one: 3 tokens for 3 characters"
    assert [text.get_text() for text in axes[1].texts] == ["c", "99", "a", "97", "b", "98"]


# --- the attention explorer ---


class MarkedLetters(CharTokenizer):
    """Letters, and an end of text for the mark in front."""

    eot_id = 0


@pytest.fixture
def attention():
    torch.manual_seed(1)
    model = GPTModel(GPTConfig(8, 12, 16, n_heads=2, n_layers=3, drop_rate=0.0, init_std=0.5))
    return widgets.attention_explorer(model, MarkedLetters("abc de"), "a bad cab")


def test_attention_explorer_shows_the_row_of_layer_head_and_token(attention):
    assert attention.token.value == attention.token.max == 9  # the last token looks
    for layer, head, token in [(1, 1, 9), (3, 2, 9), (3, 2, 4)]:
        attention.layer.value, attention.head.value, attention.token.value = layer, head, token
        row = attention_weights(
            attention.model, torch.tensor([0, *MarkedLetters("abc de").encode("a bad cab")])
        )
        row = row[layer - 1, head - 1, token]
        shown = [float(w) for w in re.findall(r'title="([0-9.]+)"', attention.tokens.value)]
        assert shown == pytest.approx(row.tolist(), abs=6e-4)
        assert f"({row.max():.2f})" in attention.tokens.value
        assert attention.tokens.value.count(figures.COLOURS["blue"]) == 1


def test_attention_explorer_follows_the_text_and_explains_one_too_long(attention):
    attention.text.value = "ab"
    assert attention.token.max == attention.token.value == 2
    attention.text.value = "abcabcabcabc"
    assert "do not fit" in attention.tokens.value
    attention.layer.value = 2  # nothing to show, nothing breaks
    attention.text.value = "a<b"  # a character that the tokenizer does not know
    assert "&lt;" in attention.tokens.value or "<i>" in attention.tokens.value
    attention.text.value = "cab"
    assert attention.tokens.value.count("<span") == 4
    assert repr(attention).startswith("attention explorer")


# --- the figure explorer ---


def test_figure_explorer_draws_what_the_slider_says_and_leaves_no_figure_open():
    seen = []

    def draw(value):
        seen.append(value)
        fig, ax = plt.subplots()
        ax.plot([0, value])
        return fig

    explorer = widgets.figure_explorer(draw, "rate", 0.5, 0, 1)
    before = bytes(explorer.image.value)
    explorer.slider.value = 0.75
    assert seen == [0.5, 0.75] and bytes(explorer.image.value) != before
    assert before.startswith(b"\x89PNG") and not plt.get_fignums()
    assert repr(explorer).startswith("figure explorer")
