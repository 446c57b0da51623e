"""Decoding: from the model's scores to text, one token at a time.

Notable: greedy, temperature, top-k (Fan et al. 2018, arXiv 1805.04833) and top-p (Holtzman et al.
2020, arXiv 1904.09751) are one function from logits to probabilities; with the KV cache each new
token costs one row of work and gives the same text as without.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real

import torch
from torch import Tensor

from shared.attention import KVCache
from shared.classroom.errors import at_least, plain, require, whole
from shared.classroom.fast import writer
from shared.classroom.machine import evaluating
from shared.gpt import GPTModel

# built in 04_pretraining/pretraining.ipynb: next_token_probs, best


def next_token_probs(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Probabilities of the next token, (…, vocab) → (…, vocab).

    temperature  0 is greedy; below 1 likely tokens gain, above 1 they lose
    top_k        keep the k most likely tokens, of equal ones those with the smaller ids
    top_p        keep the most likely tokens that together reach probability p of what is left
    Raises ValueError for a negative temperature, top_k < 1, or top_p outside (0, 1], and
    FloatingPointError as `best`.
    """
    check_sampling(temperature, top_k, top_p)
    highest, favourite = best(logits)
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, favourite, 1.0)
    # No score above 0, so that none becomes infinite when the temperature is tiny.
    scores = (logits.float() - highest.float()) / max(temperature, torch.finfo(torch.float).tiny)
    ordered, order = scores.softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[..., top_k:] = 0
        ordered /= ordered.sum(-1, keepdim=True)
    if top_p is not None and top_p < 1:
        # A token stays while those before it have not yet reached p: the first always stays.
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0)
    probs = torch.zeros_like(ordered).scatter_(-1, order, ordered)
    return probs / probs.sum(-1, keepdim=True)


def best(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The highest score and its token, each (…, 1).

    Raises FloatingPointError when it is no finite number: nothing can be drawn from such scores.
    """
    highest, token = logits.max(-1, keepdim=True)
    if not math.isfinite(highest.float().sum().item()):  # one check for all rows
        raise FloatingPointError(
            f"the model's best score is {highest.min().item()}: its weights, or what it computes "
            f"in half precision, are no numbers any more. Load it again, or train with a lower "
            f"max_lr"
        )
    return highest, token


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Refuse settings that have no meaning."""
    at_least(0, temperature=temperature)  # 0 is greedy
    if top_k is not None:
        whole(1, top_k=top_k)
    if top_p is not None:
        fine = isinstance(plain(top_p), Real) and 0 < top_p <= 1
        require(fine, f"top_p is {top_p}; it must lie in (0, 1] (None keeps every token)")


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
    whole(0, max_new_tokens=max_new_tokens)
    if not isinstance(ids, Tensor):
        raise TypeError(f"ids are a {type(ids).__name__}; give a tensor, torch.tensor([ids])")
    if ids.dim() != 2:
        raise ValueError(
            f"ids have shape {tuple(ids.shape)}; a prompt is (batch, tokens): "
            f"add a batch dimension with ids[None], or take one away with ids[0]"
        )
    if cache is not None and cache.length >= ids.shape[1]:
        raise ValueError(
            f"the cache holds {cache.length} tokens, ids only {ids.shape[1]}: ids must be what "
            f"the cache has read and at least one token more"
        )
    limit = model.config.context_length
    if cache is None and use_cache:
        with torch.inference_mode():
            cache = KVCache(model, ids.shape[0], min(limit, ids.shape[1] + max_new_tokens))
    finished = torch.zeros(ids.shape[0], 1, dtype=torch.bool, device=ids.device)
    text, unread = [ids], ids if cache is None else ids[:, cache.length :]
    with evaluating(model):
        fast = writer(model)
        for length in range(ids.shape[1], ids.shape[1] + max_new_tokens):
            with torch.inference_mode():
                if cache is not None and length <= limit:
                    logits = fast(unread, cache)[:, -1]
                else:
                    # Every token of a full window changes its place when the window slides, and
                    # positions are part of the keys: there is nothing to reuse.
                    logits = fast(torch.cat(text, dim=1)[:, -limit:])[:, -1]
            if temperature == 0:
                _, new = best(logits)
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
