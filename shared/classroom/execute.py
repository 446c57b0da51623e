"""Run one notebook from top to bottom, without a browser, and say how far it is.

Notable: `python -m shared run` imports this only when it begins, as nbclient is slow to import.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

from shared.classroom.fetch import FetchError, fetch
from shared.classroom.files import write_atomically


class Client(NotebookClient):
    """A NotebookClient that passes on the lines of training ("step ...") as they come."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "stream":
            for line in re.findall(r"(?m)^step .*$", msg["content"]["text"]):
                print(f"      {line}", flush=True)
        return super().process_message(msg, cell, cell_index)


def execute(path: Path, html: Path, long: bool, store: bool) -> tuple[str, str]:
    """Run one notebook; return ("ok" | "skipped" | "FAILED", its result or the reason).

    Writes it to the file `html` with its new outputs and, to `store` them, to its own file.
    """
    notebook = nbformat.read(path, as_version=4)
    if reason := fetch_needs(notebook):
        return "skipped", reason
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None  # nothing old in what is shown
            if long:
                cell.source = re.sub(r"(?m)^LONG = False\b", "LONG = True", cell.source)
    began, at = time.monotonic(), 1  # the cell that runs, counted from 1

    def on_cell_start(cell: NotebookNode, cell_index: int) -> None:
        nonlocal at
        at = cell_index + 1
        heading = re.search(r"(?m)^#+ (.+)$", cell.source)
        if cell.cell_type == "markdown" and heading:
            minutes, seconds = divmod(int(time.monotonic() - began), 60)
            place = f"{at}/{len(notebook.cells)}"
            print(f"  {minutes:2}:{seconds:02}  cell {place:>7}  {heading[1]}", flush=True)

    client = Client(
        notebook,
        km=AsyncKernelManager(
            kernel_name=CURRENT_ENV_KERNEL_NAME,  # this Python, whatever the notebook names
            kernel_spec_manager=NbvalKernelspecManager(),
        ),
        extra_arguments=["--log-level=CRITICAL"],  # a kernel ended by Ctrl-C complains at length
        resources={"metadata": {"path": str(path.parent)}},
        timeout=None,  # budgets are steps, so a slow machine is only later
        store_widget_state=False,  # GitHub cannot show notebooks that hold it
        record_timing=False,  # the same run gives the same file
        coalesce_streams=True,
        on_notebook_start=leave_ctrl_c_alone,
        on_cell_start=on_cell_start,
    )
    try:
        client.execute(cleanup_kc=True)  # else the kernel would live as long as this program
        results = [printed(cell) for cell in notebook.cells if "result" in tags(cell)]
        state, result = "ok", "; ".join(results)
    except asyncio.CancelledError:  # Ctrl-C while the kernel was starting
        raise KeyboardInterrupt from None
    except CellExecutionError as error:
        state, result = "FAILED", f"cell {at}: {error.ename}: {first_line(error.evalue)}"
    except (DeadKernelError, RuntimeError) as error:
        state, result = "FAILED", f"cell {at}: {first_line(error)}"
    page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    write_atomically(html, lambda file: file.write(page.encode()))
    if store and state == "ok":
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)
    return state, result


def leave_ctrl_c_alone(notebook: NotebookNode) -> None:
    """Undo what nbclient makes of Ctrl-C: it ends the kernel, and the next notebook would run."""
    with suppress(NotImplementedError):  # on Windows nbclient leaves it alone
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


def fetch_needs(notebook: NotebookNode) -> str | None:
    """Fetch what a notebook's cells ask for; the reason why all of it must be skipped, or None.

    Fetching now keeps the progress of downloads out of the notebook's outputs. A cell whose file
    cannot be had says so itself.
    """
    whole = notebook.metadata.get("course", {}).get("needs", [])
    parts = {tag[6:] for cell in notebook.cells for tag in tags(cell) if tag.startswith("needs:")}
    for name in [*whole, *sorted(parts)]:
        try:
            fetch(name)
        except FetchError as error:
            print(f"  without {name}: {first_line(error)}", flush=True)
            if name in whole:
                return f"needs {name}, which cannot be had here"
    return None


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def printed(cell: NotebookNode) -> str:
    """What a cell printed, on one line."""
    texts = [out.text for out in cell.outputs if out.get("name") == "stdout"]
    return "; ".join(" ".join(line.split()) for line in "".join(texts).strip().splitlines())


def first_line(message: object) -> str:
    return (str(message).splitlines() or [""])[0]
