"""The pytest plugin of the course: plain `pytest` runs the unit tests and every notebook.

Notable: nbval runs the notebooks strictly; this adds what it lacks. Cells tagged `needs:FILE` (and
notebooks whose metadata names a need) are skipped only when the file truly cannot be had; each
notebook is held to 1.5 × its stated minutes; the environment makes a verdict independent of what
somebody trained or downloaded before. COURSE_NO_BUDGET=1 lifts the time limit on slow machines.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

FAST_MINUTES = 1.5  # notebooks up to here belong to `pytest -m fast`
TOLERANCE = 1.5  # a notebook may take this many times its stated minutes
NOTEBOOKS = pytest.StashKey[list[IPyNbFile]]()  # those that this session runs


def pytest_configure(config: pytest.Config) -> None:
    """Settings that need a path or the environment; the others stand in .pytest.ini."""
    if config.option.nbval_sanitize_with is None:
        config.option.nbval_sanitize_with = str(Path(__file__).with_name("sanitize.cfg"))
    os.environ["COURSE_CHECKPOINT"] = "bundled"  # not the one a student trained
    os.environ["COURSE_WEIGHTS"] = "stand-in"  # not GPT-2's, which not everybody has
    os.environ.pop("COURSE_RELEASE", None)  # no tracked file is written
    os.environ.pop("MPLBACKEND", None)  # figures appear in the notebook


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
        if measured > TOLERANCE * stated and not os.environ.get("COURSE_NO_BUDGET"):
            pytest.fail(
                f"{self.parent.nodeid} took {measured:.1f} minutes, more than {TOLERANCE} × the "
                f"{stated:g} its metadata states: make it faster, state more minutes, or set "
                f"COURSE_NO_BUDGET=1 on a machine slower than 2 CPU cores",
                pytrace=False,
            )

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.nodeid


@pytest.hookimpl(tryfirst=True)  # before -m and -k choose
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the fast items, put unit tests first, and end each notebook with its minutes."""
    tests = [item for item in items if not isinstance(item, IPyNbCell)]
    cells = [item for item in items if isinstance(item, IPyNbCell)]
    for test in tests:
        if not test.get_closest_marker("slow"):
            test.add_marker("fast")
    notebooks: dict[IPyNbFile, list[pytest.Item]] = {}
    for cell in cells:
        notebooks.setdefault(cell.parent, []).append(cell)
    for notebook, parts in notebooks.items():
        notebook.measured_minutes = 0.0
        stated = course_metadata(notebook).get("minutes")
        if stated is not None:
            parts.append(NotebookMinutes.from_parent(notebook, name="minutes"))
            if stated <= FAST_MINUTES:
                for part in parts:
                    part.add_marker("fast")
    items[:] = tests + [part for parts in notebooks.values() for part in parts]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> None:
    """Add up the minutes of a notebook's cells: running them, not fetching their data."""
    if isinstance(item, IPyNbCell) and call.when == "call":
        item.parent.measured_minutes += call.duration / 60


def pytest_collection_finish(session: pytest.Session) -> None:
    cells = [item for item in session.items if isinstance(item, IPyNbCell)]
    session.config.stash[NOTEBOOKS] = list(dict.fromkeys(cell.parent for cell in cells))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """A table of the notebooks that ran: minutes stated and measured."""
    notebooks = [n for n in config.stash.get(NOTEBOOKS, []) if n.measured_minutes]
    if not notebooks:
        return
    terminalreporter.section("minutes per notebook")
    width = max(len(notebook.nodeid) for notebook in notebooks)
    terminalreporter.line(f"{'':{width}}  stated  measured")
    for notebook in notebooks:
        stated = course_metadata(notebook).get("minutes", "-")
        terminalreporter.line(
            f"{notebook.nodeid:{width}}  {stated:>6}  {notebook.measured_minutes:>8.2f}"
        )
