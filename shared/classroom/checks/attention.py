"""The checks of the exercises on attention, 2.1 to 2.10."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shared.classroom.checks.machinery import ROUNDING, Wrong, agree, exercise, parts, worked_out


@exercise("2.1")
def _shape_of_weights(answer: tuple) -> None:
    worked_out(answer, (8, 4, 100, 100), "each head has a table, tokens × tokens.")


@exercise("2.2")
def _masked_softmax(answer: Callable) -> None:
    small, large = [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], [[1000.0, 1001.0], [0.0, 1.0]]
    own = "Subtract from each row its own highest score, among those that are allowed."
    for scores, forbidden, what, hint in (
        (small, [[0, 0, 0], [0, 0, 0]], "nothing", "Each row adds up to 1."),
        (small, [[0, 0, 1], [0, 1, 0]], "one number of each row", "−∞ before the softmax."),
        (large, [[0, 0], [0, 0]], "nothing", own),
        ([[1000.0, 0.0, 1.0]], [[1, 0, 0]], "the 1,000", own),
        (large, [[1, 1], [0, 0]], "the whole first row", "Such a row gets zeros."),
    ):
        given, mask = torch.tensor(scores), torch.tensor(forbidden).bool()
        expected = given.masked_fill(mask, -torch.inf).softmax(-1).nan_to_num(0.0)
        case = f"scores {scores} with {what} forbidden"
        agree(answer(given, mask), expected, case, hint, slack=1000 * ROUNDING)


@exercise("2.3")
def _attention(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 5, 4, generator=generator) for _ in range(3))
    expected = torch.softmax(q @ k.transpose(1, 2) / 4**0.5, dim=-1) @ v
    agree(answer(q, k, v), expected, "queries, keys and values (2, 5, 4)", "Did you divide by √4?")


@exercise("2.4")
def _packed_mask(answer: Callable) -> None:
    hint = "True = forbidden: a later token, or one of another text. A token may look at itself."
    for numbers in ([5], [0, 0, 0], [0, 0, 1, 1, 1], [4, 3, 3, 8]):
        texts = torch.tensor(numbers)
        expected = (texts[:, None] != texts) | torch.ones(len(texts), len(texts)).triu(1).bool()
        agree(answer(texts), expected, f"texts {numbers}", hint, dtype="bool")


@exercise("2.5")
def _window_mask(answer: Callable) -> None:
    for size, width in ((5, 2), (4, 1), (3, 9)):
        back = torch.arange(size)[:, None] - torch.arange(size)
        expected = (back < 0) | (back >= width)
        hint = "Forbidden: the future, and what lies `width` or more tokens back."
        agree(answer(size, width), expected, f"size {size}, width {width}", hint)


@exercise("2.6")
def _keep_heads(answer: Callable) -> None:
    W_query, W_out = torch.arange(36.0).view(6, 6), -torch.arange(36.0).view(6, 6)
    for kept, numbers in (([0, 2], [0, 1, 4, 5]), ([1], [2, 3]), ([2, 0], [4, 5, 0, 1])):
        case = f"dim 6, 3 heads, heads {kept} kept"
        queries, out = parts(answer(W_query, W_out, 3, kept), 2, case)
        hint = "A head's queries are columns, head_dim of them next to each other."
        agree(queries, W_query[:, numbers], f"W_query, {case},", hint)
        hint = "What a head says is multiplied by rows of W_out."
        agree(out, W_out[numbers], f"W_out, {case},", hint)


@exercise("2.7")
def _relative_bias(answer: Callable) -> None:
    table = torch.tensor([0.0, -1.0, -2.0, -3.0])
    low = -torch.inf
    expected = torch.tensor([[0.0, low, low], [-1, 0, low], [-2, -1, 0]])
    hint = "−∞ must stand above the diagonal, and only there."
    agree(answer(3, table), expected, "size 3, table 0, −1, −2, −3", hint)


@exercise("2.8")
def _looks_ahead(answer: Callable) -> None:
    def honest(x: Tensor) -> Tensor:
        return x.cumsum(dim=1)

    def leaky(x: Tensor) -> Tensor:
        return x + x.mean(dim=1, keepdim=True)

    def peeping(far: int) -> Callable[[Tensor], Tensor]:
        return lambda x: x + torch.cat([x[:, far:], torch.zeros_like(x[:, :far])], dim=1)

    def once(text: int, place: int, later: int) -> Callable[[Tensor], Tensor]:
        def function(x: Tensor) -> Tensor:
            y = x.clone()
            y[text, place] += x[text, later]
            return y

        return function

    def normed(x: Tensor) -> Tensor:
        return x + torch.nn.functional.layer_norm(x, x.shape[-1:]).mean(dim=1, keepdim=True)

    x = torch.arange(24.0).view(2, 4, 3)
    before = x.clone()
    for function, ahead, what, hint in (
        (honest, 0, "a running sum, which looks back only,", "Is an output changed by itself?"),
        (leaky, 3, "a mean over all 4 tokens", "The first output sees the last token."),
        (peeping(1), 1, "a function that looks one token ahead", ""),
        (peeping(2), 2, "a function that looks two tokens ahead", ""),
        (once(0, 0, 1), 1, "a function in which the first output sees the second token", ""),
        (once(1, 1, 3), 2, "a leak in the second text, from the last token to the second", ""),
        (normed, 3, "a mean over layer norms", "A layer norm takes away what is added to all."),
    ):
        agree(answer(function, x), ahead, what, hint or "Does every token get its turn, alone?")
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
        agree(answer(x, *matrices, n_heads), expected, f"x (2, 5, 6), n_heads {n_heads}", hint)


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
        case = f"4 one-hot positions, rate 2, number of steps {steps}: the weights"
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
