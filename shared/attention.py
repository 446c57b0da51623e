"""Causal multi-head attention, as GPT-2 has it (Vaswani et al. 2017, arXiv 1706.03762).

Notable: one fused projection makes queries, keys and values; PyTorch's
scaled_dot_product_attention does the masked softmax; an optional KV cache keeps the keys and
values of tokens already read, so that generating a token costs one row of work, not all rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


# built in: 03_gpt_architecture/kv_cache.ipynb
class KVCache:
    """Keys and values of the tokens read so far, for every layer, with room for a full context.

    `keys` and `values` have shape (layers, batch, heads, context_length, head_dim);
    `length` counts the positions filled.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        config, weight = model.config, model.token_embedding.weight
        head_dim = config.emb_dim // config.n_heads
        shape = (config.n_layers, batch_size, config.n_kv_heads, config.context_length, head_dim)
        # Autocast computes keys in half precision; the cache follows, or the two could not meet.
        device = weight.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        self.keys = torch.zeros(shape, device=weight.device, dtype=half or weight.dtype)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append (batch, heads, tokens, head_dim) to one layer; return all its keys and values."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


# built in: 03_gpt_architecture/kv_cache.ipynb
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
        if d_out % n_heads:
            raise ValueError(
                f"d_out {d_out} cannot be divided among n_heads {n_heads}: "
                f"choose a number of heads that divides {d_out}"
            )
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
        start = cache.length if cache else 0
        if start + tokens > self.context_length:
            raise ValueError(
                f"{start + tokens} tokens do not fit into a context of {self.context_length}: "
                f"shorten the input to its last {self.context_length} tokens"
            )
        # (batch, tokens, 3 * d_out) → three times (batch, heads, tokens, head_dim)
        qkv = self.qkv(x).view(batch, tokens, 3, self.n_heads, -1)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind()
        if cache:
            keys, values = cache.extend(layer, keys, values)
        # A single new token may see everything; several behind a cache need the shifted triangle.
        mask = None
        if start and tokens > 1:
            mask = torch.ones(tokens, start + tokens, dtype=torch.bool, device=x.device).tril(start)
        context = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.drop_rate if self.training else 0.0,
            is_causal=start == 0 and tokens > 1,
        )
        # (batch, heads, tokens, head_dim) → (batch, tokens, d_out)
        context = context.transpose(1, 2).reshape(batch, tokens, -1)
        return self.dropout(self.out_proj(context))


# built in: 02_attention/heads_at_work.ipynb
@torch.no_grad()
def attention_weights(model: nn.Module, ids: Tensor) -> Tensor:
    """What a GPT's heads look at: (tokens,) ids → weights (layers, heads, tokens, tokens).

    Row i of a table says how token i shares its attention among tokens 0 … i. The fast attention
    never stores these tables, so they are computed again from the queries and keys of each layer.
    """
    seen = []  # of each layer: queries, keys and values, (1, tokens, 3 * emb_dim)
    hooks = [
        block.attention.qkv.register_forward_hook(lambda layer, inputs, out: seen.append(out))
        for block in model.blocks
    ]
    was_training = model.training
    try:
        model.eval()(ids[None])
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    qkv = torch.cat(seen).unflatten(-1, (3, model.config.n_heads, -1))
    queries, keys, _ = qkv.permute(2, 0, 3, 1, 4)  # each (layers, heads, tokens, head_dim)
    scores = queries @ keys.mT / keys.shape[-1] ** 0.5  # (layers, heads, tokens, tokens)
    ahead = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
    return scores.masked_fill(ahead, -torch.inf).softmax(dim=-1)
