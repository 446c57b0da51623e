"""The repository as a whole: its layout, its pins, its one address, its clean-up rules."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from shared.classroom import setup_cell
from shared.classroom.cli import CHAPTERS, pins
from shared.classroom.setup_cell import ROOT

TOP_LEVEL = {"README.md", "requirements.txt", "LICENSE", "data", "assets", "shared", *CHAPTERS}
MAX_MEGABYTES = 10


def repository_files() -> list[Path]:
    """Files that git tracks or would track (relative to the root)."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.check_output(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git repository")
    paths = [Path(os.fsdecode(name)) for name in listed.split(b"\0") if name]
    return [path for path in paths if (ROOT / path).is_file()]


def test_nothing_else_at_the_top() -> None:
    top = {path.parts[0] for path in repository_files()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


def test_files_are_small_enough_to_clone() -> None:
    sizes = {path: (ROOT / path).stat().st_size / 1e6 for path in repository_files()}
    assert not {path: size for path, size in sizes.items() if size > MAX_MEGABYTES}


def test_what_runs_make_is_ignored() -> None:
    made = ["build/bigram.html", ".venv/pyvenv.cfg", "shared/__pycache__/gpt.pyc"]
    made += ["bigram/.ipynb_checkpoints/bigram.ipynb"]
    command = ["git", "check-ignore", *made]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("not a git repository")
    assert done.stdout.split() == made


@pytest.mark.parametrize("file", ["requirements.txt", "shared/tests/requirements.txt"])
def test_requirements_are_exact_pins(file: str) -> None:
    lines = [line.strip() for line in (ROOT / file).read_text().splitlines()]
    loose = [x for x in lines if x and x[0] != "#" and not re.fullmatch(r"[\w-]+==[\w.]+", x)]
    assert not loose


def test_notebooks_packages_are_pinned() -> None:
    pinned = {name.lower() for name in pins()}
    brought_along = {"IPython"}  # by ipykernel
    assert {name for name in setup_cell.PACKAGES if name.lower() not in pinned} <= brought_along
    assert not {"tensorflow", "keras"} & pinned


def test_the_address_stands_in_one_place() -> None:
    """Notebooks and README.md are rewritten by shared.classroom.setup_cell; others must not."""
    address = setup_cell.REPO.removeprefix("https://github.com/")
    rewritten = {".ipynb", ".md"}
    holders = [
        str(path)
        for path in repository_files()
        if path.suffix in {".py", ".yml", ".cfg", ".toml", ".txt", ".svg", ""}
        and path.suffix not in rewritten
        and address in (ROOT / path).read_text(encoding="utf-8", errors="ignore")
    ]
    assert holders == ["shared/classroom/setup_cell.py"]


def test_readme_has_the_address() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    assert setup_cell.with_addresses(text) == text, "run `python -m shared.classroom.setup_cell`"


def test_readme_talks_as_the_chat_does() -> None:
    """What the README shows of the chat is what that notebook saved, which nbval compares."""
    talk = re.search(r"```\n(you: .+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    notebook = json.loads((ROOT / "06_finetune_instructions/chat.ipynb").read_text("utf-8"))
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", ())]
    said = "".join("".join(output.get("text", "")) for output in outputs)
    exchanges = talk[1].strip().split("\n\n")
    assert len(exchanges) > 1
    assert not [exchange for exchange in exchanges if exchange not in said]


def test_every_notebook_of_the_road_says_where_it_stands() -> None:
    """The line at its end names the notebooks that README.md links, in that order, its own bold."""
    start = (ROOT / "README.md").read_text(encoding="utf-8").split("## Start here")[1]
    road = re.findall(r"\((\w+/\w+)\.ipynb\)", next(x for x in start.splitlines() if "→" in x))
    assert len(road) == 12
    names = [path.split("/")[1] for path in road]
    for number, path in enumerate(road):
        cells = json.loads((ROOT / f"{path}.ipynb").read_text("utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        stops = [f"**{x}**" if x == names[number] else f"`{x}`" for x in names]
        assert f"**The road:** {' → '.join(stops)}" in text, path
        if number + 1 < len(road):
            following = text.split("**The road:**")[1].split("Next is `")[1].split("`")[0]
            assert road[number + 1].endswith(following.removesuffix(".ipynb")), path


def test_the_ci_script_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_the_benchmarks_run() -> None:
    """The quickest of them as a script; how fast anything is, the script itself measures."""
    command = [sys.executable, ROOT / "shared" / "tests" / "bench.py", "bpe", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["bpe", "ratio", "limit"]


def test_licences() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License") and "CC0 1.0" in text


# -- the two floors of shared/ ----------------------------------------------------------------

LOWEST = {"errors", "files", "ranks", "state", "tensors", "fetch", "datasets", "tales", "scores"}
LOWEST |= {"machine", "fast", "reports", "gguf", "llama_files"}


def floor(module: str) -> int:
    """0: the lowest files of the classroom; 1: the pieces of a GPT; 2: what stands on top."""
    _, *parts = module.split(".")
    if parts[:1] != ["classroom"]:
        return 1
    return 0 if parts[1:] and parts[1] in LOWEST else 2


def imported(path: Path) -> set[str]:
    """The course's own modules that a file imports, anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {node.module for node in nodes if node.module.split(".")[0] == "shared"}


def test_no_arrow_runs_upwards_or_in_a_circle() -> None:
    files = [path for path in (ROOT / "shared").rglob("*.py") if "tests" not in path.parts]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    arrows = {name: imported(path) - {name} for name, path in names.items()}
    del arrows["shared.__main__"]  # the door
    upwards = [(a, b) for a, found in arrows.items() for b in found if floor(a) < floor(b)]
    assert not upwards
    TopologicalSorter(arrows).prepare()  # raises CycleError
