"""A long run of a notebook: pieces of work that can be broken off, and the record of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.classroom.files import BUILD, recorded_on, write_json, write_record


class LongRun:
    """Work done piece by piece; `record` is the file beside the notebook that keeps its results.

    Pieces that were finished before a run was broken off wait in build/ and are not done again.
    """

    def __init__(self, record: Path) -> None:
        self.record, self.unfinished = record, BUILD / f"long_{record.stem}.json"

    def piece(self, work: Callable[..., Any], *settings: Any) -> Any:
        """What work(*settings) returns, as JSON can hold it; done only once."""
        key, done = f"{work.__name__} {settings}", self._done()
        if key not in done:
            started = time.perf_counter()
            result = work(*settings)
            minutes = round((time.perf_counter() - started) / 60, 2)
            done[key] = {"minutes": minutes, "result": result}
            write_json(self.unfinished, done)
            print(key, result)
        return done[key]["result"]

    def finish(self, **results: Any) -> None:
        """Write the record: `results`, and when and where they were made."""
        minutes = sum(piece["minutes"] for piece in self._done().values())
        write_record(self.record, "cpu", {"minutes": round(minutes), **results})
        self.unfinished.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """The record, as `finish` wrote it."""
        return json.loads(self.record.read_text(encoding="utf-8"))

    def told(self) -> str:
        """When the record was made, in how many minutes, and on which data."""
        record = self.read()
        threads = f"{record['threads']} thread{'s' if record['threads'] > 1 else ''}"
        return (
            f"recorded {record['date']}, {record['minutes']} minutes on {threads}; "
            f"{recorded_on(record)}"
        )

    def _done(self) -> dict[str, Any]:
        return json.loads(self.unfinished.read_text()) if self.unfinished.exists() else {}
