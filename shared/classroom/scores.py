"""How labels and answers are scored: against the right ones, or by the rules of the valley."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from data.facts import FACTS
from data.instructions import (
    FREE_SIZES,
    FREE_TASKS,
    HARD,
    NEW_GUESTS,
    VOICED,
    Entry,
    declines,
    is_new,
    is_right,
    listed,
    voices,
)
from data.world import explain
from shared.classroom.datasets import load_instructions
from shared.classroom.errors import a_list, classes, require

# built in 05_finetune_classification/spam_classifier.ipynb: naive_bayes_odds, naive_bayes,
#   classification_scores, best_threshold, average_precision
# built in 06_finetune_instructions/instructions.ipynb: exact_match, token_f1, fits_tale


def naive_bayes_odds(known: Sequence[tuple[str, int]], texts: Sequence[str]) -> list[float]:
    """Log odds of class 1 against class 0 by naive Bayes (add-one smoothing), for each text.

    `known` are (text, class) pairs. A bag of words: order does not count.
    """
    a_list(known=known, texts=texts)
    known = list(known)
    labels = classes(labels=[label for _, label in known], count=2).tolist()
    known = [(text, label) for (text, _), label in zip(known, labels, strict=True)]
    find, times = re.compile(r"[a-z0-9']+").findall, Counter(labels)
    require(len(times) == 2, "naive Bayes needs texts of both classes to learn from")
    words = [Counter(find(" ".join(t for t, label in known if label == c).lower())) for c in (0, 1)]
    totals = [count.total() + len(words[0] | words[1]) for count in words]

    def log_likelihood(text, label):
        shares = [(words[label][word] + 1) / totals[label] for word in find(text.lower())]
        return math.log(times[label]) + sum(map(math.log, shares))

    return [log_likelihood(text, 1) - log_likelihood(text, 0) for text in texts]


def naive_bayes(known: Sequence[tuple[str, int]], texts: Sequence[str]) -> list[int]:
    """The class whose training words make each text more likely, 0 or 1."""
    return [int(odds > 0) for odds in naive_bayes_odds(known, texts)]


def marks(text: str) -> str:
    """Numbers by their length alone, and each sign as a word: "£900!" → "sign163 000 sign33"."""
    pieces = re.findall(r"0+|[a-z']+|[^\w\s]", re.sub(r"\d", "0", text.lower()))
    return " ".join(p if p[0].isalnum() or p[0] == "'" else f"sign{ord(p)}" for p in pieces)


def line_on_words(
    known: Sequence[tuple[str, int]], texts: Sequence[str], penalty: float = 0.1
) -> list[float]:
    """Log odds of class 1 by a straight line on which words and signs a text has, for each text.

    Logistic regression, the stronger way to count: one weight for each word of the `known` (text,
    class) pairs, and one for none. The losses are added up, and the squares of the weights times
    half the penalty, so that weights stay small where few texts speak for them.
    """

    def words(text: str) -> set[str]:
        return set(marks(text).split())

    every = sorted(set().union(*(words(text) for text, _ in known)))
    places = {word: number for number, word in enumerate(every)}
    labels = torch.tensor(classes(labels=[label for _, label in known], count=2)).double()
    require(labels.unique().numel() == 2, "a line needs texts of both classes to learn from")

    def table(texts: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(texts), len(places) + 1, dtype=torch.float64)
        rows[:, -1] = 1
        for row, text in zip(rows, texts, strict=True):
            row[[places[word] for word in words(text) if word in places]] = 1
        return rows

    seen = table([text for text, _ in known])
    weights = torch.zeros(len(places) + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        optimizer.zero_grad()
        losses = binary_cross_entropy_with_logits(seen @ weights, labels, reduction="sum")
        total = losses + penalty / 2 * weights.square().sum()
        total.backward()
        return total

    optimizer.step(cost)
    return (table(texts) @ weights).tolist()


def classification_scores(guesses: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 of class 1; nan where one of them is undefined.

    There is no precision where nothing was found, and no recall where there is nothing to find.
    Both are lists, arrays or tensors of classes 0, 1, …; raises ValueError for anything else.
    """
    guesses, labels = classes(guesses=guesses).tolist(), classes(labels=labels).tolist()
    pairs = list(zip(guesses, labels, strict=True))
    require(len(pairs) > 0, "there is nothing to score: give at least one guess")
    caught, filtered, spam = pairs.count((1, 1)), guesses.count(1), labels.count(1)
    return {
        "accuracy": sum(guess == label for guess, label in pairs) / len(pairs),
        "precision": caught / filtered if filtered else math.nan,
        "recall": caught / spam if spam else math.nan,
        "F1": 2 * caught / (filtered + spam) if filtered + spam else math.nan,
    }


def best_threshold(odds: Tensor, classes: Sequence[int]) -> float:
    """Of the thresholds between two of the log odds, the one with the best F1; the middle of ties.

    To be chosen on a validation part. Raises ValueError for odds that are nan, and where there is
    no text of class 1.
    """
    odds = torch.as_tensor(odds)
    require(not odds.isnan().any(), "the odds are no numbers: load the classifier again")
    require(any(classes), "there is no text of class 1 to find: choose on another part")
    values = odds.unique()  # from low to high
    between = torch.cat([values[:1] - 1, (values[1:] + values[:-1]) / 2]).tolist()
    f1 = {
        threshold: classification_scores((odds > threshold).int().tolist(), classes)["F1"]
        for threshold in between
    }
    highest = max(f1.values())
    best = [threshold for threshold, score in f1.items() if score == highest]
    return best[len(best) // 2]


def average_precision(odds: Tensor, labels: Sequence[int]) -> float:
    """The mean, over the texts of class 1, of the precision among all at least as suspicious.

    It needs no threshold: 1.0 if every text of class 1 has higher odds than every other, and about
    the share of class 1 if the odds say nothing. Raises ValueError where class 1 is missing.
    """
    order = torch.as_tensor(odds).argsort(descending=True, stable=True)
    hits = torch.as_tensor(labels)[order].float()
    require(hits.sum() > 0, "average precision needs at least one text of class 1")
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return ((precision * hits).sum() / hits.sum()).item()


def exact_match(given: str, expected: str) -> bool:
    """The same words, letters and marks; only white space does not count."""
    return given.split() == expected.split()


def token_f1(given: str, expected: str) -> float:
    """Words in common, as the harmonic mean of the share of the given and of the expected ones."""
    words, right = Counter(given.lower().split()), Counter(expected.lower().split())
    common = (words & right).total()
    return 2 * common / (words.total() + right.total()) if common else 0.0


def fits_tale(beginning: str, given: str) -> bool:
    """Is the beginning with the given text a whole tale that the grammar could tell?"""
    return explain(f"{beginning} {given}").ways > 0


def score_answers(entries: Sequence[Entry], answers: Sequence[str]) -> pd.DataFrame:
    """Per task: entries, share of exact matches, mean token F1; last the row "all".

    Where several voices are right, the nearest counts. Tales are left out: no words of theirs can
    be expected (`score_groups` judges them). The hard tasks have rows, but are not in "all". Raises
    ValueError for a task that the course does not know, or when nothing is left to score.
    """
    a_list(entries=entries, answers=answers)
    known, rows = {entry["task"] for entry in load_instructions()}, defaultdict(list)
    for entry, given in zip(entries, answers, strict=True):
        if (task := entry.get("task")) not in known:
            raise ValueError(
                f"no rule to score the task {task!r}: choose one of {', '.join(sorted(known))}, "
                f"or use exact_match and token_f1 directly"
            )
        if task not in FREE_TASKS:
            right = voices(entry["output"]) if task in VOICED else [entry["output"]]
            match = max(exact_match(given, one) for one in right)
            rows[task].append((match, max(token_f1(given, one) for one in right)))
    if not rows:
        raise ValueError("there is nothing to score: give entries of other tasks than tales")
    tasks = {task: rows[task] for task in sorted(rows)}
    easy = [score for task, scores in rows.items() if task not in HARD for score in scores]
    tasks["all"] = easy or [score for scores in rows.values() for score in scores]
    table = {
        task: (len(scores), *(sum(column) / len(scores) for column in zip(*scores, strict=True)))
        for task, scores in tasks.items()
    }
    return pd.DataFrame.from_dict(table, "index", columns=["entries", "exact match", "token F1"])


APART = {"tale": "tales told", "continue": "tales continued", "outside": "outside: declined"}


def groups_of(entry: Entry) -> list[str]:
    """The rows of `score_groups` to which an entry of the test belongs."""
    task = entry["task"]
    if task in HARD:
        return [f"hard: {task}"]
    if task in APART:
        return [APART[task]]
    if task in ("count", "sort") and len(listed(entry)) in FREE_SIZES:
        return ["sizes never seen"]
    groups = ["new wordings" if is_new(entry) else "known wordings"]
    if task in ("count", "sort"):
        groups.append("sizes of the training")
    if task in {kind.name for kind in FACTS}:
        groups.append("facts only stated")
    if any(name in entry["output"] for name in NEW_GUESTS):
        groups.append("names never seen")
    return groups


def score_groups(entries: Sequence[Entry], answers: Sequence[str]) -> pd.DataFrame:
    """What the test can tell apart, group by group: entries, and the share of right answers.

    Tales are judged by the grammar. "inside: declined" is the share of requests about the valley to
    which the answer is, wrongly, that it lies outside.
    """
    a_list(entries=entries, answers=answers)
    rows = defaultdict(list)
    for entry, given in zip(entries, answers, strict=True):
        for group in groups_of(entry):
            rows[group].append(is_right(entry, given))
        if entry["task"] != "outside":
            rows["inside: declined"].append(declines(given))
    table = {group: (len(right), sum(right) / len(right)) for group, right in sorted(rows.items())}
    return pd.DataFrame.from_dict(table, "index", columns=["entries", "share"])
