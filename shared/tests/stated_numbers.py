"""Which numbers of the texts and the drawings stand in no output, record or data file?

    python shared/tests/stated_numbers.py          list them; the exit status is 1 if there are any
    python shared/tests/stated_numbers.py --all    all, and where each stands: really, or by chance?

Notable: a number stands in a source when one of the source rounds to it. Each text has sources of
its own (`passages`), as few as it can do with, since among enough numbers every number stands by
chance: one of three digits hardly ever, nearly every second one of one or two. stated_numbers.toml
holds, with reasons, what no cell prints, such as a result from a paper; "*" there is for a drawing
whose numbers are made up. Not looked at: code and its comments, numbers in words, and whether a
number belongs to what is said of it. (Not called numbers.py: `import torch` would find that one
instead of Python's from every script in this folder.)
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
REASONS = Path(__file__).with_suffix(".toml")
PATHS = (str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("[!.]*/*.ipynb")))
NOTEBOOKS = [path for path in PATHS if not path.startswith("build/")]

UNITS = {"%": 1e-2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
UNITS |= {"k": 1e3, "kB": 1e3, "M": 1e6, "MB": 1e6, "B": 1e9, "GB": 1e9, "TB": 1e12}
NUMBER = re.compile(
    # Not glued to a name (bf16, H100, sha256), no part of a version (2.13.0); 1,000 or 1_000.
    r"(?<![\w.,])(?P<digits>[0-9]{1,3}(?:[,_][0-9]{3})+|[0-9]+)(?P<decimals>\.[0-9]+)?"
    rf"(?!\.?[0-9])(?P<power>e[+-]?[0-9]+)?(?:[ -]?(?P<unit>{'|'.join(UNITS)})(?![\w-]))?"
)

# No measurements. What a rule matches is blanked before numbers are looked for, in this order.
SKIPPED = [
    r"(?s)<!-- (\w+):.*?<!-- end of \1 -->",  # a program writes it, and it is a source
    r"(?s)```.*?```|`[^`\n]*`|(?m:^ {4,}[^\s*\d-][^\n]*)",  # code
    r"(?s)\$\$.*?\$\$|\$[^$\n]+\$",  # formulas
    r"\]\([^)\n]*\)|https?://[^\s)]+|</?\w[^<>\n]*>",  # where a link leads; tags
    r"arXiv:? ?[\d.]+|(?<=\*), [A-Z][\w ]*? \d+\b",  # arXiv 1706.03762; *Title*, Nature 323
    r"(?m)^#+ \d+(\.\d+)?\b|^\s*\d+\. ",  # headings and lists
    r"(?i)\b(sections?|chapters?|tables?|python|pytorch|version|CC0|GPT|llama)[ -]\d+(\.\d+)?\b",
    r"[Ee]xercises?\b[^.\n]*?\d\.\d+((,| to| and) \d\.\d+)*",  # Exercises: …, 0.1 to 0.7
    r"\band for \d.*read before",  # the same, at the top of a notebook of exercises
    r"(?<![\w.,])(0\d(_\w+)?|\d+[- ]bits?|\d+:\d\d)\b",  # folders; 32-bit; 7:45
    r"(?<![\w.,])(19\d\d|20[0-2]\d|2030)\b(?![,.]\d)",  # years: a count has a comma
    r"about \d+ minutes of reading",  # an estimate, and it says so
]


class Source(NamedTuple):
    """A number that something computed or that stands as data, and where."""

    value: float
    place: str


def value(match: re.Match[str]) -> tuple[float, float]:
    """A written number, and how far from it a number may lie that rounds to it."""
    digits, decimals = re.sub("[,_]", "", match["digits"]), match["decimals"] or ""
    number, step = float(digits + decimals), 0.1 ** len(decimals[1:])
    if not decimals and len(digits) > 3:  # 20,000 may be 20,320: zeros round, but for two digits
        step = 10.0 ** min(len(digits) - len(digits.rstrip("0")), len(digits) - 2)
    # With its unit only: 97% is 0.97 and never the count 97, 40 GB is no 40 of anything.
    scale = UNITS.get(match["unit"], 1.0) * float(f"1{match['power'] or ''}")
    return number * scale, step * scale * 0.5001


def numbers(text: str, place: str) -> list[Source]:
    """All numbers of a source that is text."""
    return [Source(value(match)[0], place) for match in NUMBER.finditer(text)]


def leaves(record: Any) -> Iterator[float]:
    """All numbers of a JSON record, but not those in its texts (a date, a version)."""
    if isinstance(record, dict | list):
        for part in record.values() if isinstance(record, dict) else record:
            yield from leaves(part)
    elif isinstance(record, int | float):
        yield record


@cache
def read(notebook: str) -> dict[str, Any]:
    return json.loads((ROOT / notebook).read_text("utf-8"))


@cache
def notebook_sources(notebook: str) -> list[Source]:
    """Code cells and what they print, the minutes in the metadata, the records of the chapter."""
    found = []
    for number, cell in enumerate(read(notebook)["cells"]):
        if cell["cell_type"] == "markdown" or number == 1:  # 1: the set-up cell
            continue
        code = re.sub(r"(?m)(^|\s)# .*$", "", "".join(cell["source"]))  # a comment is prose
        found += numbers(code, f"code, {notebook} cell {number}")
        for output in cell["outputs"]:
            data = output.get("data", {})
            shown = "".join(output.get("text", data.get("text/plain", "")))
            shown += re.sub("<[^>]*>", " ", "".join(data.get("text/html", "")))
            if not shown.startswith("[figure "):  # a drawing cannot vouch for itself
                found += numbers(shown, f"output, {notebook} cell {number}")
    for file in sorted((ROOT / notebook).parent.glob("*.json")):
        found += [Source(n, file.name) for n in leaves(json.loads(file.read_text("utf-8")))]
    return [*found, Source(read(notebook)["metadata"]["course"]["minutes"], "stated minutes")]


def common_sources() -> list[Source]:
    """The datasheet's tables, which a test keeps true, bytes of fetched files, sizes of models.

    Only from 100 on: below, they would stand by chance for whatever a text counts.
    """
    written = re.finditer(SKIPPED[0], (ROOT / "data/README.md").read_text("utf-8"))
    found = [number for table in written for number in numbers(table[0], "the datasheet's tables")]
    kept = r"(?m)^bytes = .*$|^.*Config\(.*$|^    \w+: (?:int|float) = .*$"
    shared = sorted((ROOT / "shared").glob("*.py"))
    for file in (ROOT / "shared/classroom/catalogue.toml", *shared):
        found += numbers("\n".join(re.findall(kept, file.read_text("utf-8"))), file.name)
    return [source for source in found if source.value >= 100]


def passages() -> Iterator[tuple[str, str, str, list[Source]]]:
    """All texts: the file, the place in it, the text, the numbers that may vouch for its own."""
    common = common_sources()
    for notebook in NOTEBOOKS:
        own = notebook_sources(notebook) + common
        if notebook.endswith("/exercises.ipynb"):  # what is given there, the solutions use
            own += notebook_sources(notebook.replace("exercises", "solutions"))
        for number, cell in enumerate(read(notebook)["cells"]):
            if cell["cell_type"] == "markdown":
                text = "".join(cell["source"])
                named = re.findall(r"\b(?!exercises|solutions)\w+\.ipynb", text)
                others = [n for n in NOTEBOOKS if n.split("/")[1] in named]
                sources = own + [source for n in others for source in notebook_sources(n)]
                yield notebook, f"cell {number}", text, sources
    files = sorted((ROOT / "data").glob("*.py"))
    makers = [number for f in files for number in numbers(f.read_text("utf-8"), f.name)]
    everything = [s for n in NOTEBOOKS for s in notebook_sources(n) if s.value >= 100]
    for folder, group in groupby(NOTEBOOKS, key=lambda n: n.split("/")[0]):
        minutes = sum(read(n)["metadata"]["course"]["minutes"] for n in group)
        everything.append(Source(minutes, f"minutes of {folder}"))
    for file, sources in (("README.md", everything), ("data/README.md", makers)):
        yield file, "", (ROOT / file).read_text("utf-8"), common + sources
    for drawing in sorted((ROOT / "assets").glob("*.svg")):
        call = f'show("{drawing.stem}"'
        showing = [
            n for n in NOTEBOOKS if any(call in "".join(c["source"]) for c in read(n)["cells"])
        ]
        sources = common + [source for n in showing for source in notebook_sources(n)]
        for element in ElementTree.parse(drawing).iter():
            if (kind := element.tag.rpartition("}")[2]) in ("title", "desc", "text"):
                text = "".join(element.itertext())
                yield f"assets/{drawing.name}", kind, text, sources


def claims(text: str) -> Iterator[re.Match[str]]:
    """The numbers of a text that may be measurements."""
    for rule in SKIPPED:  # a blank for every character, so that all places stay
        text = re.sub(rule, lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    for match in NUMBER.finditer(text):
        if match["decimals"] or match["unit"] or not 0 <= value(match)[0] <= 12:
            yield match


def main(arguments: list[str] | None = None) -> int:
    """List the numbers; return 1 when one has neither source nor reason, or a reason no number."""
    parser = argparse.ArgumentParser(description="Look up the numbers of all texts.")
    parser.add_argument("--all", action="store_true", help="list the others as well, with places")
    args = parser.parse_args(arguments)
    reasons = tomllib.loads(REASONS.read_text("utf-8"))
    looked, missing, used = 0, 0, set()
    for file, place, text, sources in passages():
        for match in claims(text):
            number, slack = value(match)
            keys = {match["digits"] + (match["decimals"] or ""), "*"} & reasons.get(file, {}).keys()
            stands = [f"{REASONS.name}: {reasons[file][key]}" for key in keys]
            stands += [source.place for source in sources if abs(source.value - number) <= slack]
            used |= {(file, key) for key in keys}
            looked, missing = looked + 1, missing + (not stands)
            if args.all or not stands:
                around = " ".join(text[max(match.start() - 30, 0) : match.end() + 30].split())
                where = place or f"line {len(text[: match.start()].splitlines())}"
                print(f"{file}, {where}: {match[0]}   …{around}…   {''.join(stands[:1])}".rstrip())
    idle = {(file, key) for file, keys in reasons.items() for key in keys} - used
    for file, key in sorted(idle):
        print(f"{REASONS.name}: {file} has no {key} any more")
    print(f"{looked} numbers looked at; {missing} with neither source nor reason")
    return 1 if missing or idle else 0


if __name__ == "__main__":
    sys.exit(main())
