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
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
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
    "MessageBatches",
    "NextTokenDataset",
    "Source",
    "available",
    "balance",
    "cache_dir",
    "collate",
    "create_dataloader",
    "encode_documents",
    "encode_exchange",
    "encode_plain",
    "end_of_text",
    "fetch",
    "gutenberg_body",
    "load_instructions",
    "load_messages",
    "load_sms",
    "load_tales",
    "load_text",
    "pad_texts",
    "pretraining_documents",
    "rename",
    "split_table",
]

TALES = {"train": "stories.txt", "val": "stories_val.txt"}
SPLITS = ("train", "val", "test")
MESSAGE_SPLITS = ("train", "unlabelled", "val", "test")
LABELS = ("ham", "spam")
IGNORED = -100  # a target that cross_entropy leaves out
PADDING = -1  # stands behind a short text in a batch; no token has this id


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
    _check_messages(table, path, {"label": LABELS, "split": MESSAGE_SPLITS})
    if split is not None:
        _one_of(split, MESSAGE_SPLITS, "split")
        table = table[table["split"] == split].reset_index(drop=True)
    return table


def load_sms() -> pd.DataFrame:
    """Return the UCI SMS Spam Collection (label, text), real messages; fetched on first use.

    Each text once (spaces at its ends do not count): some occur many times, and one that is in
    training and test alike would be remembered, not recognised. Raises FetchError where the file
    cannot be had.
    """
    path = fetch("SMSSpamCollection.tsv")
    rows = [line.partition("\t")[::2] for line in _lines(path)]  # quotation marks stay as they are
    table = pd.DataFrame(rows, columns=["label", "text"])
    _check_messages(table, path, {"label": LABELS})
    table["text"] = table["text"].str.strip()
    return table.drop_duplicates("text", ignore_index=True)


def _check_messages(table: pd.DataFrame, path: Path, allowed: Mapping[str, Sequence]) -> None:
    for column, values in allowed.items():
        wrong = table.index[~table[column].isin(values)]
        if len(wrong):
            raise ValueError(
                f"{path}, message {wrong[0] + 1}: unknown {column} {table[column][wrong[0]]!r}; "
                f"it must be one of {', '.join(values)}"
            )
    blank = table.index[table["text"].str.strip() == ""]
    if len(blank):
        raise ValueError(f"{path}, message {blank[0] + 1} has an empty text: write it or remove it")


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


# built in: 05_finetune_classification/spam_classifier.ipynb
def pad_texts(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of ids of different lengths → (rows, longest), PADDING behind the shorter ones."""
    rows = [torch.tensor(row) for row in rows]
    return pad_sequence(rows, batch_first=True, padding_value=PADDING)


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

    Every epoch visits each entry once, in a new order and, with `renaming`, with new names; an
    entry that would become one of `held_out`, or too long, keeps its names. Step s is a function
    of (seed, s).
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
        renaming: bool = True,
        seed: int = 123,
    ):
        if not entries:
            raise ValueError("there are no instructions to learn: give at least one")
        self.entries, self.tokenizer, self.batch_size = list(entries), tokenizer, batch_size
        self.context_length, self.max_turns = context_length, max_turns
        self.mask_prompts, self.renaming, self.seed = mask_prompts, renaming, seed
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
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        for number in _dealt(places, len(self.entries), self.seed):
            exchange = self._exchange(self.entries[number], rng)
            used = sum(len(ids) for pair in rows[-1] for ids in pair) if rows else 0
            if turns and used + sum(map(len, exchange)) <= self.context_length:
                rows[-1].append(exchange)
            else:
                rows.append([exchange])
                turns = rng.randint(1, self.max_turns)
            turns -= 1
        return collate(rows, self.tokenizer.eot_id, self.mask_prompts)

    def _exchange(self, entry: Entry, rng: random.Random) -> tuple[list[int], list[int]]:
        renamed = rename(entry, rng) if self.renaming else entry
        exchange = encode_exchange(renamed, self.tokenizer)
        taken = (renamed["instruction"], renamed.get("input", "")) in self.held_out
        if taken or sum(map(len, exchange)) > self.context_length:  # new names may be longer
            return encode_exchange(entry, self.tokenizer)
        return exchange
