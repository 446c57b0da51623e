"""What the heads of a GPT look at, for the figures and the explorer of attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# built in 02_attention/heads_at_work.ipynb: attention_weights, on_nonsense


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


@torch.no_grad()
def on_nonsense(
    model: nn.Module, eot_id: int, rows: int = 50, length: int = 30
) -> tuple[float, Tensor]:
    """What a model makes of random tokens that come twice, and how its heads look at them.

    The share of the second copy that is guessed right, and for each head, (layers, heads), the
    weight on what followed the present token the first time (Olsson et al. 2022, arXiv 2209.11895).
    """
    generator, right, looks = torch.Generator().manual_seed(1), 0.0, 0.0
    for _ in range(rows):
        nonsense = torch.randint(256, eot_id, (length,), generator=generator)
        twice = torch.cat([torch.tensor([eot_id]), nonsense, nonsense])
        again = torch.arange(length + 2, 2 * length)  # places in the second copy, ■ is place 0
        followed = again - length + 1  # the present token stood `length` before, this came next
        looks = looks + attention_weights(model, twice)[:, :, again, followed].mean(-1) / rows
        guesses = model(twice[None])[0].argmax(-1)
        right += (guesses[again] == twice[again + 1]).float().mean().item() / rows
    return right, looks
