"""The pytest plugin, tried on a small course: what is run, compared, skipped, timed and ordered."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from shared.classroom.setup_cell import ROOT

pytestmark = pytest.mark.slow  # each test starts pytest and kernels

# Stands in for shared.classroom.fetch: only here.txt can be had.
FAKE_FETCH = """
import sys
class fake:
    class FetchError(RuntimeError): pass
    def fetch(name):
        if name != "here.txt": raise fake.FetchError(f"no {name}: go online.\\nTried: nothing")
sys.modules["shared.classroom.fetch"] = fake
"""
SHOW = "import os; print(*map(os.environ.get, ['COURSE_CHECKPOINT', 'OMP_NUM_THREADS']))"
# path → stated minutes, needs of the whole notebook, and cells: source, saved output, need
COURSE = {
    "a/book": (0.4, [], [("x = 1", "", ""), ("1 / 0", "", "book.txt"), ("print(x)", "1", "")]),
    "a/gpt2": (0.3, ["gpt2.tiktoken"], [("1 / 0", "", "")]),
    "a/here": (0.2, ["here.txt"], [("print('<f at 0x7f0123456789>')", "<f at 0x7f98765432>", "")]),
    "b/long": (5, [], [(SHOW, "bundled 1", "")]),
    "b/slow": (0.001, [], [("import time; time.sleep(0.5)", "", "")]),
    "b/wrong": (1, [], [("print(0.123456)", "0.123457", ""), ("print(1)", "2", "here.txt")]),
}


@pytest.fixture
def run_pytest(tmp_path: Path):
    """pytest as a person would start it in the folder of the course."""
    for path, (minutes, needs, cells) in COURSE.items():
        notebook = v4.new_notebook(metadata={"course": {"minutes": minutes, "needs": needs}})
        for source, text, need in cells:
            cell = v4.new_code_cell(source, execution_count=1)
            cell.outputs += [v4.new_output("stream", text=text + "\n")] if text else []
            cell.metadata.tags = [f"needs:{need}"] if need else []
            notebook.cells.append(cell)
        (tmp_path / path).parent.mkdir(exist_ok=True)
        nbformat.write(notebook, tmp_path / f"{path}.ipynb")
    (tmp_path / "fake_fetch.py").write_text(FAKE_FETCH)
    (tmp_path / "test_unit.py").write_text("def test_quick(): pass")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COURSE_", "OMP_"))}
    env |= {"PYTHONPATH": ".", "COURSE_CHECKPOINT": "own"}
    command = [sys.executable, *f"-m pytest -c {ROOT}/.pytest.ini --rootdir . --color=no".split()]
    run = functools.partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True)
    return lambda *more, **extra: run([*command, "-p", "fake_fetch", *more], env=env | extra)


@pytest.mark.parametrize("processes", "02")
def test_needs_are_skipped_and_the_rest_compared_and_timed(run_pytest, processes) -> None:
    out = run_pytest("-n", processes).stdout
    assert "2 failed, 11 passed, 3 skipped" in out, out
    assert "a/book.ipynb needs book.txt: no book.txt: go online. Tried: nothing" in out
    assert "a/gpt2.ipynb needs gpt2.tiktoken" in out and out.count("FAILED b/wrong.ipynb") == 2
    table, slow = out.split("minutes per notebook")[1].split("slower than stated: ")
    assert "b/long.ipynb 5 0.00" in " ".join(table.split()) and "a/gpt2" not in table
    assert slow.startswith("b/slow.ipynb\n")


def test_slow_notebooks_fail_when_asked(run_pytest) -> None:
    out = run_pytest("b/slow.ipynb", COURSE_BUDGET="strict").stdout
    assert "FAILED b/slow.ipynb::minutes" in out and "1 failed, 1 passed" in out


def test_order_and_fast(run_pytest) -> None:
    order = "b/long b/wrong a/book a/gpt2 a/here b/slow".split()
    expected = ["test_unit.py", *(f"{path}.ipynb" for path in order)]
    for arguments, files in (([], expected), (["-m", "fast"], [expected[0], *expected[3:]])):
        lines = run_pytest("--collect-only", "-q", *arguments).stdout.splitlines()
        assert list(dict.fromkeys(line.split("::")[0] for line in lines if "::" in line)) == files
