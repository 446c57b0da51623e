"""Tokenizers: equal to tiktoken, lossless on every Unicode text, and clear about bad input."""

import base64
import os
import pickle
import random
import string
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
import tiktoken
import torch
from tiktoken_ext.openai_public import r50k_pat_str

import shared.tokenizers as tokenizers
from shared.classroom.fetch import FetchError, fetch
from shared.tokenizers import (
    END_OF_TEXT,
    BPETokenizer,
    CharTokenizer,
    WordTokenizer,
    encode_piece,
    learn_ranks,
)

SPECIALS = (END_OF_TEXT, "<|user|>", "<|assistant|>")
CODE_POINTS = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def tales(n: int, seed: int = 0) -> str:
    """About `n` characters like the course's own: tales of few words, and chat-like messages."""
    rng = random.Random(seed)
    letters = [c for c in string.ascii_lowercase for _ in range(8 if c in "aeiou" else 2)]
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(900)]
    names = [word.capitalize() for word in words[:60]]
    lines, size = [], 0
    while size < n:
        tale = [rng.choice(names), *rng.choices(words, k=rng.randint(5, 12))]
        line = " ".join(tale) + rng.choice([".", "!", ", said the owl.", '. "Don\'t go," it said.'])
        if rng.random() < 0.2:
            number = f"0{rng.randint(10**8, 10**9)}"
            line = f"hey {rng.choice(names)}!! FREE prize 🎁 call {number} now 😀😀 <3 ünïcode 你好"
        lines.append(line)
        size += len(line) + 1
    return "\n".join(lines)


@pytest.fixture(scope="module")
def bpe() -> BPETokenizer:
    return BPETokenizer.train(tales(200_000), 1_500, SPECIALS)


def fetch_or_skip(name: str) -> Path:
    try:
        return fetch(name)
    except FetchError as error:
        pytest.skip(" ".join(str(error).split()))  # it names the file, and what was tried


@pytest.fixture(scope="module")
def gpt2_file() -> Path:
    return fetch_or_skip("gpt2.tiktoken")


@pytest.fixture(scope="module")
def ours_and_gpt2(gpt2_file) -> tuple[BPETokenizer, tiktoken.Encoding]:
    """Our tokenizer with GPT-2's vocabulary, and tiktoken's with its own spelling of the rule."""
    ours = BPETokenizer.load(gpt2_file)
    peer = tiktoken.Encoding(
        "peer",
        pat_str=r50k_pat_str,
        mergeable_ranks=ours.ranks,
        special_tokens=ours.special_tokens,
    )
    return ours, peer


def random_texts(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    pools = [
        string.ascii_letters,
        "aeiou     ",
        string.printable,
        " \t\n\r\x0b\x0c\x85\xa0\u2003\u2028\u3000",  # white space of many kinds
        [chr(c) for c in range(32)] + ["\x7f", "\x80", "\x9f", "\u200b", "\ufeff"],  # controls
        [chr(c) for c in range(0x300, 0x370)] + list("aeou"),  # combining marks
        ["👩‍👩‍👧", "🏳️‍🌈", "👍🏽", "🇩🇪", "😀", "🎁", "❤️", "\u200d", "\ufe0f"],
        "0123456789²½Ⅷ४٣ ",
        "'sdmtlvreSDLL’ ",
        "你好世界ありがとう한국어नमस्तेمرحباΑβγЖщ",
        [*SPECIALS, "<|", "|>", "<|endof", "text|>", "<", "|", "user", " "],
        tales(3_000).split(" "),
        [word + " " for word in tales(3_000).split(" ")],
        CODE_POINTS,
    ]
    texts = []
    for _ in range(n):
        parts = []
        for _ in range(rng.randint(0, 5)):
            parts += rng.choices(rng.choice(pools), k=rng.randint(1, 12))
        texts.append("".join(parts))
    return texts


# --- characters and words -------------------------------------------------------------------------


def test_characters_are_sorted_and_come_back():
    tokenizer = CharTokenizer("hello wörld\n")
    assert tokenizer.vocab == sorted(set("hello wörld\n"))
    assert tokenizer.vocab_size == 10
    assert tokenizer.encode("hö") == [tokenizer.vocab.index("h"), tokenizer.vocab.index("ö")]
    assert tokenizer.decode(tokenizer.encode("lloyd"[:3])) == "llo"
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


def test_words_are_split_at_punctuation_and_repaired():
    text = 'Well, well (said the owl): don\'t_you--"really"?'
    tokenizer = WordTokenizer(text)
    words = ["Well", ",", "well", "(", "said", "the", "owl", ")", ":", "don", "'", "t", "_", "you"]
    assert tokenizer.split(text) == [*words, "--", '"', "really", '"', "?"]
    assert tokenizer.vocab == sorted(set(tokenizer.split(text)))
    ids = tokenizer.encode("Well,\n  well: (don't you?)")
    assert tokenizer.decode(ids) == "Well, well: (don't you?)"


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
def test_unknown_token_is_an_error_or_unk(kind):
    with pytest.raises(ValueError, match=r"'z' is not in the vocabulary of \d+ .*unk=True"):
        kind("a b c").encode("a z")
    tokenizer = kind("a b c", unk=True)
    assert tokenizer.vocab[-1] == "<|unk|>"
    assert tokenizer.vocab_size == kind("a b c").vocab_size + 1
    assert tokenizer.encode("z") == [tokenizer.vocab_size - 1]
    assert tokenizer.decode(tokenizer.encode("z")) == "<|unk|>"
    assert tokenizer.encode("a") == kind("a b c").encode("a")


def test_unk_stands_once_even_if_the_text_spells_it():
    tokenizer = WordTokenizer("zebra <|unk|> apple", unk=True)
    assert tokenizer.vocab == ["apple", "zebra", "<|unk|>"]
    assert WordTokenizer("<|unk|> apple").encode("<|unk|>") == [0]  # a word like any other


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
def test_empty_text_has_no_vocabulary(kind):
    with pytest.raises(ValueError, match="the text is empty"):
        kind("")
    with pytest.raises(ValueError, match="the text is empty"):
        WordTokenizer(" \n ")
    with pytest.raises(ValueError, match="the text is empty"):
        kind("", unk=True)


@pytest.mark.parametrize("bad", [-1, 5, 10**9])
@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
def test_id_outside_a_small_vocabulary(kind, bad):
    with pytest.raises(ValueError, match=rf"token id {bad} is outside the vocabulary \(0 to "):
        kind("a b c").decode([0, bad])


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
def test_small_vocabularies_refuse_what_is_no_text(kind):
    with pytest.raises(ValueError, match="lone surrogate.*position 1"):
        kind("a\ud800")
    with pytest.raises(TypeError, match="reads a text .*not list"):
        kind(["a", "b"])


# --- training byte pairs --------------------------------------------------------------------------


def learn_slowly(pieces: Counter, size: int) -> dict[bytes, int]:
    """The definition: count every pair anew for every merge."""
    words = {piece: tokenizers.single_bytes(piece) for piece in pieces}
    ranks = {bytes([b]): b for b in range(256)}
    while len(ranks) < size:
        counts = Counter()
        for piece, word in words.items():
            for pair in pairwise(word):
                counts[pair] += pieces[piece]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        ranks.setdefault(b"".join(best), len(ranks))
        words = {piece: tokenizers.merge_pair(word, best) for piece, word in words.items()}
    return ranks


@pytest.mark.parametrize(
    "text",
    [
        tales(4_000),
        "aaaa aaaaaaa aaa aaaaaaaaaaaaa aaaaa aa baaaab abababab bababa",
        "".join(random.Random(1).choices("ab ", k=3_000)),
        "".join(random.Random(2).choices("né你😀 \n", k=2_000)),
    ],
    ids=["tales", "runs", "two letters", "bytes"],
)
def test_incremental_counts_equal_recounting(text):
    pieces = tokenizers.count_pieces([text])
    assert list(learn_ranks(pieces, 420).items()) == list(learn_slowly(pieces, 420).items())


def test_first_merges_by_hand():
    tokenizer = BPETokenizer.train("hug hug pug pun bun hugs", 256 + 1 + 3)
    # (u, g) stands there 4 times, then (h, ug) 3 times, then ( , hug) and ( , p) twice: h < p.
    assert list(tokenizer.ranks)[256:] == [b"ug", b"hug", b" hug"]
    assert list(tokenizer.ranks)[:256] == [bytes([b]) for b in range(256)]
    assert tokenizer.encode("hug hugs") == [257, 258, ord("s")]


def test_ties_go_to_the_smallest_bytes_whatever_the_order():
    assert list(BPETokenizer.train("zy xw", 256 + 3).ranks)[256:] == [b" x", b" xw"]
    documents = tales(30_000).split("\n")
    forward = BPETokenizer.train(documents, 600)
    backward = BPETokenizer.train(reversed(documents), 600)
    assert list(forward.ranks) == list(backward.ranks)


def test_one_text_or_many():
    assert BPETokenizer.train(["hug hug", " hug"], 260).ranks == (
        BPETokenizer.train("hug hug hug", 260).ranks
    )


def test_special_tokens_follow_the_merges(bpe):
    assert bpe.vocab_size == 1_500 == len(bpe.ranks) + 3
    assert sorted(bpe.ranks.values()) == list(range(1_497))
    assert bpe.special_tokens == {SPECIALS[0]: 1497, SPECIALS[1]: 1498, SPECIALS[2]: 1499}
    assert bpe.eot_id == 1497
    with pytest.raises(ValueError, match="no <|endoftext|>: add it"):
        _ = BPETokenizer.train("ab", 256, special_tokens=()).eot_id


@pytest.mark.parametrize("text", ["", [], [""], iter(())])
def test_training_on_nothing(text):
    with pytest.raises(ValueError, match="the text is empty"):
        BPETokenizer.train(text, 300)


@pytest.mark.parametrize("size", [-1, 0, 255, 256, 258])
def test_too_small_a_vocabulary(size):
    with pytest.raises(ValueError, match=f"vocab_size is {size}; .* at least 259"):
        BPETokenizer.train("some text", size, SPECIALS)


def test_smallest_vocabulary_is_the_bytes():
    tokenizer = BPETokenizer.train("some text", 257)
    assert tokenizer.encode("é") == [0xC3, 0xA9] and tokenizer.eot_id == 256


def test_merges_run_out():
    with pytest.raises(ValueError, match=r"merges ran out at 260 tokens.*vocab_size <= 260"):
        BPETokenizer.train("abc abc", 300)
    full = BPETokenizer.train("abc abc", 260)
    assert full.encode("abc abc") == [257, 258]  # "ab" or "bc", then "abc", then " abc"


@pytest.mark.parametrize("specials", ["<|endoftext|>", ("<|a|>", "<|a|>"), ("",)])
def test_special_tokens_that_cannot_be(specials):
    with pytest.raises(ValueError, match="give a tuple of different, non-empty texts"):
        BPETokenizer.train("some text", 300, specials)


def test_training_takes_seconds():
    text = tales(5_000_000)
    start = time.process_time()
    tokenizer = BPETokenizer.train(text, 2_048)
    trained = time.process_time()
    ids = tokenizer.encode(text)
    encoded = time.process_time()
    assert tokenizer.decode(ids) == text
    assert trained - start < 30, f"training took {trained - start:.1f} s of processor time"
    assert encoded - trained < 15, f"encoding took {encoded - trained:.1f} s of processor time"


# --- equal to tiktoken ----------------------------------------------------------------------------


def assert_equal_to_tiktoken(ours: BPETokenizer, peer: tiktoken.Encoding, texts: list[str]):
    choices = [set(), {END_OF_TEXT}, set(ours.special_tokens), "all"]
    for i, text in enumerate(texts):
        allowed = choices[i % len(choices)]
        ids = ours.encode(text, allowed_special=allowed)
        expected = peer.encode(text, allowed_special=allowed, disallowed_special=())
        assert ids == expected, (text, allowed)
        assert ours.decode(ids) == text == peer.decode(ids)


def test_pieces_are_cut_as_tiktoken_cuts_for_gpt2():
    """tiktoken spells GPT-2's rule in another way, for speed."""
    peer = regex.compile(r50k_pat_str)
    for text in [*random_texts(5_000, seed=6), "I'd we'll it's 'tis they've   x \n\n y 12ab  "]:
        assert tokenizers.PIECE.findall(text) == peer.findall(text)


def test_same_ids_as_tiktoken_on_random_texts(bpe):
    texts = random_texts(10_000, seed=7)
    assert sum(END_OF_TEXT in text for text in texts) > 300
    assert_equal_to_tiktoken(bpe, bpe.to_tiktoken(), texts)


def test_same_ids_as_tiktoken_when_bytes_are_shuffled(bpe, tmp_path):
    """GPT-2 numbers the single bytes in another order than ours: ranks come from the file."""
    order = random.Random(3).sample(range(256), 256)
    tokens = [bytes([b]) for b in order] + list(bpe.ranks)[256:]
    tokenizers.write_ranks({token: i for i, token in enumerate(tokens)}, tmp_path / "shuffled")
    shuffled = BPETokenizer.load(tmp_path / "shuffled", SPECIALS)
    assert shuffled.encode("\x00") == [order.index(0)] != [0]
    assert_equal_to_tiktoken(shuffled, shuffled.to_tiktoken(), random_texts(2_000, seed=8))


def test_same_ids_as_tiktoken_for_odd_ranks():
    """Ranks no training would give: the leftmost of the lowest must still win."""
    rng = random.Random(5)
    for _ in range(30):
        tokens = {"".join(rng.choices("ab", k=rng.randint(2, 6))).encode() for _ in range(25)}
        tokens = sorted(tokens, key=lambda _: rng.random())
        ranks = {t: i for i, t in enumerate([bytes([b]) for b in range(256)] + tokens)}
        ours = BPETokenizer(ranks)
        peer = ours.to_tiktoken()
        for size in (5, 20, 60, 300):
            text = "".join(rng.choices("ab", k=size))
            assert ours.encode(text) == peer.encode_ordinary(text), (tokens, text)


def test_gpt2_vocabulary(gpt2_file):
    text, expected = "Akwirw <|endoftext|> ier.", [33901, 86, 343, 86, 220, 50256, 220, 959, 13]
    gpt2, ours = tokenizers.gpt2_tokenizer(), BPETokenizer.load(gpt2_file)
    assert isinstance(gpt2, tiktoken.Encoding) and gpt2 is tokenizers.gpt2_tokenizer()
    assert gpt2.n_vocab == ours.vocab_size == 50_257
    assert gpt2.eot_token == ours.eot_id == 50_256
    assert gpt2.encode(text, allowed_special={END_OF_TEXT}) == expected
    assert ours.encode(text, allowed_special={END_OF_TEXT}) == expected


def test_our_bpe_with_gpt2_vocabulary_equals_tiktoken(ours_and_gpt2):
    assert_equal_to_tiktoken(*ours_and_gpt2, random_texts(10_000, seed=9))


def test_our_bpe_with_gpt2_vocabulary_equals_tiktoken_on_all_of_tiny_shakespeare(ours_and_gpt2):
    text = fetch_or_skip("tiny-shakespeare.txt").read_text(encoding="utf-8")
    assert len(text) == 1_115_394
    assert_equal_to_tiktoken(*ours_and_gpt2, [text])


# --- encoding and decoding ------------------------------------------------------------------------


def test_every_character_comes_back(bpe):
    text = "".join(CODE_POINTS)
    assert bpe.decode(bpe.encode(text)) == text


def test_special_token_in_a_text_is_plain_text_unless_allowed(bpe):
    text = f"one{END_OF_TEXT}two"
    plain, special = bpe.encode(text), bpe.encode(text, allowed_special={END_OF_TEXT})
    assert bpe.eot_id not in plain and special.count(bpe.eot_id) == 1
    assert bpe.decode(plain) == bpe.decode(special) == text
    assert special == [*bpe.encode("one"), bpe.eot_id, *bpe.encode("two")]
    assert bpe.encode("<|user|>" + text, allowed_special={END_OF_TEXT}).count(1498) == 0
    assert bpe.encode("<|user|>" + text, allowed_special="all")[0] == 1498


def test_longest_special_token_first():
    tokenizer = BPETokenizer.train("ab", 259, ("<|a|>", "<|a|>2", "."))
    assert tokenizer.encode("<|a|>2<|a|>.", allowed_special="all") == [257, 256, 258]
    assert tokenizer.encode("x", allowed_special={"."}) == [ord("x")]  # "." is no regex dot


@pytest.mark.parametrize("allowed", [{"<|nobody|>"}, "<|endoftext|>"])
def test_unknown_allowed_special(bpe, allowed):
    with pytest.raises(ValueError, match="allowed_special has .*give a set of"):
        bpe.encode("text", allowed_special=allowed)


@pytest.mark.parametrize("text", ["\ud83d", "ok \udfff end", "\ude00\ud83d"])
def test_lone_surrogates(bpe, text):
    place = next(i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff")
    with pytest.raises(ValueError, match=f"lone surrogate, .*, at position {place}: .*Clean"):
        bpe.encode(text)
    with pytest.raises(ValueError, match=f"lone surrogate, .*, at position {place}: .*Clean"):
        BPETokenizer.train(["fine", text], 300)


@pytest.mark.parametrize("thing", [None, b"bytes", ["a", "list"], 3])
def test_only_texts_are_encoded(bpe, thing):
    with pytest.raises(TypeError, match=r"reads a text \(str\), not"):
        bpe.encode(thing)


@pytest.mark.parametrize("bad", [-1, 1_500, 50_256])
def test_id_outside_the_vocabulary(bpe, bad):
    with pytest.raises(ValueError, match=rf"token id {bad} is outside the vocabulary \(0 to 1499"):
        bpe.decode([1, bad])


def test_ids_are_whole_numbers_of_any_library(bpe):
    ids = bpe.encode("The owl")
    assert bpe.decode(np.array(ids, dtype=np.uint16)) == "The owl"
    assert bpe.decode(torch.tensor(ids)) == "The owl"
    with pytest.raises(TypeError):
        bpe.decode([1.5])


def test_half_a_character_is_shown_as_such():
    tokenizer = BPETokenizer.train("ab", 257)
    assert tokenizer.decode(tokenizer.encode("a😀b")[:3]) == "a\ufffd"


def test_a_very_long_word_is_no_trap(bpe):
    start = time.process_time()
    for text in ("a" * 100_000, "".join(random.Random(1).choices("abcdef", k=100_000))):
        assert bpe.encode(text) == bpe.to_tiktoken().encode_ordinary(text)
    assert time.process_time() - start < 20


def test_cache_is_bounded_and_harmless(bpe, monkeypatch):
    monkeypatch.setattr(tokenizers, "CACHE_SIZE", 3)
    fresh = BPETokenizer(bpe.ranks, SPECIALS)
    text = tales(5_000)
    assert fresh.encode(text) == fresh.encode(text) == bpe.encode(text)
    assert len(fresh.cache) <= 3
    first = fresh.encode("owl")
    first.append(0)  # what the caller does to the answer does not reach the cache
    assert fresh.encode("owl") == first[:-1]


def test_a_whole_token_is_found_at_once(bpe):
    for token, rank in bpe.ranks.items():
        assert encode_piece(token, bpe.ranks) == [rank]


def test_pickle(bpe):
    again = pickle.loads(pickle.dumps(bpe))  # as the workers of a data loader get it
    assert again.encode("The owl", "all") == bpe.encode("The owl")


# --- files ----------------------------------------------------------------------------------------


def test_save_and_load(bpe, tmp_path):
    path = tmp_path / "small.tiktoken"
    bpe.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["small.tiktoken"]
    assert path.read_bytes().startswith(b"AA== 0\nAQ== 1\n")
    again = BPETokenizer.load(str(path), SPECIALS)
    assert list(again.ranks.items()) == list(bpe.ranks.items())
    assert again.special_tokens == bpe.special_tokens
    assert tiktoken.load.load_tiktoken_bpe(str(path)) == bpe.ranks  # tiktoken reads it, too
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # as git may do on Windows
    assert BPETokenizer.load(path, SPECIALS).ranks == bpe.ranks


def test_save_leaves_nothing_half_written(bpe, tmp_path, monkeypatch):
    path = tmp_path / "small.tiktoken"
    path.write_text("the old file")

    def refused(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="disk full"):
        bpe.save(path)
    assert path.read_text() == "the old file"
    assert list(tmp_path.iterdir()) == [path]


def edit(number: int, new: bytes | None):
    """Replace one line of a file (numbers from 1), or remove it."""

    def change(lines: list[bytes]) -> list[bytes]:
        return lines[: number - 1] + ([] if new is None else [new]) + lines[number:]

    return change


def b64(token: bytes) -> bytes:
    return base64.b64encode(token)


@pytest.mark.parametrize(
    ("damage", "place", "reason"),
    [
        (edit(300, b"a!b= 299"), "line 300", "not a new token in base64"),
        (edit(300, b"abc 299"), "line 300", "not a new token in base64"),
        (edit(300, b"\xff\xfe== 299"), "line 300", "not a new token in base64"),
        (edit(300, b"YWI="), "line 300", "not a new token in base64"),
        (edit(300, b""), "line 300", "not a new token in base64"),
        (edit(300, b"YWI= 299 0"), "line 300", "not a new token in base64"),
        (edit(300, b"YWI= x"), "line 300", "not a new token in base64"),
        (edit(300, b"YWI= 298"), "line 300", "not a new token in base64"),
        (edit(300, b"YWI= -1"), "line 300", "not a new token in base64"),
        (edit(300, None), "line 300", "not a new token in base64"),
        (edit(300, b64(b"A") + b" 299"), "line 300", "not a new token in base64"),
        (lambda lines: lines[:200], "lacks 56", "lacks 56 of the 256 single bytes.*0xc8"),
        (lambda lines: [], "lacks 256", "lacks 256 of the 256 single bytes.*0x00"),
        (lambda lines: [b"<html>Not found</html>"], "line 1", "not a new token in base64"),
    ],
)
def test_damaged_file(bpe, tmp_path, damage, place, reason):
    path = tmp_path / "damaged.tiktoken"
    bpe.save(path)
    path.write_bytes(b"\n".join(damage(path.read_bytes().splitlines())))
    with pytest.raises(ValueError, match=f"(?s){reason}.*damaged: restore it") as caught:
        BPETokenizer.load(path, SPECIALS)
    assert str(path) in str(caught.value) and place in str(caught.value)


def test_file_cut_anywhere_within_a_line(bpe, tmp_path):
    path = tmp_path / "cut.tiktoken"
    bpe.save(path)
    whole = path.read_bytes()
    start = whole.index(b" 1200\n") + len(b" 1200\n")  # where the line of rank 1201 begins
    end = whole.index(b" 1201\n") + len(b" 1201")
    for cut in range(start + 1, end):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="cut.tiktoken, line 1202: "):
            BPETokenizer.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no vocabulary file .*nowhere.tiktoken: check"):
        BPETokenizer.load(tmp_path / "nowhere.tiktoken")
    with pytest.raises(FileNotFoundError, match="no vocabulary file"):
        BPETokenizer.load(tmp_path)  # a folder


# --- the course's own vocabulary ------------------------------------------------------------------


def test_course_tokenizer():
    tokenizer = tokenizers.course_tokenizer()
    assert tokenizer is tokenizers.course_tokenizer()
    assert 1_000 <= tokenizer.vocab_size <= 2_048
    assert tokenizer.eot_id == tokenizer.vocab_size - 1
    assert_equal_to_tiktoken(tokenizer, tokenizer.to_tiktoken(), random_texts(1_000, seed=11))
