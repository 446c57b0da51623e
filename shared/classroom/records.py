"""Long runs and the records of them: found once, kept in a file, and shown on every page since."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from shared.classroom.errors import require
from shared.classroom.files import BUILD, vocabulary, write_atomically


def made_on(device: str) -> dict[str, Any]:
    """The beginning of a record: today, and what will compute it."""
    import torch  # not at the top: who only reads a record needs no PyTorch

    made = {"date": date.today().isoformat(), "torch": torch.__version__, "device": device}
    return made | {"threads": torch.get_num_threads(), "vocabulary": vocabulary()}


def recorded_on(record: Mapping[str, Any]) -> str:
    """On which data a recorded run was made, as far as its fingerprint of the vocabulary tells."""
    same = record.get("vocabulary") == vocabulary()
    return "on the data that you have" if same else "on other data than you have"


def write_json(path: Path, content: object) -> None:
    """Write content as JSON, whole or not at all."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_record(path: Path, device: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a long run found, with its date and machine; return all that was kept."""
    record = made_on(device) | dict(found)
    write_json(path, record)
    return record


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` kept."""
    return json.loads(path.read_text(encoding="utf-8"))


class LongRun:
    """Work done piece by piece; `record` is the file beside the notebook that keeps its results.

    Pieces that were finished before a run was broken off wait in build/ and are not done again.
    """

    def __init__(self, record: Path, device: str = "cpu") -> None:
        self.record, self.device = record, device
        self.unfinished = BUILD / f"long_{record.stem}.json"

    def piece(self, work: Callable[..., Any], *settings: Any) -> Any:
        """What work(*settings) returns, as JSON can hold it; done only once."""
        key, done = f"{work.__name__} {settings}", self._done()
        if key not in done:
            started = time.perf_counter()
            result = work(*settings)
            minutes = round((time.perf_counter() - started) / 60, 2)
            done[key] = {"minutes": minutes, "result": result}
            write_json(self.unfinished, done)
            print(f"{key}: {minutes} minutes", flush=True)
        return done[key]["result"]

    def finish(self, **results: Any) -> None:
        """Write the record: `results`, and when and where they were made."""
        minutes = sum(piece["minutes"] for piece in self._done().values())
        write_record(self.record, self.device, {"minutes": round(minutes), **results})
        self.unfinished.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """The record, as `finish` wrote it."""
        return read_record(self.record)

    def told(self) -> str:
        """When the record was made, in how many minutes, and on which data."""
        record = self.read()
        threads = f"{record['threads']} thread{'s' if record['threads'] > 1 else ''}"
        return (
            f"recorded {record['date']}, {record['minutes']} minutes on {threads}; "
            f"{recorded_on(record)}"
        )

    def _done(self) -> dict[str, Any]:
        return read_record(self.unfinished) if self.unfinished.exists() else {}


class Recorded:
    """A function of a recipe and a seed that looks into a record before it computes anything.

    Where LongRun makes a whole plan anew, this adds to a record what a search asks for and what
    nobody has tried. `record` is what the file holds, `tried` what has been asked for so far. What
    is missing is computed and written down where `missing` is True; otherwise ValueError says how
    to get it.
    """

    def __init__(
        self, file: Path, run: Callable[[object, int], Mapping[str, float]], missing: bool
    ) -> None:
        self.file, self.run, self.missing = file, run, missing
        self.record = read_record(file)
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
