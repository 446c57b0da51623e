"""The checks of the exercises on instructions, 6.1 to 6.17."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from shared.classroom.checks.machinery import (
    Wrong,
    agree,
    exercise,
    parts,
    refuses,
    worked_out,
)
from shared.preferences import answer_log_probs, dpo_loss


@exercise("6.1")
def _targets_of_a_row(answer: list) -> None:
    worked_out(
        answer, [-100, -100, 7, 0], "Which token follows each input, and is it the prompt's?"
    )


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
    none, case = torch.full((3,), -100), "targets that are all −100"
    found = answer(logits.requires_grad_(), none, copied=False)
    agree(found, torch.tensor(0.0), case)
    hint = "The 0 has to be computed from the logits."
    if not isinstance(found, Tensor) or not found.requires_grad:
        raise Wrong(f"{case} give a 0 with which `backward()` fails.", hint)
    found.sum().backward()
    if logits.grad is not None:
        agree(logits.grad, torch.zeros(3, 2), f"the gradient for {case}", "Nothing is learned.")


@exercise("6.5")
def _lenient_match(answer: Callable) -> None:
    for given, expected, same in (
        ("A  Fox.", "a fox", True),
        ("a fox", "A fox!", True),
        ("a fox", "a box", False),
        ("Who? A fox", "who a fox", False),
        ("a way", "away", False),
        ("...", "", False),
    ):
        hint = "The words count, and only one mark, at the end, is forgiven."
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
def _log_probs(answer: Callable) -> None:
    logits = torch.tensor(
        [[[3.0, 0.0, 1.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]] * 3]
    )
    targets = torch.tensor([[-100, 1, 2], [1, -100, -100]])
    chances = logits.log_softmax(-1)
    expected = torch.stack([chances[0, 1, 1] + chances[0, 2, 2], chances[1, 0, 1]])
    hint = "Probabilities multiply, so logarithms add; each row has a sum of its own."
    agree(answer(logits, targets), expected, f"the targets {targets.tolist()}", hint)
    logits[1, 1, 0] = -torch.inf
    hint = "0 × −inf is not 0: choose with `torch.where` or `masked_fill`."
    agree(answer(logits, targets), expected, "a logit of −inf at a −100", hint)


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
    for limit, first in ((10, 0), (8, 0), (7, 1), (5, 1), (4, 2), (2, 3)):
        kept = exchanges[first:]
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
def _dear_enough(answer: Callable) -> None:
    hint = "The smaller β is, the more likely is the best answer."
    for reference, reward, share in (
        ([0.5, 0.5], [1.0, 0.0], 0.9),
        ([0.2, 0.5, 0.3], [1.0, 0.0, -2.0], 0.9),
        ([0.2, 0.5, 0.3], [0.5, 0.9, 1.0], 0.9),
        ([0.2, 0.5, 0.3], [1000.0, 999.0, 0.0], 0.5),
        ([0.1, 0.9], [0.001, 0.0], 0.99),
    ):
        low, high = 1e-6, 1e6
        for _ in range(200):  # halved in its logarithm
            beta = (low * high) ** 0.5
            chances = (
                torch.tensor(reference).double().log() + torch.tensor(reward) / beta
            ).softmax(0)
            enough = chances[torch.tensor(reward).argmax()] >= share
            low, high = (beta, high) if enough else (low, beta)
        case = f"the reference {reference}, rewards {reward}, a share of {share}"
        found = answer(torch.tensor(reference), torch.tensor(reward), share)
        agree(found, low, case, hint, slack=1e-3 * low)


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
    reference = torch.tensor([0.2, 0.5, 0.3])
    wins = torch.tensor([[0.0, 90.0, 1.0], [10.0, 0.0, 60.0], [2.0, 40.0, 0.0]])
    hint = (
        "Does a pair that was seen a hundred times count more than one that was seen three times?"
    )
    expected = reference * _strengths(wins)
    expected /= expected.sum()
    found = answer(reference.clone(), wins.clone(), 1.0)
    agree(found, expected, f"the wins {wins.int().tolist()}, beta 1", hint, slack=1e-2)


def _strengths(wins: Tensor) -> Tensor:
    """The likeliest exp(rewards) behind comparisons (Bradley and Terry), by Zermelo's rounds."""
    strengths = torch.ones(len(wins))
    for _ in range(2000):
        met = (wins + wins.T) / (strengths[:, None] + strengths)
        strengths = wins.sum(dim=1) / met.sum(dim=1)
        strengths /= strengths.sum()
    return strengths


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
    hint = "Do not try everything: keep the best of every two beginnings."
    for size in (6, 8, 10, 12, 14, 16, 18):  # whoever tries everything is found out early
        start = time.thread_time()
        found = answer(" ".join(map(str, range(size))), " ".join("abcdefghijklmnopqr"[:size]))
        agree(found, 0.0, f"twice {size} words that have none in common")
        if (seconds := time.thread_time() - start) > 0.2:
            raise Wrong(f"It takes too long: {seconds:.1f} seconds for twice {size} words.", hint)
    long = " ".join(map(str, range(60)))
    agree(answer(long, f"x {long} y"), 120 / 122, "60 words, and the same in the middle", hint)


@exercise("6.16")
def _threshold(answer: Callable) -> None:
    certain, right = [0.9, 0.8, 0.8, 0.7, 0.6, 0.5], [True, True, False, True, True, False]
    for most, expected in ((0.22, 0.6), (0.1, 0.9), (0.4, 0.5), (0.25, 0.6), (0.0, 0.9)):
        case = f"certainties {certain}, right {right}, at most {most:.0%} wrong"
        agree(answer(certain, right, most), expected, case, "Equally certain ones go together.")
    case = "a certain wrong answer and a doubtful right one, at most 10% wrong"
    agree(answer([0.9, 0.4], [False, True], 0.1), math.inf, case)
    mixed = [0.2, 0.9, 0.5], [True, True, False]
    agree(answer(*mixed, 0.4), 0.2, f"certainties {mixed[0]}, right {mixed[1]}, at most 40% wrong")
    case = "100 answers, all with the certainty 0.5, 29 of them wrong, at most 29% wrong"
    hint = "0.29 · 100 is a little less than 29 for a computer; 29 / 100 is 0.29."
    agree(answer([0.5] * 100, [True] * 71 + [False] * 29, 0.29), 0.5, case, hint)


@exercise("6.17")
def _mended_step(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(618)
    tables = [torch.randn(4, 4, generator=generator) for _ in range(2)]
    model, start = (torch.nn.Embedding.from_pretrained(t.clone(), freeze=False) for t in tables)
    peer = torch.nn.Embedding.from_pretrained(tables[0].clone(), freeze=False)
    optimizer, other = (torch.optim.SGD(one.parameters(), lr=0.5) for one in (model, peer))

    def compare(case: str, hint: str, *pairs: tuple[Tensor, Tensor]) -> None:
        gains = [answer_log_probs(peer, *one) - answer_log_probs(start, *one) for one in pairs]
        loss = dpo_loss(*gains, beta=0.5)
        found = answer(model, start, optimizer, *pairs, 0.5, copied=False)
        agree(found, loss, f"{case} the loss", hint)
        other.zero_grad()
        loss.backward()
        other.step()

    said = torch.tensor([[1]]), torch.tensor([[2]])
    unsaid = torch.tensor([[1]]), torch.tensor([[3]])
    hint = "Which answer shall become likelier? Over what do the probabilities sum to 1?"
    compare("One pair, answers of one token:", hint, said, unsaid)
    hint = "Did the step follow the gradient of this loss?"
    agree(
        model.weight,
        peer.weight.detach(),
        "One pair, answers of one token: the table of the model",
        hint,
    )
    said = torch.tensor([[0, 1, 3], [2, 2, 0]]), torch.tensor([[-100, 3, 0], [-100, 1, -100]])
    unsaid = torch.tensor([[0, 1, 2], [2, 2, 3]]), torch.tensor([[-100, 2, 0], [-100, 3, 0]])
    case = "Then two pairs with prompts and padding:"
    compare(case, "Which targets count?", said, unsaid)
    hint = "What does backward() do with the gradients of the step before?"
    agree(model.weight, peer.weight.detach(), f"{case} the table of the model", hint)
    agree(start.weight, tables[1], "The table of the frozen model", "It must stay.")
