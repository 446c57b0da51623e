"""Checkpoints: the course's own models, GPT-2 as OpenAI released it, Llama and its relatives.

Notable: a safetensors file is numbers and a header, so loading one never runs code, as a pickle
can; the configuration stands in the header, so a checkpoint knows what model it belongs to. What
others published is read tensor by tensor into a model that took no memory before.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from shared.classification import Classifier
from shared.classroom.errors import require
from shared.classroom.files import course_checkpoint, vocabulary, write_atomically
from shared.classroom.llama_files import GGUFModel, HubFolder
from shared.classroom.tensors import must_be_finite, must_match, read_tensors, tensor_files
from shared.gpt import GPTConfig, GPTModel
from shared.modern import ModernConfig, ModernGPT

# built in 04_pretraining/gpt2_weights.ipynb: gpt2_name, read_gpt2

KINDS = {kind.__name__: kind for kind in (GPTConfig, ModernConfig)}


def save_checkpoint(path: Path, model: nn.Module, **notes: object) -> None:
    """Write a model's weights, its configuration and JSON-ready `notes` to a safetensors file.

    A compiled or wrapped model is saved as the model inside. Raises ValueError for a model that
    could not be loaded again, such as one with LoRA's detours or with weights that are no numbers,
    TypeError for notes unknown to JSON.
    """
    while inner := getattr(model, "_orig_mod", getattr(model, "module", None)):
        model = inner
    require("classifier" not in notes or hasattr(model, "label_head"), "classifier is no free note")
    if hasattr(model, "label_head"):
        labels = model.label_head.out_features
        notes["classifier"] = {"labels": labels, "pooling": model.pooling}
    state = {name.replace("_orig_mod.", ""): t for name, t in model.state_dict().items()}
    if odd := sorted(state.keys() ^ shapes(model.config, notes).keys()):
        raise ValueError(
            f"{odd[0]} is no part of what {type(model.config).__name__} describes, and the file "
            f"could not be loaded: after add_lora call merge_lora, or save the adapter_state"
        )
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.items()}
    must_be_finite(tensors, path)
    if model.config.tie_weights:  # then the head is token_embedding.weight; a classifier has none
        head = tensors.pop("head.weight", tensors.get("token_embedding.weight"))
        same = head is None or torch.equal(head, tensors["token_embedding.weight"])
        require(same, "the head is no longer the embedding, as tie_weights says: it would be lost")
    header = {"kind": type(model.config).__name__, "config": json.dumps(asdict(model.config))}
    header["notes"] = json.dumps(notes)
    write_atomically(path, lambda file: file.write(save(tensors, header)))


def read_checkpoint(path: Path) -> tuple[GPTConfig, dict, dict[str, torch.Tensor]]:
    """Configuration, notes and tensors of a checkpoint file.

    Raises FileNotFoundError, or ValueError for a file that is damaged or no course checkpoint.
    """
    header, tensors = read_tensors(path)
    try:
        config = KINDS[header.get("kind", "GPTConfig")](**json.loads(header["config"]))
        notes = dict(json.loads(header.get("notes", "{}")))
        fits = config.n_layers <= len(tensors)
        require(fits, f"{config.n_layers} layers cannot be made of {len(tensors)} tensors")
    except KeyError as error:
        raise ValueError(f"{path} is not a checkpoint of this course: no {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a header that cannot be used: {error}") from error
    return config, notes, tensors


def load_checkpoint(path: Path, config: GPTConfig | None = None) -> nn.Module:
    """The GPTModel, ModernGPT or Classifier of a checkpoint, in evaluation mode.

    With `config`, the file must hold that configuration. Raises ValueError naming every field
    or tensor that differs.
    """
    saved, notes, tensors = read_checkpoint(path)
    if config is not None and config != saved:
        ours, theirs = asdict(config), asdict(saved)
        differ = [k for k in ours | theirs if ours.get(k) != theirs.get(k)]
        fields = [f"{k} is {theirs.get(k)}, not {ours.get(k)}" for k in differ]
        kinds = f"{type(saved).__name__} for {type(config).__name__}"
        raise ValueError(f"{path} holds another model: {'; '.join(fields) or kinds}")
    try:
        expected = shapes(saved, notes)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{path} has a header that cannot be used: {error}") from error
    if saved.tie_weights and "head.weight" in expected:
        tensors |= {"head.weight": tensors.get("token_embedding.weight")}
    must_match(tensors, expected, path)
    model = build(saved, notes)
    model.load_state_dict(tensors)
    return model.eval()


def build(config: GPTConfig, notes: dict) -> nn.Module:
    """The model that a checkpoint holds, with random weights."""
    head = notes.get("classifier")
    return Classifier(config.build(), **head) if head else config.build()


def shapes(config: GPTConfig, notes: dict) -> dict[str, torch.Tensor]:
    """Its tensors on the meta device, where they take no memory, whatever a file asks for."""
    with torch.device("meta"):
        return build(config, notes).state_dict()


def load_course_model(name: str = "course") -> GPTModel:
    """A model of the course (see `course_checkpoint` for which), in evaluation mode.

    Raises ValueError for one that was trained with another vocabulary: it would talk nonsense.
    """
    path = course_checkpoint(name)
    if read_checkpoint(path)[1].get("vocabulary") != vocabulary():
        raise ValueError(
            f"{path} was trained with another vocabulary than today's data/course.tiktoken: "
            f"remove it, train again, or set COURSE_CHECKPOINT=bundled"
        )
    return load_checkpoint(path)


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


def gpt2_name(ours: str) -> str:
    """What GPT-2's checkpoint calls a tensor: blocks.0.norm1.weight → h.0.ln_1.weight."""
    for mine, theirs in GPT2_NAMES.items():
        ours = ours.replace(f"{mine}.", f"{theirs}.")
    return ours


def read_gpt2(path: Path, config: GPTConfig) -> GPTModel:
    """The model of safetensors in GPT-2's layout (Radford et al. 2019), ready to use.

    `path` is a file, an index of several, or a folder with either. Never holds more than the model
    and one tensor. Raises ValueError that names every tensor which is missing, unknown, or of
    another shape than `config` says, such as a head of its own where `config` has tied weights.
    """
    with torch.device("meta"):  # shapes without memory
        model = GPTModel(config)
    files, state, wrong, known = tensor_files(path), {}, [], set()
    for ours, expected in model.state_dict().items():
        name = gpt2_name(ours)
        if ours == "head.weight" and "lm_head.weight" in files:
            name = "lm_head.weight"  # a head of its own, or wte once more
        elif ours == "head.weight" and config.tie_weights:
            continue
        known.add(name)
        if name not in files:
            wrong.append(f"{name} is missing")
            continue
        where, stored = files[name]
        # OpenAI's layers multiply x @ weight, (in, out); nn.Linear keeps (out, in).
        turned = ".c_" in name and expected.dim() == 2
        shape = list((expected.T if turned else expected).shape)
        with safe_open(where, framework="pt") as file:  # closed at once: gives the memory back
            found = file.get_slice(stored).get_shape()
            if found != shape:
                wrong.append(f"{name} has shape {tuple(found)}, not {tuple(shape)}")
                continue
            tensor = file.get_tensor(stored)
        if not tensor.is_floating_point():
            wrong.append(f"{name} holds {tensor.dtype}, no fractions")
        tensor = tensor.T if turned else tensor
        state[ours] = tensor.float().clone(memory_format=torch.contiguous_format)
    masks = (".attn.bias", ".attn.masked_bias")  # the causal triangle: nothing was learned there
    wrong += [f"{n} is unknown" for n in files if n not in known and not n.endswith(masks)]
    if wrong:
        wrong = "; ".join(dict.fromkeys(wrong))  # wte.weight may be asked for twice
        raise ValueError(f"{path} does not hold the GPT-2 that was asked for: {wrong}")
    must_be_finite(state, path)
    if config.tie_weights:
        head = state.setdefault("head.weight", state["token_embedding.weight"])
        same = torch.equal(head, state["token_embedding.weight"])
        require(same, f"{path} has a head of its own: read it with tie_weights=False")
    model.load_state_dict(state, assign=True)
    if config.tie_weights:
        model.head.weight = model.token_embedding.weight  # one parameter again, not two views
    return model.eval()


LLAMA_NAMES = {  # ours: those of Llama and Qwen3 at the hub, and those of GGUF
    "token_embedding.weight": ("embed_tokens.weight", "token_embd.weight"),
    "norm1.gain": ("input_layernorm.weight", "attn_norm.weight"),
    "norm2.gain": ("post_attention_layernorm.weight", "ffn_norm.weight"),
    "attention.queries": ("self_attn.q_proj", "attn_q"),
    "attention.keys": ("self_attn.k_proj", "attn_k"),
    "attention.values": ("self_attn.v_proj", "attn_v"),
    "attention.out_proj": ("self_attn.o_proj", "attn_output"),
    "attention.query_norm.gain": ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    "attention.key_norm.gain": ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    "feed_forward.gate": ("mlp.gate_proj", "ffn_gate"),
    "feed_forward.expand": ("mlp.up_proj", "ffn_up"),
    "feed_forward.out_proj": ("mlp.down_proj", "ffn_down"),
    "final_norm.gain": ("norm.weight", "output_norm.weight"),
    "head": ("lm_head", "output"),
}


def llama_name(ours: str, gguf: bool = False) -> str:
    """What Llama's files call a tensor: blocks.0.norm1.gain → layers.0.input_layernorm.weight."""
    place, inside = "", ours
    if ours.startswith("blocks."):
        _, number, inside = ours.split(".", 2)
        place = f"{'blk' if gguf else 'layers'}.{number}."
    if inside in LLAMA_NAMES:
        return place + LLAMA_NAMES[inside][gguf]
    part, _, kind = inside.rpartition(".")  # the weight or the bias of a layer
    return f"{place}{LLAMA_NAMES[part][gguf]}.{kind}"


def read_llama(path: Path) -> ModernGPT:
    """The model of Llama's or Qwen3's architecture in a folder or a file, ready to use.

    `path` is a folder with config.json and safetensors (one file, or several with an index), or a
    .gguf file. Never holds more than the model and one tensor. Raises FileNotFoundError, and
    ValueError for what ModernGPT does not compute, or naming every tensor that is missing, unknown
    or of another shape.
    """
    path = Path(path)
    source = GGUFModel(path) if path.suffix == ".gguf" else HubFolder(path)
    try:
        config = ModernConfig(**source.config)
    except TypeError as error:  # a list where a number is due
        raise ValueError(f"{path} describes a model that cannot be made: {error}") from error
    with torch.device("meta"):  # shapes without memory
        model = ModernGPT(config)
    expected, found = model.state_dict(), source.shapes()
    embedding, head = (
        llama_name(n, source.gguf) for n in ("token_embedding.weight", "head.weight")
    )
    if config.tie_weights:
        expected.pop("head.weight")
        if head in found:  # stored once more
            same = torch.equal(source.read(head), source.read(embedding))
            require(same, f"{path} has a head of its own, but says that its weights are tied")
            del found[head]
    names = {llama_name(ours, source.gguf): ours for ours in expected}
    wrong = [f"{name} is missing" for name in names if name not in found]
    wrong += [f"{name} is unknown" for name in found if name not in names]
    wrong += [
        f"{name} has shape {found[name]}, not {tuple(expected[ours].shape)}"
        for name, ours in names.items()
        if found.get(name, expected[ours].shape) != expected[ours].shape
    ]
    require(not wrong, f"{path} does not hold the model that it describes: {'; '.join(wrong)}")
    state = {ours: source.read(name) for name, ours in names.items()}
    must_be_finite(state, path)
    if config.tie_weights:
        state["head.weight"] = state["token_embedding.weight"]
    model.load_state_dict(state, assign=True)
    if config.tie_weights:
        model.head.weight = model.token_embedding.weight  # one parameter again, not two views
    return model.eval()
