"""Where the course keeps its files, and how one is written: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"  # the bundled texts
BUILD = ROOT / "build"  # a student's own runs; git ignores it
BUNDLED = DATA / "checkpoints" / "course.safetensors"
OWN = BUILD / "checkpoints" / "course.safetensors"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write(file)` on a temporary file in `path`'s folder, then move it to `path`.

    The folder is made if need be. Whatever goes wrong, an old file stays as it was and nothing
    half written is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile, whose files only their owner may read: a class shares what it downloads.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it gets its name
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def course_checkpoint(name: str = "course") -> Path:
    """The student's own checkpoint of that name where there is one, else the bundled one.

    "course" is the pretrained model (chapter 4), "chat" the one that answers (chapter 6).
    COURSE_CHECKPOINT=bundled always means the bundled one.
    """
    own = OWN.with_stem(name)
    use_own = os.environ.get("COURSE_CHECKPOINT") != "bundled" and own.is_file()
    return own if use_own else BUNDLED.with_stem(name)


def vocabulary() -> str:
    """A fingerprint of the course's vocabulary, to note in a checkpoint that is made for it."""
    return hashlib.sha256((DATA / "course.tiktoken").read_bytes()).hexdigest()[:16]
