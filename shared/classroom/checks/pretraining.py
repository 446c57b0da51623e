"""The checks of the exercises on pretraining, 4.1 to 4.15."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from copy import deepcopy
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from shared.classroom.checks.machinery import (
    ROUNDING,
    Wrong,
    agree,
    exercise,
    parts,
    plain,
    returned,
)


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
    both = torch.tensor([[1000.0, 0.0], [0.0, 0.0]])
    hint = "Subtract from each row its own highest logit."
    case = "a row with a logit of 1,000 and a row of zeros"
    agree(answer(both, torch.tensor([0, 1])), math.log(2) / 2, case, hint)


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
    tied = parts(answer(torch.ones(3), 1.0, 2), 3, "three equal logits, top 2")
    found = sorted((plain(part) for part in tied), key=str)  # whichever two
    hint = "Two of them stay, not all that are as high as the second."
    agree(found, [0.0, 0.5, 0.5], "three equal logits, top 2, sorted,", hint)


@exercise("4.8")
def _nucleus(answer: Callable) -> None:
    chances = torch.tensor([0.1, 0.5, 0.15, 0.25])
    hint = "The token that crosses p stays as well."
    agree(answer(chances, 0.6), torch.tensor([0, 2 / 3, 0, 1 / 3]), "p = 0.6", hint)
    agree(answer(chances, 0.4), torch.tensor([0.0, 1, 0, 0]), "p = 0.4", hint)
    hint = "The first token has reached p, so no other is needed."
    agree(answer(chances, 0.5), torch.tensor([0.0, 1, 0, 0]), "p = 0.5", hint)
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

    orders, hint = [], "A generator of your own, with the epoch as its seed, changes nothing else."
    with torch.random.fork_rng():
        before = torch.get_rng_state(), random.getstate()
        for first in (0, 6):
            orders.append([number for step in range(first, first + 6) for number in windows(step)])
            case = f"steps {first} to {first + 5}, 4 of 24 windows each, sorted,"
            agree(sorted(orders[-1]), list(range(24)), case, "An epoch holds every window once.")
        again = "A new generator at each call, with the epoch as its seed, shuffles as before."
        agree(windows(5), orders[0][20:], "step 5, asked once more,", again)
        if not torch.equal(torch.get_rng_state(), before[0]) or random.getstate() != before[1]:
            said = "The random numbers of everybody else, such as those of dropout, have changed."
            raise Wrong(said, hint)
    first, second = map(_neighbours, orders)
    if len(first & second) > 12:
        said = "In the second epoch most windows have the same neighbours as in the first."
        raise Wrong(said, "Shuffle each epoch anew.")
    if any(len(found & _neighbours(list(range(24)))) > 12 for found in (first, second)):
        raise Wrong("Most windows still follow each other as in the text.", "Shuffle them.")


def _neighbours(order: list) -> set[frozenset]:
    """Which windows stand side by side, the last one beside the first."""
    return {frozenset(pair) for pair in zip(order, order[1:] + order[:1], strict=True)}


@exercise("4.12")
def _price(answer: Callable) -> None:
    hint = "The grammar's share is 1 of those that are left, the model's 1 of all."
    agree(answer(10, 1), math.log(10 / 9), "ten animals, one visitor", hint)
    agree(answer(10, 0), 0.0, "ten animals, no visitor", "No visitor, no extra price.")
    expected = math.log(8 / 7) + math.log(8 / 6) + math.log(8 / 5)
    agree(answer(8, 3), expected, "eight animals, three visitors", "Each visitor uses one up.")


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
    losses = {1250: [1.75, 2.0], 800: [1.89, 1.95], 1000: [1.89, 1.885], 630: [1.99, 2.0]}
    agree(answer(losses, 1.905), 1000, "four plans, and the line 1.905", hint)
    agree(answer(losses, 1.875), 1250, "the line 1.875, met exactly", hint)
    if (found := answer(losses, 1.5)) is not None:
        raise Wrong(f"No plan arrives at 1.5, but the answer is {found!r}.", "Return None.")


@exercise("4.15")
def _resumed(answer: Callable) -> None:
    rates = [0.1, 0.2, 0.3, 0.2, 0.1, 0.05]
    generator = torch.Generator().manual_seed(415)
    batches = [
        (torch.randn(5, 3, generator=generator), torch.randn(5, 1, generator=generator))
        for _ in rates
    ]
    with torch.random.fork_rng():
        model, peer = _tiny(dropout=0.0), _tiny(dropout=0.0)
        optimizer = torch.optim.AdamW(peer.parameters())
        for (x, y), rate in zip(batches[:3], rates[:3], strict=True):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            (peer(x) - y).square().mean().backward()
            optimizer.step()
        case = "stage 1, three steps:"
        returned(answer(model, batches, rates, 3, None, copied=False), case)
        hint = "Is each gradient cleared before the next, and does each step have its own rate?"
        agree(_weights(model), _weights(peer), f"{case} the weights together", hint, slack=1e-4)
        for stage, dropout, what in ((2, 0.0, "without dropout"), (3, 0.5, "with dropout")):
            straight, resumed = (_trained(answer, dropout, batches, rates, stop) for stop in (6, 3))
            if not torch.equal(straight, resumed):
                far = float((straight - resumed).abs().max())
                said = f"Stage {stage}, {what}: stopped after 3 of 6 steps and resumed in a new "
                said += f"model, a weight is off by {far:.2g}."
                hint = "What of the run is not among the weights?"
                raise Wrong(said, hint if stage == 2 else "Dropout draws random numbers.")


def _tiny(dropout: float, seed: int = 415) -> nn.Module:
    """A model of 3 inputs and an output; afterwards the random numbers start from its seed."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(dropout), nn.Linear(4, 1))


def _weights(model: nn.Module) -> Tensor:
    """All numbers of a model in a row."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _trained(answer: Callable, dropout: float, batches: list, rates: list, stop: int) -> Tensor:
    """The weights after all steps, with a break before the step `stop`."""
    model, saved = _tiny(dropout), None
    if stop < len(rates):
        found: Any = answer(model, batches, rates, stop, None, copied=False)
        model, saved = _tiny(dropout, seed=7), deepcopy(found)  # as if from a file
    answer(model, batches, rates, len(rates), saved, copied=False)
    return _weights(model)
