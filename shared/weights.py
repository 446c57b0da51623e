"""Checkpoints: the course's own models, and GPT-2 as OpenAI released it.

Notable: a safetensors file is numbers and a header, so loading one never runs code, as a pickle
can; the configuration travels in the header, so a checkpoint knows what model it belongs to;
every file is written beside its place and then moved there, so none is ever half written. GPT-2
is read tensor by tensor into a model that took no memory before.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from shared.classroom.files import course_checkpoint, vocabulary, write_atomically
from shared.gpt import GPTConfig, GPTModel

Model = TypeVar("Model", bound=nn.Module)


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
    if model.config.tie_weights:  # then the head is token_embedding.weight; a classifier has none
        tensors.pop("head.weight", None)
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
    names = tensor_names(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in names}
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
    return fill(model, tensors, path)


def fill(model: Model, tensors: dict[str, torch.Tensor], path: Path) -> Model:
    """Put the tensors of a file into a model, and it into evaluation mode.

    Raises ValueError naming every tensor that is missing, unknown, or of another shape.
    """
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


# ---------------------------------------------------------------------------------------------
# GPT-2
# ---------------------------------------------------------------------------------------------

GPT2_NAMES = {  # ours: OpenAI's
    "token_embedding": "wte",
    "position_embedding": "wpe",
    "blocks": "h",
    "norm1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out_proj": "attn.c_proj",
    "norm2": "ln_2",
    "feed_forward.expand": "mlp.c_fc",
    "feed_forward.out_proj": "mlp.c_proj",
    "final_norm": "ln_f",
    "head": "wte",  # GPT-2's head is its token embedding
}


# built in: 04_pretraining/gpt2_weights.ipynb
def gpt2_name(ours: str) -> str:
    """What GPT-2's checkpoint calls a tensor: blocks.0.norm1.weight → h.0.ln_1.weight."""
    for mine, theirs in GPT2_NAMES.items():
        ours = ours.replace(f"{mine}.", f"{theirs}.")
    return ours


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


# built in: 04_pretraining/gpt2_weights.ipynb
def read_gpt2(path: Path, config: GPTConfig) -> GPTModel:
    """The model of a safetensors file in GPT-2's layout (Radford et al. 2019), ready to use.

    Never holds more than the model and one tensor. Raises ValueError that names every tensor which
    is missing, unknown, or of another shape than `config` says.
    """
    with torch.device("meta"):  # shapes without memory
        model = GPTModel(config)
    names = {name.removeprefix("transformer."): name for name in tensor_names(path)}
    state, wrong, known = {}, [], {"lm_head.weight"}  # another name of wte.weight
    for ours, expected in model.state_dict().items():
        name = gpt2_name(ours)
        known.add(name)
        if name not in names:
            wrong.append(f"{name} is missing")
        elif ours != "head.weight" or not config.tie_weights:
            with safe_open(path, framework="pt") as file:  # closed at once: gives the memory back
                tensor = file.get_tensor(names[name])
            # OpenAI's layers multiply x @ weight, (in, out); nn.Linear keeps (out, in).
            turned = ".c_" in name and expected.dim() == 2
            shape = (expected.T if turned else expected).shape
            if tensor.shape != shape:
                wrong.append(f"{name} has shape {tuple(tensor.shape)}, not {tuple(shape)}")
                continue
            tensor = tensor.T if turned else tensor
            state[ours] = tensor.float().clone(memory_format=torch.contiguous_format)
    masks = (".attn.bias", ".attn.masked_bias")  # the causal triangle: nothing was learned there
    wrong += [f"{n} is unknown" for n in names if n not in known and not n.endswith(masks)]
    if wrong:
        wrong = "; ".join(dict.fromkeys(wrong))  # wte.weight is asked for twice
        raise ValueError(f"{path} does not hold the GPT-2 that was asked for: {wrong}")
    if config.tie_weights:
        state["head.weight"] = state["token_embedding.weight"]
    model.load_state_dict(state, assign=True)
    if config.tie_weights:
        model.head.weight = model.token_embedding.weight  # one parameter again, not two views
    return model.eval()
