"""Reads the hand-written sheets `wordings.txt`, `talk.txt` and `outside.txt`.

A sheet has heads ("plural:"), and indented lines under each; a line may be marked "new:" (only the
test uses it) or ">" (a right answer).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Head:
    """What stands under one head: lines for every split, lines for the test alone, and answers."""

    known: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


def read_sheet(source: str) -> dict[str, Head]:
    """Head by head; raises ValueError for a line under no head, and for a head or line said twice.

    A head that ends in "(new)" keeps the mark in its name.
    """
    heads: dict[str, Head] = {}
    head, seen = None, set()
    for line in source.splitlines():
        text = line.strip()
        if not text or line.startswith("#"):
            continue
        if not line.startswith(" "):
            name = text.removesuffix(":")
            if name in heads or name == text:
                raise ValueError(f"{text!r} is no new head: write `NAME:`, and every name once")
            head, seen = heads.setdefault(name, Head()), set()
            continue
        if head is None or text in seen:
            raise ValueError(f"{text!r} stands under no head, or twice under the same")
        seen.add(text)
        for mark, lines in (("new: ", head.new), ("> ", head.answers), ("", head.known)):
            if text.startswith(mark):
                lines.append(text.removeprefix(mark))
                break
    return heads


@cache
def sheet(name: str) -> dict[str, Head]:
    """The sheet of that name beside this file."""
    return read_sheet((Path(__file__).parent / name).read_text(encoding="utf-8"))
