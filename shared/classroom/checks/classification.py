"""The checks of the exercises on classification, 5.1 to 5.14."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from shared.classroom.checks.machinery import (
    agree,
    exercise,
    parts,
    refuses,
    shaped,
    worked_out,
)


@exercise("5.1")
def _four_numbers(answer: tuple) -> None:
    accuracy, precision, recall = parts(answer, 3, "This question")
    worked_out(precision, 0.75, "The precision: of what was removed, how much was spam?")
    worked_out(recall, 0.6, "The recall: of all spam, how much was removed?")
    worked_out(accuracy, 0.88, "The accuracy: how many of the 100 were judged correctly?")


@exercise("5.2")
def _f1(answer: Callable) -> None:
    agree(answer([1, 1, 0, 0, 1], [1, 0, 1, 0, 1]), 2 / 3, "two caught of three")
    agree(answer([1, 1, 1, 1], [1, 0, 0, 0]), 0.4, "all filtered, one of four spam")
    agree(answer([0, 0], [1, 0]), 0.0, "nothing filtered", "Do not divide by zero.")


@exercise("5.3")
def _split_by_pattern(answer: Callable) -> None:
    messages = [("won", "You won a car"), ("tea", "Tea at 5?"), ("won", "You won a pen")]
    messages += [("sun", "Sunny today"), ("tea", "Tea at 6?")]
    case = "training without the patterns won and sun"
    train, test = parts(answer(messages, {"won", "sun"}), 2, case)
    agree(train, ["Tea at 5?", "Tea at 6?"], case)
    agree(test, ["You won a car", "You won a pen", "Sunny today"], "the test of won and sun")
    refuses(answer, messages, {"wno"}, case="The pattern 'wno', which no message has,")
    refuses(answer, messages, {"won", "wno"}, case="'wno', which no message has, beside 'won'")


@exercise("5.4")
def _pad_in_front(answer: Callable) -> None:
    case = "[5, 0, 7], [0] and [0, 9], padding 0"
    ids, places = parts(answer([[5, 0, 7], [0], [0, 9]], 0), 2, case)
    hint = "Put the padding in front."
    agree(ids, torch.tensor([[5, 0, 7], [0, 0, 0], [0, 0, 9]]), f"the ids of {case},", hint)
    expected = torch.tensor([[0, 1, 2], [0, 0, 0], [0, 0, 1]])
    hint = "A 0 that was given is real; count the lengths."
    agree(places, expected, f"the positions of {case},", hint)
    case = "[3, 3] and [3, 3, 3, 3], padding 3"
    ids, places = parts(answer([[3, 3], [3, 3, 3, 3]], 3), 2, case)
    agree(ids, torch.full((2, 4), 3), f"the ids of {case},")
    expected = torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]])
    agree(places, expected, f"the positions of {case},", hint)


@exercise("5.5")
def _mean_pool(answer: Callable) -> None:
    hidden = torch.tensor(
        [[[1.0, 4.0], [3.0, 0.0], [9.0, 9.0]], [[2.0, 2.0], [4.0, 4.0], [6.0, 0.0]]]
    )
    real = torch.tensor([[True, True, False], [True, True, True]])
    expected = torch.tensor([[2.0, 2.0], [4.0, 2.0]])
    agree(answer(hidden, real), expected, "two and three real tokens", "Divide by the real ones.")
    hidden[0, 2] = torch.inf
    agree(answer(hidden, real), expected, "inf at the padding", "0 × inf is not 0.")
    hidden[0, 2] = torch.nan
    agree(answer(hidden, real), expected, "nan at the padding", "0 × nan is not 0.")


@exercise("5.6")
def _real_probability(answer: Callable) -> None:
    agree(answer(0.0, 0.5), 0.5, "log odds 0, a share of 0.5")
    agree(answer(0.0, 0.1), 0.1, "log odds 0, a share of 0.1", "Odds are p / (1 − p).")
    agree(answer(3.0, 0.1), 1 / (1 + 9 * math.exp(-3)), "log odds 3, a share of 0.1")


@exercise("5.7")
def _lowest_threshold(answer: Callable) -> None:
    odds, labels = [-3.0, -1.0, 0.5, 2.0, -2.0, 1.0, 3.0], [0, 0, 0, 0, 1, 1, 1]
    for share, expected in ((0.0, 2.0), (0.25, 0.5), (0.3, 0.5), (0.5, -1.0), (1.0, -3.0)):
        case = f"log odds {odds}, labels {labels}, at most {share:.0%} of the ham lost"
        agree(answer(odds, labels, share), expected, case, "Count the ham above it.")
    case = "100 ham with the log odds 0, 1, 2, … 99, at most 29% of them lost"
    hint = "0.29 · 100 is a little less than 29 for a computer; 29 / 100 is 0.29."
    agree(answer([float(o) for o in range(100)], [0] * 100, 0.29), 70.0, case, hint)


@exercise("5.8")
def _lora_counts(answer: tuple) -> None:
    trained, largest = parts(answer, 2, "This question")
    worked_out(trained, 40_960, "Rank 8 has two matrices: rank × in, and out × rank.")
    worked_out(largest, 819, "For the largest rank: each rank costs in + out numbers.")


@exercise("5.9")
def _thin(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(5)
    before, change = (torch.randn(6, 4, generator=generator) for _ in range(2))
    values = torch.linalg.svdvals(change)
    for rank in (1, 3):
        case = f"a 6 × 4 matrix, rank {rank},"
        up, down = parts(answer(before, before + change, rank), 2, case)
        shaped(up, (6, rank), f"up for {case}")
        shaped(down, (rank, 4), f"down for {case}")
        left = change - torch.as_tensor(up).double() @ torch.as_tensor(down).double()
        best, hint = float(values[rank:].norm()), "Keep the largest ones."
        agree(left.norm(), best, f"rank {rank}: what is left of the change", hint)


@exercise("5.10")
def _switch(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(6)
    w = torch.randn(3, 4, generator=generator)
    a, b = (
        (torch.randn(3, 2, generator=generator), torch.randn(2, 4, generator=generator))
        for _ in range(2)
    )
    merged = w + a[0] @ a[1]
    agree(answer(merged, a, b), w + b[0] @ b[1], "two detours of rank 2 beside a 3 × 4 W")


@exercise("5.11")
def _ordered_pairs(answer: Callable) -> None:
    hint = "Compare every spam with every ham."
    odds, labels = [4.0, 3.0, 1.0, -1.0, -2.0], [1, 1, 0, 1, 0]
    agree(answer(odds, labels), 5 / 6, f"log odds {odds}, labels {labels}", hint)
    agree(answer([0.5, 2.0, 1.0], [1, 0, 0]), 0.0, "the only spam comes last", hint)
    agree(answer([-1.0, 5.0, 3.0], [0, 1, 1]), 1.0, "all spam comes first", hint)
    hint = "Of two that are equal, neither is ahead: count a half."
    odds, labels = [2.0, 2.0, 2.0, 0.0, 3.0], [1, 0, 0, 0, 1]
    agree(answer(odds, labels), 5 / 6, f"log odds {odds}, labels {labels}", hint)
    agree(answer([1.0] * 5, [1, 0, 1, 0, 0]), 0.5, "five messages with the same log odds", hint)


@exercise("5.12")
def _temperature(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(12)
    true = 2 * torch.randn(400, generator=generator)
    labels = (torch.rand(400, generator=generator) < true.sigmoid()).long()
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    for factor, what in ((3.0, "log odds three times too large"), (0.5, "log odds half as large")):
        odds, several = factor * true, torch.linspace(0.1, 5, 4901)
        losses = torch.stack([cross_entropy(odds / t, labels.float()) for t in several])
        agree(answer(odds, labels), several[losses.argmin()].item(), what, slack=1e-2)


@exercise("5.13")
def _too_good(answer: str) -> None:
    worked_out(answer, "bcdf", "What chose, and is it also what was scored? Are there copies?")


@exercise("5.14")
def _drawn_differences(answer: Callable) -> None:
    case = "Two filters that are right on the same two of four messages, 10 draws:"
    alike = [True, False, True, False]
    hint = "Score both on the same draw."
    agree(answer(alike, alike, ["a", "a", "b", "c"], 10), [0.0] * 10, f"{case} this", hint)
    case = "Four messages of one pattern, ours right on three, theirs on one, 10 draws:"
    ours, theirs = [True, True, True, False], [False, False, False, True]
    agree(answer(ours, theirs, ["a"] * 4, 10), [0.5] * 10, f"{case} this", "Draw whole patterns.")
    ours, theirs = [True] * 9 + [False], [False] * 9 + [True]
    case = "Nine messages of a where ours is right, one of b where theirs is, 2,000 draws:"
    found = answer(ours, theirs, ["a"] * 9 + ["b"], 2000)
    differences = torch.tensor([float(number) for number in parts(found, 2000, case)])
    values = sorted({round(number, 4) for number in differences.tolist()})
    hint = "Draw as many patterns as there are, with replacement, and count messages."
    agree(values, [-1.0, 0.8, 1.0], f"{case} the set of the differences", hint)
    both = (differences > 0.7).logical_and(differences < 0.9).float().mean()
    hint = "Every pattern has the same chance, however many messages it has."
    agree(both, 0.5, f"{case} the share of draws with both patterns", hint, slack=0.06)
