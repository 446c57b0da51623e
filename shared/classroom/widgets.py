"""The explorers: type, move a slider, and see at once what changes.

TokenizerPlayground  a text in coloured tokens with their ids, cut by one tokenizer or another
MergeStepper         the merges of byte pair encoding, one by one
AttentionExplorer    layer, head and token: where that token looks in a text
SamplingExplorer     temperature, top-k, top-p and seed: the bars of the next token, and a text
FigureExplorer       a slider, and a figure drawn from its value
MessageExplorer      a message, and how a classifier's suspicion grows from token to token
ChatBox              a conversation with one model or another, token by token; it can be stopped
Notable: everything is HTML or one picture whose value changes in place, so nothing flickers, as an
Output widget (interactive_output) would when it is emptied and filled again. Only what ipywidgets 7
and 8 share is used. Each explorer has a figure beside it that shows the same where no Python runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from html import escape
from io import BytesIO
from itertools import cycle
from typing import Any

import torch
from ipywidgets import HTML, Button, FloatSlider, HBox, Image, IntSlider, Text, ToggleButtons, VBox
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor, nn

from shared.chat import Chat
from shared.classroom.figures import COLOURS, HEAT, visible
from shared.classroom.heads import attention_weights
from shared.classroom.machine import evaluating
from shared.generate import generate, next_token_probs
from shared.texts import encode_plain
from shared.tokenizers import BPETokenizer

SETTINGS = [{"temperature": value} for value in (1.0, 0.5, 1.5)] + [{"top_k": 3}, {"top_p": 0.8}]
BAR = '<div style="background:{};width:{:.0f}px;height:{}px"></div>'
LOOK = {"style": {"description_width": "90px"}, "layout": {"width": "95%"}}
TINTS = ("#dbe7f5", "#fbe3cf", "#d6ebe1", "#e6def3", "#f4e8c4")  # backgrounds of tokens, in turn


class Explorer(VBox):
    """A column of controls and what they show; `words` describe it where it cannot be drawn."""

    words = ""

    def __repr__(self) -> str:
        return self.words


def pieces(tokenizer: Any, text: str) -> list[tuple[str, int]]:
    """The tokens of a text as they can be shown, and their ids; half a character as its bytes."""
    shown = []
    for id in encode_plain(tokenizer, text):
        piece = tokenizer.decode([id])
        if "\N{REPLACEMENT CHARACTER}" in piece and piece not in text:
            whole = getattr(tokenizer, "decode_single_token_bytes", None)
            piece = (whole(id) if whole else tokenizer.tokens[id]).hex(" ")
        shown.append((visible(piece), id))
    return shown


def _count(tokens: list, text: str) -> str:
    return f"{len(tokens)} tokens for {len(text)} characters"


def _boxes(tokens: list[tuple[str, int]]) -> str:
    """Tokens as coloured boxes, their ids below them."""
    boxes = "".join(
        f'<span style="display:inline-block;margin:2px;padding:2px 5px;border-radius:4px;'
        f'text-align:center;color:{COLOURS["ink"]};background:{tint}">'
        f'<span style="white-space:pre">{escape(token)}</span><br><small>{id}</small></span>'
        for (token, id), tint in zip(tokens, cycle(TINTS), strict=False)
    )
    return f'<div style="line-height:1.3">{boxes}</div>'


def _heat_box(token: str, share: float, frame: str = "transparent") -> str:
    """A token as a box, darker the nearer its share is to 1; the pointer shows the number."""
    return (
        f'<span style="display:inline-block;white-space:pre;margin:1px;padding:1px 4px;'
        f"border:2px solid {frame};border-radius:4px;background:{to_hex(HEAT(share))};"
        f'color:{COLOURS["paper" if share > 0.6 else "ink"]}" title="{share:.3f}">'
        f"{escape(token)}</span>"
    )


class TokenizerPlayground(Explorer):
    """A text field, a switch between tokenizers, and the text in coloured tokens with their ids."""

    words = "tokenizer playground: run this cell in Jupyter or Colab to type into it"

    def __init__(self, tokenizers: Mapping[str, Any], text: str) -> None:
        if not tokenizers:
            raise ValueError("there is no tokenizer to play with: give at least one, with its name")
        self.tokenizers = dict(tokenizers)
        self.text = Text(text, description="text", **LOOK)
        self.choice = ToggleButtons(options=list(self.tokenizers), description="cut into")
        self.count, self.tokens = HTML(), HTML()
        super().__init__([self.text, self.choice, self.count, self.tokens])
        self.text.observe(self._show, "value")
        self.choice.observe(self._show, "value")
        self._show()

    def _show(self, change: object = None) -> None:
        text = self.text.value
        try:
            tokens = pieces(self.tokenizers[self.choice.value], text)
        except ValueError as error:  # a character that this tokenizer does not know
            self.count.value, self.tokens.value = "", f"<i>{escape(str(error))}</i>"
            return
        self.count.value = f"<b>{_count(tokens, text)}</b>"
        self.tokens.value = _boxes(tokens)


class MergeStepper(Explorer):
    """A slider over the merges of a BPETokenizer: the text as only the first ones leave it."""

    words = "merge stepper: run this cell in Jupyter or Colab to move its slider"

    def __init__(self, tokenizer: BPETokenizer, text: str) -> None:
        self.tokenizer = tokenizer
        self.merges = sorted(tokenizer.ranks, key=tokenizer.ranks.get)[256:]
        self.text = Text(text, description="text", **LOOK)
        self.step = IntSlider(0, min=0, max=len(self.merges), description="merges", **LOOK)
        self.count, self.tokens = HTML(), HTML()
        super().__init__([self.text, self.step, self.count, self.tokens])
        self.text.observe(self._show, "value")
        self.step.observe(self._show, "value")
        self._show()

    def _show(self, change: object = None) -> None:
        text, step = self.text.value, self.step.value
        tokens = pieces(first_merges(self.tokenizer, step), text)
        last = f", the last one: {visible(self.merges[step - 1].decode(errors='replace'))}"
        self.count.value = f"<b>{_count(tokens, text)}</b>{escape(last) if step else ''}"
        self.tokens.value = _boxes(tokens)


def first_merges(tokenizer: BPETokenizer, merges: int) -> BPETokenizer:
    """The tokenizer as it was after so many merges: a small vocabulary begins every larger one."""
    kept = {token: rank for token, rank in tokenizer.ranks.items() if rank < 256 + merges}
    return BPETokenizer(kept, ())


def tokenizer_figure(tokenizers: Mapping[str, Any], text: str) -> tuple[Figure, list[Axes]]:
    """The playground's tokens, one panel per tokenizer."""
    rows = {name: pieces(tokenizer, text) for name, tokenizer in tokenizers.items()}
    fig, grid = plt.subplots(len(rows), 1, squeeze=False, figsize=(8.4, 0.9 * len(rows)))
    for ax, (name, tokens) in zip(grid[:, 0], rows.items(), strict=True):
        ax.set(xlim=(0, 100), ylim=(0, 1))
        ax.axis("off")
        ax.set_title(f"{name}: {_count(tokens, text)}", size=10, pad=2, parse_math=False)
        at = 0.0
        for (token, id), tint in zip(tokens, cycle(TINTS), strict=False):
            width = 1.15 * max(len(token), 0.8 * len(str(id))) + 1.2  # in hundredths of the figure
            ax.barh(0.55, width - 0.3, left=at, height=0.8, color=tint)
            middle = {"x": at + width / 2, "ha": "center", "va": "center", "parse_math": False}
            ax.text(y=0.7, s=token, size=9, **middle)
            ax.text(y=0.32, s=id, size=7, color=COLOURS["grey"], **middle)
            at += width
        ax.set_xlim(0, max(100, at))
    return fig, list(grid[:, 0])


class AttentionExplorer(Explorer):
    """Sliders for layer, head and token; the text, darker where that token looks.

    model: a GPTModel; the text must fit into its context.
    """

    words = "attention explorer: run this cell in Jupyter or Colab to move its sliders"

    def __init__(
        self, model: nn.Module, tokenizer: Any, text: str, layer: int = 1, head: int = 1
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.text = Text(text, description="text", **LOOK)
        layers, heads = model.config.n_layers, model.config.n_heads
        self.layer = IntSlider(layer, min=1, max=layers, description="layer", **LOOK)
        self.head = IntSlider(head, min=1, max=heads, description="head", **LOOK)
        self.token = IntSlider(0, min=0, max=0, description="token", **LOOK)
        self.tokens = HTML()
        super().__init__([self.text, self.layer, self.head, self.token, self.tokens])
        self.text.observe(self._new_text, "value")
        for slider in (self.layer, self.head, self.token):
            slider.observe(self._show, "value")
        self._new_text()

    def _new_text(self, change: object = None) -> None:
        device = self.model.token_embedding.weight.device
        try:
            ids = [self.tokenizer.eot_id, *self.tokenizer.encode(self.text.value)]
            self.weights = attention_weights(self.model, torch.tensor(ids, device=device)).cpu()
        except ValueError as error:  # longer than the context, or an unknown character
            self.weights, self.tokens.value = None, f"<i>{escape(str(error))}</i>"
            return
        self.pieces = ["■", *(visible(self.tokenizer.decode([i])) for i in ids[1:])]
        self.token.max = len(ids) - 1
        self.token.value = len(ids) - 1
        self._show()

    def _show(self, change: object = None) -> None:
        if self.weights is None:
            return
        looking = self.token.value
        row = self.weights[self.layer.value - 1, self.head.value - 1, looking].tolist()
        boxes = ""
        for at, (piece, weight) in enumerate(zip(self.pieces, row, strict=True)):
            boxes += _heat_box(piece, weight, COLOURS["blue"] if at == looking else "transparent")
        most = max(range(len(row)), key=row.__getitem__)
        note = f"{self.pieces[looking]} looks most at {self.pieces[most]} ({row[most]:.2f})"
        self.tokens.value = f'<div style="line-height:1.6">{boxes}</div><b>{escape(note)}</b>'


@torch.no_grad()
def _read(model: nn.Module, tokenizer: Any, prompt: str) -> tuple[Tensor, Tensor]:
    """The prompt's ids (1, tokens), and the logits (vocab,) of the token that follows."""
    if not (ids := tokenizer.encode(prompt)):
        raise ValueError("the prompt is empty: write at least one word")
    batch = torch.tensor([ids], device=next(model.parameters()).device)
    with evaluating(model):
        return batch, model(batch)[0, -1].float().cpu()


def _bars(tokenizer: Any, logits: Tensor, setting: dict[str, Any], top: int) -> list[tuple]:
    """(token, probability before, after the setting) of the `top` likeliest tokens."""
    before, after = torch.softmax(logits, -1), next_token_probs(logits, **setting)
    ids = before.argsort(descending=True, stable=True)[:top].tolist()
    return [(visible(tokenizer.decode([i])), before[i].item(), after[i].item()) for i in ids]


class SamplingExplorer(Explorer):
    """Sliders, the `top` bars of the next token that they change, and a button that writes.

    model(ids (1, tokens)) -> logits (1, tokens, vocab). Stops at the tokenizer's end of text.
    """

    words = "sampling explorer: run this cell in Jupyter or Colab to move its sliders"

    def __init__(
        self, model: nn.Module, tokenizer: Any, prompt: str, max_new_tokens: int = 80, top: int = 12
    ) -> None:
        self.model, self.tokenizer, self.top, self.length = model, tokenizer, top, max_new_tokens
        self.eos_id = getattr(tokenizer, "eot_id", getattr(tokenizer, "eot_token", None))
        self.prompt = Text(prompt, description="prompt", **LOOK)
        self.temperature = FloatSlider(
            1, min=0, max=2, step=0.05, description="temperature", **LOOK
        )
        self.top_k = IntSlider(0, min=0, max=50, description="top-k (0: off)", **LOOK)
        self.top_p = FloatSlider(1, min=0.05, max=1, step=0.05, description="top-p", **LOOK)
        self.seed = IntSlider(1, min=1, max=100, description="seed", **LOOK)
        self.button = Button(description="write", button_style="primary")
        self.bars, self.text = HTML(), HTML()
        sliders = [self.temperature, self.top_k, self.top_p, self.seed]
        halves = [[*sliders, self.bars], [self.button, self.text]]
        columns = [VBox(half, layout={"width": "50%"}) for half in halves]
        super().__init__([self.prompt, HBox(columns)])
        self.prompt.observe(self._new_prompt, "value")
        for control in sliders[:3]:
            control.observe(self._new_bars, "value")
        self.seed.observe(self._write, "value")
        self.button.on_click(self._write)
        self._new_prompt()

    def setting(self) -> dict[str, Any]:
        """The sliders as arguments of `generate` and `next_token_probs`; at its end each is off."""
        top_p = self.top_p.value if self.top_p.value < 1 else None
        return dict(temperature=self.temperature.value, top_k=self.top_k.value or None, top_p=top_p)

    def _new_prompt(self, change: object = None) -> None:
        try:
            self.ids, self.logits = _read(self.model, self.tokenizer, self.prompt.value)
        # An empty prompt, an unknown character, too long a prompt; a model that went wrong.
        except (ValueError, FloatingPointError) as error:
            self.logits, self.bars.value = None, f"<i>{escape(str(error))}</i>"
        self.text.value = ""
        self._new_bars()

    def _new_bars(self, change: object = None) -> None:
        if self.logits is None:
            return
        rows = _bars(self.tokenizer, self.logits, self.setting(), self.top)
        scale = 260  # pixels for probability 1, whatever the setting: only bars that change move
        table = '<table style="line-height:20px">'
        for token, before, after in rows:
            bars = BAR.format("#b4bcc6", scale * before, 5)
            bars += BAR.format(COLOURS["blue"], scale * after, 9)
            table += f"<tr><td>{escape(token)}</td><td>{bars}</td><td>{after:.3f}</td></tr>"
        left = int((next_token_probs(self.logits, **self.setting()) > 0).sum())
        note = f"grey: the model's own probability; blue: after the sliders; {left:,} tokens left"
        self.bars.value = f"{table}</table><small>{note}</small>"

    def _write(self, button: object = None) -> None:
        if self.logits is None:
            return
        ids, setting = self.ids, self.setting()
        with torch.random.fork_rng([ids.device] if ids.is_cuda else []):  # leaves no trace
            torch.manual_seed(self.seed.value)
            out = generate(self.model, ids, self.length, eos_id=self.eos_id, **setting)
        text = escape(self.tokenizer.decode(out[0].tolist()))
        head, told, rest = text.partition(escape(self.prompt.value))
        said = ", ".join(f"{name} {value}" for name, value in setting.items() if value is not None)
        text = f'<div style="white-space:pre-wrap;line-height:1.5">{head}<b>{told}</b>{rest}</div>'
        self.text.value = f"{text}<small>{said}, seed {self.seed.value}</small>"


def sampling_figure(
    model: nn.Module, tokenizer: Any, prompt: str, settings: list[dict] = SETTINGS, top: int = 9
) -> tuple[Figure, Any]:
    """The explorer's bars, one panel per setting (a dict of temperature, top_k, top_p)."""
    _, logits = _read(model, tokenizer, prompt)
    size = (1.2 + 1.75 * len(settings), 0.9 + 0.26 * top)
    fig, grid = plt.subplots(
        1, len(settings), sharex=True, sharey=True, squeeze=False, figsize=size
    )
    for ax, setting in zip(grid[0], settings, strict=True):
        names, before, after = zip(*_bars(tokenizer, logits, setting, top), strict=True)
        rows = range(len(names))
        ax.barh(rows, before, height=0.8, color=COLOURS["line"])
        ax.barh(rows, after, height=0.45, color=COLOURS["blue"])
        ax.set_title(", ".join(f"{k.replace('_', '-')} {v}" for k, v in setting.items()), size=10)
        ax.set_yticks(rows, names, parse_math=False)
    grid[0, 0].invert_yaxis()
    fig.supxlabel("probability (grey: the model's own; blue: after the setting)", size=10)
    return fig, grid[0]


class FigureExplorer(Explorer):
    """A slider over low … high, and what `draw` makes of its value: a matplotlib figure."""

    words = "figure explorer: run this cell in Jupyter or Colab to move its slider"

    def __init__(
        self, draw: Callable[[float], Figure], name: str, value: float, low: float, high: float
    ) -> None:
        self.draw = draw
        # A figure takes a while: draw when the slider is let go, not at every place it passes.
        look = LOOK | {"layout": {"width": "60%"}, "continuous_update": False}
        step = (high - low) / 100
        self.slider = FloatSlider(value, min=low, max=high, step=step, description=name, **look)
        self.image = Image(format="png", width=480)
        super().__init__([self.slider, self.image])
        self.slider.observe(self._show, "value")
        self._show()

    def _show(self, change: object = None) -> None:
        fig, file = self.draw(self.slider.value), BytesIO()
        fig.savefig(file, format="png")
        plt.close(fig)  # or the notebook would show it once more
        self.image.value = file.getvalue()


class MessageExplorer(Explorer):
    """A text field, and its tokens coloured by a probability that `read` gives for each of them.

    `read(text)` returns (token, probability) pairs; the last one is the verdict on the whole text.
    """

    words = "message explorer: run this cell in Jupyter or Colab to type a message of your own"

    def __init__(
        self, read: Callable[[str], list[tuple[str, float]]], name: str, text: str
    ) -> None:
        self.read, self.name = read, name
        self.text = Text(text, description="message", layout={"width": "90%"})
        self.verdict = HTML()
        super().__init__([self.text, self.verdict])
        self.text.observe(self._show, "value")
        self._show()

    def _show(self, change: object = None) -> None:
        if not self.text.value.strip():
            self.verdict.value = "<i>write a message</i>"
            return
        tokens = self.read(self.text.value)
        boxes = "".join(_heat_box(visible(token), share) for token, share in tokens)
        bar = BAR.format(COLOURS["orange"], 240 * tokens[-1][1], 14)
        self.verdict.value = (
            f'<div style="line-height:2">{boxes}</div>{bar}{escape(self.name)}: {tokens[-1][1]:.1%}'
        )


class ChatBox(Explorer):
    """Type a request, press Enter, and read the answer as it comes, `pace` seconds a token.

    With several chats, by their names, one chooses whom to talk to; each keeps its transcript. A
    request that is refused stays in the field, and the reason stays out of the transcript.
    """

    words = "chat box: run this cell in Jupyter or Colab to talk"

    def __init__(self, chats: Chat | Mapping[str, Chat], pace: float = 0.03) -> None:
        self.chats = chats if isinstance(chats, Mapping) else {"": chats}
        self.pace, self.running, self.stopping = pace, False, False
        self.transcripts = dict.fromkeys(self.chats, "")
        self.partner = ToggleButtons(options=list(self.chats))
        self.instruction = Text(description="instruction", **LOOK)
        self.text = Text(description="text, if any", **LOOK)
        self.temperature = FloatSlider(0, min=0, max=2, step=0.1, description="temperature", **LOOK)
        self.button = Button(description="send", button_style="primary")
        self.stop = Button(description="stop", disabled=True)
        self.transcript, self.notice = HTML(), HTML()
        shown = [self.transcript, self.notice, self.instruction, self.text, self.temperature]
        choice = [self.partner] if len(self.chats) > 1 else []
        super().__init__([*choice, *shown, HBox([self.button, self.stop])])
        self.button.on_click(self._send)
        self.stop.on_click(self._stop)
        self.partner.observe(self._show, "value")
        for field in (self.instruction, self.text):
            field.on_msg(self._typed)

    def _typed(self, field: Text, content: Mapping[str, Any], buffers: object) -> None:
        if content.get("event") == "submit":  # Enter
            self._send()

    def _send(self, button: object = None) -> None:
        if self.running:
            return
        self.running, self.stopping = True, False  # now, not only when the task begins
        self._lock()
        # In a notebook the answer must not hold up the kernel: it could not hear "stop".
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self._answer())
        else:
            self.task = loop.create_task(self._answer())

    def _lock(self) -> None:
        self.stop.disabled = not self.running
        self.button.disabled = self.partner.disabled = self.running

    def _show(self, change: object = None) -> None:
        self.transcript.value = self.transcripts[self.partner.value]

    async def _typed_to_the_end(self) -> None:
        """Wait until the fields are still: letters typed fast come later than Enter does."""
        before = None
        while before != (before := (self.instruction.value, self.text.value)):
            await asyncio.sleep(0.3)

    async def _answer(self) -> None:
        await self._typed_to_the_end()
        name, asked, answer = self.partner.value, (self.instruction.value, self.text.value), ""
        question = "<br>".join(escape(part) for part in asked if part)
        shown = f'{self.transcripts[name]}<p><b>{question}</b></p><p style="white-space:pre-wrap">'
        pieces = self.chats[name].say(*asked, temperature=self.temperature.value)
        self.notice.value = ""
        try:
            for piece in pieces:
                if not answer:  # it was accepted
                    self.instruction.value = self.text.value = ""
                answer += piece
                self.transcripts[name] = f"{shown}{escape(answer)}</p>"
                self._show()
                await asyncio.sleep(self.pace)
                if self.stopping:
                    break
            if not answer:
                self.notice.value = "<p><i>It said nothing at all.</i></p>"
        except (ValueError, FloatingPointError) as error:
            self.notice.value = f"<p><i>{escape(str(error))}</i></p>"
        finally:
            pieces.close()  # the chat puts its end mark now
            self.running = False
            self._lock()

    def _stop(self, button: object = None) -> None:
        self.stopping = True
