"""One source of truth: what a notebook builds is what shared/ holds.

In shared/*.py and shared/classroom/*.py a comment such as

    # built in 02_attention/attention.ipynb: causal_attention,
    #   MultiHeadAttention

names the notebook that builds these classes and functions. The last definition of each name in
that notebook must have the same syntax tree; docstrings, comments and annotations aside, so that a
notebook may explain in prose what the finished class says in its docstring. The fields of a
dataclass keep their annotations, since there they are code.
"""

from __future__ import annotations

import ast
import difflib
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from shared.classroom.setup_cell import ROOT

BUILT_IN = re.compile(r"(?m)^# built in (\S+\.ipynb): (.+(?:\n#   .+)*)$")
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def built_in(source: str) -> dict[str, str]:
    """From the comments of a module: name → the notebook that builds it."""
    return {
        name: notebook
        for notebook, names in BUILT_IN.findall(source)
        for name in re.findall(r"\w+", names)
    }


class Bare(ast.NodeTransformer):
    """Takes docstrings and annotations away."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return ast.Assign([node.target], node.value, lineno=0) if node.value else None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self._drop_docstring(node)
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self._drop_docstring(node)
        # The fields stay as they are: `heads: int = 4` of a dataclass is more than a hint.
        node.body = [p if isinstance(p, ast.AnnAssign) else self.visit(p) for p in node.body]
        return node

    def _drop_docstring(self, node: Definition) -> None:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]


def bare(source: str, name: str) -> ast.AST | None:
    """The last definition of a name at the top level of a source, without what does not count."""
    found = [n for n in ast.parse(source).body if isinstance(n, Definition) and n.name == name]
    return Bare().visit(found[-1]) if found else None


def notebook_source(path: Path) -> str:
    """All code of a notebook as one module, `%magic` lines turned into calls."""
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    return "\n".join(TransformerManager().transform_cell(source) for source in cells)


def difference(shared: str, notebook: str, name: str) -> str:
    """How the notebook's last definition differs from the shared one; "" when it does not."""
    ours, theirs = bare(shared, name), bare(notebook, name)
    if ours is None or theirs is None:
        return f"{'the notebook' if ours else 'the module'} does not define {name}"
    if ast.dump(ours) == ast.dump(theirs):
        return ""
    lines = [ast.unparse(ast.fix_missing_locations(tree)).splitlines() for tree in (ours, theirs)]
    return "\n".join(difflib.unified_diff(*lines, "shared", "notebook", lineterm=""))


MODULES = sorted([*ROOT.glob("shared/*.py"), *ROOT.glob("shared/classroom/*.py")])
BUILT = [
    pytest.param(module, name, notebook, id=f"{module.stem}.{name}")
    for module in MODULES
    for name, notebook in built_in(module.read_text(encoding="utf-8")).items()
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_comments_can_be_read(module: Path) -> None:
    source = module.read_text(encoding="utf-8")
    assert source.count("# built in") == len(BUILT_IN.findall(source)), BUILT_IN.pattern


@pytest.mark.parametrize(("module", "name", "notebook"), BUILT)
def test_notebook_builds_what_is_shared(module: Path, name: str, notebook: str) -> None:
    path = ROOT / notebook
    assert path.is_file(), f"{module.name} says {name} is built in {notebook}: no such notebook"
    found = difference(module.read_text(encoding="utf-8"), notebook_source(path), name)
    assert not found, f"{name} in {notebook} is not the one of {module.name}:\n{found}"


SHARED = '''
# built in a/b.ipynb: Sum,
#   total

@cached
class Sum(Module):
    """Adds."""

    n: int = 4

    def add(self, x: Tensor) -> Tensor:
        return x + 1  # one more
'''
NOTEBOOK = """
@cached
class Sum(Module):
    n: int = 4
    def add(self, x): return (x
        + 1)
"""


@pytest.mark.parametrize(
    ("old", "new"), [("+ 1", "+ 2"), ("n: int", "n: float"), ("@cached", ""), ("Sum", "Total")]
)
def test_a_difference_would_be_found(old: str, new: str) -> None:
    assert built_in(SHARED) == {"Sum": "a/b.ipynb", "total": "a/b.ipynb"}
    assert difference(SHARED, NOTEBOOK, "Sum") == ""
    assert difference(SHARED, NOTEBOOK.replace(old, new), "Sum")
