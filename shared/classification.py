"""A classifier made of a GPT: the same body, another head, one vector for a whole text.

Notable: padding is never part of that vector, so a verdict does not depend on the other texts of
the batch; every class has an equal share of a batch, however rare it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from shared.classroom.errors import a_list, one_of, require, whole
from shared.classroom.machine import evaluating
from shared.gpt import GPTModel
from shared.texts import encode_plain, end_of_text

# built in 05_finetune_classification/spam_classifier.ipynb: encode_texts, pad_texts, pool,
#   Classifier, freeze, log_odds

PADDING = -1  # stands behind a short text in a batch; no token has this id


def encode_texts(texts: Sequence[str], tokenizer, context_length: int) -> list[list[int]]:
    """Each text behind an <|endoftext|>, as in pretraining, cut after `context_length` tokens.

    Raises ValueError for an empty text.
    """
    a_list(texts=texts)
    whole(1, context_length=context_length)
    rows = []
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"text {number} is empty ({text!r:.40}): there is nothing to classify")
        ids = [end_of_text(tokenizer), *encode_plain(tokenizer, text)]
        rows.append(ids[:context_length])
    return rows


def pad_texts(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of ids of different lengths → (rows, longest), PADDING behind the shorter ones."""
    rows = [torch.as_tensor(row) for row in rows]
    odd = [row for row in rows if row.numel() and row.is_floating_point()]
    require(not odd, f"a row of ids holds fractions: {odd[:1]}")
    rows = [row.long() for row in rows]
    return pad_sequence(rows, batch_first=True, padding_value=PADDING)


def pool(hidden: Tensor, real: Tensor, how: str) -> Tensor:
    """One vector per text: (batch, tokens, emb_dim), and which tokens are real → (batch, emb_dim).

    "last": of the last real token; "mean" and "max": over all real tokens.
    Raises ValueError for another name.
    """
    if how == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), real.sum(dim=1) - 1]
    if how == "mean":
        return (hidden * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
    if how == "max":
        return hidden.masked_fill(~real[..., None], -torch.inf).amax(dim=1)
    raise ValueError(f"no pooling {how!r}: choose last, mean or max")


class Classifier(nn.Module):
    """A GPT that gives a text a label: its body, and a head with one score per label.

    It takes the model over, whose own head is gone afterwards: give a deepcopy to keep it.
    """

    def __init__(self, model: GPTModel, labels: int = 2, pooling: str = "last") -> None:
        super().__init__()
        self.config, self.pooling = model.config, pooling
        model.head = nn.Identity()  # the body now returns what its head used to read
        self.body = model
        self.label_head = nn.Linear(model.config.emb_dim, labels)
        nn.init.normal_(self.label_head.weight, std=0.02)  # small: it begins without an opinion
        nn.init.zeros_(self.label_head.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens) ids, PADDING behind short texts → logits (batch, labels).

        Raises ValueError for padding anywhere else.
        """
        real = ids != PADDING
        hidden = self.body(ids.clamp(min=0))  # (batch, tokens, emb_dim)
        if not ids.is_meta and not torch.compiler.is_compiling():
            behind = real[:, :1].all() and (real[:, 1:] <= real[:, :-1]).all()
            require(behind, "padding must stand behind a text that has a token: see pad_texts")
        return self.label_head(pool(hidden, real, self.pooling))


def freeze(classifier: Classifier, learn: str = "all") -> Classifier:
    """Let "all" parameters learn, or only the "last block" with what follows, or the "head"."""
    one_of(("all", "last block", "head"), learn=learn)
    classifier.requires_grad_(learn == "all")
    if learn == "last block":
        classifier.body.blocks[-1].requires_grad_(True)
        classifier.body.final_norm.requires_grad_(True)
    classifier.label_head.requires_grad_(True)
    return classifier


@torch.no_grad()
def log_odds(classifier: Classifier, rows: Sequence[Sequence[int]], batch_size: int = 64) -> Tensor:
    """Log odds of class 1 against class 0, in nats, for each encoded text: (texts,)."""
    whole(1, batch_size=batch_size)
    device = classifier.label_head.weight.device
    result = torch.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))  # little padding
    with evaluating(classifier):
        for first in range(0, len(rows), batch_size):
            chosen = order[first : first + batch_size]
            scores = classifier(pad_texts([rows[number] for number in chosen]).to(device))
            result[chosen] = (scores[:, 1] - scores[:, 0]).float().cpu()
    require(not result.isnan().any(), "the classifier's scores are no numbers: load it again")
    return result
