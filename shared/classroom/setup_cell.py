"""The set-up cell: the second cell of every notebook, written here once.

Notable: this is the only place that holds the address of the course. After editing the cell or
the address, `python -m shared.classroom.setup_cell` rewrites that cell and the "Open in Colab"
badges of all notebooks, and the addresses in README.md. The environment variable COURSE_REPO names
another address (a fork, a local clone) without any rewriting. Colab keeps every package it has:
only missing ones are added, never from requirements.txt.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from shared.classroom.files import ROOT

REPO = "https://github.com/OWNER/gpt-from-scratch"
COLAB = REPO.replace("https://github.com/", "https://colab.research.google.com/github/")

# What the notebooks import; Colab has most of it.
PACKAGES = (
    "torch numpy pandas matplotlib IPython ipywidgets pooch tqdm requests regex tiktoken "
    "safetensors huggingface_hub"
).split()

SETUP_CELL = f"""\
# Set-up, the same in every notebook: find the course (Colab: fetch it), then get ready.
import os
import subprocess
import sys
from pathlib import Path

here = Path.cwd()
found = [folder for folder in (here, *here.parents) if (folder / "shared/classroom").exists()]
root = found[0] if found else here / "gpt-from-scratch"
on_colab = "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ
if on_colab and not (root / "shared/classroom").exists():
    repo = os.environ.get("COURSE_REPO", "{REPO}")
    git = ["git", "clone", "--quiet", "--depth=1", repo, str(root)]
    told = subprocess.run(git, capture_output=True, text=True).stderr
    advice = f"no course at {{repo}}: set COURSE_REPO to its address"
    assert (root / "shared").exists(), f"{{advice}}. {{told}}"
assert root.exists(), f"start Jupyter inside the folder of the course; {{here}} is outside"
sys.path.insert(0, str(root))

from shared.classroom.setup_cell import start

start(seed=123)  # the same random numbers in every run, and one look for all figures"""


def start(seed: int) -> None:
    """Seed Python, NumPy and PyTorch and set the look of figures; on Colab add what is missing.

    Raises ModuleNotFoundError, naming the packages, when some are missing anywhere else.
    """
    if missing := [package for package in PACKAGES if not find_spec(package)]:
        if "google.colab" not in sys.modules and "COLAB_RELEASE_TAG" not in os.environ:
            raise ModuleNotFoundError(
                f"not installed: {', '.join(missing)}. In a terminal, in {ROOT}: "
                "pip install -r requirements.txt"
            )
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)

    # Threads that wait for each other spin first, then sleep. Beside other work long spinning makes
    # them many times slower; none at all makes small models slower. PyTorch reads it on import.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

    import numpy as np  # only now: they may just have been installed
    import torch

    from shared.classroom.figures import style

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    style()
    print(f"Ready. Random numbers start from seed {seed}.")


def colab_address(notebook: Path) -> str:
    """Where the "Open in Colab" badge of a notebook leads."""
    return f"{COLAB}/blob/main/{notebook.relative_to(ROOT).as_posix()}"


def colab_badge(notebook: Path) -> str:
    """The "Open in Colab" badge, as markdown for a notebook's first cell."""
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({picture})]({colab_address(notebook)})"


def with_addresses(text: str) -> str:
    """The text with every Colab link and `git clone` line pointing to the course's address."""
    colab_link = r"https://colab\.research\.google\.com/github/[^/\s]+/[^/\s]+(?=/blob/)"
    clone = r"(?<=git clone )https?://\S+?(?=[\s`]|$)"
    return re.sub(clone, REPO, re.sub(colab_link, COLAB, text))


def rewrite(notebook: Path) -> bool:
    """Put today's set-up cell and address into a notebook; True when that changed the file.

    Raises ValueError when the second cell is something else, which would be lost.
    """
    import nbformat  # not needed to run a notebook

    content = nbformat.read(notebook, as_version=4)
    first, second = content.cells[:2]
    if not second.source.startswith("# Set-up"):
        raise ValueError(f"{notebook}: its second cell is not the set-up cell; insert one first")
    before = first.source, second.source
    first.source, second.source = with_addresses(first.source), SETUP_CELL
    if changed := (first.source, second.source) != before:
        nbformat.write(content, notebook)
    return changed


def main() -> None:
    for path in sorted(ROOT.glob("*/*.ipynb")):
        if rewrite(path):
            print(f"rewrote {path.relative_to(ROOT)}")
    readme = ROOT / "README.md"
    readme.write_text(with_addresses(readme.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"All notebooks and README.md have the address {REPO}")


if __name__ == "__main__":
    main()
