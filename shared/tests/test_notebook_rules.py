"""The rules every saved notebook keeps, checked without running it.

A rule is a function: notebook and path in, problems out. Its decorator breaks a good notebook
against it, so that no rule can pass by sleeping.
"""

from __future__ import annotations

import ast
import dis
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from urllib.parse import unquote

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode, v4

from shared.classroom.cli import CHAPTERS, EXERCISES
from shared.classroom.fetch import CATALOGUE
from shared.classroom.formulas import known_formulas
from shared.classroom.setup_cell import ROOT, SETUP_CELL, colab_address, colab_badge

NOTEBOOKS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("[!.]*/*.ipynb"))
NOTEBOOKS = [path for path in NOTEBOOKS if not path.startswith("build")]
MAX_LINES, MAX_FINAL_LINES, MAX_BYTES = 25, 60, 1_500_000
MAX_WIDTH = 77  # characters of a printed line; longer ones wrap on a page, and columns dissolve
MIN_COMPARED = 0.85  # of the code cells with text output
FOLDER_MINUTES = dict(zip(CHAPTERS, (6, 2, 4, 6, 15, 5, 10), strict=True))
SLIDE_TYPES = {"slide", "subslide", "fragment", "notes", "skip", "-"}
KNOWN_TAGS = r"nbval-ignore-output|nbval-skip|raises-exception|needs:.+"
MACHINE_PATHS = re.compile(r"/(?:root|home|work|tmp|opt|Users|content)/|[A-Za-z]:\\+Users")
FORMULAS = known_formulas()
BOOK = "needs:the-verdict.txt"  # a tag that needs_names is tried with
WIDGET = "application/vnd.jupyter.widget-view+json"


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """The code cells that hold code, with their places among all cells (from 1)."""
    numbered = enumerate(notebook.cells, start=1)
    return [(n, cell) for n, cell in numbered if cell.cell_type == "code" and cell.source.strip()]


def tree(cell: NotebookNode) -> ast.Module:
    """The syntax tree of a cell, `%magic` and `!shell` lines as the function calls they are."""
    return ast.parse(TransformerManager().transform_cell(cell.source))


def is_text(output: NotebookNode) -> bool:
    """Printed lines or a shown value; a picture or a widget with its description is neither."""
    return output.output_type == "stream" or (
        output.output_type in ("execute_result", "display_data")
        and not any(kind.startswith("image/") or kind == WIDGET for kind in output.data)
    )


def has_text_output(cell: NotebookNode) -> bool:
    return any(map(is_text, cell.outputs))


def printed(output: NotebookNode) -> str:
    """What is read as plain text: a table that is also HTML is shown as that."""
    data = output.get("data", {})
    plain = is_text(output) and "text/html" not in data
    return output.get("text", data.get("text/plain", "")) if plain else ""


def is_compared(cell: NotebookNode) -> bool:
    return not {"nbval-ignore-output", "nbval-skip"} & set(tags(cell))


def needed(cell: NotebookNode) -> set[str]:
    """The files that a cell needs to be fetched, from its tags."""
    return {tag.removeprefix("needs:") for tag in tags(cell) if tag.startswith("needs:")}


RULES: dict[Callable, tuple[Callable, ...]] = {}  # rule → ways to break a good notebook against it


def rule(*breaks: Callable[[NotebookNode], object]) -> Callable:
    def register(function: Callable) -> Callable:
        RULES[function] = breaks
        return function

    return register


def saved(*arguments: object, **content: object) -> Callable[[NotebookNode], None]:
    """Breaks a notebook by one more output of its third cell."""
    return lambda nb: nb.cells[2].outputs.append(v4.new_output(*arguments, **content))


def coded(*cells: tuple[str, str]) -> list[NotebookNode]:
    """Code cells, each of a source and a tag."""
    return [v4.new_code_cell(s, metadata={"tags": [tag] if tag else []}) for s, tag in cells]


def source(text: str, cell: int = 2) -> Callable[[NotebookNode], None]:
    return lambda nb: nb.cells[cell].update(source=text)


@rule(
    lambda nb: nb.metadata.kernelspec.update(name="conda-env"),
    lambda nb: nb.metadata.update(widgets={}),
    lambda nb: nb.cells[2].pop("execution_count"),
    lambda nb: nb.metadata.pop("course"),
    lambda nb: nb.metadata.course.update(needs=["no-such-book.txt"]),
    saved("stream", text="x" * MAX_BYTES),
)
def whole_file(notebook: NotebookNode, path: Path) -> Iterator[str]:
    if (size := len(nbformat.writes(notebook).encode())) > MAX_BYTES:
        yield f"{size:,} bytes, at most {MAX_BYTES:,}: save fewer or simpler figures"
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield f"not a valid notebook: {error.message}"
    if (kernel := notebook.metadata.get("kernelspec", {}).get("name")) != "python3":
        yield f"metadata.kernelspec.name is {kernel}, not python3"
    if "widgets" in notebook.metadata:
        yield "metadata.widgets: GitHub shows 'Invalid Notebook'"
    course = notebook.metadata.get("course", {})
    minutes, whole, device = (course.get(key) for key in ("minutes", "needs", "device"))
    good = isinstance(minutes, (int, float)) and minutes > 0 and isinstance(whole, list)
    if not good or device not in ("cpu", "gpu"):
        yield f"metadata.course: minutes above 0, a list of needs, device cpu or gpu; not {course}"
        return
    # what a notebook needs as a whole stands in its metadata; what a part needs, in tags
    parts = {name for _, cell in code_cells(notebook) for name in needed(cell)}
    for name in sorted(parts.union(whole) - set(CATALOGUE)):
        yield f"needs {name!r}, which shared.classroom.fetch.CATALOGUE does not have"
    for name in sorted(parts.intersection(whole)):
        yield f"{name} is needed by single cells: then not by the whole notebook too"


@rule(
    saved("stream", text="saved to /home/ada/course/model.pt"),
    saved("stream", name="stderr", text="UserWarning: old"),
    saved("error", ename="KeyError", evalue="'a'", traceback=[]),
    saved("stream", text="short\n" + "x" * (MAX_WIDTH + 1)),
    saved("execute_result", {"text/plain": "x" * (MAX_WIDTH + 1)}, execution_count=1),
    saved("display_data", {WIDGET: {"model_id": "a"}, "text/plain": "HBox()"}),
)
def saved_outputs(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for number, cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            texts = [data[kind] for kind in data if kind not in ("image/png", "image/jpeg")]
            for text in [output.get("text", ""), *output.get("traceback", []), *texts]:
                if found := MACHINE_PATHS.search(str(text)):
                    yield f"cell {number} shows {found[0]!r}, a path of the machine it ran on"
            if wide := [line for line in printed(output).splitlines() if len(line) > MAX_WIDTH]:
                yield f"cell {number} prints {len(wide[0])} characters in a line: {wide[0]!r:.60}"
            if output.get("name") == "stderr":
                yield f"cell {number} saved stderr: {output.text[:80]!r}"
            # the tag that JupyterLab's "Run All", nbclient and nbval all heed
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"cell {number} saved an error; if it is meant to, tag it raises-exception"
            if WIDGET in data and is_compared(cell):
                yield f"cell {number} shows a widget: tag it nbval-ignore-output"


@rule(
    source("Hello", cell=0),
    source(SETUP_CELL + "\n", cell=1),
    lambda nb: nb.cells[2].metadata.pop("slideshow"),
    source("LONG = True"),
    source("LONG = False\nLONG = 1"),
)
def layout(notebook: NotebookNode, path: Path) -> Iterator[str]:
    first, second = notebook.cells[:2]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell must be markdown that starts with '# ' and the title"
    if colab_address(path) not in first.source or "minute" not in first.source:
        yield f"the first cell lacks its minutes or its badge: {colab_badge(path)}"
    if second.source != SETUP_CELL:
        yield "the second cell is not the set-up cell: run `python -m shared.classroom.setup_cell`"
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.metadata.get("slideshow", {}).get("slide_type") not in SLIDE_TYPES:
            yield f"cell {number} has no metadata.slideshow.slide_type (one of {SLIDE_TYPES})"
    cells = [cell.source for _, cell in code_cells(notebook) if cell.source != SETUP_CELL]
    lines = [line for text in cells for line in re.findall(r"(?m)^LONG =.*", text)]
    off = len(lines) == 1 and re.match(r"LONG = False\b", lines[0]) and lines[0] in cells[0]
    if re.search(r"\bLONG\b", "\n".join(cells)) and not off:
        yield "LONG: the first cell after the set-up must hold the line `LONG = False`, once"


@rule(
    lambda nb: nb.cells[2].update(execution_count=7),
    source("x = 1\n" * (MAX_LINES + 1)),
    source("clear_output(wait=True)"),
    lambda nb: nb.cells[2].metadata.update(tags=["nbval_ignore_output"]),
    lambda nb: nb.cells[2].metadata.update(tags=["nbval-ignore-output"]),
)
def code(notebook: NotebookNode, path: Path) -> Iterator[str]:
    cells = code_cells(notebook)
    for place, (number, cell) in enumerate(cells):
        if (count := cell.execution_count) != place + 1:
            yield f"cell {number} has execution count {count}, not {place + 1}: run all afresh"
        limit = MAX_FINAL_LINES if "final" in tags(cell) else MAX_LINES
        if (lines := len(cell.source.splitlines())) > limit:
            yield f"cell {number} has {lines} lines of code, at most {limit}"
        # nbval cannot follow outputs that are cleared or replaced
        if found := re.search(r"\b(clear_output|update_display|display_id)\b", cell.source):
            yield f"cell {number} calls {found[0]}: print a line per step instead"
        for tag in tags(cell):  # a misspelt one would change nothing and say nothing
            if re.match("nbval|needs?|raise", tag) and not re.fullmatch(KNOWN_TAGS, tag):
                yield f"cell {number} has the unknown tag {tag!r}"
        # lines that differ from machine to machine are followed by the range that must hold
        if "nbval-ignore-output" in tags(cell) and has_text_output(cell):
            near = [node for _, c in cells[place : place + 3] for node in ast.walk(tree(c))]
            if not any(isinstance(node, ast.Assert) for node in near):
                yield f"cell {number} is not compared, and no assert follows soon"


@rule(
    source("[next](../nowhere.ipynb)", cell=0),
    source("<img src='nowhere.png'>", cell=0),
    source("show('no-such')"),
    source("formula('no-such')"),
)
def links(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            calls = re.findall(r"""\b(?:show|picture)\(\s*["']([\w-]+)["']""", cell.source)
            targets = [f"{ROOT}/assets/{name}.svg" for name in calls]
            calls = re.findall(r"""\bformula\(\s*["']([\w-]+)["']""", cell.source)
            targets += [f"the formula {name}" for name in calls if name not in FORMULAS]
        else:
            prose = re.sub(r"```.*?```|`[^`\n]*`", "", cell.source, flags=re.DOTALL)
            targets = re.findall(r"\]\(\s*<?([^)\s>]+)", prose)
            targets += re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)["']""", prose)
        for target in targets:
            if re.match(r"[a-z][a-z0-9+.-]*:|#", target):  # https:, mailto:, a place in this page
                continue
            file = (path.parent / unquote(re.split("[#?]", target)[0])).resolve()
            if not file.exists() or not file.is_relative_to(ROOT):
                yield f"cell {number} links to {target}, which does not exist"


@rule(
    source("The loss is $-\\log p$.", cell=0),
    source("$$L = \\frac{a}{b}$$", cell=0),
    source("the slope \\eta", cell=0),
)
def formulas(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """LaTeX in a text is typeset with a network only; `formula` draws it everywhere."""
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown":
            prose = re.sub(r"```.*?```|`[^`\n]*`", "", cell.source, flags=re.DOTALL)
            if found := re.search(r"\$\$|\\[a-zA-Z]{2,}|\$[^$\n]*\\[^$\n]*\$", prose):
                yield f"cell {number} has LaTeX ({found[0]}): put it into assets/formulas.toml"


def names(code: CodeType) -> Iterator[tuple[str, str]]:
    """("use" or "bind", name of the notebook), in the order in which its bytecode runs.

    The body of a function counts as run where it is defined.
    """
    is_cell, own = code.co_name == "<module>", set()
    for step in dis.get_instructions(code):
        if isinstance(step.argval, CodeType):
            yield from names(step.argval)
        elif step.opname == "STORE_NAME" and not is_cell:
            own.add(step.argval)  # in the body of a class
        elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL", "STORE_NAME") and step.argval not in own:
            yield "bind" if step.opname == "STORE_NAME" else "use", step.argval


@rule(lambda nb: nb.cells.extend(coded(("book = 1", BOOK), ("book", ""))))
def needs_names(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No cell may use a name that a `needs:` cell made or changed, unless it needs the same.

    Otherwise the notebook would end in a NameError, or show other numbers, without the data.
    """
    fetched: dict[str, set[str]] = {}  # name → files without which it is missing or another
    bound: set[str] = set()
    for number, cell in code_cells(notebook):
        files, module = needed(cell), tree(cell)
        aliases = [node for node in ast.walk(module) if isinstance(node, ast.alias)]
        again = bound & {(alias.asname or alias.name).split(".")[0] for alias in aliases}
        for action, name in names(compile(module, "cell", "exec")):
            if action == "use" and (lacking := fetched.get(name, set()) - files):
                yield f"cell {number} uses {name}, which needs {', '.join(sorted(lacking))}"
            elif action == "bind" and not files:
                bound.add(name)
                fetched.pop(name, None)
            elif action == "bind" and name not in again:  # a module that was here before
                fetched[name] = files
        for node in ast.walk(module) if files else ():
            if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
                # results["book"] = …: results is another one now
                fetched[re.match(r"\w*", ast.unparse(node))[0]] = files


def read(path: str) -> NotebookNode:
    return nbformat.read(ROOT / path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS)
@pytest.mark.parametrize("rule", RULES)
def test_notebook_keeps_rule(rule: Callable, path: str) -> None:
    assert list(rule(read(path), ROOT / path)) == []


@pytest.mark.parametrize(("rule", "breaks"), [(r, b) for r in RULES for b in RULES[r]])
def test_rule_accepts_good_and_refuses_broken(rule: Callable, breaks: Callable) -> None:
    path = ROOT / "bigram" / "bigram.ipynb"
    cells = [v4.new_markdown_cell(f"# A title\n\n{colab_badge(path)}\n\n3 minutes")]
    cells += [v4.new_code_cell(text, execution_count=n) for n, text in ((1, SETUP_CELL), (2, "1"))]
    cells[2].outputs.append(v4.new_output("stream", text="1\n"))
    for cell in cells:
        cell.metadata.slideshow = {"slide_type": "slide"}
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata.course = {"minutes": 3, "needs": [], "device": "cpu"}
    assert list(rule(notebook, path)) == []
    breaks(notebook)
    assert list(rule(notebook, path)) != []


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ([("book = 1", BOOK), ("print(book)", "needs:meditations.txt")], ["book"]),
        ([("book = 1", BOOK), ("print(book)", BOOK), ("book = 2", ""), ("book", "")], []),
        ([("def read(): pass", BOOK), ("def show():\n    return read()", "")], ["read"]),
        ([("import re", ""), ("import re, os", BOOK), ("re.sub, os.sep", "")], ["os"]),
        ([("a, (b, *c) = 1, (2, 3)", BOOK), ("a += b", "")], ["a", "b"]),
        ([("r = {}", ""), ("r['book'] = 1", BOOK), ("print(r)", "")], ["r"]),
        ([("t = 'a'", BOOK), ("def show(t):\n    return t", ""), ("[t for t in 'ab']", "")], []),
    ],
)
def test_needs_names(cells: list, found: list[str]) -> None:
    problems = needs_names(v4.new_notebook(cells=coded(*cells)), ROOT)
    assert [problem.split(" uses ")[1].split(",")[0] for problem in problems] == found


def test_most_outputs_are_compared() -> None:
    cells = [c for path in NOTEBOOKS for _, c in code_cells(read(path)) if has_text_output(c)]
    share = sum(map(is_compared, cells)) / len(cells)
    assert share >= MIN_COMPARED, f"only {share:.0%} of the cells with text output are compared"


def test_stated_minutes_fit_the_folder_and_stand_in_the_readme() -> None:
    stated = Counter()
    for path in NOTEBOOKS:
        stated[path.split("/")[0]] += read(path).metadata.course.minutes
    over = {f: m for f, m in stated.items() if m > FOLDER_MINUTES.get(f, 0)}
    assert not over, f"more minutes stated than {FOLDER_MINUTES} allows: {over}"
    rows = re.findall(r"^\| \[`(\w+)/`\].* \| (\d+) \|", (ROOT / "README.md").read_text(), re.M)
    assert {folder: int(minutes) for folder, minutes in rows} == {
        folder: round(minutes) for folder, minutes in stated.items()
    }


def test_every_chapter_has_its_main_notebook_exercises_and_solutions() -> None:
    for folder, main in CHAPTERS.items():
        for stem in (main, *EXERCISES):
            assert (ROOT / folder / f"{stem}.ipynb").is_file()
