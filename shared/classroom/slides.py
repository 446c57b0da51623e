"""A notebook as a talk: one HTML file that needs no internet, made with reveal.js.

Notable: what is a slide stands in the metadata of each cell (slide, subslide, fragment, skip); the
outputs are those stored in the notebook. reveal.js comes with the package pyreveal, so everything a
browser needs is inside the file.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

import nbformat
from nbformat import NotebookNode

from shared.classroom.files import write_atomically

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$css</style>
</head>
<body>
<div class="reveal"><div class="slides">
$slides
</div></div>
<script>$script</script>
<script>Reveal.initialize({width: 1100, height: 760, margin: 0.03, hash: true, slideNumber: "c/t",
center: false, transition: "none"});</script>
</body>
</html>
""")

STYLE = """
.reveal { font-family: system-ui, sans-serif; font-size: 24px; }
.reveal .slides { text-align: left; }
.reveal .slides section { height: 100%; overflow-y: auto; }
.reveal h1, .reveal h2, .reveal h3 { font-family: inherit; text-transform: none; }
.reveal h1 { font-size: 1.9em; } .reveal h2 { font-size: 1.5em; } .reveal h3 { font-size: 1.2em; }
.reveal p, .reveal li { line-height: 1.4; }
.reveal pre { width: 100%; margin: 8px 0; box-shadow: none; font-size: 17px; line-height: 1.35; }
.reveal .input_area { background: #f6f6f4; border-left: 4px solid #d5d2ca; padding: 2px 12px; }
.reveal .output_area { padding: 0 16px; }
.reveal img, .reveal svg { max-width: 100%; max-height: 560px; margin: 8px auto; display: block; }
.reveal table { font-size: 18px; }
.prompt, .anchor-link, details > summary::marker { display: none; }
"""


def arranged(cells: list[NotebookNode]) -> list[list[list[NotebookNode]]]:
    """Columns of slides of cells: "slide" begins a column, "subslide" a slide below the last.

    Cells without a type of their own stay with the one before; "skip" is left out.
    """
    columns: list[list[list[NotebookNode]]] = []
    for cell in cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type", "-")
        if kind == "skip":
            continue
        if kind == "slide" or not columns:
            columns.append([[]])
        elif kind == "subslide":
            columns[-1].append([])
        columns[-1][-1].append(cell)
    return columns


def write_slides(path: Path, folder: Path) -> Path:
    """Write the notebook at `path` as slides into `folder`, and return the file."""
    from nbconvert import HTMLExporter  # slow to import, and only needed here
    from pygments.formatters import HtmlFormatter

    exporter = HTMLExporter(template_name="basic")
    notebook = nbformat.read(path, as_version=4)

    def html(cell: NotebookNode) -> str:
        body, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
        if cell.metadata.get("slideshow", {}).get("slide_type") == "fragment":
            return f'<div class="fragment">{body}</div>'
        return body

    for cell in notebook.cells:  # the badge is an image on the internet
        cell.source = re.sub(r"(?m)^\[!\[Open in Colab\].*\n*", "", cell.source)
    columns = [
        "".join(f"<section>{''.join(map(html, slide))}</section>\n" for slide in column)
        for column in arranged(notebook.cells)
    ]
    dist = files("pyreveal") / "revealjs/dist"
    styles = [(dist / name).read_text("utf-8") for name in ("reveal.css", "theme/simple.css")]
    local = [line for style in styles for line in style.splitlines() if "@import" not in line]
    page = PAGE.substitute(
        title=path.stem.replace("_", " "),
        css="\n".join([*local, HtmlFormatter().get_style_defs(".highlight"), STYLE]),
        slides="\n".join(f"<section>\n{column}</section>" for column in columns),
        script=(dist / "reveal.js").read_text("utf-8").replace("</script", "<\\/script"),
    )
    target = folder / f"{path.stem}.html"
    write_atomically(target, lambda file: file.write(page.encode()))
    return target
