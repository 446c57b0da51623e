"""The pytest plugin of the course: plain `pytest` runs the unit tests and every notebook.

Notable: nbval runs the notebooks strictly; this adds what it lacks. Two processes share the files,
long notebooks first, and each computes with one thread: two threads that wait for each other
become many times slower when something else runs on the machine (shared/tests/busy.py shows it).
Cells tagged `needs:FILE` (and notebooks whose metadata names a need) are skipped only when the
file truly cannot be had. The environment makes a verdict independent of what somebody trained or
downloaded before.

A notebook states its minutes, rounded up, for 2 CPU cores that it has to itself. The measured ones
are of one thread beside another notebook: up to 1.4 times the stated ones where it trains, and
fewer than stated where it does not.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

FAST_MINUTES = 0.5  # notebooks up to here belong to `pytest -m fast`
SLOW = 1.5  # a notebook that takes more than this many times its stated minutes is named
TOO_SLOW = 4  # and is an error where COURSE_BUDGET=strict (.ci/run): a busy neighbour costs 2.5


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Options of pytest-xdist, before those of the command line; without it, one process."""
    if early_config.pluginmanager.hasplugin("xdist"):
        args[:0] = ["-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]


@pytest.hookimpl(optionalhook=True, tryfirst=True)  # pytest-xdist asks
def pytest_xdist_auto_num_workers() -> int:
    """Two notebooks side by side; on a single core, all in this process (0 workers)."""
    linux = hasattr(os, "sched_getaffinity")  # which knows the cores that this process may use
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    return 2 if cores > 1 else 0


def pytest_configure(config: pytest.Config) -> None:
    """Settings that need a path or the environment; the others stand in .pytest.ini."""
    if config.option.nbval_sanitize_with is None:
        config.option.nbval_sanitize_with = str(Path(__file__).with_name("sanitize.cfg"))
    os.environ["COURSE_CHECKPOINT"] = "bundled"  # not the one a student trained
    os.environ["COURSE_WEIGHTS"] = "stand-in"  # not GPT-2's, which not everybody has
    os.environ.pop("COURSE_RELEASE", None)  # no tracked file is written
    os.environ.pop("MPLBACKEND", None)  # figures appear in the notebook
    # OpenMP reads these when torch is imported: here, in xdist's workers, and in every kernel.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # for those who ask for more threads


def course_metadata(notebook: IPyNbFile) -> dict:
    return notebook.nb.metadata.get("course", {})


@functools.cache
def why_missing(name: str) -> str | None:
    """The reason, on one line, why a file of the catalogue cannot be had; None when it can."""
    from shared.classroom import fetch as downloads  # only when a notebook asks for data

    try:
        downloads.fetch(name)
    except downloads.FetchError as error:
        return " ".join(str(error).split())
    return None


def needs(item: pytest.Item) -> Iterator[str]:
    """Names of the files without which this item cannot run."""
    yield from course_metadata(item.parent).get("needs", [])
    if isinstance(item, IPyNbCell):
        for tag in item.cell.metadata.get("tags", []):
            if tag.startswith("needs:"):
                yield tag.removeprefix("needs:")


@pytest.hookimpl(tryfirst=True)  # before a kernel is started for a notebook that is skipped
def pytest_runtest_setup(item: pytest.Item) -> None:
    if isinstance(item.parent, IPyNbFile):
        for name in needs(item):
            if reason := why_missing(name):
                pytest.skip(f"{item.parent.nodeid} needs {name}: {reason}")


class NotebookMinutes(pytest.Item):
    """The last item of a notebook: its measured minutes against the stated ones."""

    def runtest(self) -> None:
        stated, measured = course_metadata(self.parent)["minutes"], self.parent.measured_minutes
        self.user_properties.append(("minutes", (stated, measured)))  # for the summary
        if os.environ.get("COURSE_BUDGET") == "strict" and measured > TOO_SLOW * stated:
            pytest.fail(
                f"{self.parent.nodeid} took {measured:.1f} minutes, more than {TOO_SLOW} × the "
                f"{stated:g} its metadata states: make it faster or state more minutes",
                pytrace=False,
            )

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.nodeid


@pytest.hookimpl(tryfirst=True)  # before -m and -k choose
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the fast items, end each notebook with its minutes, and put long notebooks first.

    The work is dealt out in this order, so that the short notebooks are left for the end, when
    one process may have to wait for the other.
    """
    tests = [item for item in items if not isinstance(item, IPyNbCell)]
    notebooks: dict[IPyNbFile, list[pytest.Item]] = {}
    for cell in items:
        if isinstance(cell, IPyNbCell):
            notebooks.setdefault(cell.parent, []).append(cell)
    for test in tests:
        if not test.get_closest_marker("slow"):
            test.add_marker("fast")
    minutes = {notebook: course_metadata(notebook).get("minutes", 0) for notebook in notebooks}
    for notebook, parts in notebooks.items():
        notebook.measured_minutes = 0.0
        if minutes[notebook]:
            parts.append(NotebookMinutes.from_parent(notebook, name="minutes"))
        if minutes[notebook] <= FAST_MINUTES:
            for part in parts:
                part.add_marker("fast")
    longest_first = sorted(notebooks, key=minutes.get, reverse=True)
    items[:] = tests + [part for notebook in longest_first for part in notebooks[notebook]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> None:
    """Add up the minutes of a notebook's cells: running them, not fetching their data."""
    if isinstance(item, IPyNbCell) and call.when == "call":
        item.parent.measured_minutes += call.duration / 60


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A table of the notebooks that ran: minutes stated and measured."""
    table = {}
    for report in chain(*terminalreporter.stats.values()):
        for name, value in getattr(report, "user_properties", []):
            if name == "minutes":
                table[report.nodeid.removesuffix("::minutes")] = value
    if not table:
        return
    terminalreporter.section("minutes per notebook")
    width = max(map(len, table))
    terminalreporter.line(f"{'':{width}}  stated  measured")
    for name, (stated, measured) in sorted(table.items()):
        terminalreporter.line(f"{name:{width}}  {stated:>6}  {measured:>8.2f}")
    slow = [name for name, (stated, measured) in table.items() if measured > SLOW * stated]
    if slow:
        terminalreporter.line(f"slower than stated: {', '.join(sorted(slow))}", yellow=True)
