"""Checkpoints of the course's models: safetensors with the configuration inside.

Notable: a safetensors file is numbers and a header, so loading one never runs code, as a pickle
can; the configuration travels in the header, so a checkpoint knows what model it belongs to;
every file is written beside its place and then moved there, so none is ever half written.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from shared.datasets import BUILD, DATA
from shared.files import write_atomically
from shared.gpt import GPTConfig, GPTModel

BUNDLED = DATA / "checkpoints" / "course.safetensors"
OWN = BUILD / "checkpoints" / "course.safetensors"


def load_torch(path: Path) -> object:
    """`torch.load` restricted to tensors and plain containers; a pickle of code is refused."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}: train first, or check the path")
    try:
        with open(path, "rb") as file:  # a name ending in .safetensors would choose another reader
            return torch.load(file, map_location="cpu", weights_only=True)
    # Besides its own errors, PyTorch's unpickler meets damaged bytes with Index- and KeyErrors.
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged, or holds more than tensors and was refused: "
            f"get the file again from a source you trust"
        ) from error


def save_checkpoint(path: Path, model: GPTModel, **notes: object) -> None:
    """Write a model's weights, its configuration and JSON-ready `notes` to a safetensors file."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    if model.config.tie_weights:
        del tensors["head.weight"]  # the same matrix as token_embedding.weight
    header = {"config": json.dumps(asdict(model.config)), "notes": json.dumps(notes)}
    write_atomically(path, lambda file: file.write(save(tensors, header)))


def read_checkpoint(path: Path) -> tuple[GPTConfig, dict, dict[str, torch.Tensor]]:
    """Configuration, notes and tensors of a checkpoint file.

    Raises FileNotFoundError, or ValueError for a file that is damaged or no course checkpoint.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no checkpoint {path}: run 04_pretraining/pretraining.ipynb first (for the chat "
            f"model: 06_finetune_instructions/instructions.ipynb)"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged, or no safetensors file ({error}): pickles (.pt, .bin) are never "
            f"opened here; save the model with save_checkpoint and load that"
        ) from error
    if "config" not in header:
        raise ValueError(f"{path} has no configuration in its header: not a course checkpoint")
    try:
        config = GPTConfig(**json.loads(header["config"]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a configuration that cannot be used: {error}") from error
    return config, json.loads(header.get("notes", "{}")), tensors


def load_checkpoint(path: Path, config: GPTConfig | None = None) -> GPTModel:
    """The model of a checkpoint, in evaluation mode.

    With `config`, the file must hold that configuration. Raises ValueError naming every field
    or tensor that differs.
    """
    saved, _, tensors = read_checkpoint(path)
    if config is not None and config != saved:
        ours, theirs = asdict(config), asdict(saved)
        fields = [f"{k} is {theirs[k]}, not {ours[k]}" for k in ours if ours[k] != theirs[k]]
        raise ValueError(f"{path} holds another model: {'; '.join(fields)}")
    model = GPTModel(saved)
    if saved.tie_weights:
        tensors = {**tensors, "head.weight": tensors.get("token_embedding.weight")}
    expected = model.state_dict()
    wrong = [
        f"{name} {'is missing' if tensors.get(name) is None else 'has another shape'}"
        for name, tensor in expected.items()
        if tensors.get(name) is None or tensors[name].shape != tensor.shape
    ] + [f"{name} is unknown" for name in tensors.keys() - expected.keys()]
    if wrong:
        raise ValueError(f"{path} does not fit its own configuration: {'; '.join(wrong)}")
    model.load_state_dict(tensors)
    return model.eval()


def course_checkpoint(name: str = "course") -> Path:
    """The student's own checkpoint of that name where there is one, else the bundled one.

    "course" is the pretrained model (chapter 4), "chat" the one that answers (chapter 6).
    COURSE_CHECKPOINT=bundled always means the bundled one.
    """
    own = OWN.with_stem(name)
    use_own = os.environ.get("COURSE_CHECKPOINT") != "bundled" and own.is_file()
    return own if use_own else BUNDLED.with_stem(name)


def vocabulary() -> str:
    """A fingerprint of the course's vocabulary, to note in a checkpoint that is made for it."""
    return hashlib.sha256((DATA / "course.tiktoken").read_bytes()).hexdigest()[:16]


def load_course_model(name: str = "course") -> GPTModel:
    """A model of the course (see `course_checkpoint` for which), in evaluation mode.

    Raises ValueError for one that was trained with another vocabulary: it would talk nonsense.
    """
    path = course_checkpoint(name)
    _, notes, _ = read_checkpoint(path)
    if notes.get("vocabulary") != vocabulary():
        raise ValueError(
            f"{path} was trained with another vocabulary than today's data/course.tiktoken: "
            f"remove it, train again, or set COURSE_CHECKPOINT=bundled"
        )
    return load_checkpoint(path)
