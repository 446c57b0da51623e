"""The pytest plugin, tried on small notebooks: what is run, compared, skipped and timed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from shared.classroom.setup_cell import ROOT

pytestmark = pytest.mark.slow  # each test starts pytest and kernels

# Stands in for shared.classroom.fetch: the files in HAVE can be had, "typo.txt" is not in the catalogue.
FAKE_DOWNLOADS = """
import os, sys, types
fake = types.ModuleType("shared.classroom.fetch")
class FetchError(RuntimeError):
    pass
def fetch(name):
    if name == "typo.txt":
        raise ValueError("typo.txt is not in the catalogue")
    if name not in os.environ["HAVE"].split():
        raise FetchError(f"cannot get {name}: go online.\\nTried: nothing")
fake.FetchError, fake.fetch = FetchError, fetch
sys.modules["shared.classroom.fetch"] = fake
"""


def cell(source: str, output: str = "", *tags: str) -> nbformat.NotebookNode:
    """A code cell that was run and printed `output`."""
    outputs = [v4.new_output("stream", text=output)] if output else []
    metadata = {"tags": list(tags)}
    return v4.new_code_cell(source, outputs=outputs, execution_count=1, metadata=metadata)


class Course:
    """A folder of small notebooks, and pytest as a person would start it there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "course"
        self.extra = folder / "extra"
        self.extra.mkdir()
        (self.extra / "fake_downloads.py").write_text(FAKE_DOWNLOADS)

    def add(self, path: str, *cells: nbformat.NotebookNode, minutes: float = 1, needs=()) -> None:
        notebook = v4.new_notebook(cells=list(cells))
        notebook.metadata["course"] = {"minutes": minutes, "needs": list(needs), "device": "cpu"}
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, file)

    def pytest(self, *arguments: str, have: str = "", **env: str):
        config = ["-c", str(ROOT / ".pytest.ini"), "--rootdir", str(self.folder)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
        environment |= {"PYTHONPATH": str(self.extra), "HAVE": have} | env
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "fake_downloads", "-p", "no:cacheprovider"]
            + [*config, "--color=no", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return Course(tmp_path)


def test_needs_cells_are_skipped_or_compared(course: Course) -> None:
    course.add(
        "bigram/bigram.ipynb",
        cell("x = 1"),
        cell("x = 2; print('read')", "read\n", "needs:book.txt"),
        cell("print(x)", "1\n"),
    )
    without = course.pytest()
    assert without.returncode == 0, without.stdout
    assert "3 passed, 1 skipped" in without.stdout  # two cells and the minutes
    reason = "bigram/bigram.ipynb needs book.txt: cannot get book.txt: go online. Tried: nothing"
    assert reason in without.stdout

    there = course.pytest(have="book.txt")
    assert "1 failed, 3 passed" in there.stdout  # the cell has run: x is 2 now
    assert "1 skipped" not in there.stdout


def test_needs_cell_is_compared_strictly(course: Course) -> None:
    course.add("bigram/bigram.ipynb", cell("print(2)", "1\n", "needs:book.txt"))
    assert "1 failed" in course.pytest(have="book.txt").stdout


def test_needs_of_a_whole_notebook(course: Course) -> None:
    course.add("a/gpt2.ipynb", cell("print(1)", "1\n"), cell("x = 1"), needs=["gpt2.tiktoken"])
    without = course.pytest()
    assert without.returncode == 0
    assert "3 skipped" in without.stdout
    assert "a/gpt2.ipynb needs gpt2.tiktoken" in without.stdout
    assert "minutes per notebook" not in without.stdout
    assert "3 passed" in course.pytest(have="gpt2.tiktoken").stdout


def test_needs_nobody_knows_is_an_error(course: Course) -> None:
    course.add("a/a.ipynb", cell("x = 1", "", "needs:typo.txt"))
    done = course.pytest()
    assert done.returncode == 1
    assert "not in the catalogue" in done.stdout


def test_outputs_are_compared_strictly(course: Course) -> None:
    course.add("a/same.ipynb", cell("print('<f at 0x7f0123456789>')", "<f at 0x7f9876543210>\n"))
    course.add("a/other.ipynb", cell("print(0.123456)", "0.123457\n"))
    course.add("a/raises.ipynb", cell("1 / 0"), cell("print(1)", "1\n"))
    course.add("a/ignored.ipynb", cell("print(1)", "2\n", "nbval-ignore-output"))
    done = course.pytest()
    assert done.returncode == 1
    assert "FAILED a/other.ipynb::Cell 0" in done.stdout
    assert "FAILED a/raises.ipynb::Cell 0" in done.stdout
    assert "2 failed" in done.stdout


def test_environment_of_a_notebook(course: Course) -> None:
    """A verdict depends on no earlier run; notebooks run in their folder with figures inline."""
    show = (
        "import os; print(os.environ['COURSE_CHECKPOINT'], os.environ['COURSE_WEIGHTS'], "
        "os.environ.get('COURSE_RELEASE'), os.path.basename(os.getcwd()), "
        "'inline' in os.environ['MPLBACKEND'])"
    )
    course.add("a/a.ipynb", cell(show, "bundled stand-in None a True\n"))
    done = course.pytest(COURSE_RELEASE="1", COURSE_CHECKPOINT="own", MPLBACKEND="agg")
    assert done.returncode == 0, done.stdout


def test_minutes_are_shown_and_held(course: Course) -> None:
    sleep = "import time; time.sleep(0.5)"
    course.add("a/quick.ipynb", cell("x = 1"), minutes=1)
    course.add("a/slow.ipynb", cell(sleep), minutes=0.001)
    done = course.pytest()
    assert done.returncode == 1
    assert "FAILED a/slow.ipynb::minutes" in done.stdout
    assert "1 failed, 3 passed" in done.stdout
    table = done.stdout.split("minutes per notebook")[1]
    assert "a/quick.ipynb" in table and "a/slow.ipynb" in table
    slower_machine = course.pytest(COURSE_NO_BUDGET="1")
    assert slower_machine.returncode == 0, slower_machine.stdout


def test_what_is_collected_and_what_is_fast(course: Course) -> None:
    for path in ("a/a.ipynb", "build/a.ipynb", ".venv/b.ipynb", "a/.ipynb_checkpoints/c.ipynb"):
        course.add(path, cell("x = 1"), minutes=1.5)
    course.add("b/long.ipynb", cell("x = 1"), minutes=3)
    (course.folder / "test_unit.py").write_text(
        "import pytest\ndef test_quick(): pass\n@pytest.mark.slow\ndef test_long(): pass\n"
    )

    def collected(*arguments: str) -> list[str]:
        lines = course.pytest("--collect-only", "-q", *arguments).stdout.splitlines()
        return [line for line in lines if "::" in line]

    unit = ["test_unit.py::test_quick", "test_unit.py::test_long"]
    cells = ["a/a.ipynb::Cell 0", "a/a.ipynb::minutes", "b/long.ipynb::Cell 0"]
    assert collected() == [*unit, *cells, "b/long.ipynb::minutes"]
    assert collected("-m", "fast") == [unit[0], *cells[:2]]
