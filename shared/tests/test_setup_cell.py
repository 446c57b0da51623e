"""The set-up cell, run as on Colab: alone in an empty folder, the course a clone away."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from shared.classroom import setup_cell
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
import random, matplotlib, numpy, torch
print(random.random(), numpy.random.rand(), torch.rand(1).item(), str(root))
"""


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the working tree's shared/, to clone from."""
    folder = tmp_path_factory.mktemp("origin") / "course"
    (folder / "shared").mkdir(parents=True)
    for module in (ROOT / "shared").glob("*.py"):
        (folder / "shared" / module.name).write_bytes(module.read_bytes())
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
    after = "import tiktoken; print(tiktoken.__version__)\n" + REPORT
    done = run_cell(after=after)
    assert done.returncode == 0, done.stderr
    assert done.pip == []
    ready, version, report = done.stdout.splitlines()
    assert "seed 123" in ready
    assert version == "0.0.1"
    clone = run_cell.folder / "gpt-from-scratch"
    assert report.split()[-1] == str(clone)
    depth = ["git", "rev-list", "--count", "HEAD"]
    assert subprocess.check_output(depth, cwd=clone, text=True).strip() == "1"


def test_the_cell_can_run_again_and_seeds_alike(run_cell) -> None:
    first, second = run_cell(after=REPORT), run_cell(after=REPORT, COURSE_REPO="no-such-place")
    assert second.returncode == 0, second.stderr
    assert first.stdout == second.stdout


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


def test_a_course_that_cannot_be_fetched_is_an_error(run_cell) -> None:
    done = run_cell(COURSE_REPO="file:///no/such/place")
    assert done.returncode != 0
    assert "git" in done.stderr


def test_the_cell_is_short_and_holds_the_one_address() -> None:
    assert len(SETUP_CELL.splitlines()) <= 25
    assert setup_cell.REPO in SETUP_CELL
    ast.parse(SETUP_CELL)


def test_packages_are_what_shared_imports() -> None:
    """Everything the rooms cannot do without, notebooks' tools aside, is looked for on Colab."""
    own = {"shared", "data", *sys.stdlib_module_names}
    only_here = {"__main__.py", "setup_cell.py", "slides.py"}
    imported: dict[str, str] = {}
    for path in (ROOT / "shared").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # A room that catches the ImportError says itself what to install.
        caught = {
            node
            for attempt in ast.walk(tree)
            if isinstance(attempt, ast.Try)
            and any(
                isinstance(h.type, ast.Name) and h.type.id == "ImportError"
                for h in attempt.handlers
            )
            for node in attempt.body
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            else:
                continue
            if path.name not in only_here and node not in caught:
                imported |= {name.split(".")[0]: path.name for name in names}
    unknown = {name: where for name, where in imported.items() if name not in {*own, *PACKAGES}}
    assert not unknown, f"add to PACKAGES in setup_cell.py: {unknown}"


# ---------------------------------------------------------------------------------------------
# Rewriting after an edit
# ---------------------------------------------------------------------------------------------


def test_rewrite_refreshes_cell_and_badge(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(setup_cell, "ROOT", tmp_path)
    path = tmp_path / "bigram" / "bigram.ipynb"
    path.parent.mkdir()
    old = "https://colab.research.google.com/github/someone/old-name/blob/main/bigram/bigram.ipynb"
    title = v4.new_markdown_cell(f"# Bigrams\n[open]({old})")
    notebook = v4.new_notebook(cells=[title, v4.new_code_cell("# Set-up, an older one")])
    nbformat.write(notebook, path)
    assert setup_cell.rewrite(path)
    first, second = nbformat.read(path, as_version=4).cells
    assert first.source == f"# Bigrams\n[open]({setup_cell.colab_address(path)})"
    assert second.source == SETUP_CELL
    assert not setup_cell.rewrite(path)


def test_rewrite_never_overwrites_another_cell(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    cells = [v4.new_markdown_cell("# Title"), v4.new_code_cell("x = 1")]
    nbformat.write(v4.new_notebook(cells=cells), path)
    with pytest.raises(ValueError, match="not the set-up cell"):
        setup_cell.rewrite(path)


def test_addresses_in_prose_are_rewritten() -> None:
    text = "`git clone https://github.com/a/b` and git clone https://x.org/y/z\nand https://a.org"
    repo = setup_cell.REPO
    expected = f"`git clone {repo}` and git clone {repo}\nand https://a.org"
    assert setup_cell.with_addresses(text) == expected
