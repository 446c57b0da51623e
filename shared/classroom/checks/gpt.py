"""The checks of the exercises on the GPT architecture, 3.1 to 3.16."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch

from shared.classroom.checks.machinery import (
    FOUR_DIGITS,
    Wrong,
    agree,
    exercise,
    parts,
    plain,
    same,
)
from shared.gpt import GPTConfig


@exercise("3.1")
def _layer_norm(answer: Callable) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 0.0, 8.0]])
    gain, bias = torch.tensor([1.0, 2.0, 1.0, 0.5]), torch.tensor([0.0, 1.0, 0.0, -1.0])
    expected = torch.nn.functional.layer_norm(x, (4,), gain, bias)
    hint = "The variance is divided by 4, not by 3."
    agree(answer(x, gain, bias), expected, "two rows of four numbers", hint)
    flat = answer(torch.full((1, 4), 3.0), torch.ones(4), torch.zeros(4))
    agree(flat, torch.zeros(1, 4), "four equal numbers", "1e-5 keeps the root away from 0.")
    near = torch.tensor([[0.0, 0.0, 0.0, 0.004]])
    expected, hint = torch.nn.functional.layer_norm(near, (4,)), "1e-5 stands under the root."
    agree(answer(near, torch.ones(4), torch.zeros(4)), expected, "0, 0, 0 and 0.004", hint)


@exercise("3.2")
def _gelu_slope(answer: Callable) -> None:
    x = torch.tensor([[-3.0, -1.0, 0.0], [0.5, 2.0, 10.0]], requires_grad=True)
    torch.nn.functional.gelu(x).sum().backward()
    hint = "Two terms: Φ(x), and x times the derivative of Φ."
    agree(answer(x.detach()), x.grad, "numbers from −3 to 10", hint)


@exercise("3.3")
def _block_parameters(answer: Callable) -> None:
    agree(answer(768), 7_087_872, "768 dimensions", "Weights and biases of 2 norms and 4 layers.")
    agree(answer(2), 74, "2 dimensions")


@exercise("3.4")
def _shortcut_gradients(answer: Callable) -> None:
    for w, n in ((0.5, 10), (0.1, 3), (-0.5, 2)):
        case = f"w = {w}, {n} layers"
        plain, shortcut = parts(answer(w, n), 2, case)
        agree(plain, w**n, f"{case}, no shortcuts")
        hint = "The derivative of x + w·x is 1 + w."
        agree(shortcut, (1 + w) ** n, f"{case}, shortcuts", hint)


@exercise("3.5")
def _operations(answer: Callable) -> None:
    agree(answer(1, 2, 10, 0), 136, "1 layer, 2 dimensions, 10 words, nothing to look at")
    agree(answer(12, 768, 50_257, 1024), 284_812_800, "GPT-2 small at a full context",
          "Scores cost 2·d per token looked at, mixing as much again.")  # fmt: skip


@exercise("3.6")
def _tokens_that_fit(answer: Callable) -> None:
    small = (12, 12, 64)
    found = answer(300_000_000, 248_000_000, *small, 1, 2)
    hint = "Keys and values, in every layer; a token that fits only partly does not fit."
    agree(found, 1410, "GPT-2 small in 2 bytes each, 300 million bytes, one text", hint)
    found = answer(300_000_000, 248_000_000, *small, 8, 2)
    agree(found, 176, "the same with eight texts", "Each text has a cache of its own.")
    agree(answer(100_000, 40_000, 3, 2, 4, 5, 4), 62, "3 layers, 2 heads of 4, 5 texts, 4 bytes")
    found = answer(200_000_000, 248_000_000, *small, 1, 2)
    agree(found, 0, "weights that do not fit", "No cache has less than 0 tokens.")


@exercise("3.7")
def _who_sees_whom(answer: Callable) -> None:
    for new, stored, width in ((3, 2, 9), (3, 2, 2), (1, 4, 3), (2, 0, 9), (2, 4, 1)):
        back = stored + torch.arange(new)[:, None] - torch.arange(stored + new)
        expected = (back >= 0) & (back < width)
        case = f"{new} new after {stored} stored, width {width}"
        hint = "Row 0 is the token at place `stored`; it sees itself and `width` − 1 before it."
        agree(answer(new, stored, width), expected, case, hint)


@exercise("3.8")
def _packed_positions(answer: Callable) -> None:
    texts = torch.tensor([[0, 0, 0, 1, 1], [4, 4, 4, 4, 4], [1, 2, 3, 3, 9]])
    expected = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4], [0, 0, 0, 1, 0]])
    hint = "How many earlier tokens belong to the same text?"
    agree(answer(texts), expected, f"texts {texts.tolist()}", hint)


@exercise("3.9")
def _rms_norm(answer: Callable) -> None:
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    expected = torch.tensor([[1.2, 1.6, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    agree(answer(x, 0.0), expected, "(3, 4, 0, 0) and four ones", "The mean, not the sum.")
    hint = "eps belongs under the root."
    agree(answer(torch.zeros(1, 4), 1e-6), torch.zeros(1, 4), "zeros", hint)
    expected = torch.tensor([[1.0, 4 / 3, 0.0, 0.0]])
    agree(answer(x[:1], 2.75), expected, "(3, 4, 0, 0) with an eps of 2.75", hint)


@exercise("3.10")
def _turned(answer: Callable) -> None:
    x = torch.tensor([1.0, 2.0, 0.0, 1.0])
    agree(answer(x, 0, 100.0), x, "position 0", "It stays as it is.")
    for size, position, base in ((4, 3, 100.0), (6, 2, 1000.0)):
        x = torch.arange(1.0, size + 1)
        angles = position * base ** (-torch.arange(0, size, 2) / size)
        pairs, turn = torch.complex(x[0::2], x[1::2]), torch.polar(torch.ones(size // 2), angles)
        right, other = (torch.view_as_real(pairs * t).flatten() for t in (turn, turn.conj()))
        found = answer(x, position, base)
        said = ", ".join(f"{angle:.3g}" for angle in angles.tolist())
        hint = f"The pairs are (0, 1), (2, 3) and so on, and they turn by {said} radians."
        if same(plain(found), plain(other), FOUR_DIGITS):
            hint = "It is turned the other way: where does the formula have its minus?"
        agree(found, right, f"1 to {size}, position {position}, base {base:g}", hint)


@exercise("3.11")
def _block(answer: Callable) -> None:
    block = _drawn(GPTConfig(vocab_size=9, context_length=6, emb_dim=8, n_heads=2, n_layers=1))
    layer, x = block.blocks[0], torch.linspace(-1, 1, 40).view(1, 5, 8)
    with torch.no_grad():
        found = answer(x, layer.norm1, layer.attention, layer.norm2, layer.feed_forward)
        hint = "The shortcut runs past the norm as well: what is added to is x itself."
        agree(found, layer(x), "a block of 8 dimensions, 5 tokens", hint)


@exercise("3.12")
def _whole_gpt(answer: Callable) -> None:
    model = _drawn(GPTConfig(vocab_size=9, context_length=6, emb_dim=8, n_heads=2, n_layers=3))
    pieces = SimpleNamespace(**dict(model.named_children()))
    pieces.blocks = [SimpleNamespace(**dict(block.named_children())) for block in model.blocks]
    ids = torch.tensor([[1, 2, 3, 4], [8, 8, 0, 1]])
    with torch.no_grad():
        hint = "Did every block get its turn, and the last norm before the head?"
        agree(answer(pieces, ids), model(ids), "3 blocks, two texts of 4 tokens", hint)


def _drawn(config: GPTConfig) -> torch.nn.Module:
    """A model with seeded weights, no two parts alike, that leaves others' random numbers alone."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(123)
        model = config.build().eval()
        for parameter in model.parameters():  # also gains and biases, which begin alike
            parameter.normal_(std=0.5)
        return model


@exercise("3.13")
def _fewer_heads(answer: Callable) -> None:
    W_key = torch.arange(24.0).view(2, 12) ** 2 / 10
    heads = W_key.view(2, 4, 3)  # (dim, heads, head_dim)
    hint = "Heads 1 and 2 become the first shared one, 3 and 4 the second, number by number."
    expected = torch.cat([heads[:, :2].mean(dim=1), heads[:, 2:].mean(dim=1)], dim=1)
    agree(answer(W_key, 4, 2), expected, "dim 2, 4 heads of 3, which become 2", hint)
    agree(answer(W_key, 4, 1), heads.mean(dim=1), "4 heads, which become a single one", hint)
    agree(answer(W_key, 4, 4), W_key, "as many heads as before", "Nothing changes.")


@exercise("3.14")
def _swiglu(answer: Callable) -> None:
    x = torch.tensor([[1.0, -2.0]])
    gate, value = torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.0, 0.0]]), torch.ones(2, 3)
    out = torch.tensor([[1.0], [2.0], [3.0]])
    expected = (torch.nn.functional.silu(x @ gate) * (x @ value)) @ out
    agree(answer(x, gate, value, out), expected, "2 dimensions, 3 hidden",
          "SiLU is z times sigmoid(z), and bends only the gate.")  # fmt: skip


@exercise("3.15")
def _slow_pairs(answer: Callable) -> None:
    hint = "How far, in radians, has a pair turned after `context` positions? A circle is 2π."
    for base, head_dim, context, first in (
        (10_000.0, 24, 32, 3),
        (10_000.0, 64, 1024, 18),
        (500_000.0, 64, 1024, 13),
        (10_000.0, 8, 6, 0),
        (10_000.0, 8, 10_000, 4),
    ):
        case = f"base {base:,.0f}, {head_dim} dimensions, {context:,} positions"
        found, expected = answer(base, head_dim, context), list(range(first, head_dim // 2))
        agree(found, expected, case, hint)


@exercise("3.16")
def _write(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(1578)  # with it, every mistake writes other ids
    tokens, places = (torch.randn(n, 6, generator=generator) for n in (9, 12))
    queries, keys, values = (torch.randn(6, 6, generator=generator) for _ in range(3))
    scores, computed = torch.randn(6, 9, generator=generator), []

    def embed(ids: list, start: int) -> torch.Tensor:
        numbers = torch.as_tensor(ids).reshape(-1)
        return tokens[numbers] + places[start : start + len(numbers)]

    def key(x: torch.Tensor) -> torch.Tensor:
        computed.append(x.numel() // 6)
        return x @ keys

    model = SimpleNamespace(embed=embed, query=lambda x: x @ queries, key=key,
                            value=lambda x: x @ values, head=lambda x: x @ scores)  # fmt: skip
    ids, prompt, count = [3, 1, 4], [3, 1, 4], 6
    for _ in range(count):  # without a cache
        x = embed(ids, 0)
        weights = (x[-1] @ queries @ (x @ keys).T / 6**0.5).softmax(-1)
        ids = [*ids, int(((x[-1] + weights @ x @ values) @ scores).argmax())]
    hint = "Only the last token's result is needed, and its query meets the keys of all three."
    agree(answer(model, prompt, 1), ids[3:4], "stage 1, one token after a prompt of 3,", hint)
    computed.clear()
    found = answer(model, prompt, count)
    hint = "Do the new tokens get positions after the old ones, and see all keys so far?"
    agree(found, ids[3:], f"stage 2, {count} tokens after a prompt of 3,", hint)
    if sum(computed) > len(prompt) + count:
        times = f"{sum(computed)} keys were computed for {len(prompt) + count} tokens"
        raise Wrong(f"Stage 3: the ids are right, but {times}.", "Keep those of the tokens before.")
