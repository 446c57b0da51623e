"""Files of tensors (safetensors), read so that a damaged or wrong one says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor


def tensor_names(path: Path) -> list[str]:
    """The names of the tensors in a safetensors file.

    Raises FileNotFoundError, or ValueError for a file that is damaged or of another kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}: fetch or train it first, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged, or no safetensors file ({error}): pickles (.pt, .bin) are never "
            f"opened here; save the model with save_checkpoint and load that"
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header of a safetensors file and its tensors; raises as `tensor_names`."""
    names = tensor_names(path)
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in names}


def must_match(
    tensors: Mapping[str, Tensor | None], expected: Mapping[str, Tensor], path: Path
) -> None:
    """Raise ValueError naming every tensor that is missing, unknown, or of another shape."""
    wrong = [
        f"{name} {'is missing' if tensors.get(name) is None else 'has another shape'}"
        for name, tensor in expected.items()
        if tensors.get(name) is None or tensors[name].shape != tensor.shape
    ] + [f"{name} is unknown" for name in tensors.keys() - expected.keys()]
    if wrong:
        raise ValueError(f"{path} does not fit its own configuration: {'; '.join(wrong)}")
