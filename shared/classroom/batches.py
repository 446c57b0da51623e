"""Batches of the course's data sets, each a function of a seed and the step alone.

Notable: nothing about the data has to be saved to go on with a run. DocumentBatches starts every
window at the start of a document, so that all that a tale must repeat stands inside the window;
MessageBatches gives every class an equal share; InstructionBatches puts several exchanges in a row;
ChatBatches writes one as a published model has it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.instructions import Entry
from shared.chat import ChatML
from shared.classification import pad_texts
from shared.classroom.errors import a_list, check_id, classes, must_divide, require, whole
from shared.classroom.tales import rename
from shared.instructions import collate, encode_exchange
from shared.texts import NextTokenDataset, encode_plain, end_of_text, size_of
from shared.tokenizers import course_tokenizer
from shared.training import Batches

# built in 04_pretraining/pretraining.ipynb: Curriculum

Exchange = tuple[list[int], list[int]]  # ids of a prompt, and of its answer


def create_dataloader(
    text_or_ids: str | Sequence[int],
    tokenizer=None,
    batch_size: int = 4,
    context_length: int = 256,
    stride: int = 128,
    shuffle: bool = True,
    drop_last: bool = True,
    seed: int = 123,
) -> DataLoader:
    """Return a loader of (inputs, targets), each (batch_size, context_length) int64.

    A text is encoded by `tokenizer` (the course's own when None); `<|endoftext|>` in it is plain
    text. Raises ValueError for an empty text, a text shorter than one window, ids outside the
    vocabulary, and when `drop_last` would leave not a single batch.
    """
    ids = text_or_ids
    if isinstance(ids, str):
        require(ids != "", "the text is empty: a loader needs at least one window of text")
        ids = encode_plain(tokenizer or course_tokenizer(), ids)
    ids = np.asarray(ids)
    row = ids.ndim == 1 and ids.dtype.kind in "iu"
    require(row, f"ids must be one row of integers, not {ids.dtype} of shape {ids.shape}")
    for id in (ids.min(), ids.max()) if len(ids) else ():
        check_id(id, np.iinfo(np.int64).max if tokenizer is None else size_of(tokenizer))
    dataset = NextTokenDataset(ids, context_length, stride)
    if batch_size < 1 or (drop_last and len(dataset) < batch_size):
        raise ValueError(
            f"the text gives {len(dataset)} windows, which do not fill one batch of {batch_size=}: "
            "choose a batch size from 1 to that number, a smaller stride, or drop_last=False"
        )
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(dataset, batch_size, shuffle, drop_last=drop_last, generator=generator)


def encode_documents(documents: Sequence[str], tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """All documents in one array of ids, and the positions where a document begins: (ids, starts).

    Each stands behind an <|endoftext|>, which alone is therefore a prompt; one more ends the array.
    ids are uint16 when the vocabulary fits, else int32. Raises ValueError without documents, or for
    an empty one.
    """
    a_list(documents=documents)
    documents = list(documents)
    require(len(documents) > 0, "there are no documents to encode: give at least one")
    if empty := [number for number, document in enumerate(documents) if not document]:
        raise ValueError(f"document {empty[0]} is empty: remove it, or give it a text")
    eot, dtype = end_of_text(tokenizer), np.uint16 if size_of(tokenizer) <= 2**16 else np.int32
    pieces = [np.array([eot, *encode_plain(tokenizer, text)], dtype=dtype) for text in documents]
    starts = np.cumsum([0, *map(len, pieces[:-1])], dtype=np.int64)
    return np.concatenate([*pieces, np.array([eot], dtype=dtype)]), starts


@lru_cache(maxsize=8)  # of a long text a new order at every step would take longer than the step
def _order(count: int, *seed: int) -> np.ndarray:
    """A random order of `count` items, always the same for a seed."""
    return np.random.default_rng(seed).permutation(count)


def dealt(step: int, batch_size: int, count: int, *seed: int) -> np.ndarray:
    """Which of `count` items a step reads, (batch_size,), when batches take them in turn.

    Every epoch holds each item once, in a new order that depends on nothing but seed and epoch.
    """
    if step < 0:
        raise IndexError(f"{step=}: steps count from 0")
    epochs, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), count)
    items = np.empty_like(places)
    for epoch in np.unique(epochs):  # a batch may reach into a new epoch
        order = _order(count, *seed, int(epoch))
        items[epochs == epoch] = order[places[epochs == epoch]]
    return items


class DocumentBatches:
    """batches[step] -> (inputs, targets), each (batch_size, context_length) int64.

    Every window starts at a document and runs on into the next ones (the last into the first); of
    a document longer than the window, only the beginning is seen. Every epoch visits each document
    once, in a new order. Raises ValueError where ids, starts and window do not fit together.
    """

    def __init__(
        self,
        ids: np.ndarray,
        starts: np.ndarray,
        context_length: int,
        batch_size: int,
        seed: int = 123,
    ) -> None:
        whole(1, context_length=context_length, batch_size=batch_size)
        whole(0, seed=seed)
        self.ids, self.starts = np.asarray(ids), np.asarray(starts)
        for name, row in {"ids": self.ids, "starts": self.starts}.items():
            fine = row.ndim == 1 and (row.dtype.kind in "iu" or not len(row))
            require(fine, f"{name} have shape {row.shape} of {row.dtype}: give one row of integers")
        if len(ids) <= context_length:
            raise ValueError(
                f"the documents have {len(ids)} tokens, but one window needs "
                f"{context_length + 1}: take more documents or a shorter context_length"
            )
        fine = len(self.starts) and self.starts.min() >= 0 and self.starts.max() < len(ids)
        require(fine, "starts must be positions in ids: take both from one encode_documents")
        self.starts = self.starts.astype(np.int64)
        self.context_length, self.batch_size, self.seed = context_length, batch_size, seed

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        starts = self.starts[dealt(step, self.batch_size, len(self.starts), self.seed)]
        positions = starts[:, None] + np.arange(self.context_length + 1)  # (batch, tokens + 1)
        windows = torch.from_numpy(self.ids[positions % len(self.ids)].astype(np.int64))
        return windows[:, :-1], windows[:, 1:]


class Curriculum:
    """Batches of one corpus for the first `steps` steps, of another from then on."""

    def __init__(self, first: Batches, steps: int, then: Batches) -> None:
        self.first, self.steps, self.then = first, steps, then

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        return self.first[step] if step < self.steps else self.then[step - self.steps]


class MessageBatches:
    """batches[step] -> (ids, labels): (batch_size, longest) with PADDING, and (batch_size,).

    `rows` holds the encoded texts, one list of ids each, and `labels` their classes, 0 and up.
    With `balanced`, every class has an equal share of each batch; else texts come as often as they
    are. An epoch shows each text (of a class) once, in a new order. Raises ValueError for a class
    without a text, for an empty text, and for a batch that cannot be shared equally.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        labels: Sequence[int],
        batch_size: int,
        balanced: bool = True,
        seed: int = 123,
    ) -> None:
        self.rows, self.labels = list(rows), classes(labels=labels)
        self.batch_size, self.seed = batch_size, seed
        same = len(self.rows) == len(self.labels) > 0
        require(same, f"{len(self.rows)} texts and {len(self.labels)} labels: give as many of both")
        if empty := [number for number, row in enumerate(self.rows) if not len(row)]:
            raise ValueError(f"text {empty[0]} has no tokens: leave it out, or give it a text")
        counts = np.bincount(self.labels, minlength=2)
        if missing := np.flatnonzero(counts == 0).tolist():
            raise ValueError(f"class {missing[0]} has no example: nothing can be learned about it")
        groups = self.labels if balanced else np.zeros(len(self.labels))
        self.groups = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        whole(1, batch_size=batch_size)
        must_divide(batch_size=batch_size, classes=len(self.groups))

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        share = self.batch_size // len(self.groups)
        chosen = np.concatenate(
            [
                group[dealt(step, share, len(group), self.seed, number)]
                for number, group in enumerate(self.groups)
            ]
        )
        ids = pad_texts([self.rows[number] for number in chosen])
        return ids, torch.from_numpy(self.labels[chosen].astype(np.int64))


def _asked(entry: Entry) -> tuple[str, str]:
    return entry["instruction"], entry.get("input") or ""


class InstructionBatches:
    """batches[step] -> (inputs, targets): `batch_size` exchanges, one to `max_turns` in a row.

    Every epoch visits each entry once, in a new order and, with `renaming`, with new names; an
    entry that would become one of `held_out`, or too long, keeps its names. Raises ValueError
    for an entry that cannot be encoded or does not fit into the context.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        tokenizer,
        batch_size: int,
        context_length: int,
        held_out: Sequence[Entry] = (),
        mask_prompts: bool = True,
        max_turns: int = 3,
        renaming: bool = True,
        seed: int = 123,
    ) -> None:
        a_list(entries=entries)
        whole(1, batch_size=batch_size, max_turns=max_turns)
        self.entries, self.tokenizer, self.batch_size = list(entries), tokenizer, batch_size
        require(len(self.entries) > 0, "there are no instructions to learn: give at least one")
        self.context_length, self.max_turns = context_length, max_turns
        self.mask_prompts, self.renaming, self.seed = mask_prompts, renaming, seed
        a_list(held_out=held_out)
        self.held_out = {_asked(entry) for entry in held_out}
        for entry in self.entries:
            tokens = sum(map(len, self._encode(entry)))
            require(
                tokens <= context_length,
                f"an entry has {tokens} tokens, the context {context_length}: "
                f"shorten {entry!r:.200}",
            )

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng, rows, turns = random.Random(f"{self.seed} {step}"), [], 0
        for exchange in self._exchanges(step, rng):
            used = sum(len(ids) for pair in rows[-1] for ids in pair) if rows else 0
            if turns and used + sum(map(len, exchange)) <= self.context_length:
                rows[-1].append(exchange)
            else:
                rows.append([exchange])
                turns = rng.randint(1, self.max_turns)
            turns -= 1
        return collate(rows, self.tokenizer.eot_id, self.mask_prompts)

    def _exchanges(self, step: int, rng: random.Random) -> Iterator[Exchange]:
        """The exchanges of a step, one by one: between two of them the caller may draw, too."""
        for number in dealt(step, self.batch_size, len(self.entries), self.seed):
            entry = self.entries[number]
            renamed = rename(entry, rng) if self.renaming else entry
            exchange = self._encode(renamed)
            # New names may make it longer.
            if _asked(renamed) in self.held_out or sum(map(len, exchange)) > self.context_length:
                exchange = self._encode(entry)
            yield exchange

    def _encode(self, entry: Entry) -> Exchange:
        return encode_exchange(entry, self.tokenizer)


class ChatBatches(InstructionBatches):
    """batches[step] -> (inputs, targets): InstructionBatches in ChatML, one exchange in a row.

    `form` brings the tokenizer, the context and the system's words; nobody has talked with it yet.
    Raises ValueError as InstructionBatches does, and for a form that has been used.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        form: ChatML,
        batch_size: int,
        renaming: bool = True,
        seed: int = 123,
        held_out: Sequence[Entry] = (),
    ) -> None:
        require(not form.exchanges, "the form has been talked with: give a new one")
        self.form, context = form, form.model.config.context_length
        super().__init__(
            entries, form.tokenizer, batch_size, context, held_out, renaming=renaming, seed=seed
        )

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = random.Random(f"{self.seed} {step}")
        rows = [[exchange] for exchange in self._exchanges(step, rng)]
        inputs, targets = collate(rows, self.form.end)
        return inputs[:, 1:], targets[:, 1:]  # ChatML opens with no <|endoftext|>

    def _encode(self, entry: Entry) -> Exchange:
        said = (entry.get("output") or "").strip()
        require(said != "", f"an entry has no output: write one, or leave it out: {entry!r:.200}")
        answer = [*encode_plain(self.tokenizer, entry["output"]), self.form.end]
        return self.form.prompt(*_asked(entry)), answer
