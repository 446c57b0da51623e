"""A classifier made of a GPT."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from shared.batches import _dealt, encode_plain, end_of_text
from shared.gpt import GPTModel
from shared.weights import fill, read_checkpoint, save_checkpoint

PADDING = -1  # stands behind a short text in a batch; no token has this id


# built in: 05_finetune_classification/spam_classifier.ipynb
def naive_bayes(known: Sequence[tuple[str, int]], texts: Sequence[str]) -> list[int]:
    """The class whose training words make each text more likely (add-one smoothing), 0 or 1.

    `known` are (text, class) pairs. A bag of words: order does not count.
    """
    find, classes = re.compile(r"[a-z0-9']+").findall, Counter(label for _, label in known)
    words = [Counter(find(" ".join(t for t, label in known if label == c).lower())) for c in (0, 1)]
    totals = [count.total() + len(words[0] | words[1]) for count in words]

    def log_likelihood(text, label):
        shares = [(words[label][word] + 1) / totals[label] for word in find(text.lower())]
        return math.log(classes[label]) + sum(map(math.log, shares))

    return [int(log_likelihood(text, 1) > log_likelihood(text, 0)) for text in texts]


# built in: 05_finetune_classification/spam_classifier.ipynb
def classification_scores(guesses: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 of class 1 (0 where nothing was found or to find)."""
    pairs = Counter(zip(guesses, labels, strict=True))
    caught, filtered, spam = pairs[1, 1], pairs[1, 0] + pairs[1, 1], pairs[0, 1] + pairs[1, 1]
    return {
        "accuracy": (caught + pairs[0, 0]) / len(labels),
        "precision": caught / filtered if filtered else 0.0,
        "recall": caught / spam if spam else 0.0,
        "F1": 2 * caught / (filtered + spam) if filtered + spam else 0.0,
    }


# built in: 05_finetune_classification/spam_classifier.ipynb
def encode_texts(texts: Sequence[str], tokenizer, context_length: int) -> list[list[int]]:
    """Each text behind an <|endoftext|>, as in pretraining; too long a text loses its end.

    Raises ValueError for an empty text.
    """
    rows = []
    for number, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"text {number} is empty: there is nothing to classify")
        ids = [end_of_text(tokenizer), *encode_plain(tokenizer, text)]
        rows.append(ids[:context_length])
    return rows


# built in: 05_finetune_classification/spam_classifier.ipynb
def pad_texts(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of ids of different lengths → (rows, longest), PADDING behind the shorter ones."""
    rows = [torch.tensor(row) for row in rows]
    return pad_sequence(rows, batch_first=True, padding_value=PADDING)


# built in: 05_finetune_classification/spam_classifier.ipynb
def pool(hidden: Tensor, real: Tensor, how: str) -> Tensor:
    """One vector per text: (batch, tokens, emb_dim), and which tokens are real → (batch, emb_dim).

    "last": of the last real token; "mean" and "max": over all real tokens; "first" and "last
    position" are mistakes, kept to be measured. Raises ValueError for another name.
    """
    if how == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), real.sum(dim=1) - 1]
    if how == "mean":
        return (hidden * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
    if how == "max":
        return hidden.masked_fill(~real[..., None], -torch.inf).amax(dim=1)
    if how == "first":
        return hidden[:, 0]
    if how == "last position":
        return hidden[:, -1]
    raise ValueError(f"no pooling {how!r}: choose last, mean, max, first or last position")


# built in: 05_finetune_classification/spam_classifier.ipynb
class Classifier(nn.Module):
    """A GPT that gives a text a label: its body, and a head with one score per label.

    It takes the model over, whose own head is gone afterwards: give a deepcopy to keep it.
    """

    def __init__(self, model: GPTModel, labels: int = 2, pooling: str = "last") -> None:
        super().__init__()
        self.config, self.pooling = model.config, pooling
        model.head = nn.Identity()  # the body now ends with what its head used to read
        self.body = model
        self.label_head = nn.Linear(model.config.emb_dim, labels)
        nn.init.normal_(self.label_head.weight, std=0.02)  # small: it begins without an opinion
        nn.init.zeros_(self.label_head.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens) ids, PADDING behind short texts → logits (batch, labels)."""
        real = ids != PADDING
        hidden = self.body(ids.clamp(min=0))  # (batch, tokens, emb_dim)
        return self.label_head(pool(hidden, real, self.pooling))


# built in: 05_finetune_classification/spam_classifier.ipynb
def freeze(classifier: Classifier, learn: str = "all") -> Classifier:
    """Let "all" parameters learn, or only the "last block" with what follows, or the "head"."""
    if learn not in ("all", "last block", "head"):
        raise ValueError(f"cannot let {learn!r} learn: choose all, last block or head")
    classifier.requires_grad_(learn == "all")
    if learn == "last block":
        classifier.body.blocks[-1].requires_grad_(True)
        classifier.body.final_norm.requires_grad_(True)
    classifier.label_head.requires_grad_(True)
    return classifier


# built in: 05_finetune_classification/spam_classifier.ipynb
@torch.no_grad()
def log_odds(classifier: Classifier, rows: Sequence[Sequence[int]], batch_size: int = 64) -> Tensor:
    """Log odds of class 1 against class 0, in nats, for each encoded text: (texts,)."""
    device = classifier.label_head.weight.device
    was_training = classifier.training
    classifier.eval()
    result = torch.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))  # little padding
    for first in range(0, len(rows), batch_size):
        chosen = order[first : first + batch_size]
        scores = classifier(pad_texts([rows[number] for number in chosen]).to(device))
        result[chosen] = (scores[:, 1] - scores[:, 0]).float().cpu()
    classifier.train(was_training)
    return result


# built in: 05_finetune_classification/spam_classifier.ipynb
def best_threshold(odds: Tensor, classes: Sequence[int]) -> float:
    """The middle of the thresholds (from -8 to 8 nats) on the log odds with the best F1.

    To be chosen on a validation part: training makes a model too sure of itself.
    """
    f1 = {
        threshold: classification_scores((odds > threshold).int().tolist(), classes)["F1"]
        for threshold in torch.linspace(-8, 8, 129).tolist()
    }
    highest = max(f1.values())
    best = [threshold for threshold, score in f1.items() if score == highest]
    return best[len(best) // 2]


def save_classifier(path: Path, classifier: Classifier, **notes: object) -> None:
    """Write a classifier with its configuration, its pooling and JSON-ready `notes`."""
    labels = classifier.label_head.out_features
    save_checkpoint(path, classifier, pooling=classifier.pooling, labels=labels, **notes)


def load_classifier(path: Path) -> Classifier:
    """The classifier of a file that `save_classifier` wrote, in evaluation mode.

    Raises ValueError for a file that holds something else, naming every tensor that differs.
    """
    config, notes, tensors = read_checkpoint(path)
    if not {"pooling", "labels"} <= notes.keys():
        raise ValueError(f"{path} is a checkpoint, but not of a classifier: use load_checkpoint")
    return fill(Classifier(GPTModel(config), notes["labels"], notes["pooling"]), tensors, path)


class MessageBatches:
    """batches[step] -> (ids, labels): (batch_size, longest) with PADDING, and (batch_size,).

    `rows` holds the encoded texts, one list of ids each, and `labels` their classes, 0 and up.
    With `balanced`, every class has an equal share of each batch, however rare it is; else texts
    come as often as they are. An epoch shows each text (of a class) once, in a new order; step s
    is a pure function of (seed, s). Raises ValueError for a class without a text, for an empty
    text, and for a batch that cannot be shared equally.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        labels: Sequence[int],
        batch_size: int,
        balanced: bool = True,
        seed: int = 123,
    ):
        self.rows, self.labels = list(rows), np.asarray(labels)
        self.batch_size, self.seed = batch_size, seed
        if len(self.rows) != len(self.labels) or not self.rows:
            raise ValueError(
                f"{len(self.rows)} texts and {len(self.labels)} labels: there must be as many, "
                f"and at least one"
            )
        if empty := [number for number, row in enumerate(self.rows) if not len(row)]:
            raise ValueError(f"text {empty[0]} has no tokens: leave it out, or give it a text")
        counts = np.bincount(self.labels)
        if not counts.all() or len(counts) < 2:
            missing = np.flatnonzero(counts == 0).tolist() or [len(counts)]
            raise ValueError(
                f"class {missing[0]} has no example: nothing could be learned about it"
            )
        if balanced:
            self.groups = [np.flatnonzero(self.labels == label) for label in range(len(counts))]
        else:
            self.groups = [np.arange(len(self.rows))]
        if batch_size < 1 or batch_size % len(self.groups):
            raise ValueError(
                f"{batch_size=} cannot be shared equally by {len(self.groups)} classes: "
                f"choose a multiple of {len(self.groups)}"
            )

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        if step < 0:
            raise IndexError(f"{step=}: steps count from 0")
        share = self.batch_size // len(self.groups)
        places = np.arange(step * share, (step + 1) * share)
        chosen = np.concatenate(
            [
                group[_dealt(places, len(group), self.seed, number)]
                for number, group in enumerate(self.groups)
            ]
        )
        ids = pad_texts([self.rows[number] for number in chosen])
        return ids, torch.from_numpy(self.labels[chosen].astype(np.int64))


# built in: 05_finetune_classification/real_messages.ipynb
def balance(table: pd.DataFrame, seed: int = 123) -> pd.DataFrame:
    """As many messages of every label as the rarest has, in a random order."""
    rarest = table["label"].value_counts().min()
    chosen = table.groupby("label").sample(rarest, random_state=seed)
    return chosen.sample(frac=1, random_state=seed)


# built in: 05_finetune_classification/spam_classifier.ipynb
def split_table(table: pd.DataFrame, shares: Mapping[str, float], seed: int = 123) -> dict:
    """Deal the rows of a table at random into parts, {"train": 0.7, "val": 0.1, "test": 0.2}.

    Raises ValueError when the shares do not add up to 1, or a part lacks one of the labels.
    """
    if abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values()) <= 0:
        raise ValueError(f"the shares {dict(shares)} must be above 0 and add up to 1")
    shuffled, parts, start = table.sample(frac=1, random_state=seed), {}, 0.0
    for name, share in shares.items():
        rows = slice(round(start * len(table)), round((start + share) * len(table)))
        parts[name] = shuffled.iloc[rows].reset_index(drop=True)
        start += share
        if missing := set(table["label"]) - set(parts[name]["label"]):
            raise ValueError(
                f"the part {name!r} has {len(parts[name])} messages and none that is "
                f"{' or '.join(sorted(missing))}: give it a larger share, or take more messages"
            )
    return parts
