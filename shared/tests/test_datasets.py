"""The loaders: what they return, and what they say to bad input."""

import json
import re

import numpy as np
import pytest
import tiktoken
import torch

from shared.classroom import datasets
from shared.classroom import fetch as downloads
from shared.classroom.batches import DocumentBatches, create_dataloader, encode_documents
from shared.classroom.datasets import (
    load_instructions,
    load_messages,
    load_tales,
    load_text,
    pretraining_documents,
)
from shared.texts import NextTokenDataset

MESSAGES = 'label,text,split\nham,see you at 8,train\nspam,"WIN, now",train\nham,NA,test\n'
ENTRY = {"instruction": "Past?", "input": "go", "output": "went", "task": "past", "wording": "P"}


@pytest.fixture
def data(monkeypatch, tmp_path):
    """A small data/ of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setattr(datasets, "DATA", folder)
    monkeypatch.setattr(downloads, "DATA", folder)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    (folder / "stories.txt").write_text("A fox ran.\nAn owl slept.\u2028Still.\n\n")
    (folder / "stories_val.txt").write_text("A hen sang.\n")
    (folder / "rhymes.txt").write_text("Who ran? A fox, a fox.\n")
    (folder / "facts.txt").write_text("Owls hoot.\nThe plural of fox is foxes.\n")
    (folder / "school.txt").write_text("Say owl. owl\n")
    (folder / "messages.csv").write_text(MESSAGES)
    entries = [ENTRY | {"split": split} for split in ("train", "val", "test", "train")]
    (folder / "instructions.json").write_text(json.dumps(entries))
    return folder


class Letters:
    """A tokenizer for tests: a byte is a token, and 256 ends a document."""

    vocab_size, eot_id = 257, 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


def byte_encoding(specials: int = 1) -> tiktoken.Encoding:
    special = {f"<|special{number}|>": 256 + number for number in range(1, specials)}
    return tiktoken.Encoding(
        "bytes",
        pat_str=r".",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={"<|endoftext|>": 256} | special,
    )


# --- texts -------------------------------------------------------------------------------------


def test_load_text_finds_bundled_files_and_paths(data, tmp_path):
    assert load_text("stories_val.txt") == "A hen sang.\n"
    own = tmp_path / "own.txt"
    own.write_bytes(b"\xef\xbb\xbfMy text\r\nhere")
    assert load_text(own) == load_text(str(own)) == "My text\nhere"


def test_load_text_fetches_a_book_as_its_body(data, tmp_path, monkeypatch):
    body = "A POEM\n\nRoses.\n"
    source = downloads.Source(
        "poem.txt", "", "", len(body), downloads.hashlib.sha256(body.encode()).hexdigest(), (),
        is_book=True,
    )  # fmt: skip
    monkeypatch.setitem(downloads.CATALOGUE, "poem.txt", source)
    monkeypatch.setenv("COURSE_MIRROR", str(tmp_path))
    marks = ("*** START OF THE PROJECT GUTENBERG EBOOK ***", "*** END OF THIS EBOOK ***")
    (tmp_path / "poem.txt").write_text(f"\ufeffheader\r\n{marks[0]}\r\n{body}\r\n{marks[1]}\r\n")
    assert load_text("poem.txt") == body


def test_load_text_errors(data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no-such.*stories\.txt.*the-verdict\.txt"):
        load_text("no-such.txt")
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ValueError, match="is empty"):
        load_text(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(ValueError, match=r"not UTF-8.*0xef at position 2.*Save"):
        load_text(tmp_path / "latin.txt")


# --- sliding window ----------------------------------------------------------------------------


def test_windows_and_targets():
    dataset = NextTokenDataset(list(range(10)), context_length=4, stride=2)
    inputs = [dataset[index][0].tolist() for index in range(len(dataset))]
    targets = [dataset[index][1].tolist() for index in range(len(dataset))]
    assert inputs == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert targets == [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, 8]]
    assert dataset[0][0].dtype == dataset[0][1].dtype == torch.int64
    with pytest.raises(IndexError):
        dataset[3]


@pytest.mark.parametrize("length", range(5, 12))
@pytest.mark.parametrize("stride", [1, 3, 4, 9])
def test_every_whole_window_is_there(length, stride):
    dataset = NextTokenDataset(np.arange(length, dtype=np.uint16), 4, stride)
    assert len(dataset) == len(range(0, length - 4, stride))
    assert dataset[len(dataset) - 1][1][-1] < length


@pytest.mark.parametrize("length", [0, 4])
def test_a_text_shorter_than_one_window(length):
    message = f"{length} tokens, but one window needs 5.*shorter context_length"
    with pytest.raises(ValueError, match=message):
        NextTokenDataset([1] * length, 4, 1)


@pytest.mark.parametrize(("context_length", "stride"), [(0, 1), (4, 0), (4, -1)])
def test_window_and_stride_are_positive(context_length, stride):
    with pytest.raises(
        ValueError, match="(context_length|stride) is (0|-1); it must be at least 1"
    ):
        NextTokenDataset([1] * 9, context_length, stride)


def test_dataloader_is_seeded():
    def epoch(seed):
        loader = create_dataloader("abcdefghijkl" * 9, Letters(), 4, 6, 3, seed=seed)
        return torch.stack([inputs for inputs, targets in loader])

    assert epoch(1).shape == (8, 4, 6) and epoch(1).dtype == torch.int64
    assert torch.equal(epoch(1), epoch(1)) and not torch.equal(epoch(1), epoch(2))


def test_dataloader_takes_ids():
    loader = create_dataloader(range(9), None, 2, 4, 4, shuffle=False)
    ((inputs, targets),) = loader
    assert inputs.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]] and targets[1, -1] == 8


def test_dataloader_reads_a_special_token_as_plain_text():
    text = "a<|endoftext|>b"
    loader = create_dataloader(text, byte_encoding(), 1, len(text) - 1, 1)
    assert next(iter(loader))[0].tolist() == [list(text[:-1].encode())]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text_or_ids": ""}, "text is empty"),
        ({"text_or_ids": "short"}, "5 tokens, but one window needs 9"),
        ({"text_or_ids": "x" * 40, "batch_size": 0}, "batch_size=0"),
        ({"text_or_ids": "x" * 20, "batch_size": 9}, "gives 2 windows.*drop_last=False"),
        ({"text_or_ids": "x" * 40, "stride": 0}, "stride is 0"),
        ({"text_or_ids": [1, 257, 3] * 9}, r"token id 257 is outside .*\(0 to 256\)"),
        ({"text_or_ids": [1, 2, -1] * 9}, "token id -1 is outside"),
        ({"text_or_ids": [1.5] * 20}, "integers, not float64"),
        ({"text_or_ids": [[1, 2]] * 20}, "one row"),
    ],
)
def test_dataloader_refuses(arguments, message):
    defaults = {"tokenizer": Letters(), "context_length": 8, "stride": 8}
    with pytest.raises(ValueError, match=message):
        create_dataloader(**(defaults | arguments))


# --- the course's data -------------------------------------------------------------------------


def test_load_tales(data):
    assert load_tales("train") == ["A fox ran.", "An owl slept.\u2028Still."]
    assert load_tales("val") == ["A hen sang."]
    with pytest.raises(ValueError, match="unknown split 'test': choose one of train, val"):
        load_tales("test")


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (lambda: load_tales("train"), "stories.txt"),
        (load_messages, "messages.csv"),
        (load_instructions, "instructions.json"),
    ],
)
def test_a_missing_or_empty_file_names_the_remedy(data, load, name):
    (data / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{re.escape(name)} is missing: `git checkout"):
        load()
    (data / name).write_text("")
    with pytest.raises(ValueError, match=f"{re.escape(name)} is empty"):
        load()


def test_load_messages(data):
    table = load_messages()
    assert list(table.columns) == ["label", "text", "split"]
    assert table["text"].tolist() == ["see you at 8", "WIN, now", "NA"]
    assert load_messages("test").index.tolist() == [0]
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        load_messages("dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,text\nham,hi\n", "no column 'split', only label, text"),
        ("tag,text,split\nham,hi,train\n", "no column 'label'"),
        ("label,text,split\nham,hi,train\neggs,hi,train\n", "message 2: unknown label 'eggs'"),
        ("label,text,split\nham,hi,dev\n", "message 1: unknown split 'dev'"),
        ("label,text,split\nham,hi,train\nspam,cut o", "message 2: unknown split"),
        ('label,text,split\nham,"cut in a quota', "not a valid CSV|unknown split"),
        ("label,text,split\nham,one, two,train,x\n" + "ham,a,b,c,d,e\n", "not a valid CSV|unknown"),
        ("label,text,split\nham, ,train\n", "message 1 has an empty text"),
    ],
)
def test_a_damaged_table_of_messages(data, content, message):
    (data / "messages.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_messages()


def test_load_instructions(data):
    assert len(load_instructions()) == 4
    assert load_instructions("train") == [ENTRY | {"split": "train"}] * 2
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        load_instructions("dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"instruction": "a"},\n{"instruc', r"instructions\.json is not valid JSON at line 3"),
        ('{"instruction": "a"}', "holds a dict; it must be a list"),
        ('[{"instruction": "a"}]', "entry 1: needs the texts instruction, input, output"),
        ('["a"]', "entry 1: needs the texts"),
        (json.dumps([ENTRY | {"split": "dev"}]), "entry 1: unknown split 'dev'"),
    ],
)
def test_damaged_instructions(data, content, message):
    (data / "instructions.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_instructions()


# --- documents ---------------------------------------------------------------------------------


def test_pretraining_documents(data):
    documents = pretraining_documents("train")
    assert sorted(documents) == sorted(
        load_tales("train")
        + ["Who ran? A fox, a fox."]
        + ["Owls hoot.", "The plural of fox is foxes."]
        + ["Say owl. owl"]
        + ["see you at 8", "WIN, now"]
    )
    assert documents == pretraining_documents("train")
    assert pretraining_documents("val") == ["A hen sang."]
    assert pretraining_documents("rhymes") == ["Who ran? A fox, a fox."]


@pytest.mark.parametrize("tokenizer", [Letters(), byte_encoding()], ids=["own", "tiktoken"])
def test_encode_documents(tokenizer):
    ids, starts = encode_documents(["ab", "<|endoftext|>", "c"], tokenizer)
    assert ids.dtype == np.uint16 and starts.tolist() == [0, 3, 17]
    assert ids.tolist() == [256, 97, 98, 256, *b"<|endoftext|>", 256, 99, 256]


def test_a_large_vocabulary_needs_wider_ids():
    ids, _ = encode_documents(["ab"], byte_encoding(specials=2**16))
    assert ids.dtype == np.int32


def test_documents_must_hold_something():
    with pytest.raises(ValueError, match="no documents"):
        encode_documents([], Letters())
    with pytest.raises(ValueError, match="document 1 is empty"):
        encode_documents(["a", ""], Letters())


@pytest.fixture
def corpus():
    return encode_documents([chr(97 + n) * (n % 5 + 1) for n in range(23)], Letters())


def test_windows_start_at_documents_and_run_on(corpus):
    ids, starts = corpus
    batches = DocumentBatches(ids, starts, context_length=12, batch_size=4, seed=7)
    around = np.concatenate([ids, ids]).tolist()  # the last document runs on into the first
    windows = {tuple(around[start : start + 13]) for start in starts}
    for step in range(12):
        inputs, targets = batches[step]
        assert inputs.shape == targets.shape == (4, 12)
        assert inputs.dtype == targets.dtype == torch.int64
        for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
            assert (*row, target[-1]) in windows and row[1:] == target[:-1]


@pytest.mark.parametrize("batch_size", [1, 4, 23, 50])  # 4 straddles epochs, 50 spans several
def test_every_epoch_is_a_permutation(corpus, batch_size):
    ids, starts = corpus
    batches = DocumentBatches(ids, starts, 12, batch_size, seed=7)
    first = torch.cat([batches[step][0][:, 1] for step in range(-(-46 // batch_size))])
    epochs = first[:46].view(2, 23)
    assert all(sorted(epoch) == sorted(ids[starts + 1].tolist()) for epoch in epochs.tolist())
    assert not torch.equal(epochs[0], epochs[1])


def test_batches_are_a_pure_function_of_seed_and_step(corpus):
    batches = DocumentBatches(*corpus, 12, 4, seed=7)
    forward = [batches[step][0] for step in range(20)]
    again = DocumentBatches(*corpus, 12, 4, seed=7)
    for step in reversed(range(20)):  # another order, another object: the same batches
        assert torch.equal(again[step][0], forward[step])
    other = DocumentBatches(*corpus, 12, 4, seed=8)
    assert not all(torch.equal(other[step][0], forward[step]) for step in range(20))


def test_batch_size_does_not_change_the_order(corpus):
    small = DocumentBatches(*corpus, 12, 2, seed=7)
    large = DocumentBatches(*corpus, 12, 6, seed=7)
    assert torch.equal(torch.cat([small[step][0] for step in range(6)]),
                       torch.cat([large[step][0] for step in range(2)]))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context_length": 0}, "context_length is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"context_length": 500}, "tokens, but one window needs 501"),
        ({"starts": []}, "starts must be positions"),
        ({"starts": [0, 10_000]}, "starts must be positions"),
        ({"starts": [-1]}, "starts must be positions"),
    ],
)
def test_document_batches_refuse(corpus, change, message):
    ids, starts = corpus
    fields = {"ids": ids, "starts": starts, "context_length": 12, "batch_size": 4, "seed": 7}
    with pytest.raises(ValueError, match=message):
        DocumentBatches(**(fields | change))
    with pytest.raises(IndexError, match="steps count from 0"):
        DocumentBatches(**fields)[-1]
