"""A student runs a cell twice, stops a long one, and goes on: nothing is used up or lost.

The main notebooks run with few steps, which changes what a model reaches: assertions about that are
taken out. They run in a copy of the course, so that nobody's own model is written over.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.manager import AsyncKernelManager, KernelManager
from nbclient import NotebookClient
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

from shared.classroom.cli import CHAPTERS, ROAD
from shared.classroom.files import ROOT

pytestmark = pytest.mark.slow

# What makes a notebook long, and what stands there instead.
FEWER = {
    "bigram": {"steps=600": "steps=20"},
    "pretraining": {
        "(1800, 300)": "(18, 6)",
        "val_tales[:200]": "val_tales[:20]",
        "val_tales[200:260]": "val_tales[:20]",
    },
    "spam_classifier": {
        "STEPS = 60": "STEPS = 4",
        '_classes(table[table["split"] == name])': '_classes(table[table["split"] == name][::6])',
    },
    "instructions": {
        "LONG else 1000": "LONG else 10",
        "QUICK = 80": "QUICK = 5",
        "load_instructions(name)": "load_instructions(name)[2::8]",  # of every group some
    },
}
NOTEBOOKS = [
    path.relative_to(ROOT).as_posix()
    for chapter in CHAPTERS
    for path in sorted((ROOT / chapter).glob("*.ipynb"))
    if path.stem in ROAD
]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course without what somebody has run or trained in it."""
    folder = tmp_path_factory.mktemp("course") / "course"
    ignored = shutil.ignore_patterns(".*", "build", "tests", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=ignored)
    return folder


class WithoutAssertions(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> ast.Pass:
        return ast.Pass()


def sources(course: Path, name: str, fewer: dict[str, str] | None) -> list[str]:
    """The code cells of a notebook that need no fetched data, shortened as `fewer` says."""
    notebook = nbformat.read(course / name, as_version=4)
    found = [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code"
        and not any(tag.startswith("needs:") for tag in cell.metadata.get("tags", []))
    ]
    for old, new in (fewer or {}).items():
        assert any(old in source for source in found), f"{name} has no {old!r} any more"
        found = [source.replace(old, new) for source in found]
    if fewer:
        plain = map(TransformerManager().transform_cell, found)  # magics become Python
        found = [ast.unparse(WithoutAssertions().visit(ast.parse(source))) for source in plain]
    return found


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_may_run_twice(course: Path, name: str) -> None:
    cells = sources(course, name, FEWER.get(Path(name).stem))
    twice = [nbformat.v4.new_code_cell(source) for source in cells for _ in range(2)]
    client = NotebookClient(
        nbformat.v4.new_notebook(cells=twice),
        km=AsyncKernelManager(
            kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
        ),
        resources={"metadata": {"path": str((course / name).parent)}},
        allow_errors=True,
        timeout=600,
    )
    client.execute()
    for number, cell in enumerate(twice):
        for output in cell.outputs:
            which = f"{('first', 'second')[number % 2]} run of\n{cell.source}\n"
            assert output.output_type != "error", f"{which}{output.ename}: {output.evalue}"


class Kernel:
    """A student's kernel: runs a cell, and stops it when told."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(
            kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
        )
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, source: str, stop_at: str | None = None) -> tuple[str, str]:
        """What a cell printed, and the name of its error; interrupted once `stop_at` is printed."""
        printed, error, stopped = "", "", False

        def hear(message: dict) -> None:
            nonlocal printed, error, stopped
            if message["msg_type"] == "stream":
                printed += message["content"]["text"]
                if stop_at and stop_at in printed and not stopped:
                    stopped = True
                    self.manager.interrupt_kernel()
            if message["msg_type"] == "error":
                error = message["content"]["ename"]

        self.client.execute_interactive(source, output_hook=hear, timeout=600)
        return printed, error


@pytest.fixture
def kernel(course: Path) -> Iterator[Kernel]:
    kernel = Kernel(course / "04_pretraining")
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


def test_a_stopped_training_goes_on_and_a_finished_one_starts_afresh(
    course: Path, kernel: Kernel
) -> None:
    fewer = FEWER["pretraining"] | {"(1800, 300)": "(90, 30)"}  # a report every 5 steps
    cells = sources(course, "04_pretraining/pretraining.ipynb", fewer)
    (long,) = (number for number, cell in enumerate(cells) if "train(model, plan, STEPS" in cell)
    for cell in cells[:long]:
        assert kernel.run(cell)[1] == ""
    printed, error = kernel.run(cells[long], stop_at="step 10/90")
    assert error == "KeyboardInterrupt" and "step 90/90" not in printed
    steps = int(kernel.run("print(len(history))")[0])
    assert 10 <= steps < 90
    printed, error = kernel.run(cells[long])
    assert error == "" and "resumed at step" in printed and "step 90/90" in printed
    kernel.run("kept = history")
    printed, error = kernel.run(cells[long])
    assert error == "" and "resumed at step" not in printed
    assert kernel.run("print(len(kept), kept == history)")[0] == "90 True\n"
