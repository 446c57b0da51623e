"""Where the course keeps its files, and how one is written: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
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
    half written is left. A link stays a link, and an old file's permissions stay what they are.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left_overs(path.parent, path.name)
    # Not tempfile, whose files only their owner may read: a class shares what it downloads.
    owner = f"{os.getpid()}-{threading.get_ident()}@{socket.gethostname()}"
    temporary = path.with_name(f".{_stem(path.name)}.{owner}.part")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it gets its name
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_left_overs(folder: Path, name: str = "") -> None:
    """Remove what processes that were killed while writing left half written in a folder.

    With `name`, only of that file. Files of processes that live, or of other machines, stay.
    """
    stem = re.escape(_stem(name)) or ".+"
    for part in folder.glob(".*.part"):
        found = re.fullmatch(rf"\.{stem}\.(\d{{1,9}})-\d+(?:@(.*))?\.part", part.name)
        if found and found[2] in (None, socket.gethostname()):
            import psutil  # comes with Jupyter; hardly ever needed

            if not psutil.pid_exists(int(found[1])):
                with suppress(OSError):  # somebody else's, in a folder for all
                    part.unlink()


def _stem(name: str) -> str:
    """The beginning of a file's name, short enough that more can follow."""
    return name.encode()[:100].decode(errors="ignore")


def must_take_a_file(path: Path) -> None:
    """Refuse a path at which no file could be written, before hours of work are lost."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the path of a file in it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PermissionError(f"nothing can be written into {folder}: choose another folder")


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
    content = (DATA / "course.tiktoken").read_bytes().replace(b"\r\n", b"\n")  # as git may write it
    return hashlib.sha256(content).hexdigest()[:16]
