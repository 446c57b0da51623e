"""Tokenizers: text to ids and back, in three steps: characters, words, byte pairs.

Notable: words differ from characters in two methods only. BPETokenizer works on bytes with GPT-2's
splitting rule, so every text has ids and comes back unchanged. It trains in seconds, because each
distinct word is looked at once and counts are updated instead of recounted.
Sources: Sennrich et al. 2016, arXiv 1508.07909; Radford et al. 2019.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path

import regex
import tiktoken

from shared.classroom.errors import (
    all_different,
    check_id,
    check_text,
    require,
    unknown_token,
    whole,
)
from shared.classroom.files import DATA
from shared.classroom.gguf import GGUF
from shared.classroom.ranks import read_ranks, write_ranks

# built in bigram/bigram.ipynb: CharTokenizer, WordTokenizer
# built in 01_text_data/bpe.ipynb: merge_pair, learn_ranks, encode_piece

UNKNOWN = "<|unk|>"
END_OF_TEXT = "<|endoftext|>"

# GPT-2's rule for cutting a text into pieces; merges never cross their borders. A piece is an
# English ending ('s, 't, ...), letters, digits or other signs, the last three with the space
# before them, or white space. tiktoken reads the same pattern; only letters younger than the
# Unicode version of one of the two libraries may be cut differently.
PATTERN = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PIECE = regex.compile(PATTERN)
LONG = 100_000  # blanks in a row; from some 700,000 on, tiktoken panics
LONG_RUN = regex.compile(rf"\s{{{LONG},}}")
CACHE_SIZE = 200_000  # pieces remembered by encode; a book has some 20,000 distinct ones


class CharTokenizer:
    """One token per character; the vocabulary is every character of a text, sorted."""

    def __init__(self, text: str, unk: bool = False) -> None:
        check_text(text)
        self.vocab = sorted(set(self.split(text)))
        if not self.vocab:
            raise ValueError("the text is empty: a vocabulary needs at least one token")
        if unk:
            self.vocab = [token for token in self.vocab if token != UNKNOWN] + [UNKNOWN]
        self.vocab_size = len(self.vocab)
        self.ids = {token: id for id, token in enumerate(self.vocab)}
        self.unknown_id = self.ids[UNKNOWN] if unk else None

    def split(self, text: str) -> list[str]:
        return list(text)

    def join(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def encode(self, text: str) -> list[int]:
        tokens = self.split(text)
        ids = [self.ids.get(token, self.unknown_id) for token in tokens]
        if None in ids:
            raise unknown_token(tokens[ids.index(None)], self.vocab_size)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return self.join([self.vocab[check_id(id, self.vocab_size)] for id in ids])


class WordTokenizer(CharTokenizer):
    """One token per word or punctuation mark; white space is dropped, so decoding guesses it."""

    def split(self, text: str) -> list[str]:
        pieces = re.split(r'([,.:;?_!"()\']|--|\s)', text)
        return [piece.strip() for piece in pieces if piece.strip()]

    def join(self, tokens: list[str]) -> str:
        # No space before , . : ; ? ! ) nor after ( and none around an apostrophe.
        return re.sub(r" (?=[,.:;?!)'])|(?<=[(']) ", "", " ".join(tokens))


class BPETokenizer:
    """Byte pair encoding: begin with the 256 bytes, then merge the most frequent pair, again and
    again. A token's id is its rank, in the order of the merges; special tokens follow them.

    ranks: bytes → id; special_tokens: text → id; tokens: id → bytes, both kinds.
    """

    def __init__(
        self, ranks: dict[bytes, int], special_tokens: Sequence[str] = (END_OF_TEXT,)
    ) -> None:
        all_different(special_tokens=special_tokens)
        self.ranks = ranks
        self.special_tokens = {token: len(ranks) + i for i, token in enumerate(special_tokens)}
        self.tokens = {rank: token for token, rank in ranks.items()}
        self.tokens |= {id: token.encode() for token, id in self.special_tokens.items()}
        self.vocab_size = len(self.tokens)
        self.cache: dict[str, list[int]] = {}  # most pieces of a text have been seen before

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
    ) -> BPETokenizer:
        """Learn a vocabulary of `vocab_size` tokens, special ones included, from one or many texts.

        A special token found in the text is plain text: give documents as a list, not joined by it.
        Raises ValueError for an empty text, too small a size, or one the text cannot fill.
        """
        all_different(special_tokens=special_tokens)
        n_special = len(special_tokens)
        whole(256 + n_special, vocab_size=vocab_size)  # the bytes and the special tokens
        pieces = count_pieces([text] if isinstance(text, str) else text)
        ranks = learn_ranks(pieces, vocab_size - n_special)
        if (reached := len(ranks) + n_special) < vocab_size:
            raise ValueError(
                f"merges ran out at {reached} tokens: every piece of the text is one token by "
                f"then; ask for vocab_size <= {reached}, or train on a longer text"
            )
        return cls(ranks, special_tokens)

    def encode(self, text: str, allowed_special: Collection[str] = frozenset()) -> list[int]:
        """Return the ids of a text.

        `<|endoftext|>` in it is plain text, unless `allowed_special` (a set, or "all") names it.
        Raises ValueError for a lone surrogate or an unknown special token.
        """
        check_text(text)
        allowed = set(self.special_tokens if allowed_special == "all" else allowed_special)
        unknown = sorted(allowed - self.special_tokens.keys())
        known = list(self.special_tokens)
        require(not unknown, f'allowed_special has {unknown}: give a set of {known}, or "all"')
        ids = []
        for part in split_special(text, allowed):
            if part in allowed:
                ids.append(self.special_tokens[part])
                continue
            for piece in PIECE.findall(part):
                if piece not in self.cache:
                    if len(self.cache) >= CACHE_SIZE:
                        self.cache.clear()
                    self.cache[piece] = encode_piece(piece.encode(), self.ranks)
                ids += self.cache[piece]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids; `decode(encode(text)) == text`.

        A token may hold only some bytes of a character: ids cut there show U+FFFD (�) for it.
        Raises ValueError for an id outside the vocabulary.
        """
        data = b"".join(self.tokens[check_id(id, self.vocab_size)] for id in ids)
        return data.decode("utf-8", errors="replace")

    @property
    def eot_id(self) -> int:
        """The id of <|endoftext|>, which stands between documents."""
        if END_OF_TEXT not in self.special_tokens:
            raise ValueError(f"this tokenizer has no {END_OF_TEXT}: add it to its special_tokens")
        return self.special_tokens[END_OF_TEXT]

    def save(self, path: str | Path) -> None:
        """Write the ranks in tiktoken's text format; special tokens are not in the file."""
        write_ranks(self.ranks, Path(path))

    @classmethod
    def load(cls, path: str | Path, special_tokens: Sequence[str] = (END_OF_TEXT,)) -> BPETokenizer:
        """Read what `save` wrote, or GPT-2's own ranks; raises as `read_ranks`."""
        return cls(read_ranks(Path(path)), special_tokens)

    def to_tiktoken(self, name: str = "course") -> tiktoken.Encoding:
        """Return the same tokenizer as a tiktoken.Encoding, which is written in Rust and faster."""
        return FastEncoding(
            name,
            pat_str=PATTERN,
            mergeable_ranks=self.ranks,
            special_tokens=self.special_tokens,
            explicit_n_vocab=self.vocab_size,
        )


class FastEncoding(tiktoken.Encoding):
    """tiktoken's encoder, spared the long runs of white space that make it panic: same ids."""

    def __init__(self, name: str, *, mergeable_ranks: dict[bytes, int], **rest: object) -> None:
        super().__init__(name, mergeable_ranks=mergeable_ranks, **rest)
        self.ranks = mergeable_ranks

    def encode(self, text: str, **special: object) -> list[int]:
        """The ids of a text; `special` says what special tokens in it are, as in tiktoken."""
        return self._in_parts(text, lambda part: super(FastEncoding, self).encode(part, **special))

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of a text, special tokens in it as plain text."""
        return self._in_parts(text, super().encode_ordinary)

    def _in_parts(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        ids, start = [], 0
        for run in LONG_RUN.finditer(text) if len(text) > LONG else ():
            end = run.end() - (run.end() < len(text))  # the last blank goes with the word behind it
            ids += encode(text[start : run.start()])
            ids += encode_piece(text[run.start() : end].encode(), self.ranks)
            start = end
        return ids + encode(text[start:])


class PartialEncoding(FastEncoding):
    """An encoding whose vocabulary lacks some single bytes; text with one of these is refused."""

    def __init__(self, name: str, *, mergeable_ranks: dict[bytes, int], **rest: object) -> None:
        super().__init__(name, mergeable_ranks=mergeable_ranks, **rest)
        self.missing = {byte for byte in range(256) if bytes([byte]) not in mergeable_ranks}

    def _in_parts(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        check_text(text)
        if self.missing and (lost := self.missing.intersection(text.encode())):
            letter = next(c for c in text if lost.intersection(c.encode()))
            raise ValueError(
                f"no token of {self.name} covers the byte {min(lost):#04x}, and the text has it in "
                f"{letter!r}: remove or replace that character"
            )
        return super()._in_parts(text, encode)


def count_pieces(texts: Iterable[str]) -> Counter[str]:
    """Return how often each piece occurs: training needs every distinct word only once."""
    pieces: Counter[str] = Counter()
    for text in texts:
        check_text(text)
        pieces.update(PIECE.findall(text))
    if not pieces:
        raise ValueError("the text is empty: there is nothing to learn merges from")
    return pieces


def single_bytes(piece: str) -> list[bytes]:
    """The bytes of a piece, one by one: "né" → [b"n", b"\\xc3", b"\\xa9"]."""
    return [bytes([byte]) for byte in piece.encode()]


def merge_pair(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """Return the word with every occurrence of the pair, from the left, made one token."""
    merged, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            merged.append(word[i] + word[i + 1])
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


def learn_ranks(pieces: Counter[str], size: int) -> dict[bytes, int]:
    """Return up to `size` tokens with their ranks: the 256 bytes, then one merge after the other.

    Of equally frequent pairs the one of smallest bytes comes first, so a text always gives the
    same ranks. There are fewer than `size` when every piece has become one token.
    """
    words = [single_bytes(piece) for piece in pieces]
    times = list(pieces.values())  # how often each word occurs in the text
    counts: Counter[tuple[bytes, bytes]] = Counter()
    places = defaultdict(set)  # pair → the words that hold it
    for i, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += times[i]
            places[pair].add(i)
    heap = [(-count, pair) for pair, count in counts.items()]  # the smallest: most frequent
    heapify(heap)
    ranks = {bytes([byte]): byte for byte in range(256)}
    while heap and len(ranks) < size:
        count, best = heappop(heap)
        if -count != counts[best]:
            continue  # outdated: a new count, unless it is 0, has an entry of its own
        ranks.setdefault(best[0] + best[1], len(ranks))  # a token keeps its first rank
        changes: Counter[tuple[bytes, bytes]] = Counter()
        for i in places.pop(best):  # only the words that hold the pair change
            for pair in pairwise(words[i]):
                changes[pair] -= times[i]
            words[i] = merge_pair(words[i], best)
            for pair in pairwise(words[i]):
                changes[pair] += times[i]
                places[pair].add(i)
        for pair, change in changes.items():
            counts[pair] += change
            if change and counts[pair]:
                heappush(heap, (-counts[pair], pair))
    return ranks


def encode_piece(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Merge neighbours into tokens, lowest rank first and the leftmost among equals.

    A heap finds the next merge, so even a word of a million letters takes only seconds.
    """
    if piece in ranks:
        return [ranks[piece]]
    size = len(piece)
    end = list(range(1, size + 1))  # the token that starts at i is piece[i : end[i]]
    before = list(range(-1, size))  # before[i]: where the token to the left starts
    heap: list[tuple[int, int, int]] = []

    def consider(left: int) -> None:
        """Put the token at `left` and its right neighbour into the heap, if they can merge."""
        if left >= 0 and end[left] < size:
            stop = end[end[left]]
            rank = ranks.get(piece[left:stop])
            if rank is not None:
                heappush(heap, (rank, left, stop))

    for left in range(size):
        consider(left)
    while heap:
        _, left, stop = heappop(heap)
        right = end[left]
        if right >= stop or end[right] != stop:
            continue  # outdated: one of the two has merged with another neighbour
        end[left], end[right] = stop, size
        before[stop] = left
        consider(before[left])
        consider(left)
    ids, start = [], 0
    while start < size:
        ids.append(ranks[piece[start : end[start]]])
        start = end[start]
    return ids


def split_special(text: str, allowed: Collection[str]) -> list[str]:
    """Cut a text at the allowed special tokens, which stay as parts of their own."""
    if not allowed:
        return [text]
    longest_first = sorted(allowed, key=len, reverse=True)
    return regex.split(f"({'|'.join(map(regex.escape, longest_first))})", text)


# How the vocabularies of GGUF files cut a text, by the name they give it: GPT-2's rule, and it
# again with every digit a piece of its own.
DIGITS = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
CUTS = {"gpt-2": PATTERN, "smollm": DIGITS}
CONTROL = 3  # the kind of a token that no text may become


def gguf_tokenizer(path: str | Path) -> PartialEncoding:
    """The tokenizer in a GGUF file (byte pairs); its control tokens are the special ones.

    Raises ValueError for a file without one, or with one of another kind.
    """
    fields = GGUF(Path(path)).fields
    try:
        kind, cut = fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre", "gpt-2")
        tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    except KeyError as error:
        raise ValueError(f"{path} holds no tokenizer: its header has no {error}") from None
    known = kind == "gpt2" and cut in CUTS
    require(
        known, f"{path} has a tokenizer {kind}/{cut}; read here are gpt2/{', gpt2/'.join(CUTS)}"
    )
    letters = {letter: byte for byte, letter in printable_bytes().items()}
    special = {t: i for i, (t, k) in enumerate(zip(tokens, kinds, strict=True)) if k == CONTROL}
    ranks = {
        bytes(letters[letter] for letter in token): id
        for id, token in enumerate(tokens)
        if token not in special
    }
    return PartialEncoding(
        Path(path).stem, pat_str=CUTS[cut], mergeable_ranks=ranks, special_tokens=special
    )


def printable_bytes() -> dict[int, str]:
    """GPT-2's letter for every byte, so that a vocabulary can be written as text: 32 → Ġ."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = (byte for byte in range(256) if byte not in seen)
    return {byte: chr(byte) for byte in seen} | {b: chr(256 + i) for i, b in enumerate(unseen)}


@functools.cache
def course_tokenizer() -> BPETokenizer:
    """Return the course's own tokenizer, trained on its tales, facts, messages and instructions."""
    return BPETokenizer.load(DATA / "course.tiktoken")


@functools.cache
def gpt2_tokenizer() -> tiktoken.Encoding:
    """Return GPT-2's tokenizer of 50,257 tokens; its rank file is fetched on first use.

    Raises FetchError when the file can be had nowhere.
    """
    from shared.classroom.fetch import fetch  # only here: a process that encodes starts faster

    return BPETokenizer.load(fetch("gpt2.tiktoken")).to_tiktoken("gpt2")
