"""The checks of the exercises on instructions, 6.1 to 6.16."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from shared.classroom.checks.machinery import (
    Wrong,
    agree,
    exercise,
    parts,
    refuses,
    worked_out,
)


@exercise("6.1")
def _targets_of_a_row(answer: list) -> None:
    agree(answer, [-100, -100, 7, 0], "the row 0 5 6 7 0", "Which token follows each input?")


@exercise("6.2")
def _phi3_prompt(answer: Callable) -> None:
    entry = {"instruction": "Sort.", "input": "two, one"}
    agree(answer(entry), "<|user|>\nSort.\ntwo, one<|end|>\n<|assistant|>\n", "with an input")
    entry = {"instruction": "Sing.", "input": ""}
    hint = "No empty line when there is no input."
    agree(answer(entry), "<|user|>\nSing.<|end|>\n<|assistant|>\n", "without an input", hint)


@exercise("6.3")
def _inputs_and_targets(answer: Callable) -> None:
    inputs, targets = parts(answer([5, 6, 0], 4, 0), 2, "[5, 6, 0], length 4")
    agree(inputs, [5, 6, 0, 0], "the inputs of [5, 6, 0], length 4")
    hint = "The first end mark stays: it teaches when to stop."
    agree(targets, [6, 0, -100, -100], "the targets of [5, 6, 0], length 4", hint)
    agree(answer([5, 9], 1, 9), ([5], [9]), "[5, 9], length 1, end 9")


@exercise("6.4")
def _masked_loss(answer: Callable) -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    targets = torch.tensor([0, -100, 1])
    expected = torch.nn.functional.cross_entropy(logits, targets)
    agree(answer(logits, targets), expected, "targets 0, −100, 1", "Divide by what counts.")
    none = torch.full((3,), -100)
    agree(answer(logits, none), torch.tensor(0.0), "targets that are all −100")


@exercise("6.5")
def _lenient_match(answer: Callable) -> None:
    for given, expected, same in (
        ("A  Fox.", "a fox", True),
        ("a fox", "A fox!", True),
        ("a fox", "a box", False),
        ("Who? A fox", "who a fox", False),
        ("...", "", False),
    ):
        hint = "Only one mark, and only at the end."
        agree(answer(given, expected), same, f"{given!r} and {expected!r}", hint)


@exercise("6.6")
def _recolour(answer: Callable) -> None:
    entry = {"instruction": "Which?", "input": "A red kite, a blue hat, a redhead.",
             "output": "red", "task": "red"}  # fmt: skip
    before = dict(entry)
    found = answer(entry, {"red": "blue", "blue": "red"}, copied=False)
    expected = {"instruction": "Which?", "input": "A blue kite, a red hat, a redhead.",
                "output": "blue", "task": "red"}  # fmt: skip
    agree(found, expected, "red and blue changing places", "Both at once, and whole words only.")
    if entry != before:
        raise Wrong("The entry that was given has changed: make a new one.")


@exercise("6.7")
def _by_task(answer: Callable) -> None:
    rows = [("sort", True), ("who", False), ("sort", False), ("sort", True), ("sort", True)]
    agree(answer(rows), {"sort": 0.75, "who": 0.0}, "sort right 3 of 4, who 0 of 1")
    agree(answer([]), {}, "no rows at all")


@exercise("6.8")
def _log_prob(answer: Callable) -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    expected = logits.log_softmax(-1)[0, 1] + logits.log_softmax(-1)[1, 2]
    hint = "Probabilities multiply, so logarithms add; softmax first."
    agree(answer(logits, torch.tensor([1, 2])), expected, "ids 1, 2", hint)


@exercise("6.9")
def _preference_loss(answer: Callable) -> None:
    values = [torch.tensor(v) for v in ([-14.0, -3.0], [-12.0, -5.5], [-18.0, -3.5], [-6.0, -5.0])]
    margin = torch.tensor([10.0, 1.0])
    expected = -torch.sigmoid(0.1 * margin).log().mean()
    agree(
        answer(*values, 0.1),
        expected,
        "margins 10 and 1, beta 0.1",
        "Did you subtract the values of the start?",
    )
    far = [torch.tensor([v]) for v in (-10_000.0, 0.0, 0.0, 0.0)]
    hint = "log σ needs care: logsigmoid, or softplus."
    agree(answer(*far, 1.0), torch.tensor(10_000.0), "a margin of −10,000, beta 1", hint)


@exercise("6.10")
def _remember(answer: Callable) -> None:
    exchanges = [[1, 1, 1], [2, 2], [3]]
    for limit, kept in ((10, exchanges), (7, exchanges[1:]), (4, exchanges[2:]), (2, [])):
        case = f"three exchanges of 3, 2, 1 ids, 2 new ones, limit {limit}"
        agree(answer(exchanges, [9, 9], limit), kept, case, "As few as needed, the oldest first.")
    refuses(answer, [], [9, 9, 9], 2, case="3 new ids and a limit of 2")


@exercise("6.11")
def _chat_targets(answer: Callable) -> None:
    talk = [
        ("system", [5]),
        ("user", [6, 7]),
        ("assistant", [8, 9]),
        ("user", []),
        ("assistant", [3]),
    ]
    expected = [-100] * 10 + [8, 9, 2] + [-100] * 5 + [3, 2]
    hint = "The 2 that closes the assistant's turn is learned, no other one."
    agree(answer(talk), expected, "five messages, two of them the assistant's", hint)
    agree(answer([("user", [4])]), [-100] * 3, "a message of the user alone", hint)


@exercise("6.12")
def _best_policy(answer: Callable) -> None:
    reference, reward = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([1.0, 0.0, -2.0])
    for beta in (1.0, 0.2):
        weights = reference * (reward / beta).exp()
        case = f"the reference {reference.tolist()}, rewards {reward.tolist()}, beta {beta}"
        hint = "Z makes them add up to 1."
        agree(answer(reference, reward, beta), weights / weights.sum(), case, hint)
    far = torch.tensor([1000.0, 999.0, 0.0])
    weights = reference * torch.tensor([1.0, math.exp(-1), 0.0])
    agree(answer(reference, far, 1.0), weights / weights.sum(), f"rewards {far.tolist()}, beta 1")


@exercise("6.13")
def _learn_policy(answer: Callable) -> None:
    for reference, reward, beta in (
        ([0.2, 0.5, 0.3], [1.0, 0.0, -1.0], 1.0),
        ([0.1, 0.2, 0.3, 0.4], [0.3, 0.0, 0.2, -0.2], 0.5),
    ):
        reference, reward = torch.tensor(reference), torch.tensor(reward)
        wins = 100 * (reward[:, None] - reward[None, :]).sigmoid().fill_diagonal_(0)
        expected = (reference.log() + reward / beta).softmax(dim=0)
        case = f"comparisons by the rewards {reward.tolist()}, beta {beta}"
        hint = "Relative to the reference: log π − log π₀ of i, minus that of j."
        found = answer(reference.clone(), wins.clone(), beta)
        agree(found, expected, case, hint, slack=1e-2)


@exercise("6.14")
def _supported(answer: str) -> None:
    worked_out(answer, "acdf", "What does each number compare, and with what?")


@exercise("6.15")
def _rouge_l(answer: Callable) -> None:
    for given, expected, thread in (
        ("the fox found a red kite", "the fox lost a kite", 4),
        ("kite red a", "a red kite", 1),
        ("a a b", "a b a", 2),
        ("A fox", "a fox", 1),
        ("", "a fox", 0),
        ("", "", 0),
    ):
        score = 2 * thread / max(1, len(given.split()) + len(expected.split()))
        agree(answer(given, expected), score, f"{given!r} and {expected!r}", "The order counts.")
    long = " ".join(map(str, range(300)))
    hint = "Do not try all threads: keep the best of every two beginnings."
    agree(answer(long, f"x {long} y"), 600 / 602, "300 words, and the same in the middle", hint)


@exercise("6.16")
def _threshold(answer: Callable) -> None:
    certain, right = [0.9, 0.8, 0.8, 0.7, 0.6, 0.5], [True, True, False, True, True, False]
    for most, expected in ((0.2, 0.6), (0.1, 0.9), (0.4, 0.5), (0.25, 0.6), (0.0, 0.9)):
        case = f"certainties {certain}, right {right}, at most {most:.0%} wrong"
        agree(answer(certain, right, most), expected, case, "Equally certain ones go together.")
    case = "a certain wrong answer and a doubtful right one, at most 10% wrong"
    agree(answer([0.9, 0.4], [False, True], 0.1), math.inf, case)
    mixed = [0.2, 0.9, 0.5], [True, True, False]
    agree(answer(*mixed, 0.4), 0.2, f"certainties {mixed[0]}, right {mixed[1]}, at most 40% wrong")
