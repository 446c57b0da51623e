"""The checks of the warm-up exercises, 0.1 to 0.15."""

from __future__ import annotations

from collections.abc import Callable

import torch

from shared.classroom.checks.machinery import (
    ROUNDING,
    Wrong,
    agree,
    exercise,
    parts,
    shaped,
    worked_out,
)


@exercise("0.1")
def _broadcast_shape(answer: tuple) -> None:
    worked_out(answer, (4, 5, 3), "write the sizes below each other, right-aligned.")


@exercise("0.2")
def _squared_distances(answer: Callable) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    expected = torch.tensor([[0.0, 25.0, 1.0], [25.0, 0.0, 18.0], [1.0, 18.0, 0.0]])
    agree(answer(x), expected, "rows (0, 0), (3, 4), (0, 1)", "Squared, and summed over d.")


@exercise("0.3")
def _interleave(answer: Callable) -> None:
    a, b = torch.tensor([1, 2, 3]), torch.tensor([10, 20, 30])
    agree(answer(a, b), torch.tensor([1, 10, 2, 20, 3, 30]), "1 2 3 and 10 20 30")


@exercise("0.4")
def _log_softmax(answer: Callable) -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    agree(answer(scores), torch.log_softmax(scores, -1), "[[1, 2, 3], [0, 0, 0]]")
    agree(answer(scores[0]), torch.log_softmax(scores[0], -1), "[1, 2, 3], one dimension")
    large = torch.tensor([[1000.0, -1000.0], [-1000.0, -1001.0]])
    hint = "Subtract from each row its own largest, and never take the log of 0."
    expected = torch.log_softmax(large, -1)
    case = "[[1000, −1000], [−1000, −1001]]"
    agree(answer(large), expected, case, hint, slack=1000 * ROUNDING)


@exercise("0.5")
def _slope(answer: Callable) -> None:
    for name, f, x, expected in (
        ("x² at 3", lambda x: x * x, 3.0, 6.0),
        ("x³ at 1", lambda x: x**3, 1.0, 3.0),
    ):
        places = []

        def noted(at: float, f: Callable = f, places: list[float] = places) -> float:
            places.extend(torch.as_tensor(at, dtype=torch.float64).reshape(-1).tolist())
            return f(at)

        found = answer(noted, x)
        if any(place < x for place in places) != any(place > x for place in places):
            raise Wrong(f"{name}: from one side only, it is off. Take one value on each side.")
        hint = "Divide by how far the two places are apart, and take them near x."
        agree(found, expected, name, hint, slack=expected / 100)  # the step is the student's


@exercise("0.6")
def _chain_slopes(answer: Callable) -> None:
    second = "Begin with 2 · (y − target); for w2 it is times what w2 was multiplied with."
    first = "Through w2, then through the ReLU, which passes nothing on where it gives 0."
    for x, b1, expected in ((2.0, -0.25, (16.0, 8.0, -3.0, -4.0)), (2.0, -3.0, (0, 0, 0, -1.0))):
        case = f"x = {x:g}, target 1, w1 = 0.5, b1 = {b1}, w2 = −2, b2 = 0.5"
        slopes = parts(answer(x, 1.0, 0.5, b1, -2.0, 0.5), 4, case)
        for place, hint in ((3, second), (2, second), (1, first), (0, first)):
            name = ("w1", "b1", "w2", "b2")[place]
            agree(slopes[place], expected[place], f"the slope for {name}, {case},", hint)


@exercise("0.7")
def _momentum(answer: Callable) -> None:
    def of_square(x: float) -> float:
        return 2 * x

    for momentum, steps, expected in ((0.0, 2, 0.36), (0.5, 2, 0.16), (0.5, 3, -0.124)):
        found = answer(of_square, 1.0, 0.2, momentum, steps)
        hint = "The velocity keeps its value from step to step."
        case = f"x², from 1, rate 0.2, momentum {momentum}, {steps} steps"
        agree(found, expected, case, hint)


@exercise("0.8")
def _bigram_probability(answer: Callable) -> None:
    hint = "The last character of the text is followed by nothing."
    agree(answer("banana", "a", "n"), 1.0, "banana, n after a", hint)
    agree(answer("abacad", "a", "b"), 1 / 3, "abacad, b after a")
    agree(answer("aaa", "a", "a"), 1.0, "aaa, a after a", "Neighbouring pairs may overlap.")
    agree(answer("abc", "c", "a"), 0, "abc, a after c", hint)
    agree(answer("abc", "z", "a"), 0, "abc, a after z")


@exercise("0.9")
def _perplexity(answer: Callable) -> None:
    for probabilities, expected in (([0.25, 0.25], 4.0), ([0.5, 0.125], 4.0), ([1.0], 1.0)):
        found = answer(probabilities)
        hint = "The mean is taken of the logarithms, not of the probabilities."
        agree(found, expected, f"{probabilities}", hint)


@exercise("0.10")
def _draw(answer: Callable) -> None:
    # Numbers that are exact in binary: on the borders, every way to add gives the same.
    for u, expected in ((0.0, 0), (0.24, 0), (0.25, 2), (0.74, 2), (0.75, 3), (0.999, 3)):
        hint = "A border belongs to the piece to its right; one of width 0 is never drawn."
        agree(answer([0.25, 0.0, 0.5, 0.25], u), expected, f"(0.25, 0, 0.5, 0.25), u = {u}", hint)


@exercise("0.11")
def _gflops(answer: Callable) -> None:
    found = answer(1000, 2000, 500, 0.5)
    hint = "Each of the m × n results takes k products and as many additions."
    agree(found, 4.0, "1000, 2000, 500 in 0.5 s", hint)


@exercise("0.12")
def _contexts(answer: Callable) -> None:
    expected = [([0, 0], 5), ([0, 5], 6), ([5, 6], 7)]
    agree(answer([5, 6, 7], 2, 0), expected, "ids 5, 6, 7, context 2, start 0")
    agree(answer([8], 1, 9), [([9], 8)], "ids 8, context 1, start 9")
    hint = "The window slides: it never holds more than `context` ids."
    expected = [*expected, ([6, 7], 8)]
    agree(answer([5, 6, 7, 8], 2, 0), expected, "ids 5, 6, 7, 8, context 2, start 0", hint)


@exercise("0.13")
def _fit(answer: Callable) -> None:
    xs, ys = [0.0, 1.0, 2.0], [1.0, 3.0, 5.0]
    for steps, expected in ((1, (1.3 * 2 / 3, 0.6)), (2, (1.3244444, 0.9066667))):
        case = f"x = (0, 1, 2), y = (1, 3, 5), rate 0.1, steps {steps}"
        w, b = parts(answer(xs, ys, 0.1, steps), 2, case)
        hint = "Both slopes belong to the old w and b, and the loss is a mean, not a sum."
        agree(w, expected[0], f"w, {case},", hint)
        agree(b, expected[1], f"b, {case},", hint)
    w, b = parts(answer(xs, ys, 0.1, 1000), 2, "1,000 steps")
    agree([w, b], [2.0, 1.0], "the line through all three points, after 1,000 steps,", slack=1e-2)


@exercise("0.14")
def _continuation_share(answer: Callable) -> None:
    words = "the red kite flew the blue kite fell the red kite fell".split()
    agree(answer(words, "kite"), 2 / 8, "kite in the course's three kites", "Each pair once.")
    agree(answer(words, "the"), 2 / 8, "the in the course's three kites", "Each pair once.")
    agree(answer(["a"], "a"), 0, "a alone")


@exercise("0.15")
def _train_bigram(answer: Callable) -> None:
    table = torch.zeros(3, 3)
    table[0] = torch.tensor([-1 / 3, -1 / 3, 2 / 3])
    hint = "p − one-hot, in the row of the first token; step against it."
    case = "stage 1, the one pair 0 2 among 3 tokens, rate 1, 1 step,"
    agree(answer(torch.tensor([0, 2]), 3, 1.0, 1), table, case, hint)

    text = [0, 0, 1, 0, 1, 1, 2, 0, 2, 1, 2, 2, 0]
    ids, table = torch.tensor(text), torch.zeros(3, 3, requires_grad=True)
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(table[ids[:-1]], ids[1:])
        [slopes] = torch.autograd.grad(loss, table)
        table = (table - 2 * slopes).detach().requires_grad_()
    hint = "The gradients of all pairs add up, also in one row; the loss is their mean."
    case = f"stage 2, the text {text}, rate 2, 3 steps,"
    agree(answer(ids, 3, 2.0, 3), table.detach(), case, hint)

    shares = torch.tensor([[1, 2, 1], [1, 1, 2], [2, 1, 1]]) / 4
    found = answer(ids, 3, 2.0, 500)
    shaped(found, (3, 3), "stage 3, 500 steps,")
    found = torch.as_tensor(found).softmax(dim=-1)
    agree(found, shares, "stage 3, the softmax of each row after 500 steps,", slack=1e-2)
