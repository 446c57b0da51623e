"""A file is written whole or not at all, and others may read it."""

import os
from pathlib import Path

import pytest

from shared.classroom.files import write_atomically


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, lambda file: file.write(b"first"))
    write_atomically(path, lambda file: file.write(b"second"))
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_while_writing_keeps_the_old_file(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file) -> None:
        file.write(b"half of the n")
        file.flush()
        assert path.read_bytes() == b"old"
        raise failure

    with pytest.raises(type(failure)):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_may_read_the_file_as_any_other_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    write_atomically(tmp_path / "ours", lambda file: file.write(b""))
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode
