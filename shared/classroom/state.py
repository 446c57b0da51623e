"""The state of a training run on the disk: saved whole, refused where it does not belong."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from shared.classroom.errors import a_list, above, at_least, plain, require, steps_of, whole
from shared.classroom.files import must_take_a_file, write_atomically


def check_settings(
    settings: Mapping,
    model: nn.Module,
    batches: object,
    optimizers: Sequence[torch.optim.Optimizer],
    **counts: int | None,
) -> None:
    """Refuse what has no meaning in a training run; the first of it is named."""
    steps_of(batches)
    a_list(optimizers=optimizers)
    theirs = {id(p) for each in optimizers for group in each.param_groups for p in group["params"]}
    fine = not theirs or not theirs.isdisjoint(map(id, model.parameters()))
    require(fine, "the optimizers hold the parameters of another model: make them for this one")
    if counts["stop_after"] is None:
        del counts["stop_after"]
    whole(0, steps=settings["steps"], warmup=settings["warmup"], **counts)
    whole(1, accumulation=settings["accumulation"])
    if shares := settings["shares"]:
        count, accumulation = len(shares), settings["accumulation"]
        require(count == accumulation, f"{count} shares for {accumulation} batches: one for each")
        fine = min(shares) >= 0 and 0 < sum(shares) < math.inf
        require(fine, f"shares are {shares}; none may be below 0, and one must be above")
    above(0, clip=settings["clip"])  # math.inf never clips
    for name in ("max_lr", "min_lr", "weight_decay"):
        at_least(0, **{name: settings[name]})
        require(settings[name] < math.inf, f"{name} is {settings[name]}; it must be finite")


def identity(
    model: nn.Module, batches, loss: Callable, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, object]:
    """What a run is made of, besides its numbers: in a few words each, to notice another one.

    Data are known by the first batch, where that is always the same.
    """
    with torch.random.fork_rng(devices=[]):
        first, again = (
            hashlib.sha256("".join(f"{t.shape} {t.tolist()}" for t in batches[0]).encode())
            for _ in range(2)
        )
    config = getattr(model, "config", None)
    return {
        "model": [type(model).__name__, asdict(config) if is_dataclass(config) else None],
        "loss_function": described(loss),
        "optimizers": [
            [type(each).__name__, {k: v for k, v in each.defaults.items() if type(v) in PLAIN}]
            for each in optimizers
        ],
        "data": first.hexdigest()[:16] if first.digest() == again.digest() else "drawn at random",
    }


PLAIN = (int, float, bool, str, tuple, type(None))


def described(function: Callable) -> str:
    """The name of a function, with the arguments that a partial has fixed."""
    if isinstance(function, partial):
        return f"{described(function.func)} {function.args} {function.keywords}"
    return getattr(function, "__qualname__", type(function).__name__)


def save_state(path: Path, settings: Mapping, state: Mapping) -> None:
    """Write everything a run needs to go on: settings, weights, optimizer, random state.

    Raises OSError when it cannot be written; an older state then stays as it was.
    """
    state = {"settings": dict(settings), "torch_rng": torch.get_rng_state(), **state}
    # NumPy's numbers would be refused when the file is read.
    state["settings"] = {name: plain(value) for name, value in settings.items()}
    rows = state.get("history", ())
    state["history"] = [{name: plain(value) for name, value in row.items()} for row in rows]
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
    if not Path(path).is_file():
        must_take_a_file(Path(path))
        return []
    state = load_state(path, settings)
    if len(state["history"]) < settings["steps"]:
        must_take_a_file(Path(path))
    for name, part in parts.items():
        if state[name]:  # a scaler that was switched off has none
            part.load_state_dict(state[name])
    say(f"resumed at step {len(state['history'])} of {settings['steps']} from {path}")
    return state["history"]
