"""04_pretraining/pretrain.py as a command: alone, with others, killed, resumed, misused."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from shared.shards import write_shards
from shared.tokenizers import BPETokenizer, course_tokenizer
from shared.weights import load_checkpoint

resource = pytest.importorskip("resource", reason="torchrun needs Linux or macOS")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "04_pretraining/pretrain.py"
SMALL = ["--steps", "20", "--global-batch", "8", "--micro-batch", "2", "--context", "16"]
SMALL += ["--warmup", "4", "--eval-every", "10", "--eval-batches", "4", "--save-every", "5"]
TOLERANCE = 1e-5

specification = importlib.util.spec_from_file_location("pretrain", SCRIPT)
pretrain = importlib.util.module_from_spec(specification)
sys.modules["pretrain"] = pretrain  # dataclasses look their module up
specification.loader.exec_module(pretrain)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    tales = (ROOT / "data/stories_val.txt").read_text().splitlines()[:200]
    tokenizer = course_tokenizer().to_tiktoken()
    write_shards(tales, folder, tokenizer, shard_tokens=10_000, val_every=10, workers=1)
    return folder


def command(processes: int, *arguments: object, script: Path = SCRIPT) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*start, str(script), *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "COURSE_DEVICE": "cpu"}


def run(
    processes: int, *arguments: object, check: bool = True, script: Path = SCRIPT
) -> subprocess.CompletedProcess:
    result = subprocess.run(
        command(processes, *arguments, script=script),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
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


def test_the_log_says_speed_memory_and_the_length_of_the_gradient(alone: Path) -> None:
    rows = log(alone)
    assert all(0 < float(row["norm"]) < 100 for row in rows)
    assert all(float(row["tokens_per_second"]) > 0 for row in rows)
    assert all(0.05 < float(row["memory_gb"]) < 20 for row in rows)
    assert not any(row["mfu"] for row in rows)  # what a CPU could do at best is unknown


def test_the_first_line_comes_at_once_and_samples_are_read(data: Path, tmp_path: Path) -> None:
    few = [*SMALL, "--steps", "12", "--report-every", "5", "--peak-tflops", "1"]
    said = run(1, "--data", data, "--out", tmp_path, *few).stdout.splitlines()
    reported = [int(line.split()[1].split("/")[0]) for line in said if line.startswith("step")]
    assert reported == [1, 5, 10, 12]
    assert sum("it writes: " in line for line in said) == 2  # with each validation
    assert all(0 < float(row["mfu"]) < 1 for row in log(tmp_path))


@pytest.mark.parametrize(("model", "optimizer"), [("gpt2", "muon"), ("modern", "muon")])
def test_models_and_optimizers_learn_stop_and_go_on(
    model: str, optimizer: str, data: Path, tmp_path: Path
) -> None:
    chosen = [*SMALL, "--data", data, "--model", model, "--optimizer", optimizer]
    run(1, *chosen, "--out", tmp_path / "one")
    for processes, stop_after in ((2, 9), (1, 20)):
        run(processes, *chosen, "--out", tmp_path / "two", "--stop-after", stop_after)
    assert losses(tmp_path / "one")[-1] < losses(tmp_path / "one")[0] - 1
    # Muon's orthogonal steps make more of a difference in the last bit
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-2)
    kind = type(load_checkpoint(tmp_path / "one/model.safetensors")).__name__
    assert kind == {"gpt2": "GPTModel", "modern": "ModernGPT"}[model]


@pytest.mark.skipif(sys.platform != "linux", reason="threads are read from /proc")
def test_no_thread_of_the_group_is_left_when_the_processes_end(data: Path, tmp_path: Path) -> None:
    """One that is may abort the process: "terminate called without an active exception"."""
    script = tmp_path / "threads.py"
    # a file for each process: two that print to one pipe write into each other's lines
    script.write_text(
        f"import os, runpy\nfrom pathlib import Path\nrunpy.run_path({str(SCRIPT)!r}, "
        f"run_name='__main__')\nnames = [comm.read_text().strip() for comm in "
        f"Path('/proc/self/task').glob('*/comm')]\n"
        f"Path({str(tmp_path)!r}, f'{{os.getpid()}}.threads').write_text('\\n'.join(names))\n"
    )
    few = [*SMALL, "--data", data, "--out", tmp_path / "out", "--steps", "2"]
    run(2, *few, script=script)
    threads = [path.read_text().splitlines() for path in tmp_path.glob("*.threads")]
    assert len(threads) == 2 and all(threads), threads
    assert not any("gloo" in name for names in threads for name in names), threads


def test_a_vocabulary_is_filled_up_and_trimmed_again(tmp_path: Path) -> None:
    tales = (ROOT / "data/stories_val.txt").read_text().splitlines()[:200]
    other = BPETokenizer.train("\n".join(tales), 600).to_tiktoken("other")
    write_shards(tales, tmp_path, other, val_every=10, workers=1)
    args = pretrain.parse(["--data", str(tmp_path), "--context", "16"])
    assert other.n_vocab % 64 and pretrain.model_config(args).vocab_size % 64 == 0
    for model in ("gpt2", "modern"):
        args = pretrain.parse(["--data", str(tmp_path), "--context", "16", "--model", model])
        padded = pretrain.model_config(args).build().eval()
        small = pretrain.trimmed(padded, other.n_vocab).eval()
        ids = torch.arange(16)[None]
        torch.testing.assert_close(small(ids), padded(ids)[..., : other.n_vocab])


def test_told_to_end_it_saves_and_goes_on(
    beginning: list[float], data: Path, tmp_path: Path
) -> None:
    arguments = [*ENDLESS, "--data", data, "--out", tmp_path, "--save-every", "4999"]
    process = subprocess.Popen(
        command(1, *arguments), env=environment(), stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("step"):  # it trains
            process.terminate()
            break
    rest = process.stdout.read()
    assert process.wait(timeout=120) == 0 and "told to end: the state of step" in rest
    assert 0 < len(log(tmp_path)) < 80
    run(1, *arguments, "--stop-after", "80")
    assert losses(tmp_path) == pytest.approx(beginning, abs=1e-4)


def test_the_last_states_are_kept(data: Path, tmp_path: Path) -> None:
    run(1, *SMALL, "--data", data, "--out", tmp_path, "--keep", "3")
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
        "state-0000010.pt", "state-0000015.pt", "state-0000020.pt", "state.pt"
    ]  # fmt: skip
    (tmp_path / "state.pt").write_bytes((tmp_path / "state-0000010.pt").read_bytes())
    run(1, *SMALL, "--data", data, "--out", tmp_path)  # back to step 10, and no more names
    assert len(log(tmp_path)) == 20
    assert [path.name for path in tmp_path.glob("*.pt")] == ["state.pt"]


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


ENDLESS = [*SMALL, "--steps", "5000"]


@pytest.fixture(scope="module")
def beginning(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The first losses of a run that would be long."""
    out = tmp_path_factory.mktemp("beginning")
    run(1, "--data", data, "--out", out, *ENDLESS, "--stop-after", "80")
    return losses(out)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on(
    processes: int, beginning: list[float], data: Path, tmp_path: Path
) -> None:
    """Kill one worker, hard, in the middle: the run ends, and goes on from its last save."""
    arguments = [*ENDLESS, "--data", data, "--out", tmp_path]
    process = subprocess.Popen(
        command(processes, *arguments),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    while not (tmp_path / "log.csv").exists():  # written behind the state
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.002)
    family = psutil.Process(process.pid)
    (family if processes == 1 else family.children()[-1]).kill()
    assert process.wait(timeout=120) != 0
    left_over = f".state.pt.{process.pid}-1.part"  # as a kill while writing leaves
    (tmp_path / left_over).write_bytes(b"half")
    assert len(log(tmp_path)) < 80
    run(processes, *arguments, "--stop-after", "80")
    assert losses(tmp_path) == pytest.approx(beginning, abs=1e-4)  # 80 steps drift further than 20
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_keeps_the_state_before(data: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, "--data", data, "--out", tmp_path]
    run(1, *arguments, "--stop-after", "5")
    before = (tmp_path / "state.pt").read_bytes()

    def no_large_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = subprocess.run(
        command(1, *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=no_large_files,
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "state.pt could not be written" in result.stderr
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_shards_of_another_tokenizer_do_not_go_on(alone: Path, tmp_path: Path) -> None:
    tales = (ROOT / "data/stories_val.txt").read_text().splitlines()[:200]
    other = BPETokenizer.train("\n".join(tales), 600).to_tiktoken("other")
    index = write_shards(tales, tmp_path, other, val_every=10, workers=1)
    index["tokenizer"]["vocab_size"] = 2048  # as large as the course's, and yet another one
    (tmp_path / "index.json").write_text(json.dumps(index))
    result = run(1, "--data", tmp_path, "--out", alone, *SMALL, check=False)
    assert result.returncode == 1 and "was saved with tokenizer=" in result.stderr


def test_every_large_recipe_can_be_shared_by_many() -> None:
    said = {name: run(1, "--config", name, "--dry-run").stdout for name in ("124M", "1558M")}
    assert not any("not with this --micro-batch" in text for text in said.values())
    said = run(1, "--config", "course", "--dry-run").stdout
    assert said.splitlines()[-1].endswith("(not with this --micro-batch)")


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_a_compiled_run_is_the_same_run(data: Path, tmp_path: Path) -> None:
    few = [*SMALL, "--data", data, "--stop-after", "3"]
    run(1, *few, "--out", tmp_path / "eager")
    for processes in (1, 2):
        out = tmp_path / f"compiled-{processes}"
        run(processes, *few, "--out", out, "--compile")
        assert losses(out) == pytest.approx(losses(tmp_path / "eager"), abs=1e-4)
    run(1, *SMALL, "--data", data, "--out", out)  # and goes on uncompiled, alone
    load_checkpoint(out / "model.safetensors")


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
        (["--dry-run", "--stop-after", "0"], "--stop-after is 0: at least 1"),
        (["--dry-run", "--context", "-5"], "--context is -5: at least 1"),
        (["--dry-run", "--warmup", "-1"], "--warmup is -1: at least 0"),
        (["--dry-run", "--max-lr", "0"], "--max-lr is 0: it must be above 0"),
        (["--dry-run", "--keep", "0"], "--keep is 0: at least 1"),
        (["--dry-run", "--sample", "-1"], "--sample is -1: at least 0"),
        (["--dry-run", "--muon-lr", "nan"], "--muon-lr is nan: it must be above 0"),
        (["--dry-run", "--peak-tflops", "0"], "--peak-tflops is 0: it must be above 0"),
        (["--dry-run", "--optimizer", "sgd"], "invalid choice: 'sgd'"),
        (["--dry-run", "--tflops", "-1"], "--tflops is -1: it must be above 0"),
        (
            ["--dry-run", "--global-batch", "10", "--micro-batch", "4"],
            "--global-batch 10 is no multiple of --micro-batch 4: choose one",
        ),
    ],
)
def test_wrong_flags_are_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        pretrain.parse(arguments)
    assert end.value.code == 2 and complaint in capsys.readouterr().err


def test_a_wrong_flag_ends_the_command() -> None:
    result = run(1, "--config", "7B", check=False)
    assert result.returncode == 2 and "invalid choice: '7B'" in result.stderr


def test_an_unusable_device_is_said(data: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, "--data", data, "--out", tmp_path]
    wrong = environment() | {"COURSE_DEVICE": "abacus"}
    result = subprocess.run(command(1, *arguments), capture_output=True, text=True, env=wrong)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "device 'abacus' cannot be used" in result.stderr


def test_missing_data_and_uneven_shares_are_said(data: Path, tmp_path: Path) -> None:
    result = run(1, "--data", tmp_path / "none", "--out", tmp_path, *SMALL, check=False)
    assert result.returncode == 1 and "there are no shards in" in result.stderr
    uneven = [*SMALL, "--micro-batch", "8"]  # one part
    result = run(2, "--data", data, "--out", tmp_path, *uneven, check=False)
    assert result.returncode != 0
    assert "1 micro-batches a step cannot be shared by 2 processes" in result.stderr


def minutes(said: str) -> list[float]:
    """What a dry run says of 1, 8 and 64 GPUs."""
    units = {"minutes": 1, "hours": 60, "days": 1440}
    spans = (line.split()[-2:] for line in said.splitlines()[-3:])
    return [float(number) * units[unit] for number, unit in spans]


def test_a_dry_run_says_what_it_takes() -> None:
    said = run(1, "--config", "124M", "--dry-run").stdout
    assert "parameters          124,475,904" in said  # a vocabulary of 50,304
    assert "memory per process  1.99 GB" in said
    tokens = 19_073 * 512 * 1024
    assert f"tokens              {tokens:,}" in said
    (speed,) = re.findall(r"([\d,]+) tokens/s per GPU at 400 TFLOP/s", said)
    alone = tokens / int(speed.replace(",", "")) / 60
    assert minutes(said) == pytest.approx([alone, alone / 8, alone / 64], rel=0.02)
    slower = run(1, "--config", "124M", "--dry-run", "--tflops", "40").stdout
    assert minutes(slower) == pytest.approx([10 * alone, 10 * alone / 8, 10 * alone / 64], rel=0.02)
    assert max(map(len, said.splitlines())) <= 76  # a notebook shows it
