"""Causal multi-head attention, as GPT-2 has it (Vaswani et al. 2017, arXiv 1706.03762).

Notable: one fused projection makes queries, keys and values; PyTorch's
scaled_dot_product_attention does the masked softmax; with a KV cache a new token costs one row of
work, because the keys and values of the tokens before it are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.classroom.errors import must_divide, must_fit

# built in 03_gpt_architecture/kv_cache.ipynb: KVCache, causal_attention, MultiHeadAttention


class KVCache:
    """Keys and values of the tokens read so far, for every layer.

    `keys` and `values` have shape (layers, batch, heads, room, head_dim), with room for a full
    context when None; `length` counts the positions filled.
    """

    def __init__(self, model: nn.Module, batch_size: int, room: int | None = None) -> None:
        config, weight = model.config, model.token_embedding.weight
        heads = getattr(config, "n_kv_heads", config.n_heads)  # a ModernGPT may have fewer of them
        room = room or config.context_length
        shape = (config.n_layers, batch_size, heads, room, config.head_dim)
        # Under autocast the keys come in half precision, and the cache must have the same type.
        device = weight.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        self.keys = torch.empty(shape, device=weight.device, dtype=half or weight.dtype)
        self.values = torch.empty_like(self.keys)
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append (batch, heads, tokens, head_dim) to one layer; return all its keys and values."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


def causal_attention(
    queries: Tensor, keys: Tensor, values: Tensor, drop_rate: float = 0.0
) -> Tensor:
    """Mix the values that each query may see: → (batch, tokens, heads * head_dim).

    queries are (batch, heads, tokens, head_dim); keys and values may have fewer heads, which are
    shared, and more tokens: the queries belong to the last ones and see none that follow.
    """
    tokens, start = queries.shape[2], keys.shape[2] - queries.shape[2]
    # A single new token may see everything; several behind a cache need the shifted triangle.
    mask = None
    if start and tokens > 1:
        ones = torch.ones(tokens, start + tokens, dtype=torch.bool, device=queries.device)
        mask = ones.tril(start)
    context = F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        dropout_p=drop_rate,
        is_causal=start == 0 and tokens > 1,
        enable_gqa=keys.shape[1] < queries.shape[1],
    )
    return context.transpose(1, 2).flatten(2)


class MultiHeadAttention(nn.Module):
    """Every token looks back at itself and the tokens before it, `n_heads` ways at once."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        n_heads: int,
        drop_rate: float = 0.0,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        must_divide(d_out=d_out, n_heads=n_heads)
        self.n_heads = n_heads
        self.context_length = context_length
        self.drop_rate = drop_rate
        self.qkv = nn.Linear(d_in, 3 * d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        """(batch, tokens, d_in) → (batch, tokens, d_out).

        With a cache, x holds only the new tokens and they also see everything cached.
        Raises ValueError when the tokens do not fit into `context_length`.
        """
        batch, tokens, _ = x.shape
        must_fit(tokens + (0 if cache is None else cache.length), self.context_length)
        # (batch, tokens, 3 * d_out) → three times (batch, heads, tokens, head_dim)
        qkv = self.qkv(x).view(batch, tokens, 3, self.n_heads, -1)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind()
        if cache is not None:
            keys, values = cache.extend(layer, keys, values)
        context = causal_attention(queries, keys, values, self.drop_rate if self.training else 0.0)
        return self.dropout(self.out_proj(context))
