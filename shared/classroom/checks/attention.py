"""The checks of the exercises on attention, 2.1 to 2.10."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shared.classroom.checks.machinery import ROUNDING, Wrong, agree, exercise, worked_out


@exercise("2.1")
def _shape_of_weights(answer: tuple) -> None:
    worked_out(answer, (8, 4, 100, 100), "each head has a table, tokens × tokens.")


@exercise("2.2")
def _softmax(answer: Callable) -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    agree(
        answer(scores), torch.softmax(scores, -1), "[[1, 2, 3], [0, 0, 0]]", "Each row sums to 1."
    )
    large = torch.tensor([[1000.0, 1001.0]])
    expected, hint = torch.softmax(large, -1), "Subtract the largest first."
    agree(answer(large), expected, "[[1000, 1001]]", hint, slack=1000 * ROUNDING)


@exercise("2.3")
def _attention(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 5, 4, generator=generator) for _ in range(3))
    expected = torch.softmax(q @ k.transpose(1, 2) / 4**0.5, dim=-1) @ v
    agree(answer(q, k, v), expected, "queries, keys and values (2, 5, 4)", "Did you divide by √4?")


@exercise("2.4")
def _causal_mask(answer: Callable) -> None:
    for size in (1, 3):
        expected = torch.triu(torch.ones(size, size), diagonal=1).bool()
        hint = "True = forbidden: a later token. A token may look at itself."
        agree(answer(size), expected, f"size {size}", hint, dtype="bool")


@exercise("2.5")
def _window_mask(answer: Callable) -> None:
    for size, width in ((5, 2), (4, 1), (3, 9)):
        back = torch.arange(size)[:, None] - torch.arange(size)
        expected = (back < 0) | (back >= width)
        hint = "Forbidden: the future, and what lies `width` or more tokens back."
        agree(answer(size, width), expected, f"size {size}, width {width}", hint)


@exercise("2.6")
def _split_heads(answer: Callable) -> None:
    x = torch.arange(24.0).view(1, 4, 6)
    expected = x.view(1, 4, 2, 3).transpose(1, 2)
    hint = "First view each row as heads × head_dim, then let heads and tokens change places."
    agree(answer(x, 2), expected, "x (1, 4, 6) and 2 heads", hint)


@exercise("2.7")
def _relative_bias(answer: Callable) -> None:
    table = torch.tensor([0.0, -1.0, -2.0, -3.0])
    low = -torch.inf
    expected = torch.tensor([[0.0, low, low], [-1, 0, low], [-2, -1, 0]])
    hint = "−∞ must stand above the diagonal, and only there."
    agree(answer(3, table), expected, "size 3, table 0, −1, −2, −3", hint)


@exercise("2.8")
def _leaks(answer: Callable) -> None:
    def honest(x: Tensor) -> Tensor:
        return x.cumsum(dim=1)

    def leaky(x: Tensor) -> Tensor:
        return x + x.mean(dim=1, keepdim=True)

    def peeping(x: Tensor) -> Tensor:  # looks one token ahead
        return x + torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1)

    x = torch.arange(24.0).view(2, 4, 3)
    before = x.clone()
    agree(answer(honest, x), False, "a running sum, which looks back only,")
    agree(answer(leaky, x), True, "a mean over all tokens")
    agree(answer(peeping, x), True, "a function that looks one token ahead")
    answer(leaky, x, copied=False)
    if not torch.equal(x, before):
        raise Wrong("x itself was changed: change a clone.")


@exercise("2.9")
def _multi_head(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, 6, generator=generator)
    matrices = [torch.randn(6, 6, generator=generator) / 6**0.5 for _ in range(4)]
    for n_heads in (1, 3):
        q, k, v = ((x @ matrix).view(2, 5, n_heads, -1).transpose(1, 2) for matrix in matrices[:3])
        heads = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        expected = heads.transpose(1, 2).flatten(2) @ matrices[3]
        hint = "Mask, divisor of a head's size, join, output: are all four there?"
        agree(answer(x, *matrices, n_heads), expected, f"x (2, 5, 6), {n_heads} heads", hint)


@exercise("2.10")
def _look_back(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(3)
    start = [torch.randn(4, 4, generator=generator) / 4 for _ in range(2)]
    places, rate = torch.eye(4), 2.0
    ahead = torch.ones(4, 4).triu(1).bool()
    wanted = torch.arange(3)  # row 1 shall look at 0, row 2 at 1, row 3 at 2
    matrices = [W.clone().requires_grad_() for W in start]
    for steps in range(3):
        scores = matrices[0] @ matrices[1].T / 2  # the positions are one-hot
        log_weights = scores.masked_fill(ahead, -torch.inf).log_softmax(-1)
        hint = "Mean over rows 1 to 3; both slopes belong to the old matrices."
        case = f"4 one-hot positions, rate 2, weights after {steps} steps"
        given = answer(places, *start, rate, steps)
        agree(given, log_weights.exp().detach(), case, hint if steps else "No step yet: /√4, mask?")
        loss = torch.nn.functional.nll_loss(log_weights[1:], wanted)
        slopes = torch.autograd.grad(loss, matrices)
        matrices = [
            (W - rate * slope).detach().requires_grad_()
            for W, slope in zip(matrices, slopes, strict=True)
        ]
    begun = [W.clone() for W in start]
    trained = answer(places, *start, rate, 300, copied=False)
    if not all(map(torch.equal, start, begun)):
        raise Wrong("The matrices that were given have changed: work on copies.")
    far = torch.eye(4)[[0, 0, 1, 2]]
    agree(trained, far, "weights after 300 steps: each word at the one before", hint, slack=0.1)
