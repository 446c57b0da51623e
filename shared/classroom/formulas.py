"""Formulas, typeset without a network or a browser.

Notable: a formula is written in LaTeX in assets/formulas.toml and shown as a drawing, like every
other figure, so that JupyterLab, Colab, GitHub and a printed page all show the same. Where there
is no front-end, its words are printed.
"""

from __future__ import annotations

import difflib
import tomllib
from html import escape

from IPython.display import display
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath

from shared.classroom.figures import ASSETS, COLOURS, Picture

SIZE, MARGIN = 26, 22  # of the letters, and around them, in the units of a figure 900 wide
DRAW = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}


def outline(tex: str) -> tuple[str, float, float, float]:
    """A formula as the path of an SVG, with its left edge, its width and its height."""
    letters = TextPath((0, 0), f"${tex}$", SIZE, prop=FontProperties(math_fontfamily="stix"))
    box, pieces = letters.get_extents(), []
    for points, kind in letters.iter_segments(simplify=False):
        if kind == Outline.CLOSEPOLY:
            pieces.append("Z")
            continue
        points[1::2] = box.y1 - points[1::2]  # in an SVG, y grows downwards
        pieces.append(DRAW[kind] + " ".join(f"{number:.1f}" for number in points))
    return "".join(pieces), box.x0, box.width, box.height


def known_formulas() -> dict[str, dict[str, str]]:
    """All formulas by their names, each with its `tex` and its `words`."""
    return tomllib.loads((ASSETS / "formulas.toml").read_text(encoding="utf-8"))


def typeset(name: str) -> Picture:
    """The formula `name` as a figure. Raises KeyError for one that is not there."""
    formulas = known_formulas()
    if name not in formulas:
        near = difflib.get_close_matches(name, formulas, n=3, cutoff=0.4) or sorted(formulas)
        raise KeyError(f"assets/formulas.toml has no {name!r}; near names: {', '.join(near)}")
    words = formulas[name]["words"]
    path, left, width, height = outline(formulas[name]["tex"])
    tall = height + 2 * MARGIN
    card = f'fill="{COLOURS["paper"]}" stroke="{COLOURS["line"]}" stroke-width="2"'
    return Picture(
        f"formula {name}",
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {tall:.0f}" '
        f'style="max-width:900px" role="img"><title>{escape(words, False)}</title>'
        f'<rect x="1" y="1" width="898" height="{tall - 2:.0f}" rx="14" {card}/>'
        f'<path transform="translate({450 - width / 2 - left:.1f} {MARGIN})" d="{path}" '
        f'fill="{COLOURS["ink"]}"/></svg>',
        words,
    )


def formula(name: str) -> None:
    """Display a formula in a notebook; for the errors see `typeset`."""
    display(typeset(name))
