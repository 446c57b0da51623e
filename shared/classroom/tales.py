"""What the tales let us measure: the floor under the loss, and what a model recalls.

Notable: the grammar knows the exact probability of every tale, so the lowest reachable loss is a
number, not a hope: for a reader told that a tale begins, and for one who has to find that out.
Where a tale must repeat a name, an object or a colour, a reader who looks back is certain and a
reader who does not can only guess: that is recall accuracy.
"""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.instructions import LONGEST_TALE, Entry, is_right, topics
from data.world import Reading, explain, world
from shared.classroom.errors import a_list, require, whole
from shared.classroom.machine import evaluating

# built in 06_finetune_instructions/instructions.ipynb: rename, cast, retell


class MarkedTale(NamedTuple):
    """A tale between two <|endoftext|>, and where its tokens stand.

    ids      (tokens + 2,) int64: <|endoftext|>, the tale, <|endoftext|>
    ends     ends[i] is the number of characters before target token i, the last one added
    recalls  (kind, positions): target positions of a mention that is certain for a good reader
    """

    ids: Tensor
    ends: list[int]
    recalls: list[tuple[str, range]]
    reading: Reading


def mark(tale: str, tokenizer) -> MarkedTale:
    """Tokenize a tale and find its recall positions; target i is what must follow ids[: i + 1].

    Raises ValueError for a text that the grammar cannot tell: it has no floor.
    """
    reading = explain(tale)
    if not reading.ways:
        known = reading.log_mass().index(-math.inf) - 1
        raise ValueError(
            f"the grammar tells no such tale, it would go on otherwise (or end otherwise) after "
            f"{tale[:known][-30:]!r}: give a whole tale of the valley"
        )
    tokens = tokenizer.encode(tale)
    ends = [0, *accumulate(len(tokenizer.decode([token])) for token in tokens)]
    # A token belongs to a mention when they share a character; the space before may be part of it.
    recalls = [
        (
            mention.kind,
            range(
                next(i for i, end in enumerate(ends[1:]) if end > mention.start),
                next(i for i, end in enumerate(ends) if end >= mention.end),
            ),
        )
        for mention in reading.recalls()
    ]
    ids = torch.tensor([tokenizer.eot_id, *tokens, tokenizer.eot_id])
    return MarkedTale(ids, ends, recalls, reading)


def floor_nats(tale: MarkedTale) -> Tensor:
    """(targets,) nats that each target token costs a reader who knows the grammar by heart."""
    log_mass = tale.reading.log_mass()
    before = [log_mass[end] for end in tale.ends]
    return torch.tensor(before) - torch.tensor([*before[1:], log_mass[-1]])


class TaleTest:
    """A set of tales as a test: `test(model)` measures loss and recall in one pass over them."""

    def __init__(self, tales: Sequence[str], tokenizer, batch_size: int = 16) -> None:
        a_list(tales=tales)
        whole(1, batch_size=batch_size)
        tales = list(tales)
        if not tales:
            raise ValueError("there are no tales to test with: give at least one")
        # Tales of similar length share a batch, so little is computed for padding.
        self.tales = sorted((mark(tale, tokenizer) for tale in tales), key=lambda t: len(t.ids))
        self.batch_size = batch_size
        self.tokens = sum(len(tale.ids) - 1 for tale in self.tales)
        nats = -sum(tale.reading.log_prob for tale in self.tales)
        self.floor = nats / self.tokens  # nats per token, the end of the tale included

    def mixture_floor(self, share: float) -> float:
        """Nats per token of an ideal reader who is not told that a tale begins.

        `share` of the documents that the reader expects are tales, and no document of another kind
        is ever a tale. Then P(text) = share · P(text | a tale), so a whole tale costs −log share
        nats more, however they spread over its first tokens. Raises ValueError for a share outside
        (0, 1].
        """
        require(0 < share <= 1, f"share is {share}; it must lie above 0, and at most be 1")
        return self.floor - math.log(share) * len(self.tales) / self.tokens

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """{"val_loss": nats per token, kind: share of its mentions recalled, …}.

        A mention counts as recalled when every one of its tokens is the model's first choice.
        """
        nats, hits = 0.0, defaultdict(list)
        for tale, log_probs in self.predictions(model):
            targets = tale.ids[1:]
            nats -= log_probs.gather(1, targets[:, None]).sum().item()
            right = log_probs.argmax(dim=1) == targets
            for kind, positions in tale.recalls:
                hits[kind].append(bool(right[list(positions)].all()))
        recall = {kind: sum(hits[kind]) / len(hits[kind]) for kind in sorted(hits)}
        return {"val_loss": nats / self.tokens, **recall}

    @torch.no_grad()
    def predictions(self, model: nn.Module):
        """Yield every tale with the log-probabilities (targets, vocab) that the model gave."""
        device = next(model.parameters()).device
        for start in range(0, len(self.tales), self.batch_size):
            batch = self.tales[start : start + self.batch_size]
            ids = nn.utils.rnn.pad_sequence([tale.ids[:-1] for tale in batch], batch_first=True)
            # Padding follows each tale, and attention only looks back: it changes nothing.
            with evaluating(model):
                log_probs = model(ids.to(device)).float().log_softmax(dim=-1).cpu()
            for tale, rows in zip(batch, log_probs, strict=True):
                yield tale, rows[: len(tale.ids) - 1]


def rename(entry: Entry, rng: random.Random) -> Entry:
    """The entry with the names of the valley dealt anew; what is asked does not depend on them.

    He stays he and she stays she, so that pronouns stay right.
    """
    names, dealt = world().kinds["name"], {}
    for pronoun in ("he", "she"):
        group = [name["name"] for name in names if name["he"] == pronoun]
        dealt |= zip(group, rng.sample(group, len(group)), strict=True)
    known = re.compile(rf"\b({'|'.join(dealt)})\b")
    texts = {key: entry.get(key) or "" for key in ("instruction", "input", "output")}
    return entry | {key: known.sub(lambda m: dealt[m[0]], text) for key, text in texts.items()}


def cast(about: Mapping[str, str], rng: random.Random) -> dict[str, str]:
    """A value for every slot of the grammar: slots of one kind draw from shares of their own.

    Of every kind's list of values, n slots own each n-th one; the first slot, which `about` may
    fill with any value, decides whose share is whose. So no two slots can have the same.
    """
    chosen = {}
    for kind, entries in world().kinds.items():
        slots = world().slots_of(kind)
        values = [entry[kind] for entry in entries]
        share = values.index(about[slots[0]]) if slots[0] in about else 0
        for number, slot in enumerate(slots):
            own = values[(share + number) % len(slots) :: len(slots)]
            chosen[slot] = about.get(slot) or rng.choice(own)
    return chosen


def retell(entry: Entry, rng: random.Random) -> Entry:
    """A request for a tale, answered by another tale, whose parts `cast` has chosen."""
    about = {}
    for topic in topics(entry["instruction"]):
        kind = next(k for k in world().kinds if topic in (e[k] for e in world().kinds[k]))
        about[world().slots_of(kind)[0]] = topic
    while True:
        told = entry | {"output": world().tell(rng, about=cast(about, rng))}
        if len(told["output"]) <= LONGEST_TALE and is_right(told, told["output"]):
            return told
