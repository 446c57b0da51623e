"""The state of a training run on the disk: saved whole, refused where it does not belong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from shared.classroom.errors import above, at_least, require, steps_of, whole
from shared.classroom.files import must_take_a_file, write_atomically


def check_settings(
    settings: Mapping, batches: object, eval_every: int, report_every: int, save_every: int
) -> None:
    """Refuse settings of a training run that have no meaning; the first one is named."""
    steps_of(batches)
    whole(0, steps=settings["steps"], warmup=settings["warmup"])
    whole(0, eval_every=eval_every, report_every=report_every, save_every=save_every)
    whole(1, accumulation=settings["accumulation"])
    if settings["shares"]:
        count, accumulation = len(settings["shares"]), settings["accumulation"]
        require(count == accumulation, f"{count} shares for {accumulation} batches: one for each")
        at_least(0, **{"the smallest share": min(settings["shares"])})
    above(0, clip=settings["clip"])  # math.inf never clips
    at_least(0, **{name: settings[name] for name in ("max_lr", "min_lr", "weight_decay")})


def identity(
    model: nn.Module, batches, loss: Callable, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, object]:
    """What a run is made of, besides its numbers: in a few words each, to notice another one."""
    digest = hashlib.sha256()
    for tensor in batches[0]:
        digest.update(f"{tuple(tensor.shape)} {tensor.tolist()}".encode())
    return {
        "model": f"{type(model).__name__} {getattr(model, 'config', '')}",
        "loss_function": getattr(loss, "__qualname__", type(loss).__name__),
        "optimizers": [type(optimizer).__name__ for optimizer in optimizers],
        "data": digest.hexdigest()[:16],  # of the first batch
    }


def save_state(path: Path, settings: Mapping, state: Mapping) -> None:
    """Write everything a run needs to go on: settings, weights, optimizer, random state.

    Raises OSError when it cannot be written; an older state then stays as it was.
    """
    state = {"settings": dict(settings), "torch_rng": torch.get_rng_state(), **state}
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of torch.save
        raise OSError(
            f"{path} could not be written ({error}): make room and run again; a state saved "
            f"before is whole"
        ) from error


def load_state(path: Path, settings: Mapping) -> dict:
    """Read what `save_state` wrote, tensors and plain containers only, and set the random state.

    Raises FileNotFoundError, or ValueError for a file that is damaged, holds anything else, or
    belongs to a run with other settings, which the message names.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}: train first, or check the path")
    try:
        with open(path, "rb") as file:  # a name ending in .safetensors would choose another reader
            state = torch.load(file, map_location="cpu", weights_only=True)
        known, rng = state["settings"], state["torch_rng"]
    # PyTorch's reader meets damaged bytes with many kinds of error, and refuses pickled code.
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or holds no training state, and was refused: remove it to start "
            f"afresh, or get it again from a source you trust"
        ) from error
    for name, value in settings.items():
        if known.get(name) != value:
            raise ValueError(
                f"{path} was saved with {name}={known.get(name)}, this run has {name}={value}: "
                f"use the same settings, or remove the file to start afresh"
            )
    torch.set_rng_state(rng)
    return state


def restore(
    path: Path | None, settings: Mapping, parts: Mapping, say: Callable[[str], None] = print
) -> list[dict[str, float]]:
    """Give a run's parts (model, optimizers, …) their saved states, if any; return its history.

    Says where the run goes on. Raises as `load_state`, and OSError where nothing can be written.
    """
    if not path:
        return []
    must_take_a_file(Path(path))
    if not Path(path).exists():
        return []
    state = load_state(path, settings)
    for name, part in parts.items():
        if state[name]:  # a scaler that was switched off has none
            part.load_state_dict(state[name])
    say(f"resumed at step {len(state['history'])} of {settings['steps']} from {path}")
    return state["history"]
