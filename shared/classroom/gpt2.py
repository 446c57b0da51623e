"""GPT-2 with OpenAI's weights, or a small random network of its layout in their place.

Notable: COURSE_WEIGHTS=stand-in chooses the random network. It knows no English; tests use it to
run every line of the GPT-2 notebooks.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from shared.classroom.fetch import cache_dir, fetch_gpt2
from shared.classroom.files import BUILD, write_atomically
from shared.gpt import GPTConfig, GPTModel
from shared.weights import gpt2_name, read_gpt2

STAND_IN_LAYERS = {"124M": 2, "355M": 3, "774M": 4, "1558M": 5}


def is_stand_in() -> bool:
    """Is GPT-2 to be replaced by a small random network of its layout (COURSE_WEIGHTS=stand-in)?

    Without the variable, or with COURSE_WEIGHTS=real, it is not. Raises ValueError for others.
    """
    value = os.environ.get("COURSE_WEIGHTS") or "real"
    if value not in ("real", "stand-in"):
        raise ValueError(f"COURSE_WEIGHTS is {value!r}; it must be 'real' or 'stand-in'")
    return value == "stand-in"


def missing(what: str) -> str:
    """A line in the place of what only OpenAI's weights could say, and how to get them."""
    return (
        f"No {what}: this is a stand-in. For OpenAI's weights go online\n"
        "and unset COURSE_WEIGHTS. A model that speaks without them:\n"
        "03_gpt_architecture/real_llm.ipynb."
    )


def gpt2_config(size: str = "124M", **changes: object) -> GPTConfig:
    """The configuration of GPT-2 in that size, or of its stand-in: fewer layers and dimensions."""
    if size not in STAND_IN_LAYERS:
        raise ValueError(f"there is no GPT-2 {size!r}: choose one of {', '.join(STAND_IN_LAYERS)}")
    config = GPTConfig.preset(size, **changes)
    if not is_stand_in():
        return config
    layers = STAND_IN_LAYERS[size]
    return replace(config, n_layers=layers, n_heads=layers, emb_dim=64 * layers)


def gpt2_path(size: str = "124M") -> Path:
    """The file with GPT-2's weights: fetched from the Hugging Face hub once, or the stand-in's.

    Raises FetchError where it cannot be had.
    """
    config = gpt2_config(size)
    return _write_stand_in(size, config) if is_stand_in() else fetch_gpt2(size)


def load_gpt2(size: str = "124M", **changes: object) -> GPTModel:
    """GPT-2 with OpenAI's weights, "124M" to "1558M", in evaluation mode; or its stand-in.

    `changes` go to the configuration, such as drop_rate=0.0. Raises FetchError without weights.
    """
    return read_gpt2(gpt2_path(size), gpt2_config(size, **changes))


def in_openais_layout(model: GPTModel) -> dict[str, Tensor]:
    """The tensors of a model under OpenAI's names, the matrices of its layers as (in, out)."""
    tensors = {gpt2_name(name): tensor for name, tensor in model.state_dict().items()}
    return {
        name: tensor.T.contiguous() if ".c_" in name and tensor.dim() == 2 else tensor
        for name, tensor in tensors.items()
    }


def _write_stand_in(size: str, config: GPTConfig) -> Path:
    """Random weights, always the same, in a file laid out as OpenAI's; made anew every time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(123)  # not the GPU's, which fork_rng leaves out
        tensors = in_openais_layout(GPTModel(config))
        for tensor in tensors.values():
            if tensor.dim() == 1:  # biases of 0 and gains of 1 would hide that some are mixed up
                tensor += 0.1 * torch.randn_like(tensor)
    name = f"gpt2-{size}.safetensors"
    for path in (BUILD / "stand-in" / name, cache_dir() / "stand-in" / name):
        with suppress(OSError):  # a course that is read-only
            write_atomically(path, lambda file: file.write(save(tensors)))
            break
    return path
