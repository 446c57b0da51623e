"""Notebooks as slides: the cells in their places, and a file that needs no internet."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import shared.__main__ as door
from shared.classroom.slides import arranged, write_slides

ROOT = Path(__file__).resolve().parents[2]


def typed(cell, kind: str):
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell


def sources(columns) -> list[list[list[str]]]:
    return [[[cell.source for cell in slide] for slide in column] for column in columns]


def test_cells_lie_where_their_types_say() -> None:
    kinds = ["-", "skip", "slide", "-", "subslide", "fragment", "skip", "slide", "-"]
    cells = [typed(new_markdown_cell(str(i)), kind) for i, kind in enumerate(kinds)]
    cells.append(new_markdown_cell("9"))  # without a type: stays where it is
    assert sources(arranged(cells)) == [[["0"]], [["2", "3"], ["4", "5"]], [["7", "8", "9"]]]


@pytest.fixture
def page(tmp_path: Path) -> str:
    badge = "# Title\n\n[![Open in Colab](https://colab.example/badge.svg)](https://x)\n\n**Text**"
    printed = new_output("stream", name="stdout", text="1 < 2\n")
    cells = [
        typed(new_markdown_cell(badge), "slide"),
        typed(new_code_cell("secret = 1"), "skip"),
        typed(new_code_cell("print('</script>')", outputs=[printed]), "slide"),
        typed(new_markdown_cell("later"), "fragment"),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a_talk.ipynb")
    return write_slides(tmp_path / "a_talk.ipynb", tmp_path / "out").read_text("utf-8")


def test_a_talk_holds_its_cells_and_outputs(page: str) -> None:
    slides = page[page.index('<div class="slides">') : page.index("<script>")]
    assert slides.count("<section>") == 2 + 2  # columns, and a slide in each
    assert "<title>a talk</title>" in page
    assert "Title</h1>" in slides.replace("<a", "</h1><a") and "<strong>Text</strong>" in slides
    assert "1 &lt; 2" in slides and "secret" not in slides
    assert '<div class="fragment">' in slides.partition("later")[0]


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    assert "badge" not in page and "Reveal.initialize" in page
    markup = re.sub(r"(?s)<script>.*?</script>", "", page)
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|@import|url\((?!data:)', markup)
    assert page.count("</script>") == 2  # no script ends early


def test_the_command_writes_a_chapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["slides", "02", "--to", str(tmp_path)]) == 0
    names = {path.stem for path in (ROOT / "02_attention").glob("*.ipynb")}
    written = {path.stem for path in (tmp_path / "02_attention").glob("*.html")}
    assert written == names - {"exercises", "solutions"}
    assert len(capsys.readouterr().out.splitlines()) == len(written)
    page = (tmp_path / "02_attention" / "attention.html").read_text("utf-8")
    assert page.count("data:image/svg+xml") > 3  # its figures are inside
