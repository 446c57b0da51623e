"""A long run that is broken off goes on where it was, and its record says when it was made."""

from datetime import date
from pathlib import Path

import pytest

from shared.classroom import long_runs
from shared.classroom.long_runs import LongRun
from shared.classroom.reports import quietly


def test_finished_pieces_are_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_runs, "BUILD", tmp_path / "build")
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


def test_quietly_prints_nothing_and_then_prints_again(capsys: pytest.CaptureFixture) -> None:
    with quietly():
        print("step 1")
    print("the end")
    assert capsys.readouterr().out == "the end\n"
