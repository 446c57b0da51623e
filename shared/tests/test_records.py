"""What is recorded is not computed again, and what is missing only when asked for."""

import json
from pathlib import Path

import pytest

from shared.classroom.records import Recorded


def test_a_recorded_run_is_read_and_a_missing_one_is_made_when_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    file.write_text(json.dumps({"runs": {"a, seed 1": {"choose": 2.0}}}))
    made: list[tuple[str, int]] = []

    def run(recipe: str, seed: int) -> dict[str, float]:
        made.append((recipe, seed))
        return {"choose": 1.0}

    known = Recorded(file, run, missing=False)
    assert known("a") == {"choose": 2.0} and known.tried == {("a", 1): {"choose": 2.0}}
    with pytest.raises(ValueError, match="not in the record: b, seed 2.*LONG = True"):
        known("b", 2)
    assert made == []

    known = Recorded(file, run, missing=True)
    assert known("b", 2) == {"choose": 1.0} and made == [("b", 2)]
    known.note(date="today")
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["date"] == "today" and list(written["runs"]) == ["a, seed 1", "b, seed 2"]
    assert Recorded(file, run, missing=False)("b", 2) == {"choose": 1.0}
