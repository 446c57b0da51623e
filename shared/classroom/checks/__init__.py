"""The exercises' checks: `check("1.3", answer)` says solved, not solved yet, or what differs.

Notable: every check tries an answer on small cases of its own and explains the first difference.
An answer that is None or raises NotImplementedError is a stub, not a mistake. Used by
exercises.ipynb and solutions.ipynb of each chapter, which hold the same checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHECKS: dict[str, Callable[[Any], None]] = {}


class Unsolved(Exception):
    """The answer is still the stub."""


class Wrong(Exception):
    """The answer differs; the message says where."""


def exercise(name: str) -> Callable[[Callable], Callable]:
    """Register the check of one exercise under its number."""

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        CHECKS[name] = function
        return function

    return register


def check(name: str, answer: Any) -> None:
    """Print whether `answer` (a value, a function or a class) solves the exercise `name`.

    Raises ValueError for an exercise that does not exist.
    """
    if name not in CHECKS:
        raise ValueError(f"there is no exercise {name!r}: choose one of {', '.join(CHECKS)}")
    try:
        if answer is None:
            raise Unsolved
        CHECKS[name](answer)
    except (Unsolved, NotImplementedError):
        print(f"exercise {name}: not solved yet")
    except Wrong as difference:
        print(f"exercise {name}: not right yet. {difference}")
    except Exception as error:
        print(f"exercise {name}: not right yet. It raises {type(error).__name__}: {error}")
    else:
        print(f"exercise {name}: solved")


def agree(found: Any, expected: Any, case: str, hint: str = "") -> None:
    """Raise Unsolved for None, or Wrong when `found` is not what is expected for the case."""
    if found is None:
        raise Unsolved
    hint = f" {hint}" if hint else ""
    if isinstance(expected, Tensor):
        if not isinstance(found, Tensor):
            raise Wrong(f"{case} should give a tensor, not a {type(found).__name__}.{hint}")
        if found.shape != expected.shape:
            shapes = f"the shape {tuple(found.shape)}, not {tuple(expected.shape)}"
            raise Wrong(f"{case} gives {shapes}.{hint}")
        same_kind = found.dtype.is_floating_point == expected.dtype.is_floating_point
        if not (same_kind and torch.allclose(found.double(), expected.double(), atol=1e-5)):
            raise Wrong(f"{case} gives {found.tolist()}, not {expected.tolist()}.{hint}")
    elif found != expected:
        raise Wrong(f"{case} gives {found!r}, not {expected!r}.{hint}")


def rounded(found: Any) -> float | None:
    """A number or a tensor of one number to four digits, so that the way to it does not matter."""
    return None if found is None else round(float(found), 4)


# ---------------------------------------------------------------------------------------------
# 0: warm-up
# ---------------------------------------------------------------------------------------------


@exercise("0.1")
def _broadcast_shape(answer: tuple) -> None:
    if tuple(answer) != (4, 5, 3):
        raise Wrong(f"{tuple(answer)} is not it: write the sizes below each other, right-aligned.")


@exercise("0.2")
def _squared_distances(answer: Callable) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    expected = torch.tensor([[0.0, 25.0, 1.0], [25.0, 0.0, 18.0], [1.0, 18.0, 0.0]])
    agree(answer(x), expected, "rows (0, 0), (3, 4), (0, 1)", "Squared, and summed over d.")


@exercise("0.3")
def _interleave(answer: Callable) -> None:
    a, b = torch.tensor([1, 2, 3]), torch.tensor([10, 20, 30])
    agree(answer(a, b), torch.tensor([1, 10, 2, 20, 3, 30]), "1 2 3 and 10 20 30")


@exercise("0.4")
def _log_softmax(answer: Callable) -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    agree(answer(scores), torch.log_softmax(scores, -1), "[[1, 2, 3], [0, 0, 0]]")
    agree(answer(scores[0]), torch.log_softmax(scores[0], -1), "[1, 2, 3], one dimension")
    large = torch.tensor([[1000.0, -1000.0], [-1000.0, -1001.0]])
    hint = "Take from each row its own largest, and never the log of a power that may be 0."
    expected = torch.log_softmax(large, -1)
    agree(answer(large), expected, "[[1000, −1000], [−1000, −1001]]", hint)


@exercise("0.5")
def _slope(answer: Callable) -> None:
    for name, f, x, expected in (
        ("x² at 3", lambda x: x * x, 3.0, 6.0),
        ("x³ at 1", lambda x: x**3, 1.0, 3.0),
    ):
        hint = "From one side only, it is off by a little: take one value on each side."
        found = answer(f, x)
        agree(rounded(found), expected, name, hint)


@exercise("0.6")
def _neuron_slopes(answer: Callable) -> None:
    x, w = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.1])
    for b, on in ((0.0, 1.0), (-1.0, 0.0)):
        slopes, bias_slope = answer(x, w, b) or (None, None)
        case = f"x = (1, −2), w = (0.5, 0.1), b = {b}"
        agree(slopes, on * x, f"the slope for w, {case},", "Does the neuron pass anything on?")
        agree(float(bias_slope), on, f"the slope for b, {case},")


@exercise("0.7")
def _momentum(answer: Callable) -> None:
    def of_square(x: float) -> float:
        return 2 * x

    for momentum, expected in ((0.0, 0.36), (0.5, 0.16)):
        found = answer(of_square, 1.0, 0.2, momentum, 2)
        hint = "The velocity keeps its value from step to step."
        case = f"x², from 1, rate 0.2, momentum {momentum}, 2 steps"
        agree(rounded(found), expected, case, hint)


@exercise("0.8")
def _bigram_probability(answer: Callable) -> None:
    hint = "The last character of the text is followed by nothing."
    agree(answer("banana", "a", "n"), 1.0, "banana, n after a", hint)
    found = answer("abacad", "a", "b")
    agree(rounded(found), round(1 / 3, 4), "abacad, b after a")
    agree(answer("aaa", "a", "a"), 1.0, "aaa, a after a", "Neighbouring pairs may overlap.")
    agree(answer("abc", "c", "a"), 0, "abc, a after c", hint)
    agree(answer("abc", "z", "a"), 0, "abc, a after z")


@exercise("0.9")
def _perplexity(answer: Callable) -> None:
    for probabilities, expected in (([0.25, 0.25], 4.0), ([0.5, 0.125], 4.0), ([1.0], 1.0)):
        found = answer(probabilities)
        hint = "The mean is taken of the logarithms, not of the probabilities."
        agree(rounded(found), expected, f"{probabilities}", hint)


@exercise("0.10")
def _draw(answer: Callable) -> None:
    # Numbers that are exact in binary: on the borders, every way to add gives the same.
    for u, expected in ((0.0, 0), (0.24, 0), (0.25, 2), (0.74, 2), (0.75, 3), (0.999, 3)):
        hint = "A place of probability 0 is never drawn."
        agree(answer([0.25, 0.0, 0.5, 0.25], u), expected, f"(0.25, 0, 0.5, 0.25), u = {u}", hint)


@exercise("0.11")
def _gflops(answer: Callable) -> None:
    found = answer(1000, 2000, 500, 0.5)
    hint = "Each of the m × n results takes k products and as many additions."
    agree(rounded(found), 4.0, "1000, 2000, 500 in 0.5 s", hint)


@exercise("0.12")
def _contexts(answer: Callable) -> None:
    expected = [([0, 0], 5), ([0, 5], 6), ([5, 6], 7)]
    agree(answer([5, 6, 7], 2, 0), expected, "ids 5, 6, 7, context 2, start 0")
    agree(answer([8], 1, 9), [([9], 8)], "ids 8, context 1, start 9")


# ---------------------------------------------------------------------------------------------
# 1: from text to vectors
# ---------------------------------------------------------------------------------------------


@exercise("1.1")
def _windows_of_a_text(answer: int) -> None:
    if answer != 496:
        raise Wrong(
            f"{answer} is not the number of windows: the first starts at 0, each next one 2 later, "
            "and the last one still needs 8 tokens and the one after them."
        )


@exercise("1.2")
def _bytes_of_owls(answer: int) -> None:
    if answer != len("🦉🦉".encode()):
        raise Wrong(f"{answer} is not it: how many bytes has an owl in UTF-8?")


@exercise("1.3")
def _encode_with_unknown(answer: Callable) -> None:
    vocab = {"the": 0, "owl": 1, "<|unk|>": 2}
    agree(answer(["the", "owl"], vocab), [0, 1], "['the', 'owl']")
    agree(answer(["the", "emu"], vocab), [0, 2], "['the', 'emu']", "Look up <|unk|> in the vocab.")
    vocab = {"<|unk|>": 0, "fox": 1}
    agree(answer(["emu", "fox"], vocab), [0, 1], "a vocabulary in which <|unk|> is 0")
    agree(answer([], vocab), [], "an empty list")


@exercise("1.4")
def _sliding_windows(answer: Callable) -> None:
    ids = [5, 6, 7, 8, 9, 10]
    agree(answer(ids, 4, 4), [([5, 6, 7, 8], [6, 7, 8, 9])], "ids 5 to 10, length 4, stride 4")
    expected = [([5, 6], [6, 7]), ([6, 7], [7, 8]), ([7, 8], [8, 9]), ([8, 9], [9, 10])]
    hint = "The last window needs a target for its last token."
    agree(answer(ids, 2, 1), expected, "ids 5 to 10, length 2, stride 1", hint)
    agree(answer(ids, 2, 3), [expected[0], expected[3]], "ids 5 to 10, length 2, stride 3")


@exercise("1.5")
def _one_hot(answer: Callable) -> None:
    expected = torch.tensor([[0.0, 0, 1], [1, 0, 0]])
    agree(answer(torch.tensor([2, 0]), 3), expected, "ids [2, 0] in a vocabulary of 3")
    agree(answer(torch.tensor([1]), 2), torch.tensor([[0.0, 1]]), "id [1] in a vocabulary of 2")


@exercise("1.6")
def _embed(answer: Callable) -> None:
    tokens = torch.arange(10.0).view(5, 2)
    places = torch.tensor([[100.0, 200], [300, 400], [500, 600]])
    ids = torch.tensor([[4, 4], [0, 1]])
    expected = tokens[ids] + places[:2]
    hint = "Every row of the batch gets the positions 0, 1, …, as many as it has tokens."
    agree(answer(ids, tokens, places), expected, "ids [[4, 4], [0, 1]]", hint)


@exercise("1.7")
def _most_frequent_pair(answer: Callable) -> None:
    words = {("l", "o", "w"): 3, ("n", "e", "w"): 5}
    hint = "A word that occurs 5 times counts 5 times."
    agree(answer(words), ("e", "w"), "low × 3, new × 5", hint)
    words = {("b", "b", "b"): 2, ("x", "y"): 3}
    agree(answer(words), ("b", "b"), "bbb × 2, xy × 3", "bbb holds the pair bb twice.")
    tie = {("z", "a"): 1, ("a", "z"): 1}
    agree(answer(tie), ("a", "z"), "za and az, once each", "Of equals take the smallest.")


@exercise("1.8")
def _pad(answer: Callable) -> None:
    ids, mask = answer([[7, 8, 9], [5]], 0) or (None, None)
    agree(ids, torch.tensor([[7, 8, 9], [5, 0, 0]]), "ids of [[7, 8, 9], [5]] padded with 0")
    expected = torch.tensor([[True, True, True], [True, False, False]])
    agree(mask, expected, "mask of [[7, 8, 9], [5]]", "True where a token is real.")
    ids, mask = answer([[0, 0], [4]], 0)
    hint = "The mask must not depend on the value: a real token may be 0, too."
    agree(mask, torch.tensor([[True, True], [True, False]]), "mask of [[0, 0], [4]]", hint)


# ---------------------------------------------------------------------------------------------
# 2: attention
# ---------------------------------------------------------------------------------------------


@exercise("2.1")
def _shape_of_weights(answer: tuple) -> None:
    if tuple(answer) != (8, 4, 100, 100):
        raise Wrong(f"{tuple(answer)} is not it: each head has a table, who looks × at whom.")


@exercise("2.2")
def _softmax(answer: Callable) -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    agree(answer(scores), torch.softmax(scores, -1), "[[1, 2, 3], [0, 0, 0]]", "Each row sums to 1")
    large = torch.tensor([[1000.0, 1001.0]])
    agree(answer(large), torch.softmax(large, -1), "[[1000, 1001]]", "Subtract the largest first.")


@exercise("2.3")
def _attention(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 5, 4, generator=generator) for _ in range(3))
    expected = torch.softmax(q @ k.transpose(1, 2) / 4**0.5, dim=-1) @ v
    agree(answer(q, k, v), expected, "queries, keys and values (2, 5, 4)", "Divided by √4?")


@exercise("2.4")
def _causal_mask(answer: Callable) -> None:
    for size in (1, 3):
        expected = torch.triu(torch.ones(size, size), diagonal=1).bool()
        hint = "True = forbidden: a later token. A token may look at itself."
        agree(answer(size), expected, f"size {size}", hint)


@exercise("2.5")
def _window_mask(answer: Callable) -> None:
    for size, width in ((5, 2), (4, 1), (3, 9)):
        back = torch.arange(size)[:, None] - torch.arange(size)
        expected = (back < 0) | (back >= width)
        hint = "Forbidden: the future, and what lies `width` or more tokens back."
        agree(answer(size, width), expected, f"size {size}, width {width}", hint)


@exercise("2.6")
def _split_heads(answer: Callable) -> None:
    x = torch.arange(24.0).view(1, 4, 6)
    expected = x.view(1, 4, 2, 3).transpose(1, 2)
    hint = "First view each row as heads × head_dim, then let heads and tokens change places."
    agree(answer(x, 2), expected, "x (1, 4, 6) and 2 heads", hint)


@exercise("2.7")
def _relative_bias(answer: Callable) -> None:
    table = torch.tensor([0.0, -1.0, -2.0, -3.0])
    low = -torch.inf
    expected = torch.tensor([[0.0, low, low], [-1, 0, low], [-2, -1, 0]])
    found = answer(3, table)
    if isinstance(found, Tensor) and found.shape == expected.shape:
        ahead = torch.isneginf(found)
        if not torch.equal(ahead, torch.isneginf(expected)):
            raise Wrong("−∞ must stand above the diagonal, and only there.")
        agree(found.masked_fill(ahead, 9), expected.masked_fill(ahead, 9), "size 3 (−∞ shown as 9)")
    else:
        agree(found, expected, "size 3")


@exercise("2.8")
def _leaks(answer: Callable) -> None:
    def honest(x: Tensor) -> Tensor:
        return x.cumsum(dim=1)

    def leaky(x: Tensor) -> Tensor:
        return x + x.mean(dim=1, keepdim=True)

    def peeping(x: Tensor) -> Tensor:  # looks one token ahead
        return x + torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1)

    x = torch.arange(24.0).view(2, 4, 3)
    before = x.clone()
    agree(answer(honest, x), False, "a running sum, which looks back only,")
    agree(answer(leaky, x), True, "a mean over all tokens")
    agree(answer(peeping, x), True, "a function that looks one token ahead")
    if not torch.equal(x, before):
        raise Wrong("x itself was changed: change a clone.")


# ---------------------------------------------------------------------------------------------
# 3: the architecture
# ---------------------------------------------------------------------------------------------


@exercise("3.1")
def _layer_norm(answer: Callable) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 0.0, 8.0]])
    gain, bias = torch.tensor([1.0, 2.0, 1.0, 0.5]), torch.tensor([0.0, 1.0, 0.0, -1.0])
    expected = torch.nn.functional.layer_norm(x, (4,), gain, bias)
    hint = "The variance is divided by 4, not by 3."
    agree(answer(x, gain, bias), expected, "two rows of four numbers", hint)
    flat = answer(torch.full((1, 4), 3.0), torch.ones(4), torch.zeros(4))
    agree(flat, torch.zeros(1, 4), "four equal numbers", "1e-5 keeps the root away from 0.")


@exercise("3.2")
def _gelu(answer: Callable) -> None:
    x = torch.tensor([[-3.0, -1.0, 0.0], [0.5, 2.0, 10.0]])
    hint = "The tanh form is only near: use erf."
    agree(answer(x), torch.nn.functional.gelu(x), "numbers from −3 to 10", hint)


@exercise("3.3")
def _block_parameters(answer: Callable) -> None:
    agree(answer(768), 7_087_872, "768 dimensions", "Weights and biases of 2 norms and 4 layers.")
    agree(answer(2), 74, "2 dimensions")


@exercise("3.4")
def _shortcut_gradients(answer: Callable) -> None:
    for w, n in ((0.5, 10), (0.1, 3), (-0.5, 2)):
        plain, shortcut = answer(w, n) or (None, None)
        agree(rounded(plain), round(w**n, 4), f"w = {w}, {n} layers, no shortcuts")
        hint = "The derivative of x + w·x is 1 + w."
        agree(rounded(shortcut), round((1 + w) ** n, 4), f"w = {w}, {n} layers, shortcuts", hint)


@exercise("3.5")
def _operations(answer: Callable) -> None:
    agree(answer(1, 2, 10, 0), 136, "1 layer, 2 dimensions, 10 words, nothing to look at")
    agree(answer(12, 768, 50_257, 1024), 284_812_800, "GPT-2 small at a full context",
          "Scores cost 2·d per token looked at, mixing as much again.")  # fmt: skip


@exercise("3.6")
def _cache_bytes(answer: Callable) -> None:
    agree(answer(12, 12, 64, 1024, 1, 2), 37_748_736, "GPT-2 small in 2 bytes", "Keys and values!")
    agree(answer(3, 2, 4, 5, 7, 4), 6_720, "3 layers, 2 heads of 4, 5 tokens, 7 rows, 4 bytes")


@exercise("3.7")
def _who_sees_whom(answer: Callable) -> None:
    for new, stored in ((3, 2), (1, 4), (2, 0)):
        expected = [
            [column <= stored + row for column in range(stored + new)] for row in range(new)
        ]
        found = answer(new, stored)
        if found is None:
            raise Unsolved
        case = f"{new} new behind {stored} stored"
        agree(found.tolist(), expected, case, "The last row sees everything.")


@exercise("3.8")
def _left_positions(answer: Callable) -> None:
    real = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]]).bool()
    expected = torch.tensor([[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]])
    agree(answer(real), expected, "2, 0 and 4 paddings", "cumsum counts the real ones so far.")


@exercise("3.9")
def _rms_norm(answer: Callable) -> None:
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    expected = torch.tensor([[1.2, 1.6, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    agree(answer(x, 0.0), expected, "(3, 4, 0, 0) and four ones", "The mean, not the sum.")
    agree(
        answer(torch.zeros(1, 4), 1e-6), torch.zeros(1, 4), "zeros", "eps belongs under the root."
    )


@exercise("3.10")
def _turned(answer: Callable) -> None:
    x = torch.tensor([1.0, 2.0, 0.0, 1.0])
    agree(answer(x, 0, 100.0), x, "position 0", "Nothing turns there.")
    pairs = torch.complex(x[:2], x[2:]) * torch.polar(torch.ones(2), torch.tensor([3.0, 0.3]))
    expected = torch.cat([pairs.real, pairs.imag])
    agree(answer(x, 3, 100.0), expected, "position 3, base 100", "The pairs are (0, 2) and (1, 3).")


# ---------------------------------------------------------------------------------------------
# 4: pretraining
# ---------------------------------------------------------------------------------------------


@exercise("4.1")
def _loss(answer: Callable) -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
    targets = torch.tensor([0, 1])
    expected = torch.nn.functional.cross_entropy(logits, targets)
    agree(answer(logits, targets), expected, "two tokens, three words", "The mean, in nats.")
    large = torch.tensor([[1000.0, 0.0, -1000.0]])
    hint = "exp(1000) is infinite: take the highest logit away first."
    agree(answer(large, torch.tensor([0])), torch.tensor(0.0), "a logit of 1,000", hint)
    agree(answer(large, torch.tensor([1])), torch.tensor(1000.0), "a loss of 1,000", hint)


@exercise("4.2")
def _bits(answer: Callable) -> None:
    hint = "A bit is ln 2 nats; the loss of the whole text is shared among its characters."
    agree(rounded(answer(2.0794415, 100, 300)), 1.0, "ln 8 nats, three characters a token", hint)
    agree(rounded(answer(0.6931472, 50, 50)), 1.0, "ln 2 nats, one character a token", hint)


@exercise("4.3")
def _linear(answer: Callable) -> None:
    cases = {0: 0.5, 3: 2.0, 4: 2.0, 9: 1.0, 13: 0.2}
    for step, expected in cases.items():
        found = rounded(answer(step, 14, 2.0, 4))
        agree(found, expected, f"step {step} of 14, max_lr 2, warmup 4")


@exercise("4.4")
def _adamw(answer: Callable) -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    peer = torch.optim.AdamW([parameter], lr=0.1, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.5)
    weight, mean, square = parameter.detach().clone(), torch.zeros(2), torch.zeros(2)
    for step, gradient in enumerate(torch.tensor([[0.5, -3.0], [1.0, 0.2]]), start=1):
        parameter.grad = gradient.clone()
        peer.step()
        found = answer(weight, gradient, mean, square, step, 0.1, 0.8, 0.9, 0.5)
        if found is None:
            raise Unsolved
        weight, mean, square = found
        hint = "Is the weight shrunk by lr · decay, and are both averages divided by 1 − beta^step?"
        agree(weight, parameter.detach(), f"the weight after step {step}", hint)
        names = {"exp_avg": mean, "exp_avg_sq": square}
        for name, value in names.items():
            hint = "The averages themselves stay as they are, undivided."
            agree(value, peer.state[parameter][name], f"{name} after step {step}", hint)


@exercise("4.5")
def _clip(answer: Callable) -> None:
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    hint = "One norm over all numbers: √(3² + 4²) = 5."
    for limit, factor in {1.0: 0.2, 10.0: 1.0}.items():
        found = answer([gradient.clone() for gradient in gradients], limit)
        if found is None:
            raise Unsolved
        for number, gradient in enumerate(gradients):
            agree(found[number], factor * gradient, f"limit {limit:g}, tensor {number}", hint)
    still = answer([torch.zeros(2)], 1.0)
    agree(still[0], torch.zeros(2), "a gradient of zeros", "Its norm is 0: do not divide by it.")


@exercise("4.6")
def _whole(answer: Callable) -> None:
    parts = [torch.tensor([1.0, 0.0]), torch.tensor([5.0, 4.0])]
    hint = "Each part counts as much as it has targets."
    agree(answer(parts, [3, 1]), torch.tensor([2.0, 1.0]), "3 targets and 1 target", hint)
    agree(answer(parts, [2, 2]), torch.tensor([3.0, 2.0]), "2 targets each", hint)


@exercise("4.7")
def _top_k(answer: Callable) -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, -1.0])
    expected = torch.tensor([0.0, 0.8807971, 0.1192029, 0.0])
    agree(answer(logits, 0.5, 2), expected, "temperature 0.5, top 2", "Cold makes it surer.")
    agree(answer(logits, 1.0, 4), logits.softmax(-1), "temperature 1, all four")


@exercise("4.8")
def _nucleus(answer: Callable) -> None:
    chances = torch.tensor([0.1, 0.5, 0.15, 0.25])
    hint = "The token that crosses p stays as well."
    agree(answer(chances, 0.6), torch.tensor([0, 2 / 3, 0, 1 / 3]), "p = 0.6", hint)
    agree(answer(chances, 0.4), torch.tensor([0.0, 1, 0, 0]), "p = 0.4", hint)
    agree(answer(chances, 1.0), chances, "p = 1", "All stay.")


@exercise("4.9")
def _orthogonal(answer: Callable) -> None:
    matrix = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, -1.0]])
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    once = matrix / matrix.norm()
    once = 1.5 * once - 0.5 * once @ once.T @ once
    agree(answer(matrix, 1), once, "one round", "Divide by the norm before the first.")
    agree(answer(matrix, 30), left @ right, "30 rounds", "They should end at U Vᵀ.")


@exercise("4.10")
def _memory(answer: Callable) -> None:
    hint = "Weights, gradients, two averages: four numbers of 4 bytes per parameter."
    agree(rounded(answer(124_000_000)), 1.984, "124 million parameters", hint)
    agree(rounded(answer(1_558_000_000)), 24.928, "1,558 million parameters", hint)


# ---------------------------------------------------------------------------------------------
# 5: classification
# ---------------------------------------------------------------------------------------------


@exercise("5.1")
def _four_numbers(answer: tuple) -> None:
    accuracy, precision, recall = (rounded(value) for value in answer)
    agree(precision, 0.75, "the precision", "Of what was filtered, how much was spam?")
    agree(recall, 0.6, "the recall", "Of all spam, how much was filtered?")
    agree(accuracy, 0.88, "the accuracy", "How many friends were let through?")


@exercise("5.2")
def _f1(answer: Callable) -> None:
    agree(rounded(answer([1, 1, 0, 0, 1], [1, 0, 1, 0, 1])), 0.6667, "two caught of three")
    agree(rounded(answer([1, 1, 1, 1], [1, 0, 0, 0])), 0.4, "all filtered, one of four spam")
    agree(rounded(answer([0, 0], [1, 0])), 0.0, "nothing filtered", "Do not divide by zero.")


@exercise("5.3")
def _split_by_pattern(answer: Callable) -> None:
    messages = [("won", "You won a car"), ("tea", "Tea at 5?"), ("won", "You won a pen")]
    messages += [("sun", "Sunny today"), ("tea", "Tea at 6?")]
    train, test = answer(messages, {"won", "sun"}) or (None, None)
    agree(train, ["Tea at 5?", "Tea at 6?"], "training without the patterns won and sun")
    agree(test, ["You won a car", "You won a pen", "Sunny today"], "the test of won and sun")
    try:
        answer(messages, {"wno"})
    except ValueError:
        return
    raise Wrong("The pattern 'wno', which no message has, must raise a ValueError.")


@exercise("5.4")
def _pad_and_mask(answer: Callable) -> None:
    ids, real = answer([[5, 0, 7], [0]], 0) or (None, None)
    agree(ids, torch.tensor([[5, 0, 7], [0, 0, 0]]), "the ids of [5, 0, 7] and [0], padding 0")
    if not isinstance(real, Tensor) or real.dtype != torch.bool:
        raise Wrong("The mask must be a tensor of truth values (dtype bool).")
    expected = [[True, True, True], [True, False, False]]
    hint = "A 0 that was given is real; count the lengths."
    agree(real.tolist(), expected, "the mask of [5, 0, 7] and [0], padding 0", hint)


@exercise("5.5")
def _mean_pool(answer: Callable) -> None:
    hidden = torch.tensor(
        [[[1.0, 4.0], [3.0, 0.0], [9.0, 9.0]], [[2.0, 2.0], [4.0, 4.0], [6.0, 0.0]]]
    )
    real = torch.tensor([[True, True, False], [True, True, True]])
    expected = torch.tensor([[2.0, 2.0], [4.0, 2.0]])
    agree(answer(hidden, real), expected, "two and three real tokens", "Divide by the real ones.")
    hidden[0, 2] = torch.inf
    agree(answer(hidden, real), expected, "inf at the padding", "0 × inf is not 0.")


@exercise("5.6")
def _real_probability(answer: Callable) -> None:
    agree(rounded(answer(0.0, 0.5)), 0.5, "log odds 0, half of life is spam")
    agree(rounded(answer(0.0, 0.1)), 0.1, "log odds 0, a tenth is spam", "Odds are p / (1 − p).")
    agree(rounded(answer(3.0, 0.1)), 0.6906, "log odds 3, a tenth is spam")


@exercise("5.7")
def _best_threshold(answer: Callable) -> None:
    odds, labels = [-3.0, -1.0, 0.5, 2.0, -2.0, 1.0, 3.0], [0, 0, 0, 0, 1, 1, 1]
    for share, expected in ((0.0, 2.0), (0.25, 0.5), (0.3, 0.5), (0.5, -1.0), (1.0, -3.0)):
        case = f"odds {odds}, labels {labels}, at most {share:.0%} of the ham lost"
        agree(answer(list(odds), list(labels), share), expected, case, "Count the ham above it.")


@exercise("5.8")
def _lora_counts(answer: tuple) -> None:
    agree(int(answer[0]), 40_960, "rank 8", "Two matrices: rank × in, and out × rank.")
    agree(int(answer[1]), 819, "the largest rank", "Each rank costs in + out numbers.")


@exercise("5.9")
def _thin(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(5)
    before, change = (torch.randn(6, 4, generator=generator) for _ in range(2))
    values = torch.linalg.svdvals(change)
    for rank in (1, 3):
        up, down = answer(before, before + change, rank) or (None, None)
        if up is None:
            raise Unsolved
        shapes = (tuple(up.shape), tuple(down.shape))
        agree(shapes, ((6, rank), (rank, 4)), f"the shapes for a 6 × 4 matrix, rank {rank}")
        left = rounded((change - up @ down).norm())
        best = rounded(values[rank:].norm())
        agree(left, best, f"rank {rank}: what is left of the change", "Keep the largest ones.")


@exercise("5.10")
def _switch(answer: Callable) -> None:
    generator = torch.Generator().manual_seed(6)
    w = torch.randn(3, 4, generator=generator)
    a, b = (
        (torch.randn(3, 2, generator=generator), torch.randn(2, 4, generator=generator))
        for _ in range(2)
    )
    merged = w + a[0] @ a[1]
    agree(answer(merged.clone(), a, b), w + b[0] @ b[1], "two detours of rank 2 beside a 3 × 4 W")


# ---------------------------------------------------------------------------------------------
# 6: instructions
# ---------------------------------------------------------------------------------------------


@exercise("6.1")
def _targets_of_a_row(answer: list) -> None:
    agree(list(answer), [-100, -100, 7, 0], "the row 0 5 6 7 0", "Behind each input stands …?")


@exercise("6.2")
def _phi3_prompt(answer: Callable) -> None:
    entry = {"instruction": "Sort.", "input": "two, one"}
    agree(answer(entry), "<|user|>\nSort.\ntwo, one\n<|assistant|>\n", "with an input")
    entry = {"instruction": "Sing.", "input": ""}
    hint = "No empty line when there is no input."
    agree(answer(entry), "<|user|>\nSing.\n<|assistant|>\n", "without an input", hint)


@exercise("6.3")
def _inputs_and_targets(answer: Callable) -> None:
    inputs, targets = answer([5, 6, 0], 4, 0) or (None, None)
    agree(inputs, [5, 6, 0, 0], "the inputs of [5, 6, 0], length 4")
    hint = "The first end mark stays: it teaches when to stop."
    agree(targets, [6, 0, -100, -100], "the targets of [5, 6, 0], length 4", hint)
    inputs, targets = answer([5, 9], 1, 9)
    agree((inputs, targets), ([5], [9]), "[5, 9], length 1, end 9")


@exercise("6.4")
def _masked_loss(answer: Callable) -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    targets = torch.tensor([0, -100, 1])
    expected = torch.nn.functional.cross_entropy(logits, targets)
    agree(answer(logits, targets), expected, "targets 0, −100, 1", "Divide by what counts.")
    none = torch.full((3,), -100)
    agree(answer(logits, none), torch.tensor(0.0), "targets that are all −100")


@exercise("6.5")
def _lenient_match(answer: Callable) -> None:
    for given, expected, same in (
        ("A  Fox.", "a fox", True),
        ("a fox", "A fox!", True),
        ("a fox", "a box", False),
        ("Who? A fox", "who a fox", False),
        ("...", "", False),
    ):
        hint = "Only one mark, and only at the end."
        agree(answer(given, expected), same, f"{given!r} and {expected!r}", hint)


@exercise("6.6")
def _recolour(answer: Callable) -> None:
    entry = {"instruction": "Which?", "input": "A red kite, a blue hat, a redhead.",
             "output": "red", "task": "red"}  # fmt: skip
    before = dict(entry)
    found = answer(entry, {"red": "blue", "blue": "red"})
    expected = {"instruction": "Which?", "input": "A blue kite, a red hat, a redhead.",
                "output": "blue", "task": "red"}  # fmt: skip
    agree(found, expected, "red and blue changing places", "At once, and whole words only.")
    if entry != before:
        raise Wrong("The entry that was given has changed: make a new one.")


@exercise("6.7")
def _by_task(answer: Callable) -> None:
    rows = [("sort", True), ("who", False), ("sort", False), ("sort", True), ("sort", True)]
    agree(answer(rows), {"sort": 0.75, "who": 0.0}, "sort right 3 of 4, who 0 of 1")
    agree(answer([]), {}, "no rows at all")


@exercise("6.8")
def _log_prob(answer: Callable) -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    expected = logits.log_softmax(-1)[0, 1] + logits.log_softmax(-1)[1, 2]
    hint = "Probabilities multiply, so logarithms add; softmax first."
    agree(answer(logits, torch.tensor([1, 2])), expected, "ids 1, 2", hint)


@exercise("6.9")
def _preference_loss(answer: Callable) -> None:
    values = [torch.tensor(v) for v in ([-14.0, -3.0], [-12.0, -5.5], [-18.0, -3.5], [-6.0, -5.0])]
    margin = torch.tensor([10.0, 1.0])
    expected = -torch.sigmoid(0.1 * margin).log().mean()
    agree(answer(*values, 0.1), expected, "margins 10 and 1, beta 0.1", "Relative to the start?")
    far = [torch.tensor([v]) for v in (-10_000.0, 0.0, 0.0, 0.0)]
    hint = "log σ needs care: logsigmoid, or softplus."
    agree(answer(*far, 1.0), torch.tensor(10_000.0), "a margin of −10,000, beta 1", hint)


@exercise("6.10")
def _remember(answer: Callable) -> None:
    exchanges = [[1, 1, 1], [2, 2], [3]]
    for limit, kept in ((10, exchanges), (7, exchanges[1:]), (4, exchanges[2:]), (2, [])):
        case = f"three exchanges of 3, 2, 1 ids, 2 new ones, limit {limit}"
        found = answer([list(e) for e in exchanges], [9, 9], limit)
        agree(found, kept, case, "As few as needed, the oldest first.")
    try:
        answer([], [9, 9, 9], 2)
    except ValueError:
        return
    raise Wrong("3 new ids and a limit of 2 must raise a ValueError.")
