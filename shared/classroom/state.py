"""The state of a training run on the disk: saved whole, refused where it does not belong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from shared.classroom.files import write_atomically


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


def restore(path: Path | None, settings: Mapping, parts: Mapping) -> list[dict[str, float]]:
    """Give a run's parts (model, optimizers, …) their saved states, if any; return its history."""
    if not path or not Path(path).exists():
        return []
    state = load_state(path, settings)
    for name, part in parts.items():
        if state[name]:  # a scaler that was switched off has none
            part.load_state_dict(state[name])
    return state["history"]
