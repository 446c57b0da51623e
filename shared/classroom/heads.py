"""What the heads of a GPT look at, for the figures and the explorer of attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# built in 02_attention/heads_at_work.ipynb: attention_weights


@torch.no_grad()
def attention_weights(model: nn.Module, ids: Tensor) -> Tensor:
    """What a GPTModel's heads look at: (tokens,) → (layers, heads, tokens, tokens).

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
