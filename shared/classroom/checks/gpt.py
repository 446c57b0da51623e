"""The checks of the exercises on the GPT architecture, 3.1 to 3.15."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch

from shared.classroom.checks.machinery import agree, exercise, parts
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


@exercise("3.2")
def _gelu(answer: Callable) -> None:
    x = torch.tensor([[-3.0, -1.0, 0.0], [0.5, 2.0, 10.0]])
    hint = "The tanh form is an approximation: use erf."
    agree(answer(x), torch.nn.functional.gelu(x), "numbers from −3 to 10", hint)


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
def _cache_bytes(answer: Callable) -> None:
    agree(
        answer(12, 12, 64, 1024, 1, 2),
        37_748_736,
        "GPT-2 small in 2 bytes",
        "Count keys and values.",
    )
    agree(answer(3, 2, 4, 5, 7, 4), 6_720, "3 layers, 2 heads of 4, 5 tokens, 7 rows, 4 bytes")


@exercise("3.7")
def _who_sees_whom(answer: Callable) -> None:
    for new, stored in ((3, 2), (1, 4), (2, 0)):
        expected = torch.arange(stored + new) <= stored + torch.arange(new)[:, None]
        case = f"{new} new behind {stored} stored"
        agree(answer(new, stored), expected, case, "The last row sees everything.")


@exercise("3.8")
def _left_positions(answer: Callable) -> None:
    real = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]]).bool()
    expected = torch.tensor([[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]])
    agree(answer(real), expected, "2, 0 and 4 paddings", "cumsum counts the real ones so far.")


@exercise("3.9")
def _rms_norm(answer: Callable) -> None:
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    expected = torch.tensor([[1.2, 1.6, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    agree(answer(x, 0.0), expected, "(3, 4, 0, 0) and four ones", "The mean, not the sum.")
    agree(
        answer(torch.zeros(1, 4), 1e-6), torch.zeros(1, 4), "zeros", "eps belongs under the root."
    )


@exercise("3.10")
def _turned(answer: Callable) -> None:
    x = torch.tensor([1.0, 2.0, 0.0, 1.0])
    agree(answer(x, 0, 100.0), x, "position 0", "It stays as it is.")
    pairs = torch.complex(x[:2], x[2:]) * torch.polar(torch.ones(2), torch.tensor([3.0, 0.3]))
    expected = torch.cat([pairs.real, pairs.imag])
    agree(answer(x, 3, 100.0), expected, "position 3, base 100", "The pairs are (0, 2) and (1, 3).")


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
    """A model with seeded weights, that leaves everybody else's random numbers alone."""
    with torch.random.fork_rng():
        torch.manual_seed(123)
        return config.build().eval()


@exercise("3.13")
def _share_heads(answer: Callable) -> None:
    keys = torch.arange(12.0).view(1, 2, 3, 2)  # two heads
    expected = keys[:, [0, 0, 1, 1]]
    hint = "Query heads 1 and 2 share the first head of keys, 3 and 4 the second."
    agree(answer(keys, 4), expected, "2 heads of keys for 4 heads of queries", hint)
    agree(answer(keys, 2), keys, "as many heads of both")


@exercise("3.14")
def _swiglu(answer: Callable) -> None:
    x = torch.tensor([[1.0, -2.0]])
    gate, value = torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.0, 0.0]]), torch.ones(2, 3)
    out = torch.tensor([[1.0], [2.0], [3.0]])
    expected = (torch.nn.functional.silu(x @ gate) * (x @ value)) @ out
    agree(answer(x, gate, value, out), expected, "2 dimensions, 3 hidden",
          "SiLU is z times sigmoid(z), and bends only the gate.")  # fmt: skip


@exercise("3.15")
def _wider_base(answer: Callable) -> None:
    for head_dim, factor in ((64, 4.0), (8, 10.0)):
        expected = 10_000.0 * factor ** (head_dim / (head_dim - 2))
        agree(answer(10_000.0, factor, head_dim), expected, f"{head_dim} dimensions, × {factor:g}",
              "The exponent of the slowest pair is not −1 but −(d − 2)/d.")  # fmt: skip
