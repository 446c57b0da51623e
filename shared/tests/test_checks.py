"""Every exercise: its check refuses the stub and plausible mistakes, and accepts the solution.

Right answers by other ways are accepted, too, and what is no answer at all is told in words.
"""

from __future__ import annotations

import ast
import linecache
import math
import re
from collections import Counter, deque
from collections.abc import Callable
from fractions import Fraction
from functools import cache, reduce
from itertools import pairwise
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from torch.nn import functional

from shared.classroom.checks import CHECKS, check
from shared.classroom.setup_cell import ROOT

FOLDERS = sorted(path.parent for path in ROOT.glob("*/exercises.ipynb"))


def summed_fit(xs: list, ys: list, rate: float, steps: int) -> tuple[float, float]:
    """Gradient descent on the sum of the squares, where the mean is asked for."""
    w = b = 0.0
    for _ in range(steps):
        errors = [w * x + b - y for x, y in zip(xs, ys, strict=True)]
        slope = 2 * sum(map(math.prod, zip(errors, xs, strict=True)))
        w, b = w - rate * slope, b - rate * 2 * sum(errors)
    return w, b


def trained_bigram(ids: torch.Tensor, size: int, rate: float, steps: int, add: bool = True):
    """0.15; without `add`, of all gradients of a row only the last one is kept."""
    table, inputs, targets = torch.zeros(size, size), ids[:-1], ids[1:]
    for _ in range(steps):
        slopes = table[inputs].softmax(dim=-1)
        slopes[torch.arange(len(targets)), targets] -= 1
        slopes *= -rate / len(targets)
        if add:
            table.index_add_(0, inputs, slopes)
        else:
            table[inputs] += slopes
    return table


def merged(word: tuple, pair: tuple) -> tuple:
    tokens = []
    for token in word:  # the last of a row of equals is free again after a merge
        if tokens and (tokens[-1], token) == pair:
            tokens[-1] += token
        else:
            tokens.append(token)
    return tuple(tokens)


def learned_merges(words: dict, count: int) -> list:
    merges = []
    for _ in range(count):
        pairs = Counter()
        for word, times in words.items():
            pairs.update({pair: times * n for pair, n in Counter(pairwise(word)).items()})
        if not pairs:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        words = {merged(word, merges[-1]): times for word, times in words.items()}
    return merges


def longest_first(word: str, known: set) -> list:
    """Always the longest known token from the left, whatever the order of the merges."""
    tokens = []
    while word:
        size = max(n for n in range(1, len(word) + 1) if word[:n] in known)
        tokens.append(word[:size])
        word = word[size:]
    return tokens


def turned_in_halves(x: torch.Tensor, position: int, base: float) -> torch.Tensor:
    angles = position * base ** (-2 * torch.arange(len(x) // 2) / len(x))
    a, b = x.chunk(2)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()])


def turned_back(x: torch.Tensor, position: int, base: float) -> torch.Tensor:
    """3.10 in the other direction."""
    angles = position * base ** (-2 * torch.arange(len(x) // 2) / len(x))
    a, b = x[0::2], x[1::2]
    turned = [a * angles.cos() + b * angles.sin(), b * angles.cos() - a * angles.sin()]
    return torch.stack(turned, dim=1).flatten()


def written_without_cache(parts: SimpleNamespace, prompt: list, count: int) -> list:
    ids = list(prompt)
    for _ in range(count):
        x = parts.embed(ids, 0)
        scores = parts.query(x[-1:]) @ parts.key(x).T / x.shape[1] ** 0.5
        ids.append(int(parts.head(x[-1:] + scores.softmax(-1) @ parts.value(x)).argmax()))
    return ids[len(prompt) :]


def written(parts: SimpleNamespace, prompt: list, count: int, places: bool = True) -> list:
    """3.16 with a cache; without `places` every new token believes that it is the first."""
    keys, values, ids, new, start = [], [], [], prompt, 0
    for _ in range(count):
        x = parts.embed(torch.tensor(new), start if places else 0)
        keys, values = [*keys, *parts.key(x)], [*values, *parts.value(x)]
        scores = torch.stack(keys) @ parts.query(x)[-1] / x.shape[1] ** 0.5
        new, start = (
            [parts.head(x[-1] + scores.softmax(0) @ torch.stack(values)).argmax()],
            len(keys),
        )
        ids += new
    return ids


def looks_ahead(function: Callable, x: torch.Tensor, change: Callable, texts: slice) -> int:
    """2.8, where `change` makes another token, in some of the texts."""
    before, farthest = function(x), 0
    for place in range(1, x.shape[1]):
        changed = x.clone()
        changed[texts, place] = change(changed[texts, place])
        moved = (function(changed) != before)[:, :place].flatten(2).any(2).any(0)
        if moved.any():
            farthest = max(farthest, place - int(moved.int().argmax()))
    return farthest


def resumed(
    model: torch.nn.Module,
    batches: list,
    rates: list,
    stop: int,
    saved: dict | None,
    forgets: tuple = (),
) -> dict:
    """4.15, which may forget something."""
    optimizer, saved = torch.optim.AdamW(model.parameters()), saved or {}
    if "model" in saved:
        model.load_state_dict(saved["model"])
    if "optimizer" in saved:
        optimizer.load_state_dict(saved["optimizer"])
    if "random" in saved:
        torch.set_rng_state(saved["random"])
    for step in range(saved.get("step", 0), stop):
        inputs, targets = batches[step]
        optimizer.param_groups[0]["lr"] = rates[0 if "rate" in forgets else step]
        if "clear" not in forgets:
            optimizer.zero_grad()
        functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    kept |= {"random": torch.get_rng_state(), "step": stop}
    return {name: thing for name, thing in kept.items() if name not in forgets}


def halved(reference: torch.Tensor, reward: torch.Tensor, share: float) -> float:
    """6.12 by bisection."""
    low, high = 1e-4, 1e4
    while high / low > 1.0001:
        beta = (low * high) ** 0.5
        best = (reference.log() + reward / beta).softmax(0)[reward.argmax()]
        low, high = (beta, high) if best > share else (low, beta)
    return low


def threads(given: str, expected: str) -> float:
    """6.15 as a recursion that computes everything again and again."""

    def longest(a: list, b: list) -> int:
        if not a or not b:
            return 0
        if a[0] == b[0]:
            return 1 + longest(a[1:], b[1:])
        return max(longest(a[1:], b), longest(a, b[1:]))

    a, b = given.split(), expected.split()
    return 2 * longest(a, b) / max(1, len(a) + len(b))


def remembered(given: str, expected: str) -> float:
    """The same recursion, which remembers."""
    a, b = given.split(), expected.split()

    @cache
    def longest(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return 0
        if a[i - 1] == b[j - 1]:
            return 1 + longest(i - 1, j - 1)
        return max(longest(i - 1, j), longest(i, j - 1))

    return 2 * longest(len(a), len(b)) / max(1, len(a) + len(b))


def learned_policy(
    reference: torch.Tensor, wins: torch.Tensor, beta: float, equally: bool = False
) -> torch.Tensor:
    """6.13; `equally` counts a pair once, however often it was seen."""
    if equally:
        wins = wins / (wins + wins.T).clamp(min=1)
    logits = reference.log().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(1000):
        gained = beta * (logits.log_softmax(0) - reference.log())
        loss = -(wins * functional.logsigmoid(gained[:, None] - gained)).sum() / wins.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return logits.detach().softmax(0)


def leads(
    ours: list,
    theirs: list,
    patterns: list,
    draws: int,
    whole: bool = True,
    paired: bool = True,
    alike: bool = True,
    back: bool = True,
    by_message: bool = True,
) -> np.ndarray:
    """5.14 with numpy; without `whole` messages are drawn, without `paired` each filter has a draw
    of its own, without `alike` large patterns are drawn more often, without `back` each is drawn
    once, and without `by_message` every pattern counts as much as another."""
    rng = np.random.default_rng()
    _, place = np.unique(patterns, return_inverse=True)
    place = place if whole else np.arange(len(patterns))
    size = np.bincount(place)
    chance = np.full(len(size), 1 / len(size)) if alike else size / size.sum()
    lead = []
    for _ in range(draws):
        times = [rng.multinomial(len(size), chance) for _ in range(2)]
        times = times if back else [np.ones_like(size)] * 2
        weights = [(times[0] if paired else several)[place] for several in times]
        weights = weights if by_message else [weight / size[place] for weight in weights]
        rights = [np.average(r, weights=w) for r, w in zip((ours, theirs), weights, strict=True)]
        lead.append(rights[0] - rights[1])
    return np.array(lead)


def preference_step(
    model: torch.nn.Module,
    start: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    chosen: tuple,
    rejected: tuple,
    beta: float,
    dim: int = -1,
    masked: bool = True,
    sign: int = -1,
    clear: bool = True,
    detached: bool = True,
) -> torch.Tensor:
    """6.17 by cross-entropies; the last five say what may go wrong."""
    gains = []
    for inputs, targets in (chosen, rejected):
        for network in (model, start):
            log_probs = network(inputs).log_softmax(dim=dim).transpose(1, 2)
            wanted = targets if masked else targets.clamp(min=0)
            losses = functional.nll_loss(log_probs, wanted, reduction="none")
            gains.append(-losses.sum(dim=1))
    margin = gains[0] - gains[1] - gains[2] + gains[3]
    if not detached:  # the model learns against itself
        margin = margin - margin.detach()
    loss = torch.log1p(torch.exp(sign * beta * margin)).mean()
    if clear:
        optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


# A mistake that somebody might well make, for every exercise.
MISTAKES = {
    "0.1": (5, 4, 3),
    "0.2": lambda x: (x[:, None] - x[None]).abs().sum(dim=-1),  # not squared
    "0.3": lambda a, b: torch.stack([a, b]).view(-1),  # one after the other
    "0.4": lambda scores: torch.log(scores.exp() / scores.exp().sum(dim=-1, keepdim=True)),
    "0.5": lambda f, x: (f(x + 1e-3) - f(x)) / 1e-3,  # one side only
    "0.6": lambda x, target, w1, b1, w2, b2: (
        (d := 2 * (w2 * (h := w1 * x + b1) + b2 - target)) * w2 * x,
        d * w2,
        d * h,
        d,
    ),  # as if there were no ReLU
    "0.7": lambda gradient, x, rate, momentum, steps: [
        x := x - rate * gradient(x) for _ in range(steps)
    ][-1],  # no momentum
    "0.8": lambda text, a, b: text.count(a + b) / max(1, text.count(a)),  # counts the last one
    "0.9": lambda p: 1 / (sum(p) / len(p)),
    "0.10": lambda p, u: next(i for i in range(len(p)) if u <= sum(p[: i + 1])),
    "0.11": lambda m, k, n, seconds: m * k * n / seconds / 1e9,
    "0.12": lambda ids, context, start: [
        (ids[max(0, i - context) : i], id) for i, id in enumerate(ids)
    ],  # nothing filled up
    "0.13": summed_fit,
    "0.14": lambda tokens, token: tokens.count(token) / len(tokens),  # how often
    "0.15": lambda ids, size, rate, steps: trained_bigram(ids, size, rate, steps, add=False),
    "1.1": 500,  # forgot that the last window needs a target
    "1.2": 2,  # one token per character
    "1.3": lambda tokens, vocab: [vocab.get(token, 2) for token in tokens],  # <|unk|> is not 2
    "1.4": lambda ids, n, stride: [
        (ids[i : i + n], ids[i + 1 : i + n + 1]) for i in range(0, len(ids), stride)
    ],
    "1.5": lambda ids, size: torch.eye(size),
    "1.6": lambda ids, tokens, places: tokens[ids] + places[ids % 3],
    "1.7": lambda word, pair: dict(
        Counter(pairwise(merged(word, pair))) - Counter(pairwise(word))
    ),  # the minus of counters drops what is negative
    "1.8": lambda batch, pad_id: (
        ids := torch.nn.utils.rnn.pad_sequence([*map(torch.tensor, batch)], True, pad_id),
        ids != pad_id,
    ),
    "1.9": lambda table, ids, targets: torch.cat([ids, targets]).unique().tolist(),  # targets, too
    "1.10": lambda words, count: learned_merges(dict.fromkeys(words, 1), count),  # each word once
    "1.11": lambda word, merges: longest_first(word, {*word, *map("".join, merges)}),
    "2.1": (8, 4, 100, 16),
    "2.2": lambda scores, forbidden: scores.masked_fill(forbidden, -torch.inf).softmax(-1),  # nan
    "2.3": lambda q, k, v: torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v,
    "2.4": lambda texts: torch.ones(len(texts), len(texts)).triu(1).bool(),  # one text only
    "2.5": lambda size, width: torch.triu(torch.ones(size, size), diagonal=1).bool(),
    "2.6": lambda W_query, W_out, heads, kept: (
        W_query.unflatten(0, (heads, -1))[kept].flatten(0, 1),
        W_out.unflatten(1, (heads, -1))[:, kept].flatten(1),
    ),  # rows and columns changed places
    "2.7": lambda size, table: table[
        (torch.arange(size)[:, None] - torch.arange(size)).abs()
    ],  # the future is open
    "2.8": lambda function, x: 0,
    "2.9": lambda x, W_query, W_key, W_value, W_out, n_heads: (
        torch.softmax(x @ W_query @ (x @ W_key).mT, -1) @ x @ W_value @ W_out
    ),  # one head, no mask
    "2.10": lambda positions, W_query, W_key, rate, steps: torch.softmax(
        (positions @ W_query @ (positions @ W_key).T / positions.shape[1] ** 0.5).masked_fill(
            torch.ones(len(positions), len(positions)).triu(1).bool(), -torch.inf
        ),
        -1,
    ),  # never learns
    "3.1": lambda x, gain, bias: (
        (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt() * gain + bias
    ),  # the unbiased variance
    "3.2": lambda x: (1 + torch.erf(x / 2**0.5)) / 2,  # the product rule has two terms
    "3.3": lambda d: 12 * d * d,  # the matrices only
    "3.4": lambda w, n: (w**n, 1 + w**n),
    "3.5": lambda n_layers, d, vocab_size, context: (
        2 * (12 * d * d * n_layers + d * vocab_size) + 2 * d * context * n_layers
    ),  # the scores without the mixing
    "3.6": lambda memory, weights, n_layers, n_kv_heads, head_dim, batch, bytes_each: max(
        0, (memory - weights) // (n_layers * n_kv_heads * head_dim * batch * bytes_each)
    ),  # keys without values
    "3.7": lambda new, stored, width: torch.ones(new, stored + new).tril(stored).bool(),  # no width
    "3.8": lambda texts: torch.arange(texts.shape[1]).expand(texts.shape),  # never begins again
    "3.9": lambda x, eps: x / (x.norm(dim=-1, keepdim=True) + eps),
    "3.10": lambda x, position, base: turned_in_halves(x, position, base),  # the notebook's pairs
    "3.11": lambda x, norm1, attention, norm2, feed_forward: (
        (y := norm1(x + attention(x))) + feed_forward(norm2(y))  # the norm on the path itself
    ),
    "3.12": lambda parts, ids: parts.head(parts.final_norm(parts.token_embedding(ids))),
    "3.13": lambda W, heads, kv_heads: (
        W.view(len(W), -1, kv_heads, W.shape[1] // heads).mean(dim=1).flatten(1)
    ),  # heads that are not neighbours
    "3.14": lambda x, W_gate, W_value, W_out: (
        (x @ W_gate).sigmoid() * (x @ W_value) @ W_out  # the gate of 1997, without its own input
    ),
    "3.15": lambda base, head_dim, context: [
        i for i in range(head_dim // 2) if context * base ** (-2 * i / head_dim) < 360
    ],  # degrees
    "3.16": lambda parts, prompt, count: written_without_cache(parts, prompt, count),
    "4.1": lambda logits, targets: torch.nn.functional.cross_entropy(
        logits.clamp(max=80), targets
    ),  # a silent clip instead of a safe sum
    "4.2": lambda nats, tokens, characters: nats / math.log(2) * characters / tokens,
    "4.3": lambda step, steps, max_lr, warmup: (
        max_lr * min((step + 1) / warmup, (steps - step) / steps)
    ),
    "4.4": lambda w, g, mean, square, step, lr, b1, b2, decay: (
        w * (1 - lr * decay)
        - lr * (b1 * mean + (1 - b1) * g) / ((b2 * square + (1 - b2) * g**2).sqrt() + 1e-8),
        b1 * mean + (1 - b1) * g,
        b2 * square + (1 - b2) * g**2,
    ),  # the averages begin at 0, and nobody mends it
    "4.5": lambda gradients, limit: [g * min(1, limit / float(g.norm())) for g in gradients],
    "4.6": lambda gradients, counts: sum(gradients) / len(gradients),
    "4.7": lambda logits, temperature, top_k: torch.softmax(
        torch.where(logits < logits.topk(top_k).values[-1], 0.0, logits) / temperature, -1
    ),  # 0 is a logit like any other
    "4.8": lambda chances, p: torch.where(chances.cumsum(-1) < p, chances, 0.0),  # unsorted
    "4.9": lambda matrix, rounds: matrix / matrix.norm(),
    "4.10": lambda parameters: 4 * parameters / 1e9,  # the weights alone
    "4.11": lambda step, batch_size, windows: torch.randint(
        windows, (batch_size,), generator=torch.Generator().manual_seed(step)
    ).tolist(),  # drawn, so that some come twice
    "4.12": lambda options, visitors: visitors * math.log(options / (options - 1)),  # all alike
    "4.13": lambda some, others: (
        0.5,
        -sum(math.log(p) + math.log(q) for p, q in zip(some, others, strict=True)) / 2 / len(some),
    ),  # the nats are averaged, not the probabilities
    "4.14": lambda losses, line: min(
        (plan for plan, found in losses.items() if min(found) <= line), default=None
    ),  # one lucky seed is enough
    "4.15": lambda *all: resumed(*all, forgets=("optimizer",)),
    "5.1": (0.88, 0.6, 0.75),  # precision and recall changed places
    "5.2": lambda guesses, labels: (
        sum(g == y for g, y in zip(guesses, labels, strict=True)) / len(labels)
    ),  # the accuracy
    "5.3": lambda messages, test_patterns: (
        [text for pattern, text in messages if pattern not in test_patterns],
        [text for pattern, text in messages if pattern in test_patterns],
    ),  # a mistyped pattern goes unnoticed
    "5.4": lambda rows, padding: (
        (ids := torch.tensor([[padding] * (max(map(len, rows)) - len(r)) + r for r in rows])),
        ((ids != padding).cumsum(dim=1) - 1).clamp(min=0),
    ),  # an id may look like the padding
    "5.5": lambda hidden, real: (hidden * real[..., None]).mean(dim=1),  # divides by all tokens
    "5.6": lambda odds, share: share * torch.sigmoid(torch.tensor(odds)).item() * 2,
    "5.7": lambda odds, labels, share_lost: sorted(
        o for o, y in zip(odds, labels, strict=True) if y == 0
    )[int(share_lost)],
    "5.8": (8 * 1024 * 4096, 1024),
    "5.9": lambda before, after, rank: (
        (parts := torch.linalg.svd(after - before, full_matrices=False))[0][:, -rank:]
        * parts[1][-rank:],
        parts[2][-rank:],
    ),  # the smallest directions
    "5.10": lambda merged, a, b: merged + b[0] @ b[1],
    "5.11": lambda odds, labels: (
        sum((o > 0) == y for o, y in zip(odds, labels, strict=True)) / len(labels)
    ),  # the accuracy
    "5.12": lambda odds, labels: 1.0,
    "5.13": "bdf",  # copies in two parts go unnoticed
    "5.14": lambda *all: leads(*all, whole=False),
    "6.1": [-100, 6, 7, 0],
    "6.2": lambda entry: f"<|user|>\n{entry['instruction']}\n{entry['input']}\n<|assistant|>\n",
    "6.3": lambda ids, length, end: (
        ids[:-1] + [end] * (length + 1 - len(ids)),
        [-100 if id == end else id for id in ids[1:]] + [-100] * (length + 1 - len(ids)),
    ),  # the end mark masked, too
    "6.4": lambda logits, targets: (
        torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / len(targets)
    ),
    "6.5": lambda given, expected: (
        given.lower().strip(" .!?").split() == expected.lower().strip(" .!?").split()
    ),
    "6.6": lambda entry, colours: {
        **entry,
        "input": entry["input"].replace("red", "blue").replace("blue", "red"),
    },
    "6.7": lambda rows: {task: sum(right for _, right in rows) / len(rows) for task, _ in rows},
    "6.8": lambda logits, targets: (
        logits.log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0].sum(dim=1)
    ),  # a −100 is read as the id 0
    "6.9": lambda a, b, c, d, beta: -torch.sigmoid(beta * (a - b)).log().mean(),
    "6.10": lambda exchanges, new, limit: exchanges[1:] if len(new) <= limit else 1 / 0,
    "6.11": lambda messages: [  # the mark that closes an answer is not learned
        id if role == "assistant" and place else -100
        for role, ids in messages
        for place, id in enumerate([0, *ids, 0])
    ],
    "6.12": lambda reference, reward, share: halved(
        torch.ones(len(reward)), reward, share
    ),  # no reference at all
    "6.13": lambda reference, wins, beta: wins.sum(dim=1) / wins.sum(),  # no reference at all
    "6.14": "abcdf",  # 51% are not much more than 50%
    "6.15": lambda given, expected: (
        2
        * len(set(given.split()) & set(expected.split()))
        / max(1, len(given.split()) + len(expected.split()))
    ),  # whatever the order
    "6.16": lambda certain, right, most: min(
        (
            certain[place]
            for place in range(len(certain))
            if right[: place + 1].count(False) <= most * (place + 1)
        ),
        default=math.inf,
    ),  # equally certain ones one by one
    "6.17": lambda *all: preference_step(*all, sign=1),
}


# More mistakes; each of them was accepted once.
WRONG = [
    # chapters 0 to 3
    (
        "0.12",
        lambda ids, context, start: [
            ([start] * (context - i) + ids[:i], id) for i, id in enumerate(ids)
        ],
    ),  # the window never slides
    (
        "0.6",
        lambda x, target, w1, b1, w2, b2: (
            (d := w2 * (h := max(0.0, w1 * x + b1)) + b2 - target) * w2 * (h > 0) * x,
            d * w2 * (h > 0),
            d * h,
            d,
        ),
    ),  # the slope of a square without its 2
    (
        "0.7",
        lambda gradient, x, rate, momentum, steps, last=0.0: [
            x := x + (now := -rate * gradient(x)) + momentum * last + 0 * (last := now)
            for _ in range(steps)
        ][-1],
    ),  # remembers the last step only
    ("1.6", lambda ids, tokens, places: tokens[ids] + places[: len(ids)]),  # as many as texts
    (
        "1.7",
        lambda word, pair: {
            p: Counter(pairwise(merged(word, pair)))[p] - Counter(pairwise(word))[p]
            for p in {*pairwise(merged(word, pair)), *pairwise(word)}
        },
    ),  # with those that have not changed
    ("1.9", lambda table, ids, targets: ids.unique().tolist()),  # no loss, no gradient, no step
    ("1.10", lambda words, count: learned_merges(words, 1) * min(3, count)),  # never merges
    (
        "2.2",
        lambda scores, forbidden: (
            (p := (scores - scores.max()).exp() * ~forbidden) / p.sum(-1, keepdim=True)
        ),
    ),  # the largest of all rows
    (
        "2.2",
        lambda scores, forbidden: (
            (p := (scores - scores.amax(-1, keepdim=True)).exp() * ~forbidden)
            / p.sum(-1, keepdim=True).clamp(min=1e-30)
        ),
    ),  # the largest of a row, though it is forbidden
    (
        "2.4",
        lambda texts: (texts[:, None] < texts) | torch.ones(len(texts), len(texts)).triu(1).bool(),
    ),  # earlier texts are open
    (
        "2.6",
        lambda W_query, W_out, heads, kept: (
            W_query.unflatten(1, (-1, heads))[..., kept].flatten(1),
            W_out.unflatten(0, (-1, heads))[:, kept].flatten(0, 1),
        ),
    ),  # every third number
    ("2.8", lambda f, x: looks_ahead(f, x, lambda old: old + 1, slice(None))),  # a norm hides it
    ("2.8", lambda f, x: looks_ahead(f, x, torch.rand_like, slice(0, 1))),  # the first text only
    (
        "2.8",
        lambda f, x: int(
            not torch.equal(f(torch.cat([x[:, :-1], -x[:, -1:]], 1))[:, :-1], f(x)[:, :-1])
        ),
    ),  # the last token only, and how far is not asked
    (
        "3.1",
        lambda x, gain, bias: (
            (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + 1e-5) * gain
            + bias
        ),
    ),  # eps outside of the root
    (
        "3.6",
        lambda memory, weights, layers, heads, size, batch, bytes_each: (
            (memory - weights) // (2 * layers * heads * size * batch * bytes_each)
        ),
    ),  # less than no tokens
    ("3.7", lambda new, stored, width: torch.ones(new, stored + new).tril().bool()),  # not shifted
    ("3.9", lambda x, eps: x / (x.pow(2).mean(-1, keepdim=True).sqrt() + eps)),  # outside, too
    ("3.10", turned_back),
    (
        "3.11",
        lambda x, norm1, attention, norm2, feed_forward: (
            (y := x + attention(norm1(x))) + feed_forward(norm1(y))
        ),
    ),  # the same norm twice
    (
        "3.12",
        lambda parts, ids: parts.head(
            parts.final_norm(
                reduce(
                    lambda x, b: (y := x + b.attention(b.norm1(x))) + b.feed_forward(b.norm1(y)),
                    parts.blocks,
                    parts.token_embedding(ids) + parts.position_embedding.weight[: ids.shape[1]],
                )
            )
        ),
    ),
    (
        "3.13",
        lambda W, heads, kv_heads: W.view(len(W), -1, heads // kv_heads).mean(dim=2),
    ),  # neighbouring numbers instead of neighbouring heads
    (
        "3.15",
        lambda base, head_dim, context: [
            i for i in range(head_dim // 2) if context * base ** (-i / head_dim) < 2 * math.pi
        ],
    ),  # without the 2
    (
        "3.16",
        lambda parts, prompt, count: written(
            SimpleNamespace(**{**vars(parts), "value": torch.zeros_like}), prompt, count
        ),
    ),  # no attention at all
    ("3.16", lambda parts, prompt, count: written(parts, prompt, count, places=False)),
    # chapters 4 to 6
    (
        "4.1",
        lambda x, y: (
            (x.max() + (x - x.max()).exp().sum(-1).log()) - x[torch.arange(len(y)), y]
        ).mean(),
    ),  # the largest of all rows
    (
        "4.7",
        lambda logits, temperature, top_k: (
            torch.where(logits < logits.topk(top_k).values[-1], -torch.inf, logits) / temperature
        ).softmax(-1),
    ),  # keeps all that tie
    (
        "4.8",
        lambda chances, p: (
            (kept := torch.where((chances[:, None] < chances).float() @ chances <= p, chances, 0.0))
            / kept.sum()
        ),
    ),  # one too many when p is met exactly
    (
        "4.11",
        lambda step, size, windows: (
            torch.manual_seed(step * size // windows),
            torch.randperm(windows)[step * size % windows :][:size].tolist(),
        )[1],
    ),  # everybody's random numbers begin again
    *[
        (
            "4.11",
            lambda step, size, windows, way=way: [
                (way * (step * size % windows + k) + step * size // windows + 1) % windows
                for k in range(size)
            ],
        )
        for way in (1, -1)
    ],  # the order of the text, only turned, forwards and backwards
    ("4.12", lambda options, used: math.log(options / (options - used))),  # the last visitor only
    *[
        ("4.15", lambda *all, name=name: resumed(*all, forgets=(name,)))
        for name in ("random", "step", "model", "rate", "clear")
    ],
    (
        "5.3",
        lambda messages, test_patterns: (
            [text for pattern, text in messages if pattern not in test_patterns],
            [text for pattern, text in messages if pattern in test_patterns] or int("none"),
        ),
    ),  # complains only if the whole test is empty
    (
        "5.4",
        lambda rows, padding: (
            torch.tensor([[padding] * (max(map(len, rows)) - len(r)) + r for r in rows]),
            torch.tensor([[*range(max(map(len, rows)))] for _ in rows]),
        ),
    ),  # positions that count the padding
    (
        "5.5",
        lambda hidden, real: (
            (hidden.masked_fill(hidden.isinf(), 0.0) * real[..., None]).sum(1)
            / real.sum(1, keepdim=True)
        ),
    ),  # nan is not inf
    (
        "5.7",
        lambda odds, labels, share: min(
            t
            for t in odds
            if sum(o > t for o, y in zip(odds, labels, strict=True) if y == 0)
            <= share * labels.count(0)
        ),
    ),  # 0.29 · 100 is less than 29
    (
        "5.11",
        lambda odds, labels: (
            sum(
                a > b
                for a, y in zip(odds, labels, strict=True)
                if y
                for b, z in zip(odds, labels, strict=True)
                if not z
            )
            / labels.count(1)
            / labels.count(0)
        ),
    ),  # equals count nothing
    (
        "5.11",
        lambda odds, labels: (
            sum(
                sum(y for _, y in ranked[: place + 1]) / (place + 1)
                for place, (_, label) in enumerate(ranked)
                if label
            )
            / sum(labels)
            if (ranked := sorted(zip(odds, labels, strict=True), reverse=True))
            else 0.0
        ),
    ),  # the average precision
    (
        "6.4",
        lambda x, y: functional.cross_entropy(x, y) if (y != -100).any() else torch.tensor(0.0),
    ),
    (
        "6.5",
        lambda given, expected: (
            len(
                {re.sub(r"[.!?]$", "", "".join(text.lower().split())) for text in (given, expected)}
            )
            == 1
        ),
    ),  # no space is left at all
    (
        "6.8",
        lambda logits, targets: (
            logits.log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
            * (targets != -100)
        ).sum(dim=1),
    ),  # 0 times minus infinity
    (
        "6.10",
        lambda exchanges, new, limit: next(
            (
                exchanges[first:]
                for first in range(len(exchanges) + 1)
                if sum(map(len, exchanges[first:])) + len(new) < limit
            ),
            [] if len(new) <= limit else int("too long"),
        ),
    ),  # a full row would still fit
    ("6.12", lambda reference, reward, share: 1 / halved(reference, reward, share)),
    (
        "6.12",
        lambda reference, reward, share: float(
            (reward[0] - reward[1]) / torch.log(share / (1 - share) * reference[1] / reference[0])
        ),
    ),  # two answers only
    ("6.13", lambda *all: learned_policy(*all, equally=True)),
    ("6.15", threads),
    (
        "6.16",
        lambda certain, right, most: min(
            (
                c
                for c in certain
                if (said := [r for d, r in zip(certain, right, strict=True) if d >= c]).count(False)
                <= most * len(said)
            ),
            default=math.inf,
        ),
    ),  # 0.29 · 100 is less than 29
    *[
        ("5.14", lambda *all, lapse=lapse: leads(*all, **{lapse: False}))
        for lapse in ("paired", "alike", "back", "by_message")
    ],
    *[
        ("6.17", lambda *all, lapse=lapse: preference_step(*all, **lapse))
        for lapse in ({"dim": 1}, {"masked": False}, {"clear": False}, {"detached": False})
    ],
]


def log_softmax_of_base_2(scores: torch.Tensor) -> torch.Tensor:
    scores = scores / math.log(2)
    top = scores.amax(dim=-1, keepdim=True)
    total = top + (scores - top).exp2().sum(dim=-1, keepdim=True).log2()
    return (scores - total) * math.log(2)


def softmax_in_place(scores: torch.Tensor, forbidden: torch.Tensor) -> torch.Tensor:
    scores[forbidden] = -math.inf
    scores -= scores.amax(dim=-1, keepdim=True).clamp(min=-1e9)
    scores.exp_()
    scores /= scores.sum(dim=-1, keepdim=True).clamp(min=1)
    return scores


def central(step: float, kind: Callable = float) -> Callable:
    return lambda f, x: (f(kind(x + step)) - f(kind(x - step))) / (2 * step)


def windows(ids: list, length: int, stride: int) -> list:
    rows = torch.tensor(ids).unfold(0, length + 1, stride)
    return list(zip(rows[:, :-1], rows[:, 1:], strict=True))


def padded(rows: list, padding: int) -> list:
    ids = torch.full((len(rows), max(map(len, rows))), padding, dtype=torch.int32)
    real = torch.zeros(ids.shape, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        real[number, : len(row)] = True
    return [ids, real]


# Right, though neither the way nor the types are those of the solution.
RIGHT = [
    *[("0.1", kind((4, 5, 3))) for kind in (list, torch.Size, torch.tensor, np.array)],
    ("0.2", lambda x: torch.cdist(x.double(), x.double()) ** 2),
    ("0.2", lambda x: ((x[:, None] - x[None]) ** 2).sum(dim=-1).int().mT),
    ("0.4", lambda scores: scores - scores.logsumexp(dim=-1, keepdim=True)),
    ("0.4", log_softmax_of_base_2),
    *[("0.5", central(step)) for step in (0.1, 1e-2, 1e-6)],
    ("0.5", central(1e-3, torch.tensor)),
    ("0.5", lambda f, x: torch.func.grad(f)(torch.tensor(x))),
    (
        "0.6",
        lambda *numbers: torch.func.grad(
            lambda w1, b1, w2, b2, x, target: (w2 * torch.relu(w1 * x + b1) + b2 - target) ** 2,
            argnums=(0, 1, 2, 3),
        )(*map(torch.tensor, numbers[2:] + numbers[:2])),
    ),
    (
        "0.8",
        lambda text, a, b: Fraction(
            len(re.findall(f"{a}(?={b})", text)), max(1, text[:-1].count(a))
        ),
    ),
    ("0.9", lambda p: torch.tensor([p], requires_grad=True).log().mean(-1).neg().exp()),
    ("0.10", lambda p, u: np.searchsorted(np.cumsum(p), u, side="right")),
    (
        "0.12",
        lambda ids, n, start: [
            [deque(([start] * n + ids)[i : i + n]), np.int64(id)] for i, id in enumerate(ids)
        ],
    ),
    ("0.15", trained_bigram),
    *[("1.1", kind(496)) for kind in (float, torch.tensor, np.int32)],
    ("1.4", windows),
    ("1.8", padded),
    ("2.2", softmax_in_place),
    ("1.10", learned_merges),
    (
        "2.2",
        lambda scores, forbidden: (
            scores.masked_fill(forbidden, -torch.inf).softmax(-1).nan_to_num(0.0)
        ),
    ),
    ("2.5", lambda n, width: torch.ones(n, n).triu(1) + torch.ones(n, n).tril(-width)),
    ("2.8", lambda f, x: looks_ahead(f, x, torch.randn_like, slice(None))),
    ("2.8", lambda f, x: np.int64(looks_ahead(f, x, lambda old: old * 0 + 1e3, slice(None)))),
    (
        "3.8",
        lambda texts: np.array(
            [[row[:i].count(text) for i, text in enumerate(row)] for row in texts.tolist()]
        ),
    ),
    ("3.16", written),
    ("3.4", lambda w, n: torch.tensor([w, 1 + w]) ** n),
    ("4.1", lambda x, y: -float(log_softmax_of_base_2(x)[range(len(y)), y].mean())),
    ("4.6", lambda gradients, counts: np.average(gradients, axis=0, weights=counts)),
    (
        "4.11",
        lambda step, size, windows: np.random.default_rng(step * size // windows).permutation(
            windows
        )[step * size % windows :][:size],
    ),
    (
        "4.7",
        lambda logits, temperature, top_k: (
            np.where(
                np.argsort(np.argsort(-logits.numpy(), kind="stable"), kind="stable") < top_k,
                (logits / temperature).exp(),
                0,
            )
            / sum(math.exp(logit / temperature) for logit in sorted(logits)[-top_k:])
        ),
    ),
    ("4.15", resumed),
    ("5.1", np.array([0.88, 0.75, 0.6])),
    ("5.2", lambda a, b: round(2 * sum(map(math.prod, zip(a, b, strict=True))) / sum(a + b), 4)),
    (
        "5.4",
        lambda rows, padding: np.array(
            [
                [
                    [padding] * (max(map(len, rows)) - len(row)) + row,
                    [0] * (max(map(len, rows)) - len(row)) + [*range(len(row))],
                ]
                for row in rows
            ]
        ).swapaxes(0, 1),
    ),
    (
        "5.11",
        lambda odds, labels: (
            sum(
                (a > b) + (a == b) / 2
                for a, y in zip(odds, labels, strict=True)
                if y
                for b, z in zip(odds, labels, strict=True)
                if not z
            )
            / (labels.count(1) * labels.count(0))
        ),
    ),
    ("6.1", torch.tensor([-100, -100, 7, 0])),
    (
        "6.3",
        lambda ids, n, end: torch.tensor(
            [[*ids[:-1], *[end] * n][:n], [*ids[1:], *[-100] * n][:n]]
        ),
    ),
    (
        "6.4",
        lambda x, y: functional.cross_entropy(x, y, reduction="sum") / max(1, (y != -100).sum()),
    ),
    (
        "6.4",
        lambda x, y: functional.cross_entropy(x, y) if (y != -100).any() else x.sum() * 0,
    ),
    ("6.12", halved),
    ("6.13", learned_policy),
    ("5.14", leads),
    ("6.17", preference_step),
    ("6.15", remembered),
]

# No answers at all, and what is said about them.
ODD = [
    ("0.1", 5, "This question calls for a tuple, not for a number."),
    ("0.1", "(4, 5, 3)", "This question calls for a tuple, not for a text."),
    ("0.6", lambda *numbers: torch.zeros(3), "calls for 4 parts, not for 3 (a tensor)."),
    ("1.1", lambda: 496, "The exercise wants a value; this is a function."),
    ("1.4", lambda *a: (pair for pair in windows(*a)), "calls for a list, not for a generator."),
    (
        "1.5",
        lambda ids, n: ids[:, None] == torch.arange(n),
        "a tensor of float, not of torch.bool.",
    ),
    ("1.8", lambda rows, padding: padded(rows, padding)[0], "calls for 2 parts, not for 3"),
    ("2.2", [1.0], "The exercise wants a function; this is a list."),
    ("2.3", lambda q, k, v: q @ k.mT, "gives the shape (2, 5, 5), not (2, 5, 4). Did you divide"),
    ("2.3", lambda q, k, v: q.tolist(), "calls for a tensor, not for a list."),
    (
        "2.3",
        lambda q, k, v: v,
        "gives 0.8738, not 0.7719 at [0, 0, 0] (40 of 40 numbers differ).",
    ),
    (
        "2.4",
        lambda texts: torch.ones(len(texts), len(texts)).triu(1),
        "a tensor of bool, not of torch.float32.",
    ),
    (
        "2.5",
        lambda n, width: torch.ones(n, n).triu(1),
        "(■ is True):\n    · ■ ■ ■ ■      · ■ ■ ■ ■\n",
    ),
    ("5.1", (0.88, "75 %", 0.6), "This question calls for a number, not for a text."),
    ("5.1", (0.88, math.nan, 0.6), "nan is not it: The precision: of what"),
    ("6.4", lambda x, y: functional.cross_entropy(x, y).item() if (y != -100).any() else 0, "with"),
    ("6.15", threads, "It takes too long: "),
    ("6.7", lambda rows: [*dict(rows)], "calls for a dictionary, not for a list."),
]
SILLY = (5, math.nan, True, 1j, "text", [], {}, {1}, (1, 2, 3), object(), torch.ones(2), [["a"], 2])
JARGON = re.compile("Error|Boolean value|object is|the check itself|solved")

CELL = """\
def last(x):
    return x[len(x)]

def answer(x, *rest):
    x = x + 1
    return last(x)
"""


def verdict(name: str, answer: object, capsys: pytest.CaptureFixture[str]) -> str:
    check(name, answer)
    return capsys.readouterr().out.removeprefix(f"exercise {name}: ")


def stub(*arguments: object) -> None:
    raise NotImplementedError


@pytest.mark.parametrize("name", CHECKS)
def test_a_stub_is_not_solved_yet(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(name, None, capsys) == "not solved yet\n"
    if callable(MISTAKES[name]):
        assert verdict(name, stub, capsys) == "not solved yet\n"


@pytest.mark.parametrize("name", [name for name in CHECKS if callable(MISTAKES[name])])
def test_a_forgotten_return_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = verdict(name, lambda *arguments: None, capsys)
    assert said.startswith("not right yet. ") and said.endswith(
        " gives None. Is there a `return`?\n"
    )


@pytest.mark.parametrize(("name", "answer"), [*MISTAKES.items(), *WRONG])
def test_a_plausible_mistake_is_explained(name: str, answer: object, capsys) -> None:
    said = verdict(name, answer, capsys)
    assert said.startswith("not right yet. ") and len(said) > 40
    assert "raises" not in said  # the mistake runs; the check finds it


@pytest.mark.parametrize("name", [name for name in CHECKS if callable(MISTAKES[name])])
def test_an_answer_that_raises_is_no_crash(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "It raises TypeError" in verdict(name, lambda: 1, capsys)


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_another_way_is_as_right(name: str, answer: object, capsys) -> None:
    assert verdict(name, answer, capsys) == "solved\n"


@pytest.mark.parametrize("step", [0.1, 1e-3, 1e-6, -1e-3])
def test_a_slope_from_one_side_is_refused_whatever_the_step(step: float, capsys) -> None:
    said = verdict("0.5", lambda f, x: (f(x + step) - f(x)) / step, capsys)
    assert "from one side only" in said
    assert "Divide by" in verdict("0.5", lambda f, x: central(step)(f, x) * 2, capsys)


@pytest.mark.parametrize(("name", "answer", "words"), ODD)
def test_a_wrong_type_is_answered_in_words(name: str, answer: object, words: str, capsys) -> None:
    assert words in verdict(name, answer, capsys)


@pytest.mark.parametrize("name", CHECKS)
def test_no_wrong_type_is_answered_in_jargon(name: str, capsys) -> None:
    for silly in SILLY:
        for answer in (silly, lambda *arguments, silly=silly: silly):
            said = verdict(name, answer, capsys)
            assert said.startswith("not right yet. ") and not JARGON.search(said), said


@pytest.mark.parametrize("name", ["0.4", "2.6", "3.9"])
def test_the_line_of_the_students_own_exception_is_told(name: str, monkeypatch, capsys) -> None:
    monkeypatch.setitem(linecache.cache, "<cell 7>", (len(CELL), None, CELL.splitlines(True), ""))
    exec(compile(CELL, "<cell 7>", "exec"), names := {})
    said = verdict(name, names["answer"], capsys)
    assert "It raises IndexError in line 2 of your cell (`return x[len(x)]`): index" in said


def test_the_line_is_the_students_when_a_library_raises(capsys) -> None:
    def answer(function: Callable, x: torch.Tensor) -> bool:
        return function(x[0, 0])

    line = answer.__code__.co_firstlineno + 1
    place = f"in line {line} of test_checks.py (`return function(x[0, 0])`): Dimension"
    assert place in verdict("2.8", answer, capsys)


def test_a_dtype_that_pytorch_cannot_compute_with_is_no_stub(capsys) -> None:
    said = verdict("3.2", lambda x: torch.softmax(x.long(), dim=-1), capsys)
    assert said.startswith("not right yet. It raises NotImplementedError in line ")


def test_a_fault_of_the_check_is_not_the_students(monkeypatch, capsys) -> None:
    def broken(answer: Callable) -> None:
        answer(1.0)[0]

    monkeypatch.setitem(CHECKS, "3.2", broken)
    said = verdict("3.2", lambda x: x, capsys)
    assert said.startswith("cannot say, the check itself raises TypeError: ")


def test_an_exercise_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no exercise '9\.9': choose one of 0\.1, "):
        check("9.9", 1)


def checked(notebook: nbformat.NotebookNode) -> list[str]:
    """The exercises that a notebook checks, in order."""
    calls = [cell.source for cell in notebook.cells if cell.source.startswith("check(")]
    return [ast.literal_eval(re.match(r'check\(("[\d.]+")', call)[1]) for call in calls]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_exercises_and_solutions_have_the_same_checks_and_say_so(folder) -> None:
    names = {}
    for stem, word in (("exercises", "not solved yet"), ("solutions", "solved")):
        notebook = nbformat.read(folder / f"{stem}.ipynb", as_version=4)
        names[stem] = checked(notebook)
        checks = [cell for cell in notebook.cells if cell.source.startswith("check(")]
        said = "".join(out["text"] for cell in checks for out in cell.outputs)
        assert said.splitlines() == [f"exercise {name}: {word}" for name in names[stem]]
    assert names["exercises"] == names["solutions"]
    chapter = names["exercises"][0].split(".")[0]
    assert names["exercises"] == [name for name in CHECKS if name.split(".")[0] == chapter]
    assert len(names["exercises"]) >= 8
