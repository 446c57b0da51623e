"""GPT-2, complete (Radford et al. 2019): embeddings, pre-norm blocks, one tied output head.

Notable: positions are learned; a layer norm stands before each sub-layer and once at the end; the
output head shares its matrix with the token embedding (Press & Wolf 2017, arXiv 1608.05859); the
projections that end in a shortcut start smaller the deeper the network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from shared.attention import KVCache, MultiHeadAttention
from shared.classroom.errors import above, check_id, must_divide, must_fit, one_of, require, whole

# built in 03_gpt_architecture/gpt.ipynb: FeedForward, TransformerBlock, GPTModel


@dataclass(frozen=True)
class GPTConfig:
    """The numbers that define a GPT. The defaults are GPT-2 small (124M parameters)."""

    vocab_size: int = 50_257
    context_length: int = 1024  # tokens the model can see at once
    emb_dim: int = 768
    n_heads: int = 12
    n_layers: int = 12
    drop_rate: float = 0.1
    qkv_bias: bool = True
    tie_weights: bool = True  # output head = transposed token embedding
    init_std: float = 0.02  # GPT-2's; narrow models learn to look back sooner with a larger one

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers")
        whole(1, **{name: getattr(self, name) for name in sizes})
        if not getattr(self, "head_size", 0):  # a ModernConfig may say how large a head is
            must_divide(emb_dim=self.emb_dim, n_heads=self.n_heads)
        above(0, init_std=self.init_std)
        fine = 0 <= self.drop_rate < 1
        require(fine, f"drop_rate is {self.drop_rate}; it must lie in [0, 1)")

    @classmethod
    def preset(cls, name: str, **changes: object) -> GPTConfig:
        """A named configuration: "course", "124M", "355M", "774M" or "1558M"."""
        one_of(PRESETS, preset=name)
        return cls(**asdict(PRESETS[name]) | changes)

    @property
    def head_dim(self) -> int:
        """Dimensions of one head's queries, keys and values."""
        return self.emb_dim // self.n_heads

    def build(self) -> GPTModel:
        """The model of this configuration, with random weights."""
        return GPTModel(self)


PRESETS = {
    "course": GPTConfig(2048, 256, 128, n_heads=4, n_layers=4, drop_rate=0.0, init_std=0.09),
    "124M": GPTConfig(),
    "355M": GPTConfig(emb_dim=1024, n_heads=16, n_layers=24),
    "774M": GPTConfig(emb_dim=1280, n_heads=20, n_layers=36),
    "1558M": GPTConfig(emb_dim=1600, n_heads=25, n_layers=48),
}


class FeedForward(nn.Module):
    """Each token thinks for itself: widen four times, bend (GELU), narrow again."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.emb_dim, 4 * config.emb_dim)
        self.gelu = nn.GELU(approximate="tanh")
        self.out_proj = nn.Linear(4 * config.emb_dim, config.emb_dim)
        self.dropout = nn.Dropout(config.drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, emb_dim) → the same shape."""
        return self.dropout(self.out_proj(self.gelu(self.expand(x))))


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each behind a layer norm and around a shortcut."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        dim = config.emb_dim
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(
            dim, dim, config.context_length, config.n_heads, config.drop_rate, config.qkv_bias
        )
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        """(batch, tokens, emb_dim) → the same shape."""
        x = x + self.attention(self.norm1(x), cache, layer)
        return x + self.feed_forward(self.norm2(x))


class GPTModel(nn.Module):
    """Token ids in, a score for every possible next token out."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.emb_dim)
        self.position_embedding = nn.Embedding(config.context_length, config.emb_dim)
        self.dropout = nn.Dropout(config.drop_rate)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.emb_dim)
        self.head = nn.Linear(config.emb_dim, config.vocab_size, bias=False)
        self.apply(self._init_weights)
        if config.tie_weights:
            self.head.weight = self.token_embedding.weight

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.init_std
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if module is self.position_embedding:
            nn.init.normal_(module.weight, std=0.01)  # as in OpenAI's code, whatever the width
        # 2 * n_layers shortcuts add up; smaller terms keep their sum at the scale of one. `apply`
        # visits the parts of a module before it, so out_proj is drawn once more here.
        if isinstance(module, (MultiHeadAttention, FeedForward)):
            nn.init.normal_(module.out_proj.weight, std=std * (2 * self.config.n_layers) ** -0.5)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """(batch, tokens) int64 → logits (batch, tokens, vocab_size).

        With a cache, `ids` holds only the tokens that follow those already cached.
        Raises ValueError for too long an input or an id outside the vocabulary.
        """
        check_ids(ids, cache, self.config)
        start = 0 if cache is None else cache.length
        # Places are taken in order, so their vectors need no looking up.
        positions = self.position_embedding.weight[start : start + ids.shape[1]]
        x = self.dropout(self.token_embedding(ids) + positions)
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer)
        if cache is not None:
            cache.length += ids.shape[1]
        return self.head(self.final_norm(x))


def check_ids(ids: Tensor, cache: KVCache | None, config: GPTConfig) -> None:
    """Refuse ids that a model cannot read behind those in the cache, and say which and why.

    Raises TypeError for another type than int64 and int32, ValueError for everything else.
    """
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids are {ids.dtype}; the model takes int64: ids.long()")
    if ids.dim() != 2 or ids.numel() == 0:
        raise ValueError(
            f"ids have shape {tuple(ids.shape)}; the model takes (batch, tokens) with at "
            f"least one token: add a batch dimension with ids[None], or take one away with ids[0]"
        )
    if cache is not None and cache.keys.shape[1] != len(ids):
        raise ValueError(
            f"the cache holds {cache.keys.shape[1]} rows, ids have {len(ids)}: one cache goes "
            f"with one batch, KVCache(model, {len(ids)})"
        )
    must_fit(ids.shape[1] + (0 if cache is None else cache.length), config.context_length)
    if not ids.is_meta and not torch.compiler.is_compiling():
        for id in map(int, ids.aminmax()):
            check_id(id, config.vocab_size)


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """Number of parameters; a matrix shared by two layers counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
