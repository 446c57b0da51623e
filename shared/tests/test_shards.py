"""Token shards: documents in, windows out, and nothing lost when something goes wrong."""

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import os
import subprocess
import sys
import time
import types
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from shared import shards
from shared.classroom import files
from shared.shards import (
    HUB,
    Documents,
    ShardBatches,
    fingerprint,
    in_chunks,
    open_shard,
    read_index,
    split_stream,
    stream,
    write_shards,
)
from shared.tokenizers import END_OF_TEXT, BPETokenizer, course_tokenizer

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = course_tokenizer().to_tiktoken()
EOT = TOKENIZER.eot_token
TALES = [f"Tale {number}: a hen and {number} eggs." for number in range(250)]


def tokens_of(folder: Path, split: str) -> list[int]:
    index = read_index(folder)
    files = [shard["files"][split] for shard in index["shards"] if split in shard["files"]]
    return [int(id) for entry in files for id in open_shard(folder, entry)]


def documents_of(folder: Path, split: str) -> list[str]:
    text = TOKENIZER.decode(tokens_of(folder, split))
    return text.split(END_OF_TEXT)[1:]


# -- documents --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_separator_across_two_chunks_still_separates(size: int) -> None:
    data = b"one<|>two<|><|>  <|>three < | > four"
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    assert list(split_stream(chunks, b"<|>")) == [b"one", b"two", b"three < | > four"]


def test_a_mark_that_never_comes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LIMIT", 1000)
    with pytest.raises(ValueError, match="bytes without b'<.>': what divides documents?"):
        list(split_stream([b"no mark here " * 10] * 20, b"<|>"))


def test_text_files_are_cut_at_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"one\n{END_OF_TEXT}\ntwo\n\nstill two\n{END_OF_TEXT}\n \n")
    assert list(Documents([path])) == ["one", "two\n\nstill two"]
    assert list(Documents([path], separator="\n\n")) == [
        f"one\n{END_OF_TEXT}\ntwo",
        f"still two\n{END_OF_TEXT}",
    ]


def test_json_lines_plain_and_gzipped(tmp_path: Path) -> None:
    lines = b'{"text": "one"}\n\n{"text": "two\\n", "url": "x"}\n{"text": "  "}\n'
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"three"))
    names = ["a.jsonl", "b.jsonl.gz", "c.txt.gz"]
    documents = Documents([tmp_path / name for name in names])
    assert list(documents) == ["one", "two\n", "one", "two\n", "three"]
    assert list(documents) == ["one", "two\n", "one", "two\n", "three"]  # and once more


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"text": "cut', "line 2 is no JSON"),
        ('{"body": "x", "url": "y"}', "line 2 has no text under 'text' but body, url"),
        ("[" * 100_000, "line 2 is no JSON"),
        ("9" * 5000, "line 2 is no JSON"),
        ('{"text": 3}', "line 2 has no text under 'text'"),
        ('["x"]', "line 2 has no text under 'text' but str"),
    ],
)
def test_a_line_without_text_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match=complaint) as error:
        list(Documents([path]))
    assert str(path) in str(error.value)


def test_bytes_that_are_no_utf8_are_replaced_and_counted(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_bytes(f"fine{END_OF_TEXT}caf\xe9 \xff".encode("latin-1"))
    lines = tmp_path / "b.jsonl"
    lines.write_bytes(b'{"text": "half \\ud83d of one"}\n{"text": "\xff"}\n{"text": "fine"}\n')
    documents = Documents([text, lines])
    assert list(documents) == ["fine", "caf� �", "half � of one", "�", "fine"]
    assert documents.replaced == 3


def test_a_damaged_archive_and_a_missing_file_are_named(tmp_path: Path) -> None:
    whole = gzip.compress(os.urandom(100_000))
    for name, data in {"cut": whole[:5000], "bad": whole[:20] + b"xx" + whole[22:]}.items():
        path = tmp_path / f"{name}.txt.gz"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}.txt.gz is damaged or cut short"):
            list(Documents([path], separator="\n\n"))
    with pytest.raises(FileNotFoundError, match="there is no file .*nothing.txt"):
        Documents([tmp_path / "nothing.txt"])
    with pytest.raises(ValueError, match="separator='' must not be empty"):
        Documents([], separator="")


def test_the_hub_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*arguments: object, **options: object):
        asked.append((arguments, options))
        return ({"text": f"page {number}"} for number in range(10**12))  # never read to its end

    fake = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    pages = stream("fineweb-edu")
    assert [next(pages), next(pages)] == ["page 0", "page 1"]
    (arguments, options) = asked[0]
    repository, configuration, revision = HUB["fineweb-edu"]
    assert arguments == (repository, configuration)
    assert options == {"revision": revision, "split": "train", "streaming": True}
    with pytest.raises(
        ValueError, match="unknown corpus 'common-crawl': choose one of openwebtext"
    ):
        stream("common-crawl")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install datasets"):
        stream("openwebtext")


# -- writing ----------------------------------------------------------------------------------


def test_chunks_hold_whole_documents_in_order() -> None:
    chunks = list(in_chunks(["aaaa", "b", "cc", "dddddddd", "e"], size=5))
    assert chunks == [["aaaa", "b"], ["cc", "dddddddd"], ["e"]]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("shard_tokens", [1, 300, 10**6])
def test_every_document_is_in_one_shard_once(
    tmp_path: Path, shard_tokens: int, workers: int
) -> None:
    tales = TALES[:25] if shard_tokens == 1 else TALES
    index = write_shards(tales, tmp_path, TOKENIZER, shard_tokens, val_every=10, workers=workers)
    assert documents_of(tmp_path, "val") == tales[9::10]
    assert documents_of(tmp_path, "train") == [t for n, t in enumerate(tales) if n % 10 != 9]
    assert sum(shard["documents"] for shard in index["shards"]) == len(tales)
    sizes = [sum(entry["tokens"] for entry in shard["files"].values()) for shard in index["shards"]]
    longest = max(len(TOKENIZER.encode_ordinary(tale)) for tale in tales) + 1
    assert all(shard_tokens <= size < shard_tokens + longest for size in sizes[:-1])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"index.json"} | {
        entry["file"] for shard in index["shards"] for entry in shard["files"].values()
    }


def test_special_tokens_in_a_document_are_plain_text(tmp_path: Path) -> None:
    write_shards([f"before {END_OF_TEXT} after"], tmp_path, TOKENIZER, workers=1)
    tokens = tokens_of(tmp_path, "train")
    assert tokens.count(EOT) == 1 and tokens[0] == EOT
    assert TOKENIZER.decode(tokens[1:]) == f"before {END_OF_TEXT} after"


def test_empty_documents_are_left_out_and_an_empty_source_is_refused(tmp_path: Path) -> None:
    write_shards(["", "one", " \n", "two"], tmp_path / "a", TOKENIZER, workers=1)
    assert documents_of(tmp_path / "a", "train") == ["one", "two"]
    with pytest.raises(ValueError, match="the source is empty"):
        write_shards(["", " "], tmp_path / "b", TOKENIZER, workers=1)
    assert read_index(tmp_path / "b") is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"shard_tokens": 0}, "shard_tokens is 0; it must be at least 1"),
        ({"val_every": 1}, "val_every is 1; it must be at least 2"),
        ({"val_every": 0.01}, "val_every is 0.01; it must be a whole number"),
    ],
)
def test_senseless_settings_are_refused(tmp_path: Path, settings: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        write_shards(TALES, tmp_path, TOKENIZER, workers=1, **settings)


def test_a_vocabulary_beyond_16_bits_is_refused(tmp_path: Path) -> None:
    large = types.SimpleNamespace(n_vocab=100_277)
    with pytest.raises(ValueError, match="100,277 tokens: ids of 16 bits reach to 65,536"):
        write_shards(TALES, tmp_path, large)


# -- cut off, and taken up again --------------------------------------------------------------


def broken_after(count: int):
    yield from TALES[:count]
    raise ConnectionError("the stream ended early")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 100 characters, so that a few documents are many chunks."""
    monkeypatch.setattr(shards, "in_chunks", functools.partial(in_chunks, size=100))


@pytest.mark.usefixtures("small_chunks")
def test_two_workers_give_documents_in_order_and_few_are_under_way() -> None:
    taken = []

    def counted():
        for number in range(200):
            taken.append(number)
            yield "a hen " * (1 + 40 * (number % 7 == 0)) + str(number)

    encoded = shards.encode_parallel(counted(), TOKENIZER, workers=2)
    first = next(encoded)
    assert len(taken) <= 15 * (2 * 2 + 2)  # at most 15 documents of these are in a chunk
    ids = [first, *encoded]
    assert [TOKENIZER.decode(row[1:]) for row in ids] == list(counted())[:200]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("count", [0, 1, 100, 249])
def test_a_run_goes_on_behind_its_last_whole_shard(tmp_path: Path, count: int) -> None:
    options = {"shard_tokens": 200, "val_every": 10, "workers": 1}
    whole = write_shards(TALES, tmp_path / "whole", TOKENIZER, **options)
    with pytest.raises(ConnectionError):
        write_shards(broken_after(count), tmp_path / "b", TOKENIZER, **options)
    index = read_index(tmp_path / "b")
    assert (index is not None) == (count >= 100)
    if index:
        assert index["shards"] and not index["complete"]
        with pytest.raises(ValueError, match="not complete"):
            ShardBatches(tmp_path / "b", "train", 8, 2)
    assert write_shards(TALES, tmp_path / "b", TOKENIZER, **options) == whole
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()


def test_what_was_written_is_not_written_again(tmp_path: Path) -> None:
    options = {"shard_tokens": 300, "workers": 1}
    write_shards(TALES[:200], tmp_path, TOKENIZER, **options)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.bin")}
    write_shards(TALES, tmp_path, TOKENIZER, **options)  # the source has grown
    assert documents_of(tmp_path, "train") == [t for n, t in enumerate(TALES) if n % 100 != 99]
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in times.items())


def test_a_damaged_shard_and_all_behind_it_are_made_anew(tmp_path: Path) -> None:
    options = {"shard_tokens": 300, "workers": 1}
    whole = write_shards(TALES, tmp_path, TOKENIZER, **options)
    path = tmp_path / whole["shards"][4]["files"]["train"]["file"]
    good = path.read_bytes()
    for damaged in (good[:-2], b"\0" + good[1:], None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.raises(ValueError, match="run write_shards again"):
            ShardBatches(tmp_path, "train", 8, 2)
        assert write_shards(TALES, tmp_path, TOKENIZER, **options) == whole
        assert path.read_bytes() == good


def test_another_source_is_refused(tmp_path: Path) -> None:
    write_shards(TALES, tmp_path, TOKENIZER, workers=1)
    with pytest.raises(ValueError, match="begin with another document"):
        write_shards(TALES[1:], tmp_path, TOKENIZER, workers=1)
    with pytest.raises(ValueError, match="hold 250 documents, this source has only 10"):
        write_shards(TALES[:10], tmp_path, TOKENIZER, workers=1)
    with pytest.raises(ValueError, match="made with val_every 100, this run has 50"):
        write_shards(TALES, tmp_path, TOKENIZER, val_every=50, workers=1)
    with pytest.raises(ValueError, match="made with tokenizer"):
        write_shards(TALES, tmp_path, other_tokenizer(), workers=1)


def other_tokenizer():
    return BPETokenizer.train(" ".join(TALES), 300).to_tiktoken("other")


@pytest.mark.parametrize("at", [5, 6])  # a shard, and the index
@pytest.mark.parametrize("call", ["replace", "fsync"])  # the renaming, and the writing
def test_a_full_disk_is_said_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    options = {"shard_tokens": 300, "workers": 1}
    real, calls = getattr(os, call), []

    def full(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(OSError, match="no space left for .* MB of .*: make room and run again"):
        write_shards(TALES, tmp_path, TOKENIZER, **options)
    assert not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    for shard in read_index(tmp_path)["shards"]:
        for entry in shard["files"].values():
            open_shard(tmp_path, entry)
    write_shards(TALES, tmp_path, TOKENIZER, **options)
    assert documents_of(tmp_path, "train") == [t for n, t in enumerate(TALES) if n % 100 != 99]


KILLED = """
import sys
sys.path.insert(0, {root!r})
from shared.shards import write_shards
from shared.tokenizers import course_tokenizer

def slowly():
    for number in range(10**9):
        yield f"Tale {{number}}: a hen and {{number}} eggs. " * 50

if __name__ == "__main__":
    write_shards(slowly(), {folder!r}, course_tokenizer().to_tiktoken(), 50_000, workers=1)
"""


def test_a_killed_process_leaves_whole_shards(tmp_path: Path) -> None:
    folder, process = tmp_path / "shards", start_slowly(tmp_path)
    process.kill()
    process.communicate()
    left_over = f".train-00099.bin.{process.pid}-1.part"  # as a kill while writing leaves
    (folder / left_over).write_bytes(b"half")
    index = read_index(folder)
    for shard in index["shards"]:
        for entry in shard["files"].values():
            assert len(open_shard(folder, entry)) == entry["tokens"]
    count = sum(shard["documents"] for shard in index["shards"])
    tales = [f"Tale {number}: a hen and {number} eggs. " * 50 for number in range(count + 3)]
    after = write_shards(tales, folder, TOKENIZER, 50_000, workers=1)
    assert after["shards"][: len(index["shards"])] == index["shards"]
    assert sum(shard["documents"] for shard in after["shards"]) == count + 3
    assert not list(folder.glob(".*"))


def children_of(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def start_slowly(tmp_path: Path) -> subprocess.Popen:
    """A process that writes shards for ever, and has one worker by now."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(root=str(ROOT), folder=str(tmp_path / "shards")))
    process = subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.time() + 60
    while not read_index(tmp_path / "shards"):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.05)
    return process


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    process = start_slowly(tmp_path)
    workers = children_of(process)
    assert workers
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


@pytest.mark.skipif(
    sys.version_info < (3, 11, 5),
    reason="its pool may wait for ever: github.com/python/cpython #94777",
)
def test_a_killed_worker_is_said(tmp_path: Path) -> None:
    process = start_slowly(tmp_path)
    for worker in children_of(process):
        worker.kill()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a worker process ended: run again, whole shards are kept" in said


MEMORY = """
import sys
sys.path.insert(0, {root!r})
from shared.shards import Documents, write_shards
from shared.tokenizers import BPETokenizer

if __name__ == "__main__":
    tokenizer = BPETokenizer.load({root!r} + "/data/course.tiktoken").to_tiktoken()
    write_shards({documents}, sys.argv[1], tokenizer, 500_000, workers=1)
"""


def peak_memory(command: list[str]) -> int:
    """The largest sum of the resident memory of a process and its workers, in bytes."""
    process, peak = psutil.Popen(command), 0
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(each.memory_info().rss for each in family))
        time.sleep(0.02)
    assert process.returncode == 0
    return peak


@pytest.mark.parametrize(
    ("documents", "grows"),
    [("Documents(sys.argv[2:])", False), ("list(Documents(sys.argv[2:]))", True)],
)
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, documents: str, grows: bool) -> None:
    """Ten times the input in the memory of one; the counter-trial shows that it would be seen."""
    text = (ROOT / "data/stories.txt").read_text().replace("\n", END_OF_TEXT)
    (tmp_path / "part.txt").write_text(text)
    script = tmp_path / "memory.py"
    script.write_text(MEMORY.format(root=str(ROOT), documents=documents))
    peaks = {}
    for times in (1, 10):
        command = [sys.executable, script, tmp_path / f"shards-{times}"]
        peaks[times] = peak_memory(
            [str(part) for part in [*command, *[tmp_path / "part.txt"] * times]]
        )
    assert (peaks[10] > 1.1 * peaks[1]) == grows, peaks


# -- reading ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(TALES, folder, TOKENIZER, shard_tokens=700, val_every=10, workers=1)
    return folder


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_epoch_reads_every_window_once_and_the_next_one_in_another_order(
    folder: Path, split: str
) -> None:
    batches = ShardBatches(folder, split, context_length=16, batch_size=5)
    files = [shard["files"][split] for shard in read_index(folder)["shards"]]
    arrays = [open_shard(folder, entry) for entry in files]
    arrays = [ids for ids in arrays if len(ids) > 16]
    assert len(batches) == sum((len(ids) - 1) // 16 for ids in arrays)
    rows = []
    for step in range(-(-40 * len(batches) // 5)):
        inputs, targets = batches[step]
        assert inputs.shape == targets.shape == (5, 16) and inputs.dtype == torch.int64
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        rows += torch.cat([inputs, targets[:, -1:]], dim=1).tolist()
    epochs = [rows[i : i + len(batches)] for i in range(0, 40 * len(batches), len(batches))]
    ends = set()
    for epoch in epochs:
        # windows that begin in the spare tokens of each file, side by side
        laid_out = Counter()
        for ids in arrays:
            count, spare = divmod(len(ids) - 1, 16)
            options = [
                [tuple(ids[b + 16 * i : b + 16 * i + 17].tolist()) for i in range(count)]
                for b in range(spare + 1)
            ]
            (mine,) = [o for o in options if not Counter(o) - Counter(map(tuple, epoch))][:1]
            ends.add((id(ids), options.index(mine) == spare))
            laid_out += Counter(mine)
        assert Counter(map(tuple, epoch)) == laid_out
    assert len({tuple(map(tuple, epoch)) for epoch in epochs}) > 30
    assert {(id(ids), True) for ids in arrays} <= ends  # in some epoch, the last token is read


def test_a_process_beside_one_that_checks_need_not_check(tmp_path: Path) -> None:
    write_shards(TALES, tmp_path, TOKENIZER, workers=1)
    path = tmp_path / "train-00000.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    ShardBatches(tmp_path, "train", 8, 2, check=False)
    with pytest.raises(ValueError, match="train-00000.bin is damaged"):
        ShardBatches(tmp_path, "train", 8, 2)


def test_a_step_depends_on_seed_and_step_alone(folder: Path) -> None:
    settings = {"split": "train", "context_length": 12, "batch_size": 3}
    one, two = ShardBatches(folder, **settings), ShardBatches(folder, **settings)
    later = [two[step][0] for step in (7, 3, 7)]
    assert torch.equal(later[0], one[7][0]) and torch.equal(later[2], one[7][0])
    assert torch.equal(later[1], one[3][0]) and not torch.equal(one[3][0], one[7][0])
    assert not torch.equal(ShardBatches(folder, **settings, seed=1)[7][0], one[7][0])
    with pytest.raises(IndexError, match="step=-1"):
        one[-1]


def test_a_damaged_or_missing_file_is_never_read(tmp_path: Path) -> None:
    write_shards(TALES, tmp_path, TOKENIZER, workers=1)
    path = tmp_path / "train-00000.bin"
    data = bytearray(path.read_bytes())
    for damaged in (data[:-2], data[:100] + bytes([data[100] ^ 1]) + data[101:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="train-00000.bin is damaged .sha256 "):
            ShardBatches(tmp_path, "train", 8, 2)
    path.unlink()
    with pytest.raises(ValueError, match="train-00000.bin is missing"):
        ShardBatches(tmp_path, "train", 8, 2)


def test_another_tokenizer_is_refused(folder: Path) -> None:
    ShardBatches(folder, "train", 8, 2, tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="the tokenizer 'course', not with this 'other'"):
        ShardBatches(folder, "train", 8, 2, tokenizer=other_tokenizer())
    assert fingerprint(TOKENIZER) != fingerprint(other_tokenizer())
    assert fingerprint(TOKENIZER) == fingerprint(course_tokenizer().to_tiktoken("another name"))


def test_folders_without_shards_and_too_long_windows_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="there are no shards in"):
        ShardBatches(tmp_path, "train", 8, 2)
    (tmp_path / "index.json").write_text("[1, 2")
    with pytest.raises(ValueError, match=r"index.json is no index of shards"):
        ShardBatches(tmp_path, "train", 8, 2)
    with pytest.raises(ValueError, match="no file of 'val' .* has more than 5000 tokens"):
        ShardBatches(folder, "val", 5000, 2)


def test_ids_are_little_endian_16_bit(folder: Path) -> None:
    entry = read_index(folder)["shards"][0]["files"]["train"]
    raw = (folder / entry["file"]).read_bytes()
    assert raw[0] + 256 * raw[1] == EOT and len(raw) == 2 * entry["tokens"]
    assert np.array_equal(np.frombuffer(raw, "<u2"), open_shard(folder, entry))
