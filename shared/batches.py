"""Texts and data sets: what is bundled, and how a network reads it (built in 01_text_data).

Notable: every loader checks what it reads and names the file, the place and the remedy.
NextTokenDataset slides a window over one long text; DocumentBatches starts every window at the
start of a document, so all that a tale must repeat later stands inside the window. Its batches
are a pure function of (seed, step): training resumes without saving any state of the data.
Real texts are fetched on first use: `fetch` and `CATALOGUE`, in downloads.py.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

IGNORED = -100  # a target that cross_entropy leaves out


# ---------------------------------------------------------------------------------------------
# Texts
# ---------------------------------------------------------------------------------------------


# ---------------------------------------------------------------------------------------------
# A window that slides over one long text
# ---------------------------------------------------------------------------------------------


# built in: 01_text_data/text_data.ipynb
class NextTokenDataset(Dataset):
    """Windows of `context_length` tokens; the target is the same window one token later."""

    def __init__(self, ids: list[int], context_length: int, stride: int):
        if context_length < 1 or stride < 1:
            raise ValueError(f"{context_length=} and {stride=} must both be at least 1")
        if len(ids) <= context_length:
            raise ValueError(
                f"the text has {len(ids)} tokens, but one window needs {context_length + 1}: "
                "take a longer text or a shorter context_length"
            )
        self.ids = torch.as_tensor(ids, dtype=torch.long)
        self.context_length = context_length
        self.starts = range(0, len(ids) - context_length, stride)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.starts[index]
        window = self.ids[start : start + self.context_length + 1]
        return window[:-1], window[1:]  # (context_length,), (context_length,)


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
    if isinstance(text_or_ids, str):
        if not text_or_ids:
            raise ValueError("the text is empty: a loader needs at least one window of text")
        if tokenizer is None:
            from shared.tokenizers import course_tokenizer  # here, as it imports this module

            tokenizer = course_tokenizer()
        ids = np.asarray(encode_plain(tokenizer, text_or_ids))
    else:
        ids = np.asarray(text_or_ids)
        _check_ids(ids, tokenizer)
    dataset = NextTokenDataset(ids, context_length, stride)
    if batch_size < 1 or (drop_last and len(dataset) < batch_size):
        raise ValueError(
            f"the text gives {len(dataset)} windows, which do not fill one batch of {batch_size=}: "
            "choose a batch size from 1 to that number, a smaller stride, or drop_last=False"
        )
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(dataset, batch_size, shuffle, drop_last=drop_last, generator=generator)


def encode_plain(tokenizer, text: str) -> list[int]:
    """Encode a text, `<|endoftext|>` in it as plain text, with a tokenizer of ours or tiktoken's.

    tiktoken's `encode` refuses such a text; its `encode_ordinary` does what ours do.
    """
    return getattr(tokenizer, "encode_ordinary", tokenizer.encode)(text)


def end_of_text(tokenizer) -> int:
    """The id of <|endoftext|>, in a tokenizer of ours or tiktoken's."""
    return tokenizer.eot_id if hasattr(tokenizer, "eot_id") else tokenizer.eot_token


def _vocab_size(tokenizer) -> int:
    return tokenizer.n_vocab if hasattr(tokenizer, "n_vocab") else tokenizer.vocab_size


def _check_ids(ids: np.ndarray, tokenizer=None) -> None:
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise ValueError(f"ids must be one row of integers, not {ids.dtype} of shape {ids.shape}")
    limit = np.inf if tokenizer is None else _vocab_size(tokenizer)
    outside = np.flatnonzero((ids < 0) | (ids >= limit))
    if len(outside):
        raise ValueError(
            f"token id {ids[outside[0]]} at position {outside[0]:,} is outside the vocabulary "
            f"(0 to {limit - 1}): were these ids made by another tokenizer?"
        )


# ---------------------------------------------------------------------------------------------
# The course's own data
# ---------------------------------------------------------------------------------------------


# ---------------------------------------------------------------------------------------------
# Documents for pretraining
# ---------------------------------------------------------------------------------------------


def encode_documents(documents: Sequence[str], tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Return (ids, starts): all documents in one array, each behind an <|endoftext|>, a last one at
    the end, and the positions of those that open a document: the model learns that a text begins
    after <|endoftext|>, so that alone is a prompt. ids are uint16 when the vocabulary fits, else
    int32.

    Raises ValueError without documents, or for an empty one.
    """
    if len(documents) == 0:
        raise ValueError("there are no documents to encode: give at least one")
    eot = end_of_text(tokenizer)
    dtype = np.uint16 if _vocab_size(tokenizer) <= 2**16 else np.int32
    pieces, starts, length = [], [], 0
    for number, document in enumerate(documents):
        if not document:
            raise ValueError(f"document {number} is empty: remove it, or give it a text")
        pieces.append(np.array([eot, *encode_plain(tokenizer, document)], dtype=dtype))
        starts.append(length)
        length += len(pieces[-1])
    pieces.append(np.array([eot], dtype=dtype))
    return np.concatenate(pieces), np.array(starts, dtype=np.int64)


@lru_cache(maxsize=8)  # of a long text a new order at every step would take longer than the step
def _order(count: int, *seed: int) -> np.ndarray:
    """A random order of `count` items, always the same for a seed."""
    return np.random.default_rng(seed).permutation(count)


def _dealt(places: np.ndarray, count: int, *seed: int) -> np.ndarray:
    """Which of `count` items stand at these places of an endless sequence.

    Every epoch holds each item once, in a new order that depends on nothing but seed and epoch.
    """
    epochs, places = np.divmod(places, count)
    items = np.empty_like(places)
    for epoch in np.unique(epochs):  # a batch may reach into a new epoch
        order = _order(count, *seed, int(epoch))
        items[epochs == epoch] = order[places[epochs == epoch]]
    return items


class DocumentBatches:
    """batches[step] -> (inputs, targets), each (batch_size, context_length) int64.

    Every window starts at a document and runs on into the next ones (the last into the first), so
    a model sees a tale from its beginning; of a document longer than the window, only the
    beginning. Every epoch visits each document once, in a new order. Step s is a pure function of
    (seed, s): there is no state to save, and a resumed run reads what it would have read.
    Raises ValueError where ids, starts and window do not fit together.
    """

    def __init__(
        self,
        ids: np.ndarray,
        starts: np.ndarray,
        context_length: int,
        batch_size: int,
        seed: int = 123,
    ):
        if context_length < 1 or batch_size < 1 or seed < 0:
            raise ValueError(
                f"{context_length=} and {batch_size=} must be at least 1, {seed=} at least 0"
            )
        if len(ids) <= context_length:
            raise ValueError(
                f"the documents have {len(ids)} tokens, but one window needs "
                f"{context_length + 1}: take more documents or a shorter context_length"
            )
        self.ids, self.starts = np.asarray(ids), np.asarray(starts, dtype=np.int64)
        if not len(self.starts) or self.starts.min() < 0 or self.starts.max() >= len(ids):
            raise ValueError(
                f"the starts must be positions from 0 to {len(ids) - 1}, at least one: "
                "take both arrays from one call of encode_documents"
            )
        self.context_length, self.batch_size, self.seed = context_length, batch_size, seed

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        if step < 0:
            raise IndexError(f"{step=}: steps count from 0")
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        starts = self.starts[_dealt(places, len(self.starts), self.seed)]  # (batch,)
        positions = starts[:, None] + np.arange(self.context_length + 1)  # (batch, tokens + 1)
        windows = torch.from_numpy(self.ids[positions % len(self.ids)].astype(np.int64))
        return windows[:, :-1], windows[:, 1:]


class Curriculum:
    """Batches of one corpus for the first `steps` steps, of another from then on."""

    def __init__(self, first: DocumentBatches, steps: int, then: DocumentBatches):
        self.first, self.steps, self.then = first, steps, then

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first[step] if step < self.steps else self.then[step - self.steps]


class Alternating:
    """Batches of several sources in turn: step 0 of the first, step 0 of the second, …"""

    def __init__(self, *sources):
        self.sources = sources

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        turn, source = divmod(step, len(self.sources))
        return self.sources[source][turn]


# ---------------------------------------------------------------------------------------------
# Messages and their labels
# ---------------------------------------------------------------------------------------------


# ---------------------------------------------------------------------------------------------
# Instructions: exchanges of a prompt and an answer
# ---------------------------------------------------------------------------------------------
