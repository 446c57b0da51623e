"""Texts and data sets: what is bundled, and how a network reads it (built in 01_text_data).

Notable: every loader checks what it reads and names the file, the place and the remedy.
NextTokenDataset slides a window over one long text; DocumentBatches starts every window at the
start of a document, so all that a tale must repeat later stands inside the window. Its batches
are a pure function of (seed, step): training resumes without saving any state of the data.
Real texts are fetched on first use: `fetch` and `CATALOGUE`, in downloads.py.
"""

import json
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from data.instructions import Entry, format_prompt
from data.world import world
from shared.downloads import (
    BUILD,
    CATALOGUE,
    DATA,
    ROOT,
    FetchError,
    Source,
    available,
    cache_dir,
    fetch,
    gutenberg_body,
)

__all__ = [
    "Alternating",
    "BUILD",
    "CATALOGUE",
    "DATA",
    "ROOT",
    "Curriculum",
    "DocumentBatches",
    "FetchError",
    "InstructionBatches",
    "NextTokenDataset",
    "Source",
    "available",
    "cache_dir",
    "collate",
    "create_dataloader",
    "encode_documents",
    "encode_exchange",
    "fetch",
    "gutenberg_body",
    "load_instructions",
    "load_messages",
    "load_tales",
    "load_text",
    "pretraining_documents",
    "rename",
]

TALES = {"train": "stories.txt", "val": "stories_val.txt"}
SPLITS = ("train", "val", "test")
MESSAGE_SPLITS = ("train", "unlabelled", "val", "test")
LABELS = ("ham", "spam")
IGNORED = -100  # a target that cross_entropy leaves out


# ---------------------------------------------------------------------------------------------
# Texts
# ---------------------------------------------------------------------------------------------


def load_text(name: str | Path) -> str:
    """Return a text: a file of data/, a name of the catalogue, or a path; LF, without BOM.

    Books of Project Gutenberg come as their body, without Gutenberg's header and licence.
    Raises ValueError for an empty or non-UTF-8 file, FileNotFoundError or FetchError without one.
    """
    if str(name) in CATALOGUE:
        return _read(fetch(str(name)))
    bundled = DATA / Path(name).name
    if str(name) == bundled.name and bundled.is_file():
        return _read(bundled)
    if Path(name).is_file():
        return _read(Path(name))
    texts = sorted(path.name for path in DATA.glob("*.txt"))
    raise FileNotFoundError(
        f"there is no text {str(name)!r}. Bundled: {', '.join(texts) or 'none found'}. "
        f"Fetched: {', '.join(CATALOGUE)}. Or give the path of a file of your own."
    )


def _read(path: Path) -> str:
    """Read a UTF-8 file; a missing, empty or damaged one is an error that says what to do."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing: `git checkout -- data` brings the course's files back, "
            "`python data/make.py` makes them anew"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: byte {error.object[error.start]:#04x} at position "
            f"{error.start:,}. Save the file as UTF-8, or restore it."
        ) from None
    if not text.strip():
        raise ValueError(f"{path} is empty: a text needs at least one character; restore the file")
    return text


def _one_of(value: str, allowed: Iterable[str], what: str) -> None:
    if value not in allowed:
        raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(allowed)}")


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
        ids = np.asarray(_encode(tokenizer, text_or_ids))
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


def _encode(tokenizer, text: str) -> list[int]:
    # tiktoken's `encode` refuses a text that spells a special token; its `encode_ordinary` reads
    # it as plain text, as the course's own tokenizers do.
    return getattr(tokenizer, "encode_ordinary", tokenizer.encode)(text)


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


def load_tales(split: str) -> list[str]:
    """Return the tales of "train" or "val", one string each."""
    _one_of(split, TALES, "split")
    return _lines(DATA / TALES[split])


def _lines(path: Path) -> list[str]:
    # Not splitlines(): that also splits at rarer characters, which a line of text may hold.
    return [line for line in _read(path).split("\n") if line.strip()]


def load_messages(split: str | None = None) -> pd.DataFrame:
    """Return the short messages (label "ham" or "spam", text, split), or one split of them.

    Pretraining reads the texts of "unlabelled" and "train"; whoever learns from the labels of
    "unlabelled" as well has 3.5 times the labels, and should say so.
    """
    path = DATA / "messages.csv"
    _read(path)
    try:
        # keep_default_na: a friend may text "null" or "NA", which pandas would read as missing.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} is not a valid CSV table ({error}): restore the file") from None
    for column in ("label", "text", "split"):
        if column not in table:
            raise ValueError(
                f"{path} has no column {column!r}, only {', '.join(table.columns)}: "
                "its first line must be label,text,split"
            )
    for column, allowed in (("label", LABELS), ("split", MESSAGE_SPLITS)):
        wrong = table.index[~table[column].isin(allowed)]
        if len(wrong):
            raise ValueError(
                f"{path}, message {wrong[0] + 1}: unknown {column} {table[column][wrong[0]]!r}; "
                f"it must be one of {', '.join(allowed)}"
            )
    blank = table.index[table["text"].str.strip() == ""]
    if len(blank):
        raise ValueError(f"{path}, message {blank[0] + 1} has an empty text: write it or remove it")
    if split is not None:
        _one_of(split, MESSAGE_SPLITS, "split")
        table = table[table["split"] == split].reset_index(drop=True)
    return table


def load_instructions(split: str | None = None) -> list[dict[str, str]]:
    """Return the instructions (instruction, input, output, task, split), or one split of them."""
    path = DATA / "instructions.json"
    try:
        entries = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}. "
            "Correct that line, or restore the file."
        ) from None
    if not isinstance(entries, list):
        raise ValueError(f"{path} holds a {type(entries).__name__}; it must be a list of entries")
    keys = ("instruction", "input", "output", "task", "split")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in keys):
            raise ValueError(
                f"{path}, entry {number}: needs the texts {', '.join(keys)}; found {entry!r:.200}"
            )
        if entry["split"] not in SPLITS:
            raise ValueError(
                f"{path}, entry {number}: unknown split {entry['split']!r}; "
                f"it must be one of {', '.join(SPLITS)}"
            )
    if split is not None:
        _one_of(split, SPLITS, "split")
        entries = [entry for entry in entries if entry["split"] == split]
    return entries


# ---------------------------------------------------------------------------------------------
# Documents for pretraining
# ---------------------------------------------------------------------------------------------


def pretraining_documents(split: str) -> list[str]:
    """Return the documents of "train" (tales, rhymes, facts and messages without labels,
    mixed in an order that is always the same), of "val" (the validation tales), or "rhymes"
    alone, which a training run may read first."""
    if split == "rhymes":
        return _lines(DATA / "rhymes.txt")
    documents = load_tales(split)
    if split == "train":
        documents += _lines(DATA / "rhymes.txt") + _lines(DATA / "facts.txt")
        for known in ("train", "unlabelled"):
            documents += load_messages(known)["text"].tolist()
        random.Random(123).shuffle(documents)
    return documents


def encode_documents(documents: Sequence[str], tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Return (ids, starts): all documents in one array, each behind an <|endoftext|>, a last one at
    the end, and the positions of those that open a document: the model learns that a text begins
    after <|endoftext|>, so that alone is a prompt. ids are uint16 when the vocabulary fits, else
    int32.

    Raises ValueError without documents, or for an empty one.
    """
    if len(documents) == 0:
        raise ValueError("there are no documents to encode: give at least one")
    eot = tokenizer.eot_id if hasattr(tokenizer, "eot_id") else tokenizer.eot_token
    dtype = np.uint16 if _vocab_size(tokenizer) <= 2**16 else np.int32
    pieces, starts, length = [], [], 0
    for number, document in enumerate(documents):
        if not document:
            raise ValueError(f"document {number} is empty: remove it, or give it a text")
        pieces.append(np.array([eot] + _encode(tokenizer, document), dtype=dtype))
        starts.append(length)
        length += len(pieces[-1])
    pieces.append(np.array([eot], dtype=dtype))
    return np.concatenate(pieces), np.array(starts, dtype=np.int64)


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
        epochs, places = np.divmod(places, len(self.starts))  # a batch may reach into a new epoch
        starts = np.empty_like(places)  # (batch,)
        for epoch in np.unique(epochs):
            order = np.random.default_rng((self.seed, epoch)).permutation(self.starts)
            starts[epochs == epoch] = order[places[epochs == epoch]]
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
# Instructions: exchanges of a prompt and an answer
# ---------------------------------------------------------------------------------------------


# built in: 06_finetune_instructions/instructions.ipynb
def encode_exchange(entry: Entry, tokenizer) -> tuple[list[int], list[int]]:
    """Ids of an entry's prompt, and of its answer with <|endoftext|> at the end.

    Raises ValueError for an entry without an instruction or an output.
    """
    for key in ("instruction", "output"):
        if not (entry.get(key) or "").strip():
            raise ValueError(f"an entry has no {key}: write one, or leave it out: {entry!r:.200}")
    answer = [*tokenizer.encode(entry["output"]), tokenizer.eot_id]
    return tokenizer.encode(format_prompt(entry)), answer


# built in: 06_finetune_instructions/instructions.ipynb
def collate(rows: list, eot_id: int, mask_prompts: bool = True) -> tuple:
    """Rows of (prompt, answer) pairs → inputs and targets, each (rows, longest - 1) int64.

    A row is <|endoftext|>, prompt, answer, prompt, answer, …; targets are the inputs one token
    later. Padding, and the prompts where `mask_prompts`, are IGNORED as targets.
    """
    inputs, targets = [], []
    for exchanges in rows:
        ids, learn = [eot_id], [False]
        for prompt, answer in exchanges:
            ids += prompt + answer
            learn += [not mask_prompts] * len(prompt) + [True] * len(answer)
        ids, learn = torch.tensor(ids), torch.tensor(learn)
        inputs.append(ids[:-1])
        targets.append(ids[1:].masked_fill(~learn[1:], IGNORED))
    inputs = pad_sequence(inputs, batch_first=True, padding_value=eot_id)
    return inputs, pad_sequence(targets, batch_first=True, padding_value=IGNORED)


# built in: 06_finetune_instructions/instructions.ipynb
def rename(entry: Entry, rng: random.Random) -> Entry:
    """The entry with the names of the valley dealt anew; what is asked does not depend on them.

    He stays he and she stays she, so that pronouns stay right.
    """
    names, dealt = world().kinds["name"], {}
    for pronoun in ("he", "she"):
        group = [name["name"] for name in names if name["he"] == pronoun]
        dealt |= zip(group, rng.sample(group, len(group)), strict=True)
    known = re.compile(rf"\b({'|'.join(dealt)})\b")
    texts = {key: entry.get(key, "") for key in ("instruction", "input", "output")}
    return entry | {key: known.sub(lambda m: dealt[m[0]], text) for key, text in texts.items()}


class InstructionBatches:
    """batches[step] -> (inputs, targets): `batch_size` exchanges, one to `max_turns` in a row.

    Every epoch visits each entry once, in a new order and with new names; an entry that would
    become one of `held_out`, or too long, keeps its names. Step s is a function of (seed, s).
    Raises ValueError for an entry that cannot be encoded or does not fit into the context.
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
        seed: int = 123,
    ):
        if not entries:
            raise ValueError("there are no instructions to learn: give at least one")
        self.entries, self.tokenizer, self.batch_size = list(entries), tokenizer, batch_size
        self.context_length, self.max_turns = context_length, max_turns
        self.mask_prompts, self.seed = mask_prompts, seed
        self.held_out = {(entry["instruction"], entry.get("input", "")) for entry in held_out}
        for entry in self.entries:
            tokens = sum(map(len, encode_exchange(entry, tokenizer)))
            if tokens > context_length:
                raise ValueError(
                    f"an entry has {tokens} tokens, the context {context_length}: shorten it or "
                    f"leave it out: {entry!r:.200}"
                )

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng, rows, turns = random.Random(f"{self.seed} {step}"), [], 0
        for place in range(step * self.batch_size, (step + 1) * self.batch_size):
            exchange = self._exchange(place, rng)
            used = sum(len(ids) for pair in rows[-1] for ids in pair) if rows else 0
            if turns and used + sum(map(len, exchange)) <= self.context_length:
                rows[-1].append(exchange)
            else:
                rows.append([exchange])
                turns = rng.randint(1, self.max_turns)
            turns -= 1
        return collate(rows, self.tokenizer.eot_id, self.mask_prompts)

    def _exchange(self, place: int, rng: random.Random) -> tuple[list[int], list[int]]:
        epoch, place = divmod(place, len(self.entries))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.entries))
        entry = self.entries[order[place]]
        renamed = rename(entry, rng)
        exchange = encode_exchange(renamed, self.tokenizer)
        taken = (renamed["instruction"], renamed["input"]) in self.held_out
        if taken or sum(map(len, exchange)) > self.context_length:  # new names may be longer
            return encode_exchange(entry, self.tokenizer)
        return exchange
