"""GGUF, the file of llama.cpp: a header that says everything, and tensors in 4 to 32 bits.

Notable: a quantised tensor is cut into blocks of 32 or 256 numbers that share a scale; undoing it
is a few lines for each kind. A tensor is read when it is asked for, so that no more than one of
them lies in memory twice. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from shared.classroom.errors import require

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
           12: "d"}  # fmt: skip
STRING, ARRAY = 8, 9
LONGEST = 1 << 26  # no text or list of a sound header is longer


def from_f32(blocks: np.ndarray) -> np.ndarray:
    """Plain numbers of 32 bits."""
    return blocks.view("<f4")


def from_f16(blocks: np.ndarray) -> np.ndarray:
    """Plain numbers of 16 bits."""
    return blocks.view("<f2").astype(np.float32)


def from_bf16(blocks: np.ndarray) -> np.ndarray:
    """The upper half of numbers of 32 bits."""
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def nibbles(packed: np.ndarray) -> np.ndarray:
    """(blocks, 16) bytes → (blocks, 32) numbers from 0 to 15: first the lower halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def from_q4_0(blocks: np.ndarray) -> np.ndarray:
    """A scale, and 32 numbers of 4 bits with 8 in the middle."""
    return blocks[:, :2].view("<f2").astype(np.float32) * (nibbles(blocks[:, 2:]) - 8)


def from_q4_1(blocks: np.ndarray) -> np.ndarray:
    """A scale, the smallest number, and 32 numbers of 4 bits above it."""
    scale, smallest = blocks[:, :4].view("<f2").astype(np.float32).T[..., None]
    return scale * nibbles(blocks[:, 4:]) + smallest


def from_q8_0(blocks: np.ndarray) -> np.ndarray:
    """A scale, and 32 numbers of 8 bits."""
    return blocks[:, :2].view("<f2").astype(np.float32) * blocks[:, 2:].view(np.int8)


def from_q6_k(blocks: np.ndarray) -> np.ndarray:
    """256 numbers of 6 bits: 4 lower and 2 upper ones, apart; each 16 share a scale of 8 bits."""
    low, high = blocks[:, :128].reshape(-1, 2, 1, 64), blocks[:, 128:192].reshape(-1, 2, 1, 32)
    low = (low >> np.array([0, 4], np.uint8)[:, None] & 15).reshape(-1, 8, 32)
    high = (high >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3).reshape(-1, 8, 32)
    numbers = (low | high << 4).reshape(-1, 16, 16).astype(np.float32) - 32
    scale = blocks[:, 208:].view("<f2").astype(np.float32) * blocks[:, 192:208].view(np.int8)
    return (scale[..., None] * numbers).reshape(-1, 256)


class Kind(NamedTuple):
    """How a tensor is stored: numbers and bytes of a block, and what makes numbers of it again."""

    name: str
    numbers: int
    bytes: int
    undo: Callable[[np.ndarray], np.ndarray]


KINDS = {
    0: Kind("F32", 1, 4, from_f32), 1: Kind("F16", 1, 2, from_f16),
    2: Kind("Q4_0", 32, 18, from_q4_0), 3: Kind("Q4_1", 32, 20, from_q4_1),
    8: Kind("Q8_0", 32, 34, from_q8_0), 14: Kind("Q6_K", 256, 210, from_q6_k),
    30: Kind("BF16", 1, 2, from_bf16),
}  # fmt: skip


class Place(NamedTuple):
    """Where a tensor lies in the file: its shape as PyTorch has it, its kind, its first byte."""

    shape: tuple[int, ...]
    kind: Kind
    start: int

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) // self.kind.numbers * self.kind.bytes


class GGUF:
    """A GGUF file: `fields`, what its header says; `places`, its tensors; `read`, one of them.

    Raises FileNotFoundError, or ValueError for a file that is damaged, of another kind, or stored
    in a way that is not read here.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no file {path}: fetch it first, or check the path")
        with open(self.path, "rb") as file:
            try:
                self._read_header(file)
            except (struct.error, UnicodeDecodeError, OverflowError, MemoryError) as error:
                raise ValueError(f"{path} is damaged: its header breaks off ({error})") from error
        end = max((place.start + place.size for place in self.places.values()), default=0)
        found = self.path.stat().st_size
        require(end <= found, f"{path} has {found:,} bytes and needs {end:,}: fetch it again")

    def _read_header(self, file: BinaryIO) -> None:
        magic, version = file.read(4), self._number(file, "I")
        fine = magic == b"GGUF" and version in (2, 3)
        require(fine, f"{self.path} begins with {magic!r}, version {version}; no GGUF 2 or 3")
        tensors, fields = self._number(file, "Q"), self._number(file, "Q")
        self.fields = dict(self._field(file) for _ in range(fields))
        described = [self._describe(file) for _ in range(tensors)]
        step = self.fields.get("general.alignment", 32)
        data = math.ceil(file.tell() / step) * step
        self.places = {name: Place(shape, kind, data + at) for name, shape, kind, at in described}

    def _number(self, file: BinaryIO, letter: str) -> Any:
        return struct.unpack(f"<{letter}", file.read(struct.calcsize(f"<{letter}")))[0]

    def _text(self, file: BinaryIO) -> str:
        length = self._number(file, "Q")
        require(length < LONGEST, f"{self.path} is damaged: a text of {length:,} bytes")
        return file.read(length).decode()

    def _value(self, file: BinaryIO, code: int) -> Any:
        if code == STRING:
            return self._text(file)
        if code == ARRAY:
            inner, count = self._number(file, "I"), self._number(file, "Q")
            require(count < LONGEST, f"{self.path} is damaged: a list of {count:,} values")
            return [self._value(file, inner) for _ in range(count)]
        require(code in NUMBERS, f"{self.path} is damaged: a value of the unknown type {code}")
        return self._number(file, NUMBERS[code])

    def _field(self, file: BinaryIO) -> tuple[str, Any]:
        return self._text(file), self._value(file, self._number(file, "I"))

    def _describe(self, file: BinaryIO) -> tuple[str, tuple[int, ...], Kind, int]:
        name, dimensions = self._text(file), self._number(file, "I")
        require(dimensions <= 4, f"{self.path} is damaged: {name} has {dimensions} dimensions")
        shape = tuple(self._number(file, "Q") for _ in range(dimensions))[::-1]  # fastest first
        code, at = self._number(file, "I"), self._number(file, "Q")
        if code not in KINDS:
            known = ", ".join(kind.name for kind in KINDS.values())
            raise ValueError(f"{name} is stored as kind {code}; read here are {known}")
        whole = shape and shape[-1] % KINDS[code].numbers == 0
        require(bool(whole), f"{self.path} is damaged: {name} of shape {shape} has broken blocks")
        return name, shape, KINDS[code], at

    def read(self, name: str) -> np.ndarray:
        """The numbers of a tensor, in 32 bits and in its shape."""
        place = self.places[name]
        raw = np.fromfile(self.path, np.uint8, count=place.size, offset=place.start)
        numbers = place.kind.undo(raw.reshape(-1, place.kind.bytes))
        return numbers.reshape(place.shape)
