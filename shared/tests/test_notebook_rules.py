"""The rules every saved notebook keeps, checked without running it.

A rule is a function: notebook and path in, a list of problems out. Each is tried twice: on every
notebook of the course, and on a notebook broken on purpose, so that no rule can pass by sleeping.
"""

from __future__ import annotations

import ast
import copy
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode, v4

from shared.classroom.cli import CHAPTERS, EXERCISES
from shared.classroom.fetch import CATALOGUE
from shared.classroom.setup_cell import ROOT, SETUP_CELL, colab_address, colab_badge

NOTEBOOKS = sorted(ROOT.glob("[!.]*/*.ipynb"))
NOTEBOOKS = [path for path in NOTEBOOKS if path.parent.name != "build"]

MAX_LINES, MAX_FINAL_LINES = 25, 60
MAX_BYTES = 1_500_000
MIN_COMPARED = 0.85  # of the code cells with text output
FOLDER_MINUTES = dict(zip(CHAPTERS, (4, 3, 4, 5, 14, 5, 7), strict=True))
SLIDE_TYPES = {"slide", "subslide", "fragment", "notes", "skip", "-"}
KNOWN_TAGS = r"nbval-ignore-output|nbval-skip|raises-exception|needs:.+"
MACHINE_PATHS = re.compile(r"/(?:root|home|work|tmp|opt|Users|content)/|[A-Za-z]:\\+Users")
WIDGET = "application/vnd.jupyter.widget-view+json"


# ---------------------------------------------------------------------------------------------
# Reading notebooks
# ---------------------------------------------------------------------------------------------


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """The code cells that hold code, with their places among all cells (from 1)."""
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code" and cell.source.strip():
            yield number, cell


def tree(cell: NotebookNode) -> ast.Module:
    """The syntax tree of a cell, `%magic` and `!shell` lines as the function calls they are."""
    return ast.parse(TransformerManager().transform_cell(cell.source))


def outputs(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    for number, cell in code_cells(notebook):
        for output in cell.outputs:
            yield number, output


def output_texts(output: NotebookNode) -> Iterator[str]:
    yield output.get("text", "")
    yield from output.get("traceback", [])
    for kind, content in output.get("data", {}).items():
        if isinstance(content, str) and kind not in ("image/png", "image/jpeg"):
            yield content


def has_text_output(cell: NotebookNode) -> bool:
    """Printed lines or a shown value; a picture or a widget with its description is neither."""
    return any(
        output.output_type == "stream"
        or (output.output_type in ("execute_result", "display_data"))
        and not any(kind.startswith("image/") or kind == WIDGET for kind in output.data)
        for output in cell.outputs
    )


def is_compared(cell: NotebookNode) -> bool:
    return not {"nbval-ignore-output", "nbval-skip"} & set(tags(cell))


def needed(cell: NotebookNode) -> list[str]:
    """The files that a cell needs to be fetched, from its tags."""
    return [tag.removeprefix("needs:") for tag in tags(cell) if tag.startswith("needs:")]


# ---------------------------------------------------------------------------------------------
# Names that are there only when fetched data is
# ---------------------------------------------------------------------------------------------


class Names(ast.NodeVisitor):
    """Walks code in the order it runs, and tells `use` and `bind` of each name of the notebook.

    Names local to a function or a comprehension are not the notebook's, and are left out. The
    body of a function counts as run where it is defined.
    """

    def __init__(self, use: Callable[[str], None], bind: Callable[[str, bool], None]) -> None:
        self.use, self.bind = use, bind
        self.local: list[set[str]] = []

    def _is_local(self, name: str) -> bool:
        return any(name in names for names in self.local)

    def _bind(self, name: str, is_import: bool = False) -> None:
        if self.local:  # inside a function: its own name
            self.local[-1].add(name)
        else:
            self.bind(name, is_import)

    def _in_order(self, *parts: object) -> None:
        for part in parts:
            for node in part if isinstance(part, list) else [part]:
                if isinstance(node, ast.AST):
                    self.visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id)
        elif not self._is_local(node.id):
            self.use(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._in_order(node.value, node.targets)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._in_order(node.annotation, node.value)
        if node.value:
            self.visit(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and not self._is_local(node.target.id):
            self.use(node.target.id)
        self._in_order(node.value, node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._in_order(node.value, node.target)

    def visit_For(self, node: ast.For) -> None:
        self._in_order(node.iter, node.target, node.body, node.orelse)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._change_inside(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._change_inside(node)

    def _change_inside(self, node: ast.Attribute | ast.Subscript) -> None:
        self.generic_visit(node)
        root = node
        while isinstance(root, (ast.Attribute, ast.Subscript)):
            root = root.value
        if isinstance(node.ctx, ast.Store) and isinstance(root, ast.Name) and not self.local:
            self.bind(root.id, False)  # results["book"] = …: results is another one now

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            self._bind((alias.asname or alias.name).split(".")[0], True)

    visit_ImportFrom = visit_Import

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._in_order(node.type)
        if node.name:
            self._bind(node.name)
        self._in_order(node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._in_order(node.decorator_list, node.args.defaults, node.args.kw_defaults)
        self._bind(node.name)
        self._function(node.args, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._in_order(node.args.defaults, node.args.kw_defaults)
        self._function(node.args, [node.body])

    def _function(self, args: ast.arguments, body: list) -> None:
        named = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        self.local.append({arg.arg for arg in named if arg})
        self._in_order(body)
        self.local.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._in_order(node.decorator_list, node.bases, [k.value for k in node.keywords])
        self._bind(node.name)
        self.local.append(set())
        self._in_order(node.body)
        self.local.pop()

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp) -> None:
        self.local.append(set())
        for generator in node.generators:
            self._in_order(generator.iter, generator.target, generator.ifs)
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        self._in_order(*parts)
        self.local.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension


def needs_names(notebook: NotebookNode, path: Path) -> list[str]:
    """No cell may use a name that a `needs:` cell made or changed, unless it needs the same.

    Otherwise the notebook would end in a NameError, or show other numbers, without the data.
    """
    fetched: dict[str, set[str]] = {}  # name → files without which it is missing or another
    bound: set[str] = set()
    problems = []
    for number, cell in code_cells(notebook):
        files = set(needed(cell))

        def use(name: str, number: int = number, files: set[str] = files) -> None:
            if lacking := fetched.get(name, set()) - files:
                problems.append(f"cell {number} uses {name}, which needs {', '.join(lacking)}")

        def bind(name: str, is_import: bool, files: set[str] = files) -> None:
            if files and not (is_import and name in bound and name not in fetched):
                fetched[name] = files
            elif not files:
                fetched.pop(name, None)
            bound.add(name)

        Names(use, bind).visit(tree(cell))
    return problems


# ---------------------------------------------------------------------------------------------
# The rules
# ---------------------------------------------------------------------------------------------


def valid_format(notebook: NotebookNode, path: Path) -> list[str]:
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [f"not a valid notebook: {error.message}"]
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    return [] if kernel == "python3" else [f"metadata.kernelspec.name is {kernel}, not python3"]


def no_widget_state(notebook: NotebookNode, path: Path) -> list[str]:
    return ["metadata.widgets: GitHub shows 'Invalid Notebook'"] * ("widgets" in notebook.metadata)


def no_machine_paths(notebook: NotebookNode, path: Path) -> list[str]:
    return [
        f"cell {number} shows {found[0]!r}, a path of the machine it ran on"
        for number, output in outputs(notebook)
        for text in output_texts(output)
        if (found := MACHINE_PATHS.search(text))
    ]


def no_stderr(notebook: NotebookNode, path: Path) -> list[str]:
    return [
        f"cell {number} saved stderr: {output.text[:80]!r}"
        for number, output in outputs(notebook)
        if output.get("name") == "stderr"
    ]


def no_errors(notebook: NotebookNode, path: Path) -> list[str]:
    """`raises-exception` is the tag that JupyterLab's "Run All", nbclient and nbval all heed."""
    return [
        f"cell {number} saved an error; if it is meant to, tag it raises-exception"
        for number, cell in code_cells(notebook)
        if "raises-exception" not in tags(cell)
        and any(output.output_type == "error" for output in cell.outputs)
    ]


def run_in_order(notebook: NotebookNode, path: Path) -> list[str]:
    counts = [cell.execution_count for _, cell in code_cells(notebook)]
    for expected, (count, (number, _)) in enumerate(
        zip(counts, code_cells(notebook), strict=True), start=1
    ):
        if count != expected:
            return [f"cell {number} has execution count {count}, not {expected}: run all afresh"]
    return []


def short_cells(notebook: NotebookNode, path: Path) -> list[str]:
    problems = []
    for number, cell in code_cells(notebook):
        limit = MAX_FINAL_LINES if "final" in tags(cell) else MAX_LINES
        lines = len(cell.source.splitlines())
        if lines > limit:
            problems.append(f"cell {number} has {lines} lines of code, at most {limit}")
    return problems


def slideshow(notebook: NotebookNode, path: Path) -> list[str]:
    return [
        f"cell {number} has no metadata.slideshow.slide_type (one of {', '.join(SLIDE_TYPES)})"
        for number, cell in enumerate(notebook.cells, start=1)
        if cell.metadata.get("slideshow", {}).get("slide_type") not in SLIDE_TYPES
    ]


def title_cell(notebook: NotebookNode, path: Path) -> list[str]:
    first = notebook.cells[0]
    problems = []
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        problems.append("the first cell must be markdown that starts with '# ' and the title")
    if colab_address(path) not in first.source:
        problems.append(f"the first cell lacks its badge: {colab_badge(path)}")
    if "minute" not in first.source:
        problems.append("the first cell must say how many minutes the notebook takes")
    return problems


def setup_cell(notebook: NotebookNode, path: Path) -> list[str]:
    if len(notebook.cells) > 1 and notebook.cells[1].source == SETUP_CELL:
        return []
    return ["the second cell is not the set-up cell; `python -m shared.classroom.setup_cell` refreshes it"]


def course_metadata(notebook: NotebookNode, path: Path) -> list[str]:
    """What a notebook needs as a whole stands in its metadata; what a part needs, in tags."""
    course = notebook.metadata.get("course", {})
    problems = []
    minutes, whole = course.get("minutes"), course.get("needs")
    if not isinstance(minutes, (int, float)) or minutes <= 0:
        problems.append(f"metadata.course.minutes is {minutes!r}, not a number above 0")
    if not isinstance(whole, list):
        problems.append(f"metadata.course.needs is {whole!r}, not a list of file names")
        whole = []
    if course.get("device") not in ("cpu", "gpu"):
        problems.append(f"metadata.course.device is {course.get('device')!r}, not 'cpu' or 'gpu'")
    parts = {name for _, cell in code_cells(notebook) for name in needed(cell)}
    for name in sorted(parts | set(whole)):
        if name not in CATALOGUE:
            problems.append(f"needs {name!r}, which shared.classroom.fetch.CATALOGUE does not have")
    for name in sorted(parts & set(whole)):
        problems.append(f"{name} is needed by single cells: then not by the whole notebook too")
    return problems


def known_tags(notebook: NotebookNode, path: Path) -> list[str]:
    """A misspelt tag would change nothing and say nothing."""
    return [
        f"cell {number} has the unknown tag {tag!r}"
        for number, cell in code_cells(notebook)
        for tag in tags(cell)
        if re.match("nbval|needs?|raise", tag) and not re.fullmatch(KNOWN_TAGS, tag)
    ]


def links(notebook: NotebookNode, path: Path) -> list[str]:
    problems = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            for name in pictures(tree(cell)):
                if not (ROOT / "assets" / f"{name}.svg").is_file():
                    problems.append(f"cell {number} shows assets/{name}.svg, which does not exist")
            continue
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", cell.source, flags=re.DOTALL)
        found = re.findall(r"\]\(\s*<?([^)\s>]+)", prose)
        found += re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)["']""", prose)
        for target in found:
            if re.match(r"[a-z][a-z0-9+.-]*:|#", target):  # https:, mailto:, a place in this page
                continue
            file = (path.parent / unquote(re.split("[#?]", target)[0])).resolve()
            if not file.exists() or not file.is_relative_to(ROOT):
                problems.append(f"cell {number} links to {target}, which does not exist")
    return problems


def pictures(module: ast.Module) -> Iterator[str]:
    """Names in calls of `show("name")` and `picture("name")`, the drawings of assets/."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = getattr(node.func, "attr", getattr(node.func, "id", None))
            if function in ("show", "picture") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def small_file(notebook: NotebookNode, path: Path) -> list[str]:
    size = len(nbformat.writes(notebook).encode())
    return [f"{size:,} bytes, at most {MAX_BYTES:,}: save fewer or simpler figures"] * (
        size > MAX_BYTES
    )


def no_rewritten_output(notebook: NotebookNode, path: Path) -> list[str]:
    """nbval cannot follow outputs that are cleared or replaced."""
    return [
        f"cell {number} calls {found[0]}: print a line per step instead"
        for number, cell in code_cells(notebook)
        if (found := re.search(r"\b(clear_output|update_display|display_id)\b", cell.source))
    ]


def widgets_ignored(notebook: NotebookNode, path: Path) -> list[str]:
    return [
        f"cell {number} shows a widget: tag it nbval-ignore-output"
        for number, cell in code_cells(notebook)
        if any(WIDGET in output.get("data", {}) for output in cell.outputs) and is_compared(cell)
    ]


def ignored_asserted(notebook: NotebookNode, path: Path) -> list[str]:
    """Lines that differ from machine to machine are followed by the range that must hold."""
    cells = list(code_cells(notebook))
    problems = []
    for place, (number, cell) in enumerate(cells):
        if "nbval-ignore-output" in tags(cell) and has_text_output(cell):
            near = [tree(other) for _, other in cells[place : place + 3]]
            if not any(isinstance(node, ast.Assert) for part in near for node in ast.walk(part)):
                problems.append(f"cell {number} is not compared, and no assert follows soon")
    return problems


def long_is_off(notebook: NotebookNode, path: Path) -> list[str]:
    """Where LONG is used, `LONG = False` stands on a line of its own in the first cell of code."""
    cells = [cell.source for _, cell in code_cells(notebook) if cell.source != SETUP_CELL]
    if not any(re.search(r"\bLONG\b", source) for source in cells):
        return []
    lines = [line for source in cells for line in re.findall(r"(?m)^LONG =.*", source)]
    if len(lines) == 1 and re.match(r"LONG = False\b", lines[0]) and lines[0] in cells[0]:
        return []
    return ["LONG: the first cell after the set-up must hold the line `LONG = False`, once"]


# rule → how to break a good notebook against it
BREAK: dict[Callable, Callable[[NotebookNode], object]] = {
    valid_format: lambda nb: nb.metadata.kernelspec.update(name="conda-env"),
    no_widget_state: lambda nb: nb.metadata.update(widgets={}),
    no_machine_paths: lambda nb: _print(nb, "saved to /home/ada/course/model.pt"),
    no_stderr: lambda nb: _print(nb, "UserWarning: old", name="stderr"),
    no_errors: lambda nb: nb.cells[2].outputs.append(
        v4.new_output("error", ename="KeyError", evalue="'a'", traceback=[])
    ),
    run_in_order: lambda nb: nb.cells[2].update(execution_count=7),
    short_cells: lambda nb: nb.cells[2].update(source="x = 1\n" * (MAX_LINES + 1)),
    slideshow: lambda nb: nb.cells[2].metadata.pop("slideshow"),
    title_cell: lambda nb: nb.cells[0].update(source="Hello"),
    setup_cell: lambda nb: nb.cells[1].update(source=SETUP_CELL.replace("123", "7")),
    course_metadata: lambda nb: nb.metadata.course.update(needs=["no-such-book.txt"]),
    known_tags: lambda nb: nb.cells[2].metadata.update(tags=["nbval_ignore_output"]),
    links: lambda nb: nb.cells[0].update(source=nb.cells[0].source + "[next](../nowhere.ipynb)"),
    small_file: lambda nb: _print(nb, "x" * MAX_BYTES),
    no_rewritten_output: lambda nb: nb.cells[2].update(source="clear_output(wait=True)"),
    widgets_ignored: lambda nb: nb.cells[2].outputs.append(
        v4.new_output("display_data", {WIDGET: {"model_id": "a"}, "text/plain": "HBox()"})
    ),
    ignored_asserted: lambda nb: nb.cells[2].metadata.update(tags=["nbval-ignore-output"]),
    long_is_off: lambda nb: nb.cells[2].update(source="LONG = True"),
    needs_names: lambda nb: (
        nb.cells[2].update(source="book = 1", metadata={"tags": ["needs:the-verdict.txt"]}),
        nb.cells.append(v4.new_code_cell("print(book)", execution_count=3)),
    ),
}


def _print(notebook: NotebookNode, text: str, name: str = "stdout") -> None:
    notebook.cells[2].outputs.append(v4.new_output("stream", name=name, text=text))


def good_notebook(path: Path) -> NotebookNode:
    """A small notebook that keeps every rule."""
    shown = {"slideshow": {"slide_type": "slide"}}
    title = f"# A title\n\n{colab_badge(path)}\n\n3 minutes on 2 CPU cores."
    cells = [
        v4.new_markdown_cell(title, metadata=copy.deepcopy(shown)),
        v4.new_code_cell(SETUP_CELL, execution_count=1, metadata=copy.deepcopy(shown)),
        v4.new_code_cell("print(1)", execution_count=2, metadata=copy.deepcopy(shown)),
    ]
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata.update(
        kernelspec={"name": "python3", "display_name": "Python 3"},
        course={"minutes": 3, "needs": [], "device": "cpu"},
    )
    _print(notebook, "1\n")
    return nbformat.from_dict(notebook)


def name(value: object) -> str | None:
    if isinstance(value, Path):
        return str(value.relative_to(ROOT))
    return getattr(value, "__name__", None)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
@pytest.mark.parametrize("rule", BREAK, ids=name)
def test_notebook_keeps_rule(rule: Callable, path: Path) -> None:
    assert rule(nbformat.read(path, as_version=4), path) == []


@pytest.mark.parametrize("rule", BREAK, ids=name)
def test_rule_accepts_good_and_refuses_broken(rule: Callable) -> None:
    path = ROOT / "bigram" / "bigram.ipynb"
    notebook = good_notebook(path)
    assert rule(notebook, path) == []
    BREAK[rule](notebook)
    assert rule(notebook, path) != []


# ---------------------------------------------------------------------------------------------
# Closer looks at single rules
# ---------------------------------------------------------------------------------------------


def with_cells(*sources: str | tuple[str, str]) -> NotebookNode:
    """A notebook of code cells; a pair is the source and its one tag."""
    pairs = [source if isinstance(source, tuple) else (source, "") for source in sources]
    return v4.new_notebook(
        cells=[v4.new_code_cell(s, metadata={"tags": [tag] if tag else []}) for s, tag in pairs]
    )


BOOK = "needs:the-verdict.txt"


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ([("book = 1", BOOK), "print(book)"], ["book"]),
        ([("book = 1", BOOK), ("print(book)", BOOK)], []),
        ([("book = 1", BOOK), ("print(book)", "needs:meditations.txt")], ["book"]),
        ([("book = 1", BOOK), "book = 2", "print(book)"], []),
        (["book = 1", ("book = 2", BOOK), "print(book)"], ["book"]),
        ([("def read(): pass", BOOK), "read()"], ["read"]),
        ([("class Book: pass", BOOK), "b = Book()"], ["Book"]),
        ([("import re", BOOK), "re.sub"], ["re"]),
        (["import re", ("import re", BOOK), "re.sub"], []),
        ([("for line in [1]: pass", BOOK), "print(line)"], ["line"]),
        ([("a, (b, *c) = 1, (2, 3)", BOOK), "print(a, b, c)"], ["a", "b", "c"]),
        ([("if (n := 3): pass", BOOK), "n"], ["n"]),
        ([("with open('x') as file: pass", BOOK), "file"], ["file"]),
        (["results = {}", ("results['book'] = 1", BOOK), "print(results)"], ["results"]),
        ([("total = 1", BOOK), "total += 1"], ["total"]),
        ([("text = 'a'", BOOK), "text = text.lower()"], ["text"]),
        ([("text = 'a'", BOOK), "def show():\n    return text"], ["text"]),
        ([("text = 'a'", BOOK), "def show(text):\n    return text"], []),
        ([("text = 'a'", BOOK), "lines = [text for text in 'ab']"], []),
        ([("text = 'a'", BOOK), "key = lambda text: text"], []),
        ([("text = 'a'", BOOK), "for text in 'ab':\n    print(text)"], []),
        ([("def count(text):\n    n = 1", BOOK), "n = 2\nprint(n)"], []),
        ([("text = 'a'", BOOK), "%timeit text"], []),  # inside a magic's string: not seen
    ],
)
def test_needs_names(cells: list, names: list[str]) -> None:
    problems = needs_names(with_cells(*cells), ROOT)
    assert [problem.split(" uses ")[1].split(",")[0] for problem in problems] == names


def test_links_are_found_in_markdown_html_and_code() -> None:
    prose = "[a](../no/a.md) ![b](b.svg 'title') <img src='c.png'> <a href=\"d.ipynb#x\">d</a>"
    fine = "[e](https://example.org) [f](#here) [g](../shared/classroom/setup_cell.py) `[h](h.md)`"
    notebook = v4.new_notebook(
        cells=[v4.new_markdown_cell(f"{prose} {fine}"), v4.new_code_cell("show('no-such')")]
    )
    problems = links(notebook, ROOT / "bigram" / "bigram.ipynb")
    assert len(problems) == 5
    assert "assets/no-such.svg" in problems[-1]


def test_final_cell_may_be_longer() -> None:
    notebook = with_cells(("x = 1\n" * MAX_FINAL_LINES, "final"))
    assert short_cells(notebook, ROOT) == []
    notebook.cells[0].source += "x = 1"
    assert len(short_cells(notebook, ROOT)) == 1


def test_ignored_output_is_fine_with_an_assert_nearby() -> None:
    notebook = with_cells(("print(0.1)", "nbval-ignore-output"), "assert loss < 1")
    notebook.cells[0].outputs = [v4.new_output("stream", text="0.1")]
    assert ignored_asserted(notebook, ROOT) == []


def test_expected_errors_are_tagged() -> None:
    notebook = with_cells(("1 / 0", "raises-exception"))
    notebook.cells[0].outputs = [v4.new_output("error", ename="E", evalue="", traceback=[])]
    assert no_errors(notebook, ROOT) == []


# ---------------------------------------------------------------------------------------------
# The course as a whole
# ---------------------------------------------------------------------------------------------


def share_compared(notebooks: Iterable[NotebookNode]) -> float:
    """Share of the code cells with text output whose output nbval compares."""
    cells = [c for nb in notebooks for _, c in code_cells(nb) if has_text_output(c)]
    return sum(is_compared(cell) for cell in cells) / len(cells) if cells else 1.0


def test_most_outputs_are_compared() -> None:
    share = share_compared(nbformat.read(path, as_version=4) for path in NOTEBOOKS)
    assert share >= MIN_COMPARED, f"only {share:.0%} of the cells with text output are compared"


def test_share_compared_counts_cells_with_text() -> None:
    notebook = with_cells("a", ("b", "nbval-ignore-output"), "c", ("d", "nbval-skip"))
    for cell in notebook.cells[:2]:
        cell.outputs = [v4.new_output("stream", text="text")]
    notebook.cells[2].outputs = [v4.new_output("display_data", {"image/png": ""})]
    assert share_compared([notebook]) == 0.5


def test_stated_minutes_fit_the_folder() -> None:
    stated: dict[str, float] = defaultdict(float)
    for path in NOTEBOOKS:
        course = nbformat.read(path, as_version=4).metadata.get("course", {})
        stated[path.parent.name] += course.get("minutes", 0)
    over = {f: m for f, m in stated.items() if m > FOLDER_MINUTES.get(f, 0)}
    assert not over, f"more minutes stated than {FOLDER_MINUTES} allows: {over}"


def test_every_chapter_folder_has_its_main_notebook() -> None:
    missing = [
        f"{folder}/{main}.ipynb"
        for folder, main in CHAPTERS.items()
        if any((ROOT / folder).glob("*")) and not (ROOT / folder / f"{main}.ipynb").is_file()
    ]
    assert not missing


def test_exercises_and_solutions_come_together() -> None:
    for folder in CHAPTERS:
        there = [(ROOT / folder / f"{stem}.ipynb").is_file() for stem in EXERCISES]
        assert len(set(there)) == 1, f"{folder} has exercises or solutions, but not both"
