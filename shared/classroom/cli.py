"""The command-line door: `python -m shared run`, `check`, `download`, `slides`.

Notable: `run` executes the notebooks themselves, in the order of the course, so that what you
study and what you run are one; a notebook that fails is named and the others go on. Only the
standard library is imported until a command needs more, so that `-h` answers at once and `check`
can say what is missing.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
import time
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shared.classroom.files import ROOT

# The chapters in the order of the course, and the main notebook of each.
CHAPTERS = {
    "bigram": "bigram",
    "01_text_data": "text_data",
    "02_attention": "attention",
    "03_gpt_architecture": "gpt",
    "04_pretraining": "pretraining",
    "05_finetune_classification": "spam_classifier",
    "06_finetune_instructions": "instructions",
}
ROAD = {*CHAPTERS.values(), "chat"}  # from raw text to a model that answers
EXERCISES = ("exercises", "solutions")
BUNDLED = (
    "stories.txt",
    "stories_val.txt",
    "rhymes.txt",
    "facts.txt",
    "tale.txt",
    "messages.csv",
    "instructions.json",
    "course.tiktoken",
    "checkpoints/course.safetensors",
    "checkpoints/chat.safetensors",
)
NEEDED_GB = {"memory": 4, "disk": 2}


# ---------------------------------------------------------------------------------------------
# run
# ---------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Execute the road, or whole chapters; write them as HTML to build/, print the table."""
    releasing = os.environ.get("COURSE_RELEASE") == "1"
    if releasing:  # what is stored must be what the tests will find
        os.environ["COURSE_CHECKPOINT"], os.environ["COURSE_WEIGHTS"] = "bundled", "stand-in"
    # Nobody who says "run" wants to fetch GPT-2 and tune it on a CPU; COURSE_WEIGHTS=real does it.
    os.environ["COURSE_WEIGHTS"] = os.environ.get("COURSE_WEIGHTS") or "stand-in"
    whole = releasing or args.all or bool(args.chapters)
    notebooks = find_notebooks(args.chapters, whole, with_exercises=releasing)
    if not notebooks:
        print("There is no notebook to run in: " + ", ".join(args.chapters or CHAPTERS))
        return 1
    rows = []
    for number, path in enumerate(notebooks, start=1):
        print(f"\n[{number}/{len(notebooks)}] {path.relative_to(ROOT)}", flush=True)
        began = time.monotonic()
        try:
            state, result = execute(path, args.long, releasing)
        except KeyboardInterrupt:
            rows.append((path, time.monotonic() - began, "STOPPED", "you pressed Ctrl-C"))
            break
        rows.append((path, time.monotonic() - began, state, result))
        print(f"  {state}: {result}" if state != "ok" else "  done", flush=True)
    print_runs(rows)
    print("\nThe executed notebooks are in build/, to read in a browser.")
    return 0 if all(state in ("ok", "skipped") for _, _, state, _ in rows) else 1


def find_notebooks(
    chapters: list[str], whole: bool = True, with_exercises: bool = False
) -> list[Path]:
    """The notebooks of the chapters (all when none is named), main notebooks first.

    Not `whole`: only those of the road.
    """
    found = []
    for chapter, main in CHAPTERS.items():
        if chapters and chapter not in chapters:
            continue
        paths = sorted((ROOT / chapter).glob("*.ipynb"), key=lambda p: (p.stem != main, p.stem))
        found += [
            path
            for path in paths
            if (whole or path.stem in ROAD) and (with_exercises or path.stem not in EXERCISES)
        ]
    return found


def chapter(name: str) -> str:
    """The chapter a person means by "04", "4" or "04_pretraining"."""
    name = name.strip("/")
    for known in CHAPTERS:
        number = known.split("_")[0]
        if name in (known, number, number.lstrip("0")):
            return known
    raise argparse.ArgumentTypeError(f"no chapter {name!r}; there are {', '.join(CHAPTERS)}")


def execute(path: Path, long: bool, releasing: bool) -> tuple[str, str]:
    """Run one notebook; return ("ok" | "skipped" | "FAILED", its result or the reason)."""
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

    class Narrated(NotebookClient):
        """Passes on the progress of training, the lines that begin with "step", as it comes."""

        def process_message(self, msg, cell, cell_index):
            if msg["msg_type"] == "stream":
                for line in re.findall(r"(?m)^step .*$", msg["content"]["text"]):
                    print(f"      {line}", flush=True)
            return super().process_message(msg, cell, cell_index)

    notebook = nbformat.read(path, as_version=4)
    if reason := fetch_needs(notebook):
        return "skipped", reason
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None  # nothing old in what is shown
            if long:
                cell.source = re.sub(r"(?m)^LONG = False\b", "LONG = True", cell.source)
    narrator = Narrator(notebook)
    client = Narrated(
        notebook,
        km=AsyncKernelManager(
            kernel_name=CURRENT_ENV_KERNEL_NAME,  # this Python, whatever the notebook names
            kernel_spec_manager=NbvalKernelspecManager(),
        ),
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
        timeout=None,  # budgets are steps, so a slow machine is only later
        store_widget_state=False,  # GitHub cannot show notebooks that hold it
        record_timing=False,  # the same run gives the same file
        coalesce_streams=True,
        on_cell_start=narrator,
    )
    state = "ok"
    try:
        client.execute()
        result = "; ".join(printed(cell) for cell in notebook.cells if "result" in tags(cell))
    except (CellExecutionError, DeadKernelError, RuntimeError) as error:
        state, result = "FAILED", failure(notebook, narrator.cell, error)
    write_html(notebook, path)
    if releasing and state == "ok" and not long:  # a long run records itself in a JSON file
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)
    return state, result


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def printed(cell) -> str:
    """What a cell printed, on one line."""
    texts = [out.text for out in cell.get("outputs", []) if out.get("name") == "stdout"]
    return "; ".join(" ".join(line.split()) for line in "".join(texts).strip().splitlines())


class Narrator:
    """A hook that prints a line whenever the execution enters a new section."""

    def __init__(self, notebook):
        self.began = time.monotonic()
        self.cell = 1  # the one that runs, counted from 1
        self.headings, self.shown, heading = [], set(), ""
        for cell in notebook.cells:
            if cell.cell_type == "markdown" and (found := re.search(r"(?m)^#+ (.+)$", cell.source)):
                heading = found[1]
            self.headings.append(heading)

    def __call__(self, cell, cell_index: int) -> None:
        self.cell, heading = cell_index + 1, self.headings[cell_index]
        if heading not in self.shown:
            self.shown.add(heading)
            minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
            place = f"{self.cell}/{len(self.headings)}"
            clock = f"{minutes:2}:{seconds:02}"
            print(f"  {clock}  cell {place:>7}  {heading}", flush=True)


def fetch_needs(notebook) -> str | None:
    """Fetch what a notebook's cells ask for; the reason why all of it must be skipped, or None.

    Fetching now keeps the progress of downloads out of the notebook's outputs. A cell whose file
    cannot be had says so itself.
    """
    whole = notebook.metadata.get("course", {}).get("needs", [])
    parts = {tag[6:] for cell in notebook.cells for tag in tags(cell) if tag.startswith("needs:")}
    if whole or parts:
        from shared.classroom.fetch import FetchError, fetch

        for name in [*whole, *sorted(parts)]:
            try:
                fetch(name)
            except FetchError as error:
                print(f"  without {name}: {str(error).splitlines()[0]}", flush=True)
                if name in whole:
                    return f"needs {name}, which cannot be had here"
    return None


def failure(notebook, at: int, error: Exception) -> str:
    """Which cell failed, and with what; without an error message it was the one that ran."""
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                return f"cell {number}: {output.ename}: {(output.evalue.splitlines() or [''])[0]}"
    return f"cell {at}: {(str(error).splitlines() or ['stopped'])[0]}"


def write_html(notebook, path: Path) -> None:
    """Write an executed notebook to build/, at the depth where its relative links hold."""
    from nbconvert import HTMLExporter

    name = f"{path.parent.name}_{path.stem}" if path.stem in EXERCISES else path.stem
    (ROOT / "build").mkdir(exist_ok=True)
    html, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    (ROOT / "build" / f"{name}.html").write_text(html, encoding="utf-8")


def print_runs(rows: list[tuple[Path, float, str, str]]) -> None:
    table = [("notebook", "minutes", "result")]
    for path, seconds, state, result in rows:
        text = result or "ok" if state == "ok" else f"{state}: {result}"
        table.append((str(path.relative_to(ROOT)), f"{seconds / 60:.1f}", text))
    table.append(("all", f"{sum(row[1] for row in rows) / 60:.1f}", ""))
    print()
    print_table(table)


def print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for number, row in enumerate(rows):
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in [*widths, len(row[-1])]))


# ---------------------------------------------------------------------------------------------
# check
# ---------------------------------------------------------------------------------------------


def check(args: argparse.Namespace) -> int:
    """Say what this machine has: versions, device, memory, data; end with a verdict."""
    problems = check_packages() + check_machine() + check_data()
    print()
    if not problems:
        print("This machine is ready for class.")
        return 0
    print("Not ready yet:")
    for problem in problems:
        print(f"  - {problem}")
    return 1


def pins() -> dict[str, str]:
    """Package → version of requirements.txt."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def check_packages() -> list[str]:
    rows, missing = [("package", "installed", "")], []
    for package, pinned in pins().items():
        try:
            installed = version(package)
        except PackageNotFoundError:
            rows.append((package, "missing", ""))
            missing.append(package)
            continue
        same = installed.split("+")[0] == pinned  # torch says 2.13.0+cpu
        rows.append((package, installed, "" if same else f"other than the tested {pinned}"))
    print_table(rows)
    problems = []
    if missing:
        problems.append(f"missing {', '.join(missing)}: pip install -r requirements.txt")
    if sys.version_info < (3, 11):  # noqa: UP036
        problems.append(f"Python {platform.python_version()}: the course needs 3.11 or newer")
    return problems


def check_machine() -> list[str]:
    print(f"\nPython   {platform.python_version()} on {platform.platform(terse=True)}")
    print(f"CPU      {cpu_name()}, {os.cpu_count()} threads")
    try:
        import torch
    except ImportError:
        print("GPU      unknown without PyTorch")
    else:
        if torch.cuda.is_available():
            size = torch.cuda.get_device_properties(0).total_memory / 1e9
            print(f"GPU      {torch.cuda.get_device_name(0)}, {size:.0f} GB")
        elif torch.backends.mps.is_available():
            print("GPU      Apple MPS (used only with COURSE_DEVICE=mps)")
        else:
            print("GPU      none; the course runs without one")
    free = {"disk": shutil.disk_usage(ROOT).free / 1e9}
    try:
        import psutil
    except ImportError:
        pass
    else:
        free["memory"] = psutil.virtual_memory().available / 1e9
        print(f"memory   {free['memory']:.1f} GB free of {psutil.virtual_memory().total / 1e9:.1f}")
    print(f"disk     {free['disk']:.1f} GB free")
    return [
        f"{gigabytes:.1f} GB of {name} free, {NEEDED_GB[name]} are needed: make room"
        for name, gigabytes in free.items()
        if gigabytes < NEEDED_GB[name]
    ]


def cpu_name() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def check_data() -> list[str]:
    missing = [name for name in BUNDLED if not (ROOT / "data" / name).is_file()]
    print(f"\nbundled data: {len(BUNDLED) - len(missing)} of {len(BUNDLED)} files")
    try:
        from shared.classroom.fetch import CATALOGUE, available
    except ImportError:
        print("fetched data: unknown without the packages")
    else:
        absent = [name for name in CATALOGUE if not available(name)]
        print(f"fetched data: {len(CATALOGUE) - len(absent)} of {len(CATALOGUE)} files are here")
        if absent:
            print("  fetched when first used (or now: python -m shared download):")
            print("  " + "\n  ".join(absent))
    remedy = "git checkout -- data brings it back"
    return [f"data/{name} is missing: {remedy}" for name in missing]


# ---------------------------------------------------------------------------------------------
# download
# ---------------------------------------------------------------------------------------------


def download(args: argparse.Namespace) -> int:
    """Fetch every file of the catalogue into the cache, or into a folder to hand to a class."""
    from shared.classroom.fetch import CATALOGUE, FetchError, cache_dir, fetch, fetch_gpt2

    folder = args.to
    rows, failed = [("file", "size", "result")], 0
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    wanted = [(name, fetch, name, source.licence) for name, source in CATALOGUE.items()]
    wanted += [(f"gpt2-{s}.safetensors", fetch_gpt2, s, "Modified MIT") for s in args.gpt2]
    for name, find, key, licence in wanted:
        with redirect_stdout(sys.stderr):  # progress; the table alone is the output
            try:
                path = find(key)
            except (FetchError, ValueError) as error:
                failed += 1
                rows.append((name, "", f"FAILED: {str(error).splitlines()[0]}"))
                continue
        if folder:
            shutil.copyfile(path, folder / name)
        rows.append((name, f"{path.stat().st_size / 1e6:.1f} MB", licence))
    print_table(rows)
    target = folder or cache_dir()
    print(f"\n{len(wanted) - failed} of {len(wanted)} files are in {target}")
    if folder and not failed:
        print(f"Hand the folder to a class; each sets COURSE_MIRROR={target.resolve()}")
    return 1 if failed else 0


# ---------------------------------------------------------------------------------------------


def slides(args: argparse.Namespace) -> int:
    """Write the notebooks of the chapters as slides, from the outputs that are stored in them."""
    from shared.classroom.slides import write_slides

    for path in find_notebooks(args.chapters):
        print(write_slides(path, args.to / path.parent.name), flush=True)
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m shared", description="Run, check and equip the course."
    )
    commands = parser.add_subparsers(metavar="command", required=True)

    command = commands.add_parser(
        "run",
        help="from raw text to your own GPT that answers",
        description="Execute the main notebook of every chapter and the chat in order, show their "
        "progress, write them as HTML to build/ and print a table of results. With the names of "
        "chapters, all notebooks of these; with --all, all. No notebook is changed. "
        "(For authors: with COURSE_RELEASE=1, exercises run too and outputs are stored.)",
    )
    command.add_argument(
        "chapters", nargs="*", metavar="chapter", type=chapter, help="such as bigram or 04"
    )
    command.add_argument("--all", action="store_true", help="the deeper notebooks, too")
    command.add_argument("--long", action="store_true", help="the long experiments (LONG = True)")
    command.set_defaults(function=run)

    command = commands.add_parser("check", help="is this machine ready for class?")
    command.set_defaults(function=check)

    command = commands.add_parser(
        "download",
        help="fetch all real texts and data sets now",
        description="Fetch every file that notebooks fetch on first use. With --to, also copy "
        "them to a folder: whoever sets COURSE_MIRROR to it needs no internet.",
    )
    command.add_argument("--to", type=Path, metavar="DIR", help="a folder to hand to a class")
    command.add_argument(
        "--gpt2",
        metavar="SIZE",
        action="append",
        default=[],
        help="GPT-2's weights, too: 124M (0.5 GB), 355M, 774M or 1558M; may be repeated",
    )
    command.set_defaults(function=download)

    command = commands.add_parser(
        "slides",
        help="the chapters as talks: one HTML file per notebook",
        description="Write each notebook as slides, with the outputs stored in it. A file holds "
        "all it needs: open it in any browser, offline. Arrow keys and space go on, F fills the "
        "screen, O shows an overview.",
    )
    command.add_argument(
        "chapters", nargs="*", metavar="chapter", type=chapter, help="such as bigram or 04"
    )
    command.add_argument(
        "--to", type=Path, metavar="DIR", default=ROOT / "build" / "slides", help="build/slides"
    )
    command.set_defaults(function=slides)
    return parser


def main(arguments: list[str] | None = None) -> int:
    args = make_parser().parse_args(arguments)
    return args.function(args)


if __name__ == "__main__":
    sys.exit(main())
