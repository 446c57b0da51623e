"""Vocabulary files in tiktoken's format: a line per token, its bytes in base64 and its rank."""

from __future__ import annotations

import base64
import codecs
from pathlib import Path

from shared.classroom.errors import require
from shared.classroom.files import write_atomically


def write_ranks(ranks: dict[bytes, int], path: Path) -> None:
    """Write a rank file; if that fails half-way, the old file stays as it was."""
    in_order = sorted(ranks, key=ranks.__getitem__)
    lines = [base64.b64encode(token) + b" %d\n" % ranks[token] for token in in_order]
    write_atomically(path, lambda file: file.writelines(lines))


def read_ranks(path: Path) -> dict[bytes, int]:
    """Read a rank file: the bytes of each token → its rank, which is also its id.

    Raises FileNotFoundError, and ValueError with file, line and remedy for a damaged file. The
    format has no end mark: a file cut exactly between two lines reads as a smaller vocabulary.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no vocabulary file {path}: check the name, or write one with "
            f"BPETokenizer.train(text, vocab_size).save(path)"
        )
    ranks: dict[bytes, int] = {}
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).rstrip().splitlines()
    for rank, line in enumerate(lines):
        try:
            token, number = line.split()
            token = base64.b64decode(token, validate=True)
            require(int(number) == rank, "ranks count up from 0")
            require(token not in ranks, "the token stands in an earlier line")
        except ValueError as error:
            raise ValueError(
                f"{path}, line {rank + 1}: {line[:60]!r} is not a new token in base64, a space and "
                f"the rank {rank}. The file is damaged: restore it, or make it anew"
            ) from error
        ranks[token] = rank
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of the 256 single bytes, the first {missing[0]:#04x}. "
            f"The file is damaged: restore it, or make it anew"
        )
    return ranks
