"""The checks of the exercises on pretraining, 4.1 to 4.14."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch

from shared.classroom.checks.machinery import ROUNDING, Wrong, agree, exercise, parts, plain


@exercise("4.1")
def _loss(answer: Callable) -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
    targets = torch.tensor([0, 1])
    expected = torch.nn.functional.cross_entropy(logits, targets)
    agree(answer(logits, targets), expected, "two tokens, three words", "The mean, in nats.")
    large = torch.tensor([[1000.0, 0.0, -1000.0]])
    hint = "exp(1000) is infinite: subtract the highest logit first."
    for target, loss in enumerate((0.0, 1000.0)):
        case = f"a logit of 1,000 and a loss of {loss:,.0f}"
        agree(answer(large, torch.tensor([target])), loss, case, hint, slack=1000 * ROUNDING)


@exercise("4.2")
def _bits(answer: Callable) -> None:
    hint = "A bit is ln 2 nats; the loss of the whole text is shared among its characters."
    agree(answer(2.0794415, 100, 300), 1.0, "ln 8 nats, three characters a token", hint)
    agree(answer(0.6931472, 50, 25), 2.0, "ln 2 nats, two tokens a character", hint)


@exercise("4.3")
def _linear(answer: Callable) -> None:
    cases = {0: 0.5, 3: 2.0, 4: 2.0, 9: 1.0, 13: 0.2}
    for step, expected in cases.items():
        agree(answer(step, 14, 2.0, 4), expected, f"step {step} of 14, max_lr 2, warmup 4")


@exercise("4.4")
def _adamw(answer: Callable) -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    peer = torch.optim.AdamW([parameter], lr=0.1, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.5)
    mean, square = torch.zeros(2), torch.zeros(2)
    for step, gradient in enumerate(torch.tensor([[0.5, -3.0], [1.0, 0.2]]), start=1):
        found = answer(parameter.detach(), gradient, mean, square, step, 0.1, 0.8, 0.9, 0.5)
        weight, *averages = parts(found, 3, f"step {step}")
        parameter.grad = gradient.clone()
        peer.step()
        mean, square = (peer.state[parameter][name] for name in ("exp_avg", "exp_avg_sq"))
        hint = "Is the weight shrunk by lr · decay, and are both averages divided by 1 − beta^step?"
        agree(weight, parameter.detach(), f"the weight after step {step}", hint)
        hint = "The averages themselves stay as they are, undivided."
        agree(averages[0], mean, f"the mean after step {step}", hint)
        agree(averages[1], square, f"the mean square after step {step}", hint)


@exercise("4.5")
def _clip(answer: Callable) -> None:
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    hint = "One norm over all numbers: √(3² + 4²) = 5."
    for limit, factor in {1.0: 0.2, 10.0: 1.0}.items():
        found = answer(gradients, limit)
        for number, clipped in enumerate(parts(found, 2, f"limit {limit:g}, two tensors,")):
            expected = factor * gradients[number]
            agree(clipped, expected, f"limit {limit:g}, tensor {number}", hint)
    case = "a gradient of zeros"
    [still] = parts(answer([torch.zeros(2)], 1.0), 1, case)
    agree(still, torch.zeros(2), case, "Its norm is 0: do not divide by it.")


@exercise("4.6")
def _whole(answer: Callable) -> None:
    gradients = [torch.tensor([1.0, 0.0]), torch.tensor([5.0, 4.0])]
    hint = "Each part counts as much as it has targets."
    agree(answer(gradients, [3, 1]), torch.tensor([2.0, 1.0]), "3 targets and 1 target", hint)
    agree(answer(gradients, [2, 2]), torch.tensor([3.0, 2.0]), "2 targets each", hint)


@exercise("4.7")
def _top_k(answer: Callable) -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, -1.0])
    expected = torch.tensor([0.0, 0.8807971, 0.1192029, 0.0])
    agree(
        answer(logits, 0.5, 2),
        expected,
        "temperature 0.5, top 2",
        "Divide the logits by the temperature.",
    )
    agree(answer(logits, 1.0, 4), logits.softmax(-1), "temperature 1, all four")


@exercise("4.8")
def _nucleus(answer: Callable) -> None:
    chances = torch.tensor([0.1, 0.5, 0.15, 0.25])
    hint = "The token that crosses p stays as well."
    agree(answer(chances, 0.6), torch.tensor([0, 2 / 3, 0, 1 / 3]), "p = 0.6", hint)
    agree(answer(chances, 0.4), torch.tensor([0.0, 1, 0, 0]), "p = 0.4", hint)
    agree(answer(chances, 1.0), chances, "p = 1", "All stay.")


@exercise("4.9")
def _orthogonal(answer: Callable) -> None:
    matrix = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, -1.0]])
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    once = matrix / matrix.norm()
    once = 1.5 * once - 0.5 * once @ once.T @ once
    agree(answer(matrix, 1), once, "one round", "Divide by the norm before the first.")
    agree(answer(matrix, 30), left @ right, "30 rounds", "The rounds should approach U Vᵀ.")


@exercise("4.10")
def _memory(answer: Callable) -> None:
    hint = "Weights, gradients, two averages: four numbers of 4 bytes per parameter."
    agree(answer(124_000_000), 1.984, "124 million parameters", hint)
    agree(answer(1_558_000_000), 24.928, "1,558 million parameters", hint)


@exercise("4.11")
def _epoch(answer: Callable) -> None:
    def windows(step: int) -> list[float]:
        case = f"step {step}, 4 of 24 windows,"
        numbers = [plain(part) for part in parts(answer(step, 4, 24), 4, case)]
        if not all(isinstance(number, Real) for number in numbers):
            raise Wrong(f"{case} calls for 4 numbers, not for {numbers!r}.")
        return numbers

    orders = []
    for first in (0, 6):
        orders.append([number for step in range(first, first + 6) for number in windows(step)])
        case = f"steps {first} to {first + 5}, 4 of 24 windows each, sorted,"
        agree(sorted(orders[-1]), list(range(24)), case, "An epoch holds every window once.")
    hint = "A new generator at each call, with the epoch as its seed, shuffles as before."
    agree(windows(5), orders[0][20:], "step 5, asked once more,", hint)
    if orders[0] in (sorted(orders[0]), orders[1]):
        raise Wrong("The order is the same in every epoch.", "Shuffle each epoch anew.")


@exercise("4.12")
def _price(answer: Callable) -> None:
    hint = "The grammar's share is 1 of those that are left, the model's 1 of all."
    agree(answer(10, 1), math.log(10 / 9), "one of ten animals used", hint)
    agree(answer(8, 3), math.log(8 / 5), "three of eight places used", hint)


@exercise("4.13")
def _mixture(answer: Callable) -> None:
    some, others = [0.5, 0.1, 0.4, 0.7], [0.1, 0.6, 0.2, 0.1]
    hint = "Mix the probabilities first; the logarithm of each token comes after that."
    for first, second, case in ((some, others, "two models"), (others, some, "the same, changed")):
        means = {
            k / 10: -sum(
                math.log(k / 10 * p + (1 - k / 10) * q) for p, q in zip(first, second, strict=True)
            ) / len(first)
            for k in range(11)
        }  # fmt: skip
        share = min(means, key=means.get)
        found = parts(answer(first, second), 2, case)
        agree(found[0], share, f"{case}: the share", hint)
        agree(found[1], means[share], f"{case}: the nats", hint)


@exercise("4.14")
def _arrival(answer: Callable) -> None:
    hint = "The mean over the seeds has to be at or below the line."
    losses = {1250: [1.85, 1.87], 800: [1.89, 1.95], 1000: [1.89, 1.91], 630: [1.99, 2.0]}
    agree(answer(losses, 1.905), 1000, "four plans, and the line 1.905", hint)
    agree(answer(losses, 1.86), 1250, "the line 1.86, met exactly", hint)
    if (found := answer(losses, 1.5)) is not None:
        raise Wrong(f"No plan arrives at 1.5, but the answer is {found!r}.", "Return None.")
