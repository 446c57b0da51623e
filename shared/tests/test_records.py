"""Records of long runs: when they were made, and that nothing is computed twice."""

import json
from datetime import date
from pathlib import Path

import pytest

from shared.classroom import records
from shared.classroom.records import LongRun, Recorded, read_record, recorded_on, write_record


def test_a_record_says_when_and_on_what_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    record = write_record(path, "cpu", {"steps": 3, "shares": {"known": 0.5}})
    assert read_record(path) == record
    assert {"date", "torch", "threads"} <= record.keys() and record["device"] == "cpu"
    assert record["steps"] == 3 and recorded_on(record) == "on the data that you have"


def test_finished_pieces_are_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BUILD", tmp_path / "build")
    done = []

    def loss(name: str, seed: int) -> float:
        done.append((name, seed))
        if seed == 2 and len(done) < 3:
            raise KeyboardInterrupt
        return seed / 2

    run = LongRun(tmp_path / "some.json")
    assert run.piece(loss, "GPT", 1) == 0.5
    with pytest.raises(KeyboardInterrupt):
        run.piece(loss, "GPT", 2)
    again = LongRun(tmp_path / "some.json")
    losses = [again.piece(loss, "GPT", seed) for seed in (1, 2)]
    again.finish(losses=losses)
    assert losses == [0.5, 1.0] and done == [("GPT", 1), ("GPT", 2), ("GPT", 2)]
    assert again.read()["losses"] == losses and not again.unfinished.exists()
    assert again.told().startswith(f"recorded {date.today().isoformat()}, 0 minutes on ")
    assert again.told().endswith("on the data that you have")


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
