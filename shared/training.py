"""Training: losses, the learning-rate schedule, the loop, and exact save and resume.

Notable: AdamW decays matrices only; the rate warms up and then follows a cosine; half precision
is chosen by what the device can do; which batch comes at which step is a pure function of the
step, so a resumed run is bit for bit the run that was never stopped (on a CPU).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.classroom.files import write_atomically
from shared.classroom.machine import pick_device
from shared.optim import learning_rate, make_optimizer
from shared.weights import load_torch

Batch = tuple[Tensor, Tensor]  # inputs and targets, each (batch, tokens) int64


class Batches(Protocol):
    """Anything that gives the batch of a step, such as `shared.datasets.DocumentBatches`."""

    def __getitem__(self, step: int) -> Batch: ...


# built in: 04_pretraining/pretraining.ipynb
def half_precision(device: torch.device) -> torch.dtype | None:
    """bf16 on GPUs of compute capability ≥ 8, fp16 on older ones, None (float32) elsewhere."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


# built in: 04_pretraining/pretraining.ipynb
def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of (batch, tokens, vocab) logits against (batch, tokens) ids."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


# built in: 04_pretraining/pretraining.ipynb
@torch.no_grad()
def evaluate_loss(model: nn.Module, batches: Batches, count: int) -> float:
    """Mean loss in nats per token over the first `count` batches, dropout switched off."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total = 0.0
    for step in range(count):
        inputs, targets = batches[step]
        total += next_token_loss(model(inputs.to(device)), targets.to(device)).item()
    model.train(was_training)
    return total / count


def save_state(path: Path, settings: Mapping, state: Mapping) -> None:
    """Write everything a run needs to go on: settings, weights, optimizer, random state.

    Raises OSError when it cannot be written; an older state then stays as it was.
    """
    state = {"settings": dict(settings), "torch_rng": torch.get_rng_state(), **state}
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:  # torch.save tells a full disk as a RuntimeError
        raise OSError(
            f"{path} could not be written ({error}): make room and run again; a state saved "
            f"before is whole"
        ) from error


def load_state(path: Path, settings: Mapping) -> dict:
    """Read what `save_state` wrote.

    Raises ValueError when the run was started with other settings (the message names them) or
    when the file is no training state.
    """
    state = load_torch(path)
    if not isinstance(state, dict) or not {"settings", "torch_rng"} <= state.keys():
        raise ValueError(f"{path} holds no training state: remove it to start afresh")
    for name, value in settings.items():
        saved = state["settings"].get(name)
        if saved != value:
            raise ValueError(
                f"{path} was saved with {name}={saved}, this run has {name}={value}: "
                f"use the same settings, or remove the file to start afresh"
            )
    torch.set_rng_state(state["torch_rng"])
    return state


# built in: 04_pretraining/pretraining.ipynb
def train(
    model: nn.Module,
    batches: Batches,
    steps: int,
    *,
    max_lr: float = 2e-3,
    min_lr: float = 1e-4,
    warmup: int = 100,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.99),
    clip: float = 1.0,
    accumulation: int = 1,
    loss_function: Callable[[Tensor, Tensor], Tensor] = next_token_loss,
    optimizers: Sequence[torch.optim.Optimizer] | None = None,
    device: torch.device | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    eval_every: int = 100,
    report_every: int = 50,
    checkpoint: Path | None = None,
    save_every: int = 0,
    stop_after: int | None = None,
) -> list[dict[str, float]]:
    """Train for `steps` steps and return the history, one row a step.

    Minimises `loss_function(model(inputs), targets)`, a mean in nats over the batch, with AdamW
    or with `optimizers` of your own; then weight_decay and betas are theirs, and the rate of each
    step multiplies their own rates: give max_lr=1.
    A row holds step, loss (nats per token or text), lr, and what `evaluate(model)` returned when
    it ran.
    With `checkpoint`, the state is written there every `save_every` steps and at the end, and a
    run that finds it goes on from it. `stop_after` ends the run early, as a break would.
    Raises FloatingPointError when the loss is no longer a finite number.
    """
    device = device or pick_device()
    model.to(device).train()
    optimizers = optimizers or [make_optimizer(model, weight_decay, betas)]
    own_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    half = half_precision(device)
    scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)
    settings = {
        "steps": steps,
        "max_lr": max_lr,
        "min_lr": min_lr,
        "warmup": warmup,
        "weight_decay": weight_decay,
        "betas": betas,
        "clip": clip,
        "accumulation": accumulation,
    }
    parts = {"model": model, "scaler": scaler}
    parts |= {f"optimizer {number}": each for number, each in enumerate(optimizers)}
    history: list[dict[str, float]] = []
    if checkpoint and Path(checkpoint).exists():
        state = load_state(checkpoint, settings)
        history = state["history"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    seconds, tokens, first = 0.0, 0, len(history)
    for step in range(first, steps if stop_after is None else min(steps, stop_after)):
        started = time.perf_counter()
        rate = learning_rate(step, steps, max_lr, warmup, min_lr)
        for optimizer, rates in zip(optimizers, own_rates, strict=True):
            for group, own_rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = own_rate * rate
        loss = 0.0
        for part in range(accumulation):
            inputs, targets = batches[step * accumulation + part]
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                logits = model(inputs.to(device))
                part_loss = loss_function(logits, targets.to(device)) / accumulation
            scaler.scale(part_loss).backward()
            loss += part_loss.item()
            tokens += inputs.numel()
        check_finite(loss, step, rate)
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        model.zero_grad()
        row = {"step": step, "loss": loss, "lr": rate}
        history.append(row)
        seconds += time.perf_counter() - started
        last = step == steps - 1
        if evaluate and (last or (step + 1) % eval_every == 0):
            row |= evaluate(model)
        if last or (step + 1) % report_every == 0:
            print(progress(row, steps, tokens / seconds, seconds / (step + 1 - first)))
        if checkpoint and (last or (save_every and (step + 1) % save_every == 0)):
            states = {name: part.state_dict() for name, part in parts.items()}
            save_state(checkpoint, settings, {"history": history, **states})
    return history


# built in: 04_pretraining/pretraining.ipynb
def check_finite(loss: float, step: int, rate: float) -> None:
    """Stop at once when the loss has become infinite or not a number."""
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {step} with learning rate {rate:.2e}: lower max_lr, "
            f"lengthen the warm-up, or look for empty targets in the data"
        )


# built in: 04_pretraining/pretraining.ipynb
def progress(row: Mapping, steps: int, tokens_per_second: float, seconds_per_step: float) -> str:
    """One line of plain text about a step: where we are, how fast, how long still."""
    left = (steps - 1 - row["step"]) * seconds_per_step / 60
    extra = "".join(f"  {k} {v:.3f}" for k, v in row.items() if k not in ("step", "loss", "lr"))
    return (
        f"step {row['step'] + 1:>5}/{steps}  loss {row['loss']:.3f}{extra}  "
        f"lr {row['lr']:.1e}  {tokens_per_second:,.0f} tokens/s  {left:.1f} min left"
    )


def series(history: Sequence[Mapping[str, float]], name: str) -> tuple[list[int], list[float]]:
    """The steps and values of one column of a history, where it was recorded."""
    rows = [(row["step"] + 1, row[name]) for row in history if name in row]
    return [step for step, _ in rows], [value for _, value in rows]
