"""GPT as it is built today: rotary positions, gates, grouped queries, root-mean-square norms.

Notable: nothing here has a bias; positions turn queries and keys instead of being added to the
embeddings; several heads of queries share one head of keys and values, and the KV cache shrinks by
that factor. Generation and training are those of GPTModel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.attention import KVCache, causal_attention
from shared.classroom.errors import above, must_divide, one_of, require, whole
from shared.gpt import GPTConfig, check_ids

# built in 03_gpt_architecture/from_gpt2_to_llama.ipynb: RMSNorm, rotary_table, rotate, SwiGLU,
#   SquaredReLU, ModernAttention, ModernBlock, ModernGPT


@dataclass(frozen=True)
class ModernConfig(GPTConfig):
    """The numbers that define a ModernGPT; those of GPTConfig, and what published models choose."""

    drop_rate: float = 0.0
    n_kv_heads: int = 4  # heads of keys and values; n_heads of queries share them
    feed_forward: str = "swiglu"  # or "relu2"
    hidden_dim: int = 0  # width of the feed-forward; 0 means 8/3 × emb_dim with gates, 4 × without
    rotary_base: float = 10_000.0  # the slowest pair turns once in some 2π × this many tokens
    rotary_stretch: float = 1.0  # positions are divided by it: interpolation (arXiv 2306.15595)
    head_size: int = 0  # dimensions of a head; 0 means emb_dim / n_heads
    qk_norm: bool = True  # Llama 1 to 3 have none, Qwen3 has it
    attention_bias: bool = False
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        must_divide(n_heads=self.n_heads, n_kv_heads=self.n_kv_heads)
        one_of(("swiglu", "relu2"), feed_forward=self.feed_forward)
        whole(0, head_size=self.head_size)
        above(0, norm_eps=self.norm_eps, rotary_base=self.rotary_base)
        above(0, rotary_stretch=self.rotary_stretch)
        size = self.head_dim
        require(size % 2 == 0, f"a head has {size} dimensions; rotary positions turn pairs of them")

    @classmethod
    def preset(cls, name: str, **changes: object) -> ModernConfig:
        """The sizes of `GPTConfig.preset`, with four heads of keys and values where they divide."""
        shared = math.gcd(4, GPTConfig.preset(name).n_heads)
        return super().preset(name, **{"n_kv_heads": shared} | changes)

    @property
    def head_dim(self) -> int:
        """Dimensions of one head's queries, keys and values."""
        return self.head_size or self.emb_dim // self.n_heads

    def build(self) -> ModernGPT:
        """The model of this configuration, with random weights."""
        return ModernGPT(self)


class RMSNorm(nn.Module):
    """Divide by the root of the mean square; no mean taken away, no bias.

    Source: Zhang & Sennrich 2019, arXiv 1910.07467.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps, self.gain = eps, nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim) → the same shape."""
        wide = x.float()  # squares would leave the range of fp16
        scale = (wide.pow(2).mean(dim=-1, keepdim=True) + self.eps).rsqrt()
        return (wide * scale).type_as(x) * self.gain


def rotary_table(positions: Tensor, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles by which positions turn pairs, each (tokens, head_dim / 2).

    Pair i turns by position × base^(−2i / head_dim). Source: RoFormer, Su et al. 2021,
    arXiv 2104.09864.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    angles = positions.float()[:, None] * base ** (-pairs / head_dim)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + head_dim / 2) of x, (…, tokens, head_dim), by their angles."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).type_as(x)


class SwiGLU(nn.Module):
    """A feed-forward in which one half opens gates for the other (Shazeer 2020, arXiv 2002.05202).

    Three matrices instead of two, so hidden_dim is 8/3 of emb_dim to cost the same.
    """

    def __init__(self, emb_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(emb_dim, hidden_dim, bias=False)
        self.expand = nn.Linear(emb_dim, hidden_dim, bias=False)
        self.out_proj = nn.Linear(hidden_dim, emb_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, emb_dim) → the same shape."""
        return self.out_proj(F.silu(self.gate(x)) * self.expand(x))


class SquaredReLU(nn.Module):
    """A feed-forward that squares what is positive, without gates or bias.

    Source: Primer, So et al. 2021, arXiv 2109.08668.
    """

    def __init__(self, emb_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(emb_dim, hidden_dim, bias=False)
        self.out_proj = nn.Linear(hidden_dim, emb_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, emb_dim) → the same shape."""
        return self.out_proj(F.relu(self.expand(x)).square())


class ModernAttention(nn.Module):
    """Causal attention with rotary positions, normalised queries and keys, and shared keys.

    Sources: QK-norm, Henry et al. 2020, arXiv 2010.04245; grouped queries, Ainslie et al. 2023,
    arXiv 2305.13245.
    """

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.config, self.head_dim, bias = config, config.head_dim, config.attention_bias
        full_dim, shared_dim = (n * self.head_dim for n in (config.n_heads, config.n_kv_heads))
        self.queries = nn.Linear(config.emb_dim, full_dim, bias=bias)
        self.keys = nn.Linear(config.emb_dim, shared_dim, bias=bias)
        self.values = nn.Linear(config.emb_dim, shared_dim, bias=bias)
        self.query_norm = self.key_norm = nn.Identity()
        if config.qk_norm:
            self.query_norm = RMSNorm(self.head_dim, config.norm_eps)
            self.key_norm = RMSNorm(self.head_dim, config.norm_eps)
        self.out_proj = nn.Linear(full_dim, config.emb_dim, bias=bias)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        """(batch, tokens, emb_dim) → the same shape; with a cache as in MultiHeadAttention."""
        batch, tokens, _ = x.shape
        start = 0 if cache is None else cache.length
        # each (batch, heads, tokens, head_dim), with fewer heads of keys and values
        queries, keys, values = (
            part(x).view(batch, tokens, -1, self.head_dim).transpose(1, 2)
            for part in (self.queries, self.keys, self.values)
        )
        positions = torch.arange(start, start + tokens, dtype=torch.float32, device=x.device)
        positions = positions / self.config.rotary_stretch
        cos, sin = rotary_table(positions, self.head_dim, self.config.rotary_base)
        queries = rotate(self.query_norm(queries), cos, sin)
        keys = rotate(self.key_norm(keys), cos, sin)
        if cache is not None:
            keys, values = cache.extend(layer, keys, values)
        return self.out_proj(causal_attention(queries, keys, values))


class ModernBlock(nn.Module):
    """The block of chapter 3 with new parts in the old places."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        dim = config.emb_dim
        self.norm1, self.norm2 = RMSNorm(dim, config.norm_eps), RMSNorm(dim, config.norm_eps)
        self.attention = ModernAttention(config)
        if config.feed_forward == "relu2":
            self.feed_forward = SquaredReLU(dim, config.hidden_dim or 4 * dim)
        else:
            self.feed_forward = SwiGLU(dim, config.hidden_dim or 8 * dim // 3)
        self.dropout = nn.Dropout(config.drop_rate)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        """(batch, tokens, emb_dim) → the same shape."""
        x = x + self.dropout(self.attention(self.norm1(x), cache, layer))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class ModernGPT(nn.Module):
    """Token ids in, logits out, as GPTModel; used with the same generate, train and cache."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.emb_dim)
        self.blocks = nn.ModuleList(ModernBlock(config) for _ in range(config.n_layers))
        self.final_norm = RMSNorm(config.emb_dim, config.norm_eps)
        self.head = nn.Linear(config.emb_dim, config.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:  # residual projections smaller, as in GPT-2
                depth = (2 * config.n_layers) ** -0.5 if "out_proj" in name else 1.0
                nn.init.normal_(parameter, std=config.init_std * depth)
        if config.tie_weights:
            self.head.weight = self.token_embedding.weight

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """(batch, tokens) int64 → logits (batch, tokens, vocab_size); raises as GPTModel."""
        check_ids(ids, cache, self.config)
        x = self.token_embedding(ids)
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer)
        if cache is not None:
            cache.length += ids.shape[1]
        return self.head(self.final_norm(x))
