"""The device to compute on, and the mode of a model while it is only used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def pick_device(name: str | None = None) -> torch.device:
    """The device to compute on: `name`, else COURSE_DEVICE, else a CUDA GPU, else the CPU.

    Apple's MPS is used only when asked for, and only after it has multiplied two matrices like
    the CPU does; some versions silently computed something else. Raises RuntimeError otherwise.
    """
    name = name or os.environ.get("COURSE_DEVICE")
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        a = torch.linspace(-1, 1, 64 * 64).view(64, 64)
        same = torch.allclose((a.to(device) @ a.T.to(device)).cpu(), a @ a.T, atol=1e-2)
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(f"device {name!r} cannot be used ({error}): choose 'cpu'") from error
    if not same:
        raise RuntimeError(f"device {name!r} multiplies matrices wrongly: choose 'cpu'")
    return device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, without dropout, for the length of a block; then as before, in any case."""
    was_training = model.training
    try:
        yield model.eval()
    finally:
        model.train(was_training)
