"""The script of benchmarks: every benchmark runs, a broken limit is told, time is taken fairly.

No test here measures how fast anything is; that is what the script itself does.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from shared.tests import bench
from shared.tests.bench import Row


@pytest.mark.slow
@pytest.mark.parametrize("name", bench.BENCHMARKS)
def test_every_benchmark_runs_as_a_script(name: str, tmp_path: Path) -> None:
    command = [sys.executable, bench.__file__, name, "--quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.strip().splitlines()
    assert header.split() == [name, "ratio", "limit", "medians"] and rows


@pytest.mark.parametrize(
    ("row", "limit", "status"),
    [
        (Row("x", 29.9, at_least=30), "≥ 30", 1),
        (Row("x", 30.0, at_least=30), "≥ 30", 0),
        (Row("x", 15.1, at_most=15), "≤ 15", 1),
        (Row("x", 0.5, at_most=15), "≤ 15", 0),
        (Row("x", 2.5, at_least=1, at_most=2), "≥ 1 ≤ 2", 1),
        (Row("x", math.nan, at_most=15), "≤ 15", 1),
        (Row("x", 1e9), "", 0),
        (Row("x", None, "cannot be had", at_least=30), "≥ 30", 0),
    ],
)
def test_a_broken_limit_is_told(row: Row, limit: str, status: int, monkeypatch, capsys) -> None:
    good = Row("before", 1.0, at_most=2)
    monkeypatch.setattr(bench, "BENCHMARKS", {"one": lambda quick: iter([row, good])})
    assert bench.main([]) == bench.main(["one"]) == status
    line = capsys.readouterr().out.splitlines()[-2]
    assert limit in line and row.note in line and ("FAILS" in line) == bool(status)
    assert bench.main(["one", "--quick"]) == 0
    assert "FAILS" not in capsys.readouterr().out


def test_names_choose_benchmarks(monkeypatch, capsys) -> None:
    rows = {name: (lambda quick, name=name: iter([Row(f"figure of {name}", 1)])) for name in "abc"}
    monkeypatch.setattr(bench, "BENCHMARKS", rows)
    assert bench.main(["c", "a"]) == 0
    found = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if "of" in line]
    assert found == ["figure of c", "figure of a"]
    with pytest.raises(SystemExit) as stop:
        bench.main(["a", "d"])
    assert stop.value.code == 2
    assert "no benchmark d; there are a, b, c" in capsys.readouterr().err


def test_both_sides_take_turns_and_medians_count(monkeypatch) -> None:
    now, order = 0.0, []

    def takes(name: str, *durations: float):
        left = list(durations)

        def run() -> str:
            nonlocal now
            now += left.pop(0)
            order.append(name)
            return f"{name}{len(left)}"

        return run

    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: now))
    found = bench.take_turns(3, takes("a", 1, 2, 30), takes("b", 9, 4, 5))
    assert found == [(2, "a0"), (5, "b0")] and order == list("ababab")


def test_definitions_come_from_the_notebook_and_cells_do_not_run(tmp_path: Path) -> None:
    sources = [
        "from math import floor\n1 / 0\nx = floor(2.5)",
        "def half(n):\n    return n / 2",
        "def half(n):\n    return floor(n / 2)\n\n\nclass Half: pass",
    ]
    cells = [{"cell_type": "code", "source": [source]} for source in sources]
    cells.append({"cell_type": "markdown", "source": ["def half(n): no code"]})
    path = tmp_path / "some.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    half, other = bench.from_notebook(str(path), "half", "Half")
    assert half(5) == 2 and other.__name__ == "Half"
    with pytest.raises(KeyError, match="third"):
        bench.from_notebook(str(path), "third")


def test_byte_pairs_have_their_limits() -> None:
    assert [row.limit() for row in bench.bpe(True)] == ["≥ 30", "≤ 15", ""]


def test_a_trainer_with_another_result_does_not_count(monkeypatch) -> None:
    monkeypatch.setattr(bench, "from_notebook", lambda *_: [lambda text, size: {}, None])
    with pytest.raises(AssertionError):
        bench.slow_trainer("x", "a text of some words", 260, rounds=1)
