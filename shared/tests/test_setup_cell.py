"""The set-up cell, run as on Colab: alone in an empty folder, the course a clone away."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.classroom.setup_cell import PACKAGES, ROOT, SETUP_CELL

pytestmark = pytest.mark.slow  # the cell runs in a Python of its own

# Stands in for pip: notes what it was asked for, and installs nothing.
FAKE_PIP = """
import os, sys
with open(os.environ["PIP_LOG"], "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
"""
# Hides installed packages, as if this were a machine without them.
HIDING = """
import os
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name in os.environ["HIDDEN"].split() else find(name, path, target)
PathFinder.find_spec = find_spec
"""
REPORT = """
import os, random, numpy, torch
print(os.environ["GOMP_SPINCOUNT"])
print(random.random(), numpy.random.rand(), torch.rand(1).item(), str(root))
"""


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the working tree's shared/, to clone from."""
    folder = tmp_path_factory.mktemp("origin") / "course"
    left_out = shutil.ignore_patterns("tests", "__pycache__")
    shutil.copytree(ROOT / "shared", folder / "shared", ignore=left_out)
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "the course"]):
        author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *author, *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def run_cell(tmp_path: Path, course: Path):
    """Runs the set-up cell in an empty folder, pip replaced by a note of its arguments."""
    folder, extra = tmp_path / "content", tmp_path / "extra"
    (extra / "pip").mkdir(parents=True)
    (extra / "pip" / "__init__.py").touch()
    (extra / "pip" / "__main__.py").write_text(FAKE_PIP)
    (extra / "sitecustomize.py").write_text(HIDING)
    folder.mkdir()
    log = tmp_path / "pip.log"

    def run(hidden: str = "", colab: bool = True, cwd: Path = folder, after: str = "", **env: str):
        environment = {k: v for k, v in os.environ.items() if k != "COLAB_RELEASE_TAG"}
        environment |= {"PYTHONPATH": str(extra), "HIDDEN": hidden, "PIP_LOG": str(log)}
        environment |= {"COURSE_REPO": course.as_uri(), "OMP_NUM_THREADS": "1"} | env
        if colab:
            environment["COLAB_RELEASE_TAG"] = "release-colab"
        done = subprocess.run(
            [sys.executable, "-c", f"{SETUP_CELL}\n{after}"],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        done.pip = log.read_text().splitlines() if log.exists() else []
        return done

    run.folder, run.extra = folder, extra
    return run


def test_colab_fetches_the_course_and_leaves_every_package_alone(run_cell) -> None:
    """A package that is there at another version than the tested one stays."""
    (run_cell.extra / "tiktoken.py").write_text('__version__ = "0.0.1"')
    done = run_cell(after="import tiktoken; print(tiktoken.__version__)\n" + REPORT)
    assert done.returncode == 0, done.stderr
    assert done.pip == []
    ready, tiktoken_version, waiting, report = done.stdout.splitlines()
    assert "seed 123" in ready
    assert tiktoken_version == "0.0.1"
    assert waiting == "10000"
    assert report.endswith(str(run_cell.folder / "gpt-from-scratch"))


def test_the_cell_can_run_again_and_seeds_alike(run_cell) -> None:
    first, second = run_cell(after=REPORT), run_cell(after=REPORT, COURSE_REPO="no-such-place")
    assert second.returncode == 0, second.stderr
    assert first.stdout == second.stdout


@pytest.mark.parametrize("left", ["nothing", "a broken clone"])
def test_a_course_that_cannot_be_fetched_is_said(run_cell, left: str) -> None:
    broken = run_cell.folder / "gpt-from-scratch"
    if left == "a broken clone":
        broken.mkdir()
        (broken / "half").touch()
    done = run_cell(COURSE_REPO="no-such-place")
    assert "no course at no-such-place: set COURSE_REPO to its address. fatal: " in done.stderr


def test_colab_adds_exactly_what_is_missing(run_cell) -> None:
    done = run_cell(hidden="tiktoken safetensors")
    assert done.pip == ["install --quiet tiktoken safetensors"]
    assert done.returncode == 0, done.stderr


def test_elsewhere_the_root_is_found_and_nothing_installed(run_cell) -> None:
    done = run_cell(colab=False, cwd=ROOT / "shared" / "tests", after=REPORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(str(ROOT))
    assert done.pip == []


def test_elsewhere_missing_packages_are_named(run_cell) -> None:
    done = run_cell(hidden="tiktoken", colab=False, cwd=ROOT)
    assert "not installed: tiktoken" in done.stderr
    assert "pip install -r requirements.txt" in done.stderr
    assert done.pip == []


def test_outside_the_course_the_cell_says_where_to_start(run_cell) -> None:
    done = run_cell(colab=False)
    assert "start Jupyter inside the folder of the course" in done.stderr
    assert not list(run_cell.folder.iterdir())


def test_colab_gets_all_that_notebooks_import_by_way_of_shared() -> None:
    known = {"shared", "data", *sys.stdlib_module_names, *PACKAGES}
    only_here = {"slides.py", "execute.py"}  # for the command line
    paths = [*(ROOT / "shared").glob("*.py"), *(ROOT / "shared" / "classroom").rglob("*.py")]
    for path in (path for path in paths if path.name not in only_here):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= known, path
