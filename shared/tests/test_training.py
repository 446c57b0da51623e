"""Training: the schedule, what decays, exact resume, and a clear end when something goes wrong."""

import math
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shared import training
from shared.classroom.batches import DocumentBatches
from shared.classroom.figures import series
from shared.classroom.machine import peak_bytes, pick_device
from shared.classroom.reports import quietly
from shared.gpt import GPTConfig, GPTModel, count_parameters
from shared.optim import learning_rate, make_optimizer, muon_and_adamw, optimizer_step
from shared.training import (
    check_finite,
    evaluate_loss,
    half_precision,
    load_state,
    next_token_loss,
    progress,
    save_state,
    train,
)

CPU = torch.device("cpu")
VOCAB, CONTEXT = 40, 12


def tiny_model(seed: int = 0, **changes) -> GPTModel:
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCAB, "context_length": CONTEXT, "emb_dim": 32, "n_heads": 4}
    return GPTModel(GPTConfig(**(sizes | {"n_layers": 2, "drop_rate": 0.0} | changes)))


def batches(batch_size: int = 4, seed: int = 5) -> DocumentBatches:
    """Batches of 30 documents of 20 tokens: 20 steps reach into several epochs."""
    ids = np.random.default_rng(0).integers(0, VOCAB, 600)
    return DocumentBatches(ids, np.arange(0, 600, 20), CONTEXT, batch_size, seed)


def run(model: GPTModel, steps: int = 20, **options) -> list[dict[str, float]]:
    options = {"max_lr": 1e-2, "warmup": 4, "device": CPU} | options
    return train(model, options.pop("batches", batches()), steps, **options)


def equal_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


# -- the learning rate ------------------------------------------------------------------------


def test_learning_rate_warms_up_and_follows_a_cosine() -> None:
    rates = [learning_rate(step, 110, max_lr=1.0, warmup=10, min_lr=0.2) for step in range(110)]
    assert rates[:11] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])
    assert all(a > b for a, b in zip(rates[10:-1], rates[11:], strict=True))
    assert rates[60] == pytest.approx(0.6)  # half-way down
    assert rates[35] == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert 0.2 < rates[-1] < 0.201


def test_learning_rate_without_warmup_starts_at_the_top() -> None:
    assert learning_rate(0, 10, max_lr=0.3, warmup=0, min_lr=0.1) == pytest.approx(0.3)
    assert learning_rate(0, 1, max_lr=0.3, warmup=1, min_lr=0.1) == pytest.approx(0.3)


def test_every_step_uses_its_rate() -> None:
    history = run(tiny_model(), 6, max_lr=0.01, min_lr=0.002, warmup=2)
    expected = [learning_rate(step, 6, 0.01, 2, 0.002) for step in range(6)]
    assert [row["lr"] for row in history] == expected
    before, model = tiny_model(), tiny_model()
    run(model, 1, max_lr=0.0, min_lr=0.0, warmup=0)
    assert equal_weights(model, before)  # a rate of 0 moves nothing


# -- what decays ------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_only_matrices_decay_and_each_parameter_once(tied: bool) -> None:
    model = tiny_model(tie_weights=tied)
    optimizer = make_optimizer(model, weight_decay=0.3, betas=(0.8, 0.95))
    decayed, others = optimizer.param_groups
    assert decayed["weight_decay"] == 0.3 and others["weight_decay"] == 0
    assert all(p.dim() == 2 for p in decayed["params"])
    assert all(p.dim() == 1 for p in others["params"])
    together = decayed["params"] + others["params"]
    assert len({id(p) for p in together}) == len(together)
    assert sum(p.numel() for p in together) == count_parameters(model)
    assert any(p is model.head.weight for p in decayed["params"])
    assert all(group["betas"] == (0.8, 0.95) for group in optimizer.param_groups)


def test_frozen_parameters_stay() -> None:
    model = tiny_model()
    model.blocks[0].requires_grad_(False)
    frozen = [p.clone() for p in model.blocks[0].parameters()]
    moving = model.blocks[1].norm1.weight.clone()
    run(model, 3)
    assert all(map(torch.equal, frozen, model.blocks[0].parameters()))
    assert not torch.equal(moving, model.blocks[1].norm1.weight)


# -- the loop ---------------------------------------------------------------------------------


def test_loss_is_the_cross_entropy_in_nats() -> None:
    logits = torch.tensor([[[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]]).log()  # (batch, tokens, vocab)
    loss = next_token_loss(logits, torch.tensor([[1, 0]]))
    assert loss.item() == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)


def test_training_learns_one_batch_by_heart() -> None:
    model, batch = tiny_model(), batches()[0]

    class SameBatch:
        def __getitem__(self, step: int):
            return batch

    history = run(model, 150, batches=SameBatch())
    assert history[0]["loss"] == pytest.approx(math.log(VOCAB), abs=0.3)
    assert evaluate_loss(model, SameBatch(), 1) < 0.05


def test_a_step_equals_adamw_by_hand() -> None:
    model, other = tiny_model(), tiny_model().train()
    run(model, 1, max_lr=0.01, warmup=1, weight_decay=0.5, clip=0.1)
    inputs, targets = batches()[0]
    next_token_loss(other(inputs), targets).backward()
    norm = torch.stack([p.grad.norm() for p in other.parameters()]).norm()
    assert norm > 0.1  # so clipping does something
    with torch.no_grad():
        for parameter in other.parameters():
            gradient = parameter.grad * 0.1 / norm
            if parameter.dim() == 2:
                parameter.mul_(1 - 0.01 * 0.5)
            parameter.sub_(0.01 * gradient / (gradient.abs() + 1e-8))
    for (name, ours), expected in zip(model.named_parameters(), other.parameters(), strict=True):
        if not name.endswith("qkv.bias"):  # a bias of keys has gradient 0, rounded
            torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0, msg=name)


def test_many_steps_equal_a_loop_by_hand() -> None:
    model, other = tiny_model(), tiny_model().train()
    run(model, 20, clip=0.5)
    optimizer = make_optimizer(other, 0.1, (0.9, 0.99))
    for step in range(20):
        rate = learning_rate(step, 20, 1e-2, 4, 1e-4)
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = batches()[step]
        gradients = torch.autograd.grad(
            next_token_loss(other(inputs), targets), list(other.parameters())
        )  # never kept: nothing of one step may reach the next
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        for parameter, gradient in zip(other.parameters(), gradients, strict=True):
            parameter.grad = gradient * min(1.0, (0.5 / (norm + 1e-6)).item())
        optimizer.step()
    for (name, ours), expected in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0, msg=name)


def test_clipping_sees_the_gradients_without_the_scale_of_fp16() -> None:
    weights = []
    for scale in (1.0, 1024.0):
        layer = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(layer.weight)
        sgd = torch.optim.SGD(layer.parameters(), lr=1.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(layer(torch.tensor([[3.0, 4.0]])).sum()).backward()  # its gradient: 3, 4
        optimizer_step(layer, [sgd], scaler, clip=1.0)
        assert layer.weight.grad is None
        weights.append(layer.weight.tolist()[0])
    assert weights[0] == pytest.approx([-0.6, -0.8], abs=1e-5) == weights[1]


def test_accumulating_two_half_batches_equals_the_whole_batch() -> None:
    whole, halves = tiny_model().double(), tiny_model().double()  # float64: no rounding to excuse
    first = run(whole, 8, batches=batches(batch_size=6))
    second = run(halves, 8, batches=batches(batch_size=3), accumulation=2)
    assert [r["loss"] for r in first] == pytest.approx([r["loss"] for r in second], abs=1e-6)
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    different = tiny_model().double()
    run(different, 8, batches=batches(batch_size=3))
    assert not torch.allclose(whole.head.weight, different.head.weight, atol=1e-3)


def test_evaluation_comes_at_its_steps_and_at_the_last() -> None:
    model, seen = tiny_model(), []

    def evaluate(given: nn.Module) -> dict[str, float]:
        seen.append(given)
        return {"val_loss": float(len(seen))}

    history = run(model, 10, evaluate=evaluate, eval_every=4)
    assert [row["step"] for row in history] == list(range(10))
    assert [row["step"] for row in history if "val_loss" in row] == [3, 7, 9]
    assert all(given is model for given in seen)
    assert series(history, "val_loss") == ([4, 8, 10], [1.0, 2.0, 3.0])
    steps, losses = series(history, "loss")
    assert steps == list(range(1, 11)) and losses == [row["loss"] for row in history]


def test_evaluation_changes_nothing_about_training() -> None:
    def evaluate(model: nn.Module) -> dict[str, float]:
        return {"val_loss": evaluate_loss(model, batches(seed=9), 2)}

    quiet, watched = tiny_model(drop_rate=0.3), tiny_model(drop_rate=0.3)
    torch.manual_seed(1)
    run(quiet, 6)
    torch.manual_seed(1)
    run(watched, 6, evaluate=evaluate, eval_every=1)
    assert equal_weights(quiet, watched)


def test_evaluate_loss_is_the_mean_without_dropout() -> None:
    model = tiny_model(drop_rate=0.5).train()
    loss = evaluate_loss(model, batches(), 3)
    assert loss == evaluate_loss(model, batches(), 3) and model.training
    model.eval()
    with torch.no_grad():
        each = [next_token_loss(model(x), y).item() for x, y in (batches()[i] for i in range(3))]
    assert loss == pytest.approx(sum(each) / 3) and len(set(each)) == 3
    evaluate_loss(model, batches(), 1)
    assert not model.training


def test_dropout_is_on_in_training_and_another_seed_gives_another_run() -> None:
    def losses(seed: int, drop_rate: float) -> list[float]:
        model = tiny_model(drop_rate=drop_rate).eval()  # train() switches it on
        torch.manual_seed(seed)
        return [row["loss"] for row in run(model, 3)]

    assert losses(1, 0.3) == losses(1, 0.3) != losses(2, 0.3)
    assert losses(1, 0.0) == losses(2, 0.0)


def test_progress_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    run(tiny_model(), 7, report_every=3, evaluate=lambda _: {"val_loss": 1.25}, eval_every=6)
    text = capsys.readouterr().out
    assert set(text) <= set(string.printable) - set("\r\t\x0b\x0c")
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["step", "3/7"],
        ["step", "6/7"],
        ["step", "7/7"],
    ]
    assert all("loss " in line and len(line) <= 75 for line in lines)
    assert [line.endswith(" min left") for line in lines] == [True, True, False]
    assert [line.endswith(" tokens/s") for line in lines] == [False, False, True]
    assert ["val_loss 1.250" in line for line in lines] == [False, True, True]


def test_quietly_prints_nothing_and_then_prints_again(capsys: pytest.CaptureFixture[str]) -> None:
    with quietly():
        print("step 1")
    print("the end")
    assert capsys.readouterr().out == "the end\n"


def test_progress_counts_what_is_left() -> None:
    line = progress({"step": 9, "loss": 1.5, "lr": 2e-3}, 40, 1234.5, seconds_per_step=6.0)
    assert line == "step 10/40  loss 1.500  3.0 min left"
    last = progress({"step": 39, "loss": 1.5, "lr": 2e-3}, 40, 1234.5, seconds_per_step=6.0)
    assert last == "step 40/40  loss 1.500  1,234 tokens/s"  # nothing is left: how fast it was
    early = progress({"step": 8, "loss": 1.5, "lr": 2e-3}, 4000, 1234.5, seconds_per_step=6.0)
    assert early == "step    9/4000  loss 1.500  399.1 min left"  # the numbers stand in a column
    row = {"step": 9, "loss": 1.5, "lr": 2e-3, "val_loss": 2.5, "names": 0.5, "objects": 0.25}
    line = progress(row, 40, 1234.5, seconds_per_step=6.0)
    assert "val_loss 2.500  names 0.500  3.0 min" in line  # two measurements fit on it


# -- when the loss explodes -------------------------------------------------------------------


class Poison:
    """The usual batches; before step `at` a weight of the model becomes `value`."""

    def __init__(self, model: GPTModel, at: int, value: float) -> None:
        self.model, self.at, self.value, self.batches = model, at, value, batches()

    def __getitem__(self, step: int):
        if step == self.at:
            self.model.final_norm.weight.data[0] = self.value
        return self.batches[step]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_exploded_loss_names_step_and_rate(value: float, tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "run.pt"
    poison = Poison(model, 3, value)
    with pytest.raises(FloatingPointError) as error:
        run(model, 20, batches=poison, max_lr=8e-3, warmup=8, checkpoint=path, save_every=1)
    for part in ("at step 3", "learning rate 4.00e-03", "lower max_lr", "warm-up"):
        assert part in str(error.value), error.value
    # The checkpoint is the one from before, with numbers that can be trained on.
    state = torch.load(path, weights_only=True)
    assert len(state["history"]) == 3
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_check_finite_names_the_loss(loss: float) -> None:
    with pytest.raises(FloatingPointError, match=f"loss is {loss} at step 7 .* 1.00e-03"):
        check_finite(loss, 7, 1e-3)
    check_finite(1e30, 7, 1e-3)


# -- stop and resume --------------------------------------------------------------------------


def evaluate_some(model: nn.Module) -> dict[str, float]:
    return {"val_loss": evaluate_loss(model, batches(seed=9), 2)}


@pytest.mark.parametrize(
    ("stop_after", "save_every"), [(10, 10), (10, 5), (13, 10), (17, 4)], ids=str
)
def test_a_resumed_run_is_the_run_that_never_stopped(
    tmp_path: Path, stop_after: int, save_every: int
) -> None:
    options = {"evaluate": evaluate_some, "eval_every": 5, "accumulation": 2}
    whole = tiny_model(drop_rate=0.2)
    torch.manual_seed(1)
    history = run(whole, **options)

    path = tmp_path / "runs" / "state.pt"
    options |= {"checkpoint": path, "save_every": save_every}
    first = tiny_model(drop_rate=0.2)
    torch.manual_seed(1)
    part = run(first, stop_after=stop_after, **options)
    assert part == history[:stop_after]
    assert not equal_weights(first, whole)

    second = tiny_model(seed=77, drop_rate=0.2)  # other weights, other random state
    torch.manual_seed(78)
    resumed = run(second, **options)
    assert resumed == history
    assert equal_weights(second, whole)
    assert [entry.name for entry in path.parent.iterdir()] == ["state.pt"]


def test_own_optimizers_follow_the_schedule_at_their_own_rates() -> None:
    model, seen = tiny_model(), []
    optimizers = muon_and_adamw(model, 0.05, 0.01)

    def look(_: nn.Module) -> dict[str, float]:
        seen.append([group["lr"] for each in optimizers for group in each.param_groups])
        return {}

    options = {"max_lr": 1.0, "min_lr": 0.1, "optimizers": optimizers}
    history = run(model, 8, evaluate=look, eval_every=1, **options)
    assert seen == [[0.05 * row["lr"], 0.01 * row["lr"]] for row in history]
    pairs = zip(model.parameters(), tiny_model().parameters(), strict=True)
    assert not any(torch.equal(after, before) for after, before in pairs)


def test_own_optimizers_resume_as_if_never_stopped(tmp_path: Path) -> None:
    options = {"max_lr": 1.0, "min_lr": 0.1}
    whole = tiny_model()
    history = run(whole, optimizers=muon_and_adamw(whole, 0.05, 0.01), **options)
    options |= {"checkpoint": tmp_path / "state.pt"}
    for stop_after in (9, None):
        model = tiny_model(seed=stop_after or 3)
        if stop_after:
            model.load_state_dict(tiny_model().state_dict())
        options |= {"save_every": 9, "stop_after": stop_after}
        resumed = run(model, optimizers=muon_and_adamw(model, 0.05, 0.01), **options)
    assert resumed == history
    assert equal_weights(model, whole)


def test_resume_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    asked: list[int] = []

    class Recorder:
        def __getitem__(self, step: int):
            asked.append(step)
            return batches()[step]

    options = {"checkpoint": tmp_path / "state.pt", "save_every": 4, "batches": Recorder()}
    run(tiny_model(), 12, stop_after=6, **options)
    assert asked == [0, 1, 2, 3, 4, 5]
    asked.clear()
    run(tiny_model(), 12, **options)
    assert asked == [0, 0, 4, 5, 6, 7, 8, 9, 10, 11]  # the first twice, to know the data by
    asked.clear()
    finished, again = tiny_model(), tiny_model(seed=3)
    history = run(finished, 12, **options)
    assert run(again, 12, **options) == history and asked == [0] * 4
    assert len(history) == 12 and equal_weights(finished, again)


def test_stopping_after_no_step_trains_nothing() -> None:
    model = tiny_model()
    assert run(model, 5, stop_after=0) == []
    assert equal_weights(model, tiny_model())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 30),
        ("max_lr", 5e-3),
        ("min_lr", 5e-4),
        ("warmup", 7),
        ("weight_decay", 0.2),
        ("betas", (0.8, 0.9)),
        ("clip", 0.5),
        ("accumulation", 2),
    ],
)
def test_resuming_with_other_settings_is_refused(tmp_path: Path, name: str, value) -> None:
    path = tmp_path / "state.pt"
    run(tiny_model(), 4, checkpoint=path)
    with pytest.raises(ValueError) as error:
        run(tiny_model(), **({"steps": 4, "checkpoint": path} | {name: value}))
    for part in (str(path), f"{name}=", f"this run has {name}={value}", "remove the file"):
        assert part in str(error.value), error.value


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    run(tiny_model(), 2, checkpoint=path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:10], whole[: len(whole) // 2], whole[:-1], b"no state at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="state.pt is damaged"):
            run(tiny_model(), 2, checkpoint=path)
    for other in ([1, 2], {"settings": {}}):
        torch.save(other, path)
        with pytest.raises(ValueError, match="state.pt is damaged or holds no training state"):
            run(tiny_model(), 2, checkpoint=path)


def test_load_state_brings_the_random_state_back(tmp_path: Path) -> None:
    torch.manual_seed(5)
    save_state(tmp_path / "s", {"steps": 1}, {"extra": 7})
    expected = torch.rand(3)
    torch.manual_seed(6)
    assert load_state(tmp_path / "s", {"steps": 1})["extra"] == 7
    assert torch.equal(torch.rand(3), expected)


def test_a_failure_while_writing_keeps_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.pt"
    run(tiny_model(), 6, checkpoint=path, save_every=2, stop_after=2)
    before = path.read_bytes()

    def disk_full(state: object, file) -> None:
        file.write(b"half a st")
        raise OSError("no space left on device")

    monkeypatch.setattr(training.torch, "save", disk_full)
    with pytest.raises(OSError, match="no space left"):
        run(tiny_model(), 6, checkpoint=path, save_every=2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# -- devices ----------------------------------------------------------------------------------


def test_device_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == CPU


def test_course_device_is_obeyed_and_a_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert pick_device() == CPU
    monkeypatch.setenv("COURSE_DEVICE", "toaster")
    assert pick_device("cpu") == CPU
    with pytest.raises(RuntimeError, match="'toaster' cannot be used .*: choose 'cpu'"):
        pick_device()


def test_a_device_that_cannot_compute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="'meta' cannot be used .*: choose 'cpu'"):
        pick_device("meta")  # a device of shapes without numbers
    monkeypatch.setattr(torch, "allclose", lambda *args, **options: False)
    with pytest.raises(RuntimeError, match="'cpu' multiplies matrices wrongly"):
        pick_device("cpu")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), torch.float16),
        ((7, 5), torch.float16),  # Colab's T4
        ((8, 0), torch.bfloat16),
        ((9, 0), torch.bfloat16),
        ((12, 0), torch.bfloat16),
    ],
)
def test_half_precision_follows_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert half_precision(torch.device("cuda")) is expected
    assert half_precision(CPU) is None
    assert half_precision(torch.device("mps")) is None


def test_the_peak_of_a_call_is_what_lived_at_the_same_time():
    def two_then_one():
        first = torch.ones(250_000)  # a megabyte
        second = first + 1
        del first
        return second * 2  # again two of them, not three

    peak = peak_bytes(two_then_one, torch.device("cpu"))
    assert 2_000_000 <= peak < 2_001_000  # and the numbers 1 and 2
