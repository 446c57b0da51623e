"""Files of tensors (safetensors), read so that a damaged or wrong one says what is wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

INDEX = "model.safetensors.index.json"  # says which of several files holds a tensor
# What torch.compile, DataParallel and the hub's wrappers put before every name.
WRAPPERS = re.compile(r"^(?:_orig_mod\.|module\.|transformer\.|model\.)+")


def tensor_files(path: Path) -> dict[str, tuple[Path, str]]:
    """Where each tensor of a model lies: its name without wrappers → (file, name in the file).

    `path` is a safetensors file, an index of several, or a folder with either. Raises as
    `tensor_names`, and ValueError for an index that is damaged or lies.
    """
    path = Path(path)
    if path.is_dir():
        inside = [path / INDEX, path / "model.safetensors"]
        if not any(file.is_file() for file in inside):
            raise FileNotFoundError(
                f"{path}: no {INDEX} or model.safetensors in it: check the path"
            )
        path = next(file for file in inside if file.is_file())
    if path.suffix != ".json":
        return {WRAPPERS.sub("", name): (path, name) for name in tensor_names(path)}
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: fetch it first, or check the path")
    try:
        places = json.loads(path.read_text(encoding="utf-8-sig"))["weight_map"]
        files = sorted(set(places.values()))
        if any(Path(file).name != file for file in files):
            raise ValueError("it names files in other folders")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, or no index of safetensors ({error})") from error
    found = {name: file for file in files for name in tensor_names(path.parent / file)}
    if wrong := sorted(found.keys() ^ places.keys()):
        raise ValueError(f"{path} and its files differ about {wrong[0]}: get them again")
    return {WRAPPERS.sub("", name): (path.parent / file, name) for name, file in found.items()}


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
    must_be_finite(tensors, path)


def must_be_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise ValueError naming a tensor that holds nan, infinity, or no fractions at all."""
    for name, tensor in tensors.items():
        kind = "numbers that are not finite" if tensor.is_floating_point() else tensor.dtype
        # Unlike `isfinite`, the extremes take no memory; nan is both.
        extremes = tensor.aminmax() if tensor.numel() else ()
        if not (tensor.is_floating_point() and all(map(math.isfinite, extremes))):
            raise ValueError(
                f"{path}: {name} holds {kind}, and no model can compute with them: take an "
                f"earlier checkpoint, or train again"
            )
