"""The course's own texts and data sets, and the real ones it fetches."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from shared.classroom.errors import all_different, one_of
from shared.classroom.fetch import CATALOGUE, fetch
from shared.classroom.files import DATA

# built in 05_finetune_classification/real_messages.ipynb: balance
# built in 05_finetune_classification/spam_classifier.ipynb: split_table

TALES = {"train": "stories.txt", "val": "stories_val.txt"}
SPLITS = ("train", "val", "test")
MESSAGE_SPLITS = ("train", "unlabelled", "val", "test")
LABELS = ("ham", "spam")


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
    remedy = "Save the file as UTF-8, or restore it."
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
            f"{error.start:,}. {remedy}"
        ) from None
    if "\0" in text:  # UTF-16 without its mark, or no text at all
        raise ValueError(f"{path} is not UTF-8 text: it holds zero bytes, as UTF-16 does. {remedy}")
    if not text.strip():
        raise ValueError(f"{path} is empty: a text needs at least one character; restore the file")
    return text


def load_tales(split: str) -> list[str]:
    """Return the tales of "train" or "val", one string each."""
    one_of(TALES, split=split)
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
    csv.field_size_limit(2**27)
    try:
        header, *rows = filter(None, csv.reader(io.StringIO(_read(path)), strict=True))
    except csv.Error as error:
        raise ValueError(f"{path} is not a valid CSV table ({error}): restore the file") from None
    while header[-1] == "":
        header.pop()
    all_different(columns=header)
    size = len(header)
    for number, row in enumerate(rows, start=1):
        if any(row[size:]):  # empty ones are the comma that Excel leaves at the end of a line
            raise ValueError(
                f"{path} is not a valid CSV table: message {number} has {len(row)} fields, the "
                f"first line {size}; put a text with a comma between quotation marks"
            )
    table = pd.DataFrame([(row + [""] * size)[:size] for row in rows], columns=header, dtype=str)
    for column in ("label", "text", "split"):
        if column not in table:
            raise ValueError(
                f"{path} has no column {column!r}, only {', '.join(table.columns)}: "
                "its first line must be label,text,split"
            )
    _check_messages(table, path, {"label": LABELS, "split": MESSAGE_SPLITS})
    if split is not None:
        one_of(MESSAGE_SPLITS, split=split)
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
    broken = table.index[table["text"].str.contains("\n", regex=False)]
    if len(broken):
        raise ValueError(
            f"{path}, message {broken[0] + 1} runs over several lines: close the quotation mark "
            f"before {table['text'][broken[0]]!r:.60}"
        )
    blank = table.index[table["text"].str.strip() == ""]
    if len(blank):
        raise ValueError(f"{path}, message {blank[0] + 1} has an empty text: write it or remove it")


def load_instructions(split: str | None = None) -> list[dict[str, str]]:
    """Return the instructions (instruction, input, output, task, split, wording), or one split."""
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
    keys = ("instruction", "input", "output", "task", "split", "wording")
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
        one_of(SPLITS, split=split)
        entries = [entry for entry in entries if entry["split"] == split]
    return entries


def pretraining_documents(split: str) -> list[str]:
    """Return the documents of "train" (tales, rhymes, facts, school, messages without labels,
    mixed in an order that is always the same), of "val" (the validation tales), or "rhymes"
    alone, which a training run may read first."""
    if split == "rhymes":
        return _lines(DATA / "rhymes.txt")
    documents = load_tales(split)
    if split == "train":
        for name in ("rhymes", "facts", "school"):
            documents += _lines(DATA / f"{name}.txt")
        for known in ("train", "unlabelled"):
            documents += load_messages(known)["text"].tolist()
        random.Random(123).shuffle(documents)
    return documents


def balance(table: pd.DataFrame, seed: int = 123) -> pd.DataFrame:
    """As many messages of every label as the rarest has, in a random order."""
    rarest = table["label"].value_counts().min()
    chosen = table.groupby("label").sample(rarest, random_state=seed)
    return chosen.sample(frac=1, random_state=seed)


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
