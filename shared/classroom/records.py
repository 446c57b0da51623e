"""Long runs whose results are kept in a file, so that nobody has to make them twice.

Used by training_faster.ipynb, built in none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from shared.classroom.errors import require
from shared.classroom.files import write_json


class Recorded:
    """A function of a recipe and a seed that looks into a JSON file before it computes anything.

    `record` is what the file holds, `tried` what has been asked for so far. What is missing is
    computed and written down where `missing` is True; otherwise ValueError says how to get it.
    """

    def __init__(
        self, file: Path, run: Callable[[object, int], Mapping[str, float]], missing: bool
    ) -> None:
        self.file, self.run, self.missing = file, run, missing
        self.record = json.loads(file.read_text(encoding="utf-8"))
        self.tried: dict[tuple[object, int], Mapping[str, float]] = {}

    def __call__(self, recipe: object, seed: int = 1) -> Mapping[str, float]:
        name, runs = f"{recipe}, seed {seed}", self.record["runs"]
        if name not in runs:
            require(self.missing, f"not in the record: {name}. Set LONG = True at the top")
            runs[name] = self.run(recipe, seed)
            self.note()
            print(name, runs[name], flush=True)
        self.tried[recipe, seed] = runs[name]
        return runs[name]

    def note(self, **facts: object) -> None:
        """Write the file, with some more facts about the runs."""
        self.record |= facts
        write_json(self.file, self.record)
