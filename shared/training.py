"""Training: the loss, the loop, and exact save and resume.

Notable: half precision is chosen by what the device can do; which batch comes at which step depends
on the step alone, so a resumed run is bit for bit the run that was never stopped (on a CPU).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.classroom.errors import require, steps_of, whole
from shared.classroom.machine import evaluating, pick_device
from shared.classroom.reports import check_finite, due, progress
from shared.classroom.state import (
    check_settings,
    load_state,  # noqa: F401 (for users)
    restore,
    save_state,
    watched,
)
from shared.optim import learning_rate, make_optimizer, optimizer_step, set_rates
from shared.texts import IGNORED

# built in 04_pretraining/pretraining.ipynb: half_precision, next_token_loss, count_targets,
#   evaluate_loss, train

Batch = tuple[Tensor, Tensor]  # inputs and targets, each (batch, tokens) int64


class Batches(Protocol):
    """Anything that gives the batch of a step, such as `DocumentBatches`."""

    def __getitem__(self, step: int) -> Batch: ...


def half_precision(device: torch.device) -> torch.dtype | None:
    """bf16 on GPUs of compute capability ≥ 8, fp16 on older ones, None (float32) elsewhere."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of (batch, tokens, vocab) logits against (batch, tokens) ids."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def count_targets(targets: Tensor) -> int:
    """How many targets count: all but those that are IGNORED, which only ids can be."""
    counted = targets.is_floating_point() | (targets != IGNORED)
    return counted.sum().item()


@torch.no_grad()
def evaluate_loss(model: nn.Module, batches: Batches, count: int) -> float:
    """Mean loss in nats per target over the first `count` batches, dropout switched off.

    Raises ValueError when none of their targets counts.
    """
    whole(1, count=count)
    steps_of(batches)
    device = next(model.parameters()).device
    nats, targets_seen = 0.0, 0
    with evaluating(model):
        for step in range(count):
            inputs, targets = batches[step]
            if counted := count_targets(targets):
                loss = next_token_loss(model(inputs.to(device)), targets.to(device))
                nats += counted * loss.item()
                targets_seen += counted
    require(targets_seen > 0, f"not one target in {count} batches counts: nothing to measure")
    return nats / targets_seen


def train(
    model: nn.Module,
    batches: Batches,
    steps: int,
    *,
    max_lr: float = 2e-3,
    min_lr: float | None = None,
    warmup: int = 100,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.99),
    clip: float = 1.0,
    accumulation: int = 1,
    shares: Sequence[float] | None = None,
    loss_function: Callable[[Tensor, Tensor], Tensor] = next_token_loss,
    optimizers: Sequence[torch.optim.Optimizer] | None = None,
    device: torch.device | str | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    eval_every: int = 100,
    report_every: int = 50,
    checkpoint: Path | None = None,
    save_every: int = 0,
    stop_after: int | None = None,
    history: list[dict[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Train for `steps` steps and return the history, one row a step.

    Minimises `loss_function(model(inputs), targets)`, a mean in nats over the targets of a batch,
    with AdamW or with `optimizers` of your own; then weight_decay and betas are theirs, and the
    rate of each step multiplies their own rates: give max_lr=1. The rate ends at `min_lr` (1e-4,
    but never above max_lr). A step reads `accumulation` batches, of which every target counts
    alike, or each batch what `shares` say. A row holds step, loss, lr, and what `evaluate(model)`
    returned when it ran; rows go to the list `history`, which is emptied first, as they come. With
    `checkpoint`, the state is written there every `save_every` steps and at the end (0: only
    then, as for reports and evaluations), and a run that finds it goes on from it. `stop_after`
    ends the run early, as a break would. Raises FloatingPointError when the loss is no longer a
    finite number, ValueError for settings without meaning and for the state of another run.
    """
    device = torch.device(device) if device else pick_device()
    model.to(device)
    min_lr = min(1e-4, max_lr) if min_lr is None else min_lr
    optimizers = optimizers or [make_optimizer(model, weight_decay, betas)]
    half = half_precision(device)
    scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)
    settings = {"steps": steps, "max_lr": max_lr, "min_lr": min_lr, "warmup": warmup, "clip": clip,
                "weight_decay": weight_decay, "betas": betas, "accumulation": accumulation,
                "shares": None if shares is None else list(shares)}  # fmt: skip
    check_settings(settings, model, batches, optimizers, eval_every=eval_every,
                   report_every=report_every, save_every=save_every,
                   stop_after=stop_after)  # fmt: skip
    own_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    model.train()
    model.zero_grad()  # a run that was cut off may have left slopes behind
    if checkpoint:
        batches = watched(settings, model, batches, loss_function, optimizers)
    parts = {"model": model, "scaler": scaler}
    parts |= {f"optimizer {number}": each for number, each in enumerate(optimizers)}
    history = [] if history is None else history
    history[:] = restore(checkpoint, settings, parts, batches)
    seconds, tokens, first = 0.0, 0, len(history)
    try:
        for step in range(first, steps if stop_after is None else min(steps, stop_after)):
            started = time.perf_counter()
            rate = learning_rate(step, steps, max_lr, warmup, min_lr)
            set_rates(optimizers, own_rates, rate)
            some = [batches[step * accumulation + number] for number in range(accumulation)]
            counts = settings["shares"] or [count_targets(targets) for _, targets in some]
            loss = 0.0 if any(counts) else math.nan
            for (inputs, targets), count in zip(some, counts, strict=True):
                if count:  # else there is nothing to learn from it
                    with torch.autocast(device.type, dtype=half, enabled=half is not None):
                        logits = model(inputs.to(device))
                        mean = loss_function(logits, targets.to(device))
                    share = mean * (count / sum(counts))
                    scaler.scale(share).backward()
                    loss += share.item()
                    tokens += inputs.numel()
            check_finite(loss, step, rate)
            optimizer_step(model, optimizers, scaler, clip)
            row = {"step": step, "loss": loss, "lr": rate}
            history.append(row)
            seconds += time.perf_counter() - started
            last = step == steps - 1
            if evaluate and (last or due(step, eval_every)):
                row |= evaluate(model)
                model.train()
            if last or due(step, report_every):
                print(progress(row, steps, tokens / seconds, seconds / (step + 1 - first)))
            if checkpoint and (last or due(step, save_every)):
                states = {name: part.state_dict() for name, part in parts.items()}
                save_state(checkpoint, settings, {"history": history, **states})
    finally:
        set_rates(optimizers, own_rates, 1.0)  # they may be used again
    return history
