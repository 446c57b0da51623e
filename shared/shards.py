"""Token shards: a corpus of any size as files of token ids, and batches read from them.

Notable: documents stream through, so memory does not grow with the corpus. Every n-th document is
for validation and lies in a file of its own, so no window crosses that border. A shard counts from
the moment the index names it, and the index is written last: a run that was cut off goes on behind
its last whole shard. Ids are 16-bit, so a vocabulary has at most 65,536 tokens.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import gzip
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import signal
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.classroom.errors import a_list, at_least, require, whole
from shared.classroom.files import must_take_a_file, remove_left_overs, write_atomically
from shared.tokenizers import END_OF_TEXT

# built in 04_pretraining/web_scale.ipynb: split_stream, in_chunks, encode_parallel, write_shard,
#   ShardBatches, open_shard

if TYPE_CHECKING:  # worker processes only encode; they start faster without PyTorch
    import tiktoken
    from torch import Tensor

INDEX = "index.json"
SPLITS = ("train", "val")
CHUNK = 2**20  # bytes read at once, and characters sent to a worker at once
JSON_LINES = re.compile(r"\.(json|jsonl|jsonlines|jl|ndjson|ldjson)(\.txt)?(\.gz)?$")
LIMIT = 2**26  # bytes of a document: above that, the mark between documents is surely another
ID = np.dtype("<u2")  # little-endian on every machine


# -- documents --------------------------------------------------------------------------------


def split_stream(chunks: Iterable[bytes], separator: bytes) -> Iterator[bytes]:
    """Cut a stream of bytes at a separator that may lie across two chunks; no empty pieces."""
    rest = b""
    for chunk in chunks:
        pieces = (rest + chunk).split(separator)
        rest = pieces.pop()  # the last piece may go on in the next chunk
        for piece in pieces:
            if piece.strip():
                yield piece
        if len(rest) > LIMIT:
            raise ValueError(f"{len(rest):,} bytes without {separator}: what divides documents?")
    if rest.strip():
        yield rest


def _read(path: Path, read: Callable[[], bytes]) -> Iterator[bytes]:
    """What `read` gives until it gives nothing, without a BOM.

    Raises ValueError, with the path, for a damaged gzip file, and for one that is no text.
    """
    try:
        first = read()
        marks = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
        if b"\0" in first[:8000] or first.startswith(marks):  # git's own rule
            raise ValueError(f"{path} holds zero bytes, so it is no text in UTF-8: save it as that")
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from iter(read, b"")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): get it again") from error


def _unix(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes with line ends as Unix writes them."""
    held = b""
    for chunk in chunks:
        if not held and b"\r" not in chunk:
            yield chunk
            continue
        data = held + chunk
        held = b"\r" if data.endswith(b"\r") else b""  # its \n may begin the next chunk
        yield data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    yield held.replace(b"\r", b"\n")


class Documents:
    """The documents of text files and JSONL files (also gzipped), one at a time.

    A text file is cut at `separator`; a JSONL file has one object a line, its text under `field`
    (a JSON file that is one array of objects is read whole). Lines may end as on Windows. Bytes
    that are no UTF-8, and halves of surrogate pairs, become U+FFFD (�); `replaced` counts the
    documents in which that happened. Iterating again begins again. Raises FileNotFoundError for a
    missing file, and ValueError for a file that is no text in UTF-8 and, with file and line, for a
    line that holds no text.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        separator: str = END_OF_TEXT,
        field: str = "text",
    ) -> None:
        paths = [paths] if isinstance(paths, str | Path) else paths
        self.paths = [Path(path) for path in paths]
        if missing := [str(path) for path in self.paths if not path.is_file()]:
            raise FileNotFoundError(f"there is no file {missing[0]}: check the path")
        if not separator:
            raise ValueError(f"{separator=} must not be empty: give what stands between documents")
        separator = separator.replace("\r\n", "\n").replace("\r", "\n")  # as in what is read
        self.separator, self.field, self.replaced = separator, field, 0

    def __iter__(self) -> Iterator[str]:
        self.replaced = 0
        for path in self.paths:
            # The file in a cache may have no ending, and the link to it has one; or the other way.
            name = (path if path.suffix else path.resolve()).name.lower()
            with (gzip.open if name.endswith(".gz") else open)(path, "rb") as file:
                if JSON_LINES.search(name):
                    lines = _read(path, lambda file=file: file.readline(LIMIT))
                    yield from self._json_lines(path, lines)
                else:
                    chunks = _read(path, lambda file=file: file.read(CHUNK))
                    for document in split_stream(_unix(chunks), self.separator.encode()):
                        yield self._decoded(document).strip()

    def _json_lines(self, path: Path, lines: Iterator[bytes]) -> Iterator[str]:
        begun = False
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if not begun and line.lstrip().startswith(b"["):  # one array instead of lines
                line = b"".join([line, *lines])
            elif len(line) == LIMIT:
                raise ValueError(f"{path}, line {number} has more than {LIMIT:,} bytes: no JSONL?")
            before = self.replaced
            try:
                found = json.loads(self._decoded(line))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number} is no JSON: {error}") from error
            begun = True
            for entry in found if isinstance(found, list) else [found]:
                text = entry.get(self.field) if isinstance(entry, dict) else None
                if not isinstance(text, str):
                    found = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
                    found = type(text).__name__ if text is not None else found
                    raise ValueError(
                        f"{path}, line {number} has no text under {self.field!r} but {found}: "
                        f"name the right field"
                    )
                text = self._decoded(text.encode("utf-16-le", "surrogatepass"), "utf-16-le")
                before = self.replaced = min(self.replaced, before + 1)  # a document counts once
                if text.strip():
                    yield text

    def _decoded(self, data: bytes, code: str = "utf-8") -> str:
        try:
            return data.decode(code)
        except UnicodeDecodeError:
            self.replaced += 1
            return data.decode(code, "replace")


HUB = {  # name: the data set on the Hugging Face hub, its configuration, its revision
    # its main branch is a script, which `datasets` no longer runs; the request 22 has the data
    "openwebtext": ("Skylion007/openwebtext", None, "refs/pr/22"),
    "fineweb-edu": ("HuggingFaceFW/fineweb-edu", "sample-10BT", "main"),
    "tinystories": ("roneneldan/TinyStories", None, "main"),
}


def stream(name: str) -> Iterator[str]:
    """The documents of a corpus on the Hugging Face hub, streamed: nothing is kept on the disk.

    Raises ValueError for an unknown name, ImportError without the library `datasets`.
    """
    if name not in HUB:
        raise ValueError(f"unknown corpus {name!r}: choose one of {', '.join(HUB)}")
    try:
        import datasets
    except ImportError as error:
        raise ImportError("streaming needs one more library: pip install datasets") from error
    repository, configuration, revision = HUB[name]
    rows = datasets.load_dataset(
        repository, configuration, revision=revision, split="train", streaming=True
    )
    return (row["text"] for row in rows)


# -- writing ----------------------------------------------------------------------------------


def fingerprint(tokenizer: tiktoken.Encoding) -> str:
    """A short hash of a vocabulary: equal only if every token has the same id."""
    digest = hashlib.sha256()
    for token in tokenizer.token_byte_values():
        digest.update(b"%d %s " % (tokenizer.encode_single_token(token), token))
    return digest.hexdigest()[:16]


_encoder = None  # the tokenizer of a worker process


def start_worker(tokenizer: tiktoken.Encoding) -> None:
    """Keep the tokenizer in this process: it is sent once, not with every chunk."""
    global _encoder
    _encoder = tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to decide about
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def encode_chunk(documents: list[str]) -> list[np.ndarray]:
    """The ids of some documents, each behind an <|endoftext|>; special tokens are plain text."""
    eot = _encoder.eot_token
    return [np.array([eot, *_encoder.encode_ordinary(text)], dtype=ID) for text in documents]


def in_chunks(documents: Iterable[str], size: int = CHUNK) -> Iterator[list[str]]:
    """Lists of documents of some `size` characters together."""
    chunk, length = [], 0
    for document in documents:
        chunk.append(document)
        length += len(document)
        if length >= size:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk


def encode_parallel(
    documents: Iterable[str], tokenizer: tiktoken.Encoding, workers: int
) -> Iterator[np.ndarray]:
    """The ids of every document, in order, each behind an <|endoftext|>, by several processes.

    Only a few chunks are under way at any time, however fast the documents come.
    """
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=start_worker, initargs=(tokenizer,)
    ) as pool:
        under_way = deque()
        for chunk in in_chunks(documents):
            under_way.append(pool.submit(encode_chunk, chunk))
            if len(under_way) > 2 * workers:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()


def read_index(folder: Path) -> dict | None:
    """The index of a folder of shards, or None where there is none yet."""
    path = Path(folder) / INDEX
    if not path.exists():
        return None
    try:
        index = json.loads(path.read_text(encoding="utf-8-sig"))
        index["tokenizer"]
        files = [entry["file"] for shard in index["shards"] for entry in shard["files"].values()]
        require(all(Path(name).name == name for name in files), "it names files elsewhere")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no index of shards: remove the folder, start afresh"
        ) from error
    return index


def save_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all; OSError says what to do when the disk is full."""
    try:
        write_atomically(path, lambda file: file.write(data))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"no space left for {memoryview(data).nbytes / 1e6:.1f} MB of {path}: make room and "
            f"run again; all shards in the index are whole",
        ) from error


def write_shard(folder: Path, number: int, parts: dict[str, list[np.ndarray]]) -> dict:
    """Write the ids of some documents, one file per split, and return their entry of the index."""
    files = {}
    for split, documents in parts.items():
        if documents:
            ids = np.concatenate(documents)
            name, sha256 = f"{split}-{number:05d}.bin", hashlib.sha256(ids.data).hexdigest()
            save_whole(folder / name, ids.data)
            files[split] = {"file": name, "tokens": len(ids), "sha256": sha256}
    return {"documents": sum(map(len, parts.values())), "files": files}


def write_shards(
    documents: Iterable[str],
    folder: str | Path,
    tokenizer: tiktoken.Encoding,
    shard_tokens: int = 10**8,
    val_every: int = 100,
    workers: int | None = None,
) -> dict:
    """Write a stream of documents as shards into `folder` and return the index.

    A shard holds whole documents, `shard_tokens` or a little more (200 MB by default: a reader
    keeps every file open); every `val_every`-th document goes to its validation file. If the folder
    holds shards already, the documents in them are read over, and writing goes on: give the same
    documents in the same order. Raises ValueError for an empty source, a vocabulary too large for
    16 bits, or a folder begun in another way, RuntimeError when a worker process was killed.
    """
    folder = Path(folder)
    must_take_a_file(folder / INDEX)
    if not hasattr(tokenizer, "n_vocab"):
        raise TypeError(f"a {type(tokenizer).__name__} is too slow here: give its to_tiktoken()")
    if tokenizer.n_vocab > 2**16:
        raise ValueError(f"{tokenizer.n_vocab:,} tokens: ids of 16 bits reach to 65,536")
    a_list(documents=documents)
    at_least(1, shard_tokens=shard_tokens)
    whole(2, val_every=val_every)
    made_with = {
        "tokenizer": {
            "name": tokenizer.name,
            "vocab_size": tokenizer.n_vocab,
            "hash": fingerprint(tokenizer),
        },
        "val_every": val_every,
    }
    index = read_index(folder) or made_with | {"shards": [], "complete": False}
    for key, value in made_with.items():
        if index.get(key) != value:
            raise ValueError(
                f"the shards in {folder} were made with {key} {index.get(key)}, this run has "
                f"{value}: take the same, or another folder"
            )
    remove_left_overs(folder)
    for number, shard in enumerate(index["shards"]):
        try:
            for entry in shard["files"].values():
                open_shard(folder, entry)
        except ValueError:  # this one and all behind it are made anew
            del index["shards"][number:]
            break
    texts = _with_text(documents)
    done = _read_over(texts, folder, index, tokenizer)
    index["complete"] = False
    encoded = encode_parallel(texts, tokenizer, workers or os.cpu_count() or 1)
    try:
        with contextlib.closing(encoded):  # ends the workers, whatever happens
            _write_all(encoded, folder, index, done, shard_tokens)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process ended: run again, whole shards are kept. If memory was short, take "
            "fewer workers; a script must call write_shards below if __name__ == '__main__':"
        ) from error
    if not index["shards"]:
        raise ValueError("the source is empty: not a single document with text in it")
    index |= {"complete": True, "replaced": getattr(documents, "replaced", 0)}
    save_whole(folder / INDEX, json.dumps(index, indent=1).encode())
    return index


def _with_text(documents: Iterable[str]) -> Iterator[str]:
    """The documents that hold more than white space; one that is no text is named."""
    for number, text in enumerate(documents):
        if not isinstance(text, str):
            raise TypeError(f"document {number} is {text!r:.40}, no text: leave it out")
        if text.strip():
            yield text


def _read_over(
    texts: Iterator[str], folder: Path, index: dict, tokenizer: tiktoken.Encoding
) -> int:
    """Skip the documents that are in shards already, and return how many they are."""
    done = sum(shard["documents"] for shard in index["shards"])
    skipped = 0
    for skipped, text in enumerate(itertools.islice(texts, done), start=1):  # noqa: B007
        if skipped in (1, done):  # the first and the last one that are written
            split = "val" if skipped % index["val_every"] == 0 else "train"
            shard = index["shards"][0 if skipped == 1 else -1]
            written = np.memmap(folder / shard["files"][split]["file"], ID, "r")
            ids = [tokenizer.eot_token, *tokenizer.encode_ordinary(text)]
            found = written[: len(ids)] if skipped == 1 else written[-len(ids) :]
            if found.tolist() != ids:
                where = "begin" if skipped == 1 else "end"
                raise ValueError(
                    f"the shards in {folder} {where} with another document than this source: give "
                    f"the same source, or another folder"
                )
    if skipped < done:
        raise ValueError(
            f"the shards in {folder} hold {done:,} documents, this source has only {skipped:,}: "
            f"give the same source, or another folder"
        )
    return done


def _write_all(
    encoded: Iterable[np.ndarray], folder: Path, index: dict, done: int, shard_tokens: int
) -> None:
    """Collect documents until a shard is full, write it, and so on; `done` are written already."""
    parts, size = {split: [] for split in SPLITS}, 0
    for number, ids in enumerate(encoded, start=done):
        last = index["val_every"] - 1
        parts["val" if number % index["val_every"] == last else "train"].append(ids)
        size += len(ids)
        if size >= shard_tokens:
            _add(folder, index, parts)
            parts, size = {split: [] for split in SPLITS}, 0
    if size:
        _add(folder, index, parts)


def _add(folder: Path, index: dict, parts: dict[str, list[np.ndarray]]) -> None:
    index["shards"].append(write_shard(folder, len(index["shards"]), parts))
    save_whole(folder / INDEX, json.dumps(index, indent=1).encode())


# -- reading ----------------------------------------------------------------------------------


class ShardBatches:
    """batches[step] -> (inputs, targets), each (batch_size, context_length) int64.

    The tokens of every file of one split are laid out in windows side by side, which never reach
    from one file into the next; what is left over at a file's end is spared at its beginning, more
    or less of it, in every epoch. An epoch is all windows in a shuffled order, so none comes twice
    before all have come once. Step s is a pure function of (seed, s), so there is no state to save.
    The files are memory-mapped: only what is read is loaded. `check=False` leaves out their sha256,
    for processes beside one that checks. Raises FileNotFoundError without an index, and ValueError
    for a folder that is not complete, another tokenizer, a damaged file, or too few tokens.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        context_length: int,
        batch_size: int,
        seed: int = 123,
        tokenizer: tiktoken.Encoding | None = None,
        check: bool = True,
    ) -> None:
        whole(1, context_length=context_length, batch_size=batch_size)
        folder, index = Path(folder), read_index(Path(folder))
        if index is None:
            raise FileNotFoundError(f"there are no shards in {folder}: make them with write_shards")
        if not index["complete"]:
            raise ValueError(f"the shards in {folder} are not complete: run write_shards again")
        if tokenizer and index["tokenizer"]["hash"] != fingerprint(tokenizer):
            raise ValueError(
                f"the shards in {folder} were made with the tokenizer "
                f"{index['tokenizer']['name']!r}, not with this {tokenizer.name!r}"
            )
        files = [shard["files"][split] for shard in index["shards"] if split in shard["files"]]
        self.shards = [open_shard(folder, entry, check) for entry in files]
        self.shards = [ids for ids in self.shards if len(ids) > context_length]
        if not self.shards:
            raise ValueError(
                f"no file of {split!r} in {folder} has more than {context_length} tokens: take a "
                f"shorter context_length, or more documents"
            )
        self.context_length, self.batch_size, self.seed = context_length, batch_size, seed
        inputs = np.array([len(ids) - 1 for ids in self.shards])  # the last id is only a target
        self.ends, self.spare = np.cumsum(inputs // context_length), inputs % context_length
        self.epoch = -1

    def __len__(self) -> int:
        """The number of windows: of one epoch."""
        return int(self.ends[-1])

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        import torch

        if step < 0:
            raise IndexError(f"{step=}: steps count from 0")
        windows = np.empty((self.batch_size, self.context_length + 1), dtype=np.int64)
        for row in range(self.batch_size):
            epoch, turn = divmod(step * self.batch_size + row, len(self))
            if epoch != self.epoch:  # shuffle anew
                random = np.random.default_rng((self.seed, epoch))
                self.epoch, self.order = epoch, random.permutation(len(self))
                self.begin = random.integers(0, self.spare + 1)
            number = self.order[turn]
            shard = np.searchsorted(self.ends, number, side="right")
            number -= self.ends[shard - 1] if shard else 0
            first = self.begin[shard] + number * self.context_length
            windows[row] = self.shards[shard][first : first + self.context_length + 1]
        windows = torch.from_numpy(windows)
        return windows[:, :-1], windows[:, 1:]


def open_shard(folder: Path, entry: dict, check: bool = True) -> np.ndarray:
    """The ids of a file of the index, memory-mapped; `check` compares its sha256 first."""
    path = folder / entry["file"]
    if not path.exists():
        raise ValueError(f"{path} is missing: run write_shards again")
    if check:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry["sha256"]:
            raise ValueError(
                f"{path} is damaged (sha256 {found[:12]}…, the index says "
                f"{entry['sha256'][:12]}…): run write_shards again, it goes on from the last good "
                f"shard"
            )
    return np.memmap(path, dtype=ID, mode="r")
