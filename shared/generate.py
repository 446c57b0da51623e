"""Decoding: from the model's scores to text, one token at a time.

Notable: greedy, temperature, top-k (Fan et al. 2018, arXiv 1805.04833) and top-p (Holtzman et al.
2020, arXiv 1904.09751) are one function from logits to probabilities; with the KV cache each new
token costs one row of work and gives the same text as without.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from shared.attention import KVCache
from shared.classroom.errors import at_least, require
from shared.classroom.fast import streamlined
from shared.gpt import GPTModel

# built in 04_pretraining/pretraining.ipynb: next_token_probs


def next_token_probs(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Probabilities of the next token, (…, vocab) → (…, vocab).

    temperature  0 is greedy; below 1 likely tokens gain, above 1 they lose
    top_k        keep the k most likely tokens
    top_p        keep the most likely tokens that together reach probability p
    Raises ValueError for a negative temperature, top_k < 1, or top_p outside (0, 1].
    """
    check_sampling(temperature, top_k, top_p)
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if top_k is not None:
        keep[..., top_k:] = False
    if top_p is not None and top_p < 1:
        # A token stays while those before it have not yet reached p: the first always stays.
        keep &= ordered.cumsum(-1) - ordered < top_p
    probs = torch.zeros_like(probs).scatter_(-1, order, ordered * keep)
    return probs / probs.sum(-1, keepdim=True)


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Refuse settings that have no meaning."""
    at_least(0, temperature=temperature)  # 0 is greedy
    if top_k is not None:
        at_least(1, top_k=top_k)
    if top_p is not None:
        require(0 < top_p <= 1, f"top_p is {top_p}; it must lie in (0, 1] (None keeps every token)")


def stream(
    model: GPTModel,
    ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    use_cache: bool = True,
    cache: KVCache | None = None,
) -> Iterator[Tensor]:
    """Yield new ids one by one, each (batch, 1); arguments as in `generate`.

    With a `cache` of an earlier call, `ids` begin with the tokens it holds, which are not read
    again; at the end it holds all but the last. Raises ValueError when it holds all of them.
    """
    check_sampling(temperature, top_k, top_p)
    at_least(0, max_new_tokens=max_new_tokens)
    if ids.dim() != 2:
        raise ValueError(
            f"ids have shape {tuple(ids.shape)}; a prompt is (batch, tokens): "
            f"add a batch dimension with ids[None]"
        )
    if cache is not None and cache.length >= ids.shape[1]:
        raise ValueError(
            f"the cache holds {cache.length} tokens, ids only {ids.shape[1]}: ids must be what "
            f"the cache has read and at least one token more"
        )
    limit = model.config.context_length
    was_training = model.training
    model.eval()
    fast = streamlined(model)
    if cache is None and use_cache:
        with torch.inference_mode():
            cache = KVCache(model, ids.shape[0])
    finished = torch.zeros(ids.shape[0], 1, dtype=torch.bool, device=ids.device)
    text, unread = [ids], ids if cache is None else ids[:, cache.length :]
    try:
        for length in range(ids.shape[1], ids.shape[1] + max_new_tokens):
            with torch.inference_mode():
                if cache is not None and length <= limit:
                    logits = fast(unread, cache)[:, -1]
                else:
                    # Every token of a full window changes its place when the window slides, and
                    # positions are part of the keys: there is nothing to reuse.
                    logits = fast(torch.cat(text, dim=1)[:, -limit:])[:, -1]
            if temperature == 0:
                new = logits.argmax(-1, keepdim=True)
            else:
                new = next_token_probs(logits, temperature, top_k, top_p).multinomial(1)
            if eos_id is not None:
                new = new.masked_fill(finished, eos_id)
                finished |= new == eos_id
            yield new
            if eos_id is not None and finished.all():
                return
            text.append(new)
            unread = new
    finally:
        model.train(was_training)


def generate(
    model: GPTModel,
    ids: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_id: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Continue (batch, tokens) int64 ids; return prompt and new ids, (batch, tokens + new).

    Stops after `max_new_tokens`, or when every row has produced `eos_id`; rows that end earlier
    are filled up with it. Text longer than the context is continued from its last
    `context_length` tokens. temperature=0 is greedy. Raises ValueError as `next_token_probs`.
    """
    new = list(stream(model, ids, max_new_tokens, temperature, top_k, top_p, eos_id, use_cache))
    return torch.cat([ids, *new], dim=1)
