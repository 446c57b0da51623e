"""Llama and its relatives as others publish them: a folder of the hub, or one file of llama.cpp.

Notable: both answer the same questions, so that `shared.weights.read_llama` reads either in one
way: `config`, the shapes of all tensors, one tensor at a time, and `gguf`: whose names they have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from shared.classroom.errors import require
from shared.classroom.gguf import GGUF
from shared.classroom.tensors import tensor_files


class HubFolder:
    """A folder as the hub has it: config.json, and safetensors with Llama's or Qwen3's names.

    `config` holds the keyword arguments of ModernConfig. Raises ValueError for what ModernGPT does
    not compute.
    """

    gguf = False

    def __init__(self, path: Path) -> None:
        self.files = tensor_files(path)
        try:
            fields = json.loads((path / "config.json").read_text(encoding="utf-8"))
            self.config = self._config(fields, path)
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} has no config.json that can be used: {error!r}") from error

    def _config(self, fields: Mapping[str, Any], path: Path) -> dict[str, Any]:
        kind, rope = fields["model_type"], fields.get("rope_parameters") or {}
        scaling = fields.get("rope_scaling") or rope
        scaled = scaling.get("rope_type") or scaling.get("type", "default")  # "type" in older files
        for fine, what in (
            (kind in ("llama", "qwen3"), f"is a {kind}; read here are llama and qwen3"),
            (fields.get("hidden_act", "silu") == "silu", f"bends with {fields.get('hidden_act')}"),
            (not fields.get("mlp_bias"), "has biases in its feed-forward"),
            (not fields.get("use_sliding_window"), "has a sliding window"),
            (scaled in ("default", "linear"), f"stretches its positions by {scaled!r}"),
        ):
            require(fine, f"{path} {what}, which ModernGPT does not")
        heads = fields["num_attention_heads"]
        return dict(
            vocab_size=fields["vocab_size"],
            context_length=fields["max_position_embeddings"],
            emb_dim=fields["hidden_size"],
            n_heads=heads,
            n_layers=fields["num_hidden_layers"],
            n_kv_heads=fields.get("num_key_value_heads") or heads,
            hidden_dim=fields["intermediate_size"],
            head_size=fields.get("head_dim") or 0,
            rotary_base=rope.get("rope_theta") or fields.get("rope_theta") or 10_000.0,
            rotary_stretch=scaling["factor"] if scaled == "linear" else 1.0,
            norm_eps=fields["rms_norm_eps"],
            qk_norm=kind == "qwen3",
            attention_bias=bool(fields.get("attention_bias")),
            tie_weights=bool(fields.get("tie_word_embeddings")),
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that was learned."""
        found = {}
        for name, (file, stored) in self.files.items():
            if not name.endswith("rotary_emb.inv_freq"):  # a table, in older files
                with safe_open(file, framework="pt") as opened:
                    found[name] = tuple(opened.get_slice(stored).get_shape())
        return found

    def read(self, name: str) -> torch.Tensor:
        """One tensor, in 32 bits."""
        file, stored = self.files[name]
        with safe_open(file, framework="pt") as opened:  # closed at once: gives the memory back
            return opened.get_tensor(stored).to(torch.float32, copy=True)


class GGUFModel:
    """The same, in one file of llama.cpp."""

    gguf = True

    def __init__(self, path: Path) -> None:
        self.file, self.path = GGUF(path), path
        try:
            self.config = self._config()
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} has no header that can be used: {error!r}") from error

    def _config(self) -> dict[str, Any]:
        fields, places = self.file.fields, self.file.places
        kind = fields["general.architecture"]
        known = kind in ("llama", "qwen3")
        require(known, f"{self.path} is a {kind}; read here are llama and qwen3")
        own = {k.removeprefix(f"{kind}."): v for k, v in fields.items() if k.startswith(kind)}
        scaled = own.get("rope.scaling.type", "none")
        known = scaled in ("none", "linear")
        require(known, f"{self.path} stretches its positions by {scaled!r}; read here is 'linear'")
        return dict(
            vocab_size=places["token_embd.weight"].shape[0],
            context_length=own["context_length"],
            emb_dim=own["embedding_length"],
            n_heads=own["attention.head_count"],
            n_layers=own["block_count"],
            n_kv_heads=own.get("attention.head_count_kv", own["attention.head_count"]),
            hidden_dim=own["feed_forward_length"],
            head_size=own.get("attention.key_length", 0),
            rotary_base=own.get("rope.freq_base", 10_000.0),
            rotary_stretch=own["rope.scaling.factor"] if scaled == "linear" else 1.0,
            norm_eps=own["attention.layer_norm_rms_epsilon"],
            qk_norm="blk.0.attn_q_norm.weight" in places,
            attention_bias="blk.0.attn_q.bias" in places,
            tie_weights="output.weight" not in places,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: place.shape for name, place in self.file.places.items()}

    def read(self, name: str) -> torch.Tensor:
        """One tensor, in 32 bits, queries and keys in the order of `rotate`.

        Llama's files store the two numbers that turn together side by side, ours (and Qwen3's) half
        a head apart.
        """
        tensor = torch.from_numpy(self.file.read(name))
        turned = ".attn_q." in name or ".attn_k." in name
        if turned and self.file.fields["general.architecture"] == "llama":
            heads = self.config["n_heads" if ".attn_q." in name else "n_kv_heads"]
            pairs = tensor.unflatten(0, (heads, -1, 2))
            tensor = pairs.transpose(1, 2).flatten(0, 2).contiguous()
        return tensor
