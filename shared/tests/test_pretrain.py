"""04_pretraining/pretrain.py as a command: alone, with others, killed, resumed, misused."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from shared.shards import write_shards
from shared.tokenizers import course_tokenizer
from shared.weights import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "04_pretraining/pretrain.py"
SMALL = ["--steps", "20", "--global-batch", "8", "--micro-batch", "2", "--context", "16"]
SMALL += ["--warmup", "4", "--eval-every", "10", "--eval-batches", "4", "--save-every", "5"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    tales = (ROOT / "data/stories_val.txt").read_text().splitlines()[:200]
    tokenizer = course_tokenizer().to_tiktoken()
    write_shards(tales, folder, tokenizer, shard_tokens=10_000, val_every=10, workers=1)
    return folder


def command(processes: int, *arguments: object) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*start, str(SCRIPT), *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "COURSE_DEVICE": "cpu"}


def run(processes: int, *arguments: object, check: bool = True) -> subprocess.CompletedProcess:
    result = subprocess.run(
        command(processes, *arguments), capture_output=True, text=True, env=environment()
    )
    assert not check or result.returncode == 0, result.stderr
    return result


def log(out: Path) -> list[dict[str, str]]:
    with open(out / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def losses(out: Path) -> list[float]:
    return [float(row["loss"]) for row in log(out)]


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that everything is compared with: one process, never stopped."""
    out = tmp_path_factory.mktemp("alone")
    run(1, "--data", data, "--out", out, *SMALL)
    return out


def test_one_process_learns_and_logs(alone: Path) -> None:
    rows = log(alone)
    assert [int(row["step"]) for row in rows] == list(range(1, 21))
    assert losses(alone)[-1] < losses(alone)[0] - 1
    assert [row["step"] for row in rows if row["val_loss"]] == ["10", "20"]
    assert int(rows[-1]["tokens"]) == 20 * 8 * 16
    model = load_checkpoint(alone / "model.safetensors")
    assert model.config.context_length == 16
    assert {path.name for path in alone.iterdir()} == {"log.csv", "model.safetensors", "state.pt"}


def test_two_processes_compute_what_one_does(alone: Path, data: Path, tmp_path: Path) -> None:
    run(2, "--data", data, "--out", tmp_path, *SMALL)
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=TOLERANCE)
    evaluated = [float(row["val_loss"]) for row in log(tmp_path) if row["val_loss"]]
    expected = [float(row["val_loss"]) for row in log(alone) if row["val_loss"]]
    assert evaluated == pytest.approx(expected, abs=TOLERANCE)
    ours, theirs = (load_checkpoint(out / "model.safetensors") for out in (tmp_path, alone))
    ids = torch.arange(16)[None] * 100  # not the weights: a key's bias changes nothing, and drifts
    torch.testing.assert_close(ours(ids), theirs(ids), atol=1e-3, rtol=0)


def test_two_then_one_then_two_processes(alone: Path, data: Path, tmp_path: Path) -> None:
    for processes, stop_after in ((2, 7), (1, 13), (2, 20)):
        run(processes, "--data", data, "--out", tmp_path, "--stop-after", stop_after, *SMALL)
        assert len(log(tmp_path)) == stop_after
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=TOLERANCE)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on(processes: int, alone: Path, data: Path, tmp_path: Path) -> None:
    """Kill a worker in the middle: the state is that of the last save, and the run goes on."""
    long = [*SMALL, "--data", data, "--out", tmp_path]
    process = subprocess.Popen(
        command(processes, *long),
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    while not (tmp_path / "log.csv").exists():  # written behind the state
        assert time.time() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    saved = len(log(tmp_path))
    assert saved in (5, 10, 15, 20)
    run(processes, *long)
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=TOLERANCE)
    assert not list(tmp_path.glob("*.part"))


def test_the_same_command_again_adds_nothing(alone: Path, data: Path) -> None:
    before = (alone / "log.csv").read_text()
    run(1, "--data", data, "--out", alone, *SMALL)
    assert (alone / "log.csv").read_text() == before


def test_other_settings_do_not_go_on(alone: Path, data: Path) -> None:
    result = run(1, "--data", data, "--out", alone, *SMALL, "--max-lr", "0.1", check=False)
    assert result.returncode == 1
    assert "was saved with max_lr=0.003, this run has max_lr=0.1" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--config", "7B"], "invalid choice: '7B'"),
        ([], "--data is missing: a folder of shards"),
        (["--dry-run", "--micro-batch", "0"], "--micro-batch is 0: at least 1"),
        (["--dry-run", "--steps", "-3"], "--steps is -3: at least 1"),
        (["--dry-run", "--save-every", "0"], "--save-every is 0: at least 1"),
        (
            ["--dry-run", "--global-batch", "10", "--micro-batch", "4"],
            "--global-batch 10 is no multiple of --micro-batch 4: choose one",
        ),
    ],
)
def test_wrong_flags_are_refused(arguments: list[str], complaint: str) -> None:
    result = run(1, *arguments, check=False)
    assert result.returncode == 2 and complaint in result.stderr


def test_missing_data_and_uneven_shares_are_said(data: Path, tmp_path: Path) -> None:
    result = run(1, "--data", tmp_path / "none", "--out", tmp_path, *SMALL, check=False)
    assert result.returncode == 1 and "there are no shards in" in result.stderr
    uneven = [*SMALL, "--micro-batch", "8"]
    result = run(2, "--data", data, "--out", tmp_path, *uneven, check=False)
    assert result.returncode != 0
    assert "1 micro-batches a step cannot be shared by 2 processes" in result.stderr


def test_a_dry_run_says_what_it_takes() -> None:
    said = run(1, "--config", "124M", "--dry-run").stdout
    assert "parameters          124,439,808" in said
    assert "memory per process  1.99 GB" in said
    days = [float(line.split()[-2]) for line in said.splitlines() if line.endswith("days")]
    assert len(days) == 3 and days[0] == pytest.approx(8 * days[1], rel=0.2)
    slower = run(1, "--config", "124M", "--dry-run", "--tflops", "40").stdout
    assert float(slower.splitlines()[-3].split()[-2]) == pytest.approx(10 * days[0], rel=0.05)
