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

from shared.classroom.errors import a_list, above, at_least, no_share, require, steps_of, whole
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
    if (stop_after := counts.pop("stop_after")) is not None:
        whole(0, stop_after=stop_after)
    whole(0, steps=settings["steps"])
    no_share(warmup=settings["warmup"], **counts)
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


class Watched:
    """Batches, the first of which is noted in a run's settings when the run reads it."""

    def __init__(self, batches, settings: dict) -> None:
        self.batches, self.settings = batches, settings

    def __getitem__(self, step: int):
        batch = self.batches[step]
        if step == 0:
            self.settings["data"] = fingerprint(batch)
        return batch

    def must_be(self, known: str, path: Path) -> None:
        """Refuse data that begin otherwise than those of the saved run, if they can be compared."""
        try:
            with torch.random.fork_rng(devices=[]):
                first, again = fingerprint(self.batches[0]), fingerprint(self.batches[0])
        except (LookupError, StopIteration):  # what was read before is not there any more
            return
        if first == again != known:  # else they are drawn at random
            raise another_run(path, "data", known, first)


def another_run(path: Path, name: str, known: object, ours: object) -> ValueError:
    """The error for a state that belongs to a run made otherwise."""
    return ValueError(
        f"{path} was saved with {name}={known}, this run has {name}={ours}: use the same "
        f"settings, or remove the file to start afresh"
    )


def fingerprint(batch: Sequence) -> str:
    """A few letters that tell batches apart."""
    content = "".join(f"{tuple(part.shape)} {part.tolist()}" for part in batch)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def watched(
    settings: dict,
    model: nn.Module,
    batches,
    loss: Callable,
    optimizers: Sequence[torch.optim.Optimizer],
) -> Watched:
    """Note in the settings what a run is made of besides its numbers, to notice another one."""
    config = getattr(model, "config", None)
    settings["model"] = [type(model).__name__, asdict(config) if is_dataclass(config) else None]
    settings["loss_function"] = loss
    settings["optimizers"] = [[type(each).__name__, each.defaults] for each in optimizers]
    return Watched(batches, settings)


def tidy(value: object) -> object:
    """A value as plain numbers, texts and containers, which can be saved and compared."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (int, float, str, type(None))):
        return value
    if isinstance(value, Mapping):
        return {str(key): tidy(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(tidy(each) for each in value)
    if isinstance(value, partial):
        return tidy((value.func, value.args, value.keywords))
    return getattr(value, "__qualname__", type(value).__name__)


def save_state(path: Path, settings: Mapping, state: Mapping) -> None:
    """Write everything a run needs to go on: settings, weights, optimizer, random state.

    Raises OSError when it cannot be written; an older state then stays as it was.
    """
    state = {"settings": dict(settings), "torch_rng": torch.get_rng_state(), **state}
    # NumPy's numbers and functions would be refused when the file is read.
    rows = [tidy(row) for row in state.get("history", ())]
    state |= {"settings": tidy(settings), "history": rows}
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
    for name, value in tidy(settings).items():
        if name in known and tidy(known[name]) != value:
            raise another_run(path, name, known[name], value)
    torch.set_rng_state(rng)
    return state


def restore(
    path: Path | None,
    settings: dict,
    parts: Mapping,
    batches: object = None,
    say: Callable[[str], None] = print,
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
    if isinstance(batches, Watched) and (known := state["settings"].get("data")):
        batches.must_be(known, path)
        settings["data"] = known
    if len(state["history"]) < settings["steps"]:
        must_take_a_file(Path(path))
    for name, part in parts.items():
        if state[name]:  # a scaler that was switched off has none
            part.load_state_dict(state[name])
    say(f"resumed at step {len(state['history'])} of {settings['steps']} from {path}")
    return state["history"]
