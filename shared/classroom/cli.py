"""The command line: `python -m shared run`, `check`, `download`, `slides`.

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
import signal
import sys
import tempfile
import time
from contextlib import redirect_stdout, suppress
from functools import partial
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
    "stories.txt stories_val.txt rhymes.txt facts.txt school.txt tale.txt messages.csv "
    "instructions.json course.tiktoken checkpoints/course.safetensors checkpoints/chat.safetensors"
).split()
NEEDED_GB = {"memory": 4, "disk": 2}


def run(args: argparse.Namespace) -> int:
    """Execute the road, or whole chapters; write them as HTML to build/, print the table."""
    from shared.classroom.execute import execute

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
    build = ROOT / "build"
    must_be_writable(build)
    rows, seconds, failed = [("notebook", "minutes", "result")], 0.0, False
    for number, path in enumerate(notebooks, start=1):
        name, began = str(path.relative_to(ROOT)), time.monotonic()
        # Each page lies at the depth where its relative links hold.
        page = f"{path.parent.name}_{path.stem}" if path.stem in EXERCISES else path.stem
        try:
            print(f"\n[{number}/{len(notebooks)}] {name}", flush=True)
            store = releasing and not args.long  # a long run records itself in a JSON file
            state, result = execute(path, build / f"{page}.html", args.long, store)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
            state, result = "STOPPED", "you pressed Ctrl-C"
        took = time.monotonic() - began
        seconds, failed = seconds + took, failed or state in ("FAILED", "STOPPED")
        said = f"{state}: {result}"
        print("  done" if state == "ok" else f"  {said}", flush=True)
        rows.append((name, f"{took / 60:.1f}", (result or "ok") if state == "ok" else said))
        if state == "STOPPED":
            break
    print()
    print_table([*rows, ("all", f"{seconds / 60:.1f}", "")])
    print("\nThe executed notebooks are in build/, to read in a browser.")
    return int(failed)


def find_notebooks(
    chapters: list[str], whole: bool = True, with_exercises: bool = False
) -> list[Path]:
    """The notebooks of the chapters (all when none is named), main notebooks first.

    `chapters` may hold single notebooks, "02_attention/attention". Not `whole`: only those of the
    road.
    """
    found = []
    for chapter, main in CHAPTERS.items():
        paths = sorted((ROOT / chapter).glob("*.ipynb"), key=lambda p: (p.stem != main, p.stem))
        if not chapters or chapter in chapters:
            found += [
                path
                for path in paths
                if (whole or path.stem in ROAD) and (with_exercises or path.stem not in EXERCISES)
            ]
        else:
            found += [path for path in paths if f"{chapter}/{path.stem}" in chapters]
    return found


def must_be_writable(folder: Path) -> None:
    """Make a folder; end the program with one line when nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        sys.exit(f"Cannot write to {folder}: {error.strerror}.")


def print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    rule = tuple("-" * width for width in [*widths, len(rows[0][-1])])
    for row in [rows[0], rule, *rows[1:]]:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]).rstrip())


def check(args: argparse.Namespace) -> int:
    """Say what this machine has: versions, device, memory, data; end with a verdict."""
    problems = check_packages() + check_machine() + check_data()
    if not problems:
        print("\nThis machine is ready for class.")
        return 0
    print("\nNot ready yet:")
    print("\n".join(f"  - {problem}" for problem in problems))
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
            installed = "missing"
            missing.append(package)
        # torch says 2.13.0+cpu
        other = installed != "missing" and installed.split("+")[0] != pinned
        rows.append((package, installed, f"other than the tested {pinned}" if other else ""))
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
    print(f"GPU      {gpu_name()}")
    free = {"disk": shutil.disk_usage(ROOT).free / 1e9}
    with suppress(ImportError):
        import psutil

        memory = psutil.virtual_memory()
        free["memory"] = memory.available / 1e9
        print(f"memory   {free['memory']:.1f} GB free of {memory.total / 1e9:.1f}")
    print(f"disk     {free['disk']:.1f} GB free")
    return [
        f"{gigabytes:.1f} GB of {name} free, {NEEDED_GB[name]} are needed: make room"
        for name, gigabytes in free.items()
        if gigabytes < NEEDED_GB[name]
    ]


def cpu_name() -> str:
    with suppress(OSError):
        if found := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()):
            return found[1]
    return platform.processor() or platform.machine()


def gpu_name() -> str:
    try:
        import torch
    except ImportError:
        return "unknown without PyTorch"
    if torch.cuda.is_available():
        size = torch.cuda.get_device_properties(0).total_memory / 1e9
        return f"{torch.cuda.get_device_name(0)}, {size:.0f} GB"
    if torch.backends.mps.is_available():
        return "Apple MPS (used only with COURSE_DEVICE=mps)"
    return "none; the course runs without one"


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
    return [f"data/{name} is missing: git checkout -- data brings it back" for name in missing]


def download(args: argparse.Namespace) -> int:
    """Fetch every file of the catalogue into the cache, or into a folder to hand to a class."""
    from shared.classroom.fetch import CATALOGUE, FetchError, cache_dir, fetch, fetch_gpt2
    from shared.classroom.files import write_atomically

    if args.to:
        must_be_writable(args.to)
    rows, remedies = [("file", "size", "result")], []
    wanted = [(name, fetch, name, source.licence) for name, source in CATALOGUE.items()]
    wanted += [(f"gpt2-{s}.safetensors", fetch_gpt2, s, "Modified MIT") for s in args.gpt2]
    for name, find, key, licence in wanted:
        try:
            with redirect_stdout(sys.stderr):  # progress; the table alone is the output
                path = find(key)
            if args.to:  # which may be the cache itself
                with open(path, "rb") as file:
                    write_atomically(args.to / name, partial(shutil.copyfileobj, file))
        except FetchError as error:
            what, _, remedy = str(error).splitlines()[0].partition(": ")
            rows.append((name, "", f"FAILED: {what}"))
            remedies.append(remedy.replace(name, "it"))
            continue
        except OSError as error:
            rows.append((name, "", f"FAILED: {error.strerror or error}"))
            continue
        rows.append((name, f"{path.stat().st_size / 1e6:.1f} MB", licence))
    print_table(rows)
    target = args.to or cache_dir()
    failed = sum(result.startswith("FAILED") for _, _, result in rows)
    print(f"\n{len(wanted) - failed} of {len(wanted)} files are in {target}")
    for remedy in dict.fromkeys(remedies):
        print(f"What failed: {remedy}")
    if args.to and not failed:
        print(f"Hand the folder to a class; each sets COURSE_MIRROR={target.resolve()}")
    return 1 if failed else 0


def slides(args: argparse.Namespace) -> int:
    """Write the notebooks of the chapters as slides, from the outputs that are stored in them."""
    from shared.classroom.slides import write_slides

    must_be_writable(args.to)
    for path in find_notebooks(args.chapters):
        print(write_slides(path, args.to / path.parent.name), flush=True)
    return 0


def chapter(name: str) -> str:
    """The chapter a person means by "04", "4" or "04_pretraining", or the notebook: "04…/books".

    Also as a shell completes them: "./04_pretraining/", "04_pretraining/books.ipynb".
    """
    path = Path(name.replace("\\", "/"))
    for known in CHAPTERS:
        number = known.split("_")[0]
        if str(path) in (known, number, number.lstrip("0")):
            return known
    for place in (path.resolve(), ROOT / path):
        if place.parent == ROOT and place.name in CHAPTERS:
            return place.name
        notebook = place.with_suffix(".ipynb")
        if (
            notebook.parent.name in CHAPTERS
            and notebook.parent.parent == ROOT
            and notebook.is_file()
        ):
            return f"{notebook.parent.name}/{notebook.stem}"
    raise argparse.ArgumentTypeError(
        f"no chapter or notebook {name!r}; the chapters are {', '.join(CHAPTERS)}"
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m shared", description="Run, check and equip the course."
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    chapters = argparse.ArgumentParser(add_help=False)  # what run and slides share
    chapters.add_argument(
        "chapters",
        nargs="*",
        metavar="chapter",
        type=chapter,
        help="such as bigram or 04, or a single notebook",
    )

    command = commands.add_parser(
        "run",
        parents=[chapters],
        help="from raw text to your own GPT that answers",
        description="Execute the main notebook of every chapter and the chat in order, show their "
        "progress, write them as HTML to build/ and print a table of results. With the names of "
        "chapters, all notebooks of these; with --all, all. No notebook is changed. "
        "(For authors: with COURSE_RELEASE=1, exercises run too and outputs are stored.)",
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
        choices=("124M", "355M", "774M", "1558M"),
        action="append",
        default=[],
        help="GPT-2's weights, too (124M: 0.5 GB); may be repeated",
    )
    command.set_defaults(function=download)

    command = commands.add_parser(
        "slides",
        parents=[chapters],
        help="the chapters as talks: one HTML file per notebook",
        description="Write each notebook as slides, with the outputs stored in it. A file holds "
        "all it needs: open it in any browser, offline. Arrow keys and space go on, F fills the "
        "screen, O shows an overview.",
    )
    target = ROOT / "build" / "slides"
    command.add_argument("--to", type=Path, metavar="DIR", default=target, help="build/slides")
    command.set_defaults(function=slides)
    return parser


def main(arguments: list[str] | None = None) -> int:
    args = make_parser().parse_args(arguments)
    try:
        return args.function(args)
    except KeyboardInterrupt:
        print("\nSTOPPED: you pressed Ctrl-C", flush=True)
        return 1
    except BrokenPipeError:  # whoever reads has gone, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
