"""The strongest opponent of a language model that only counts: modified Kneser–Ney.

Source: Chen, Goodman (1999), An Empirical Study of Smoothing Techniques for Language Modeling,
Computer Speech & Language 13.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

# built in 04_pretraining/books.ipynb: discounts, KneserNey


def discounts(counts: Counter) -> list[float]:
    """What to take from counts of 0, 1, 2, and 3 or more (Chen & Goodman 1999)."""
    n = Counter(counts.values())
    if all(n[k] for k in (1, 2, 3, 4)):
        y = n[1] / (n[1] + 2 * n[2])
        found = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
        if all(0 < d < k for k, d in zip((1, 2, 3), found, strict=True)):
            return [0, *found]
    return [0, 0.5, 0.5, 0.5]  # too few rare ones to tell


class KneserNey:
    """Interpolated modified Kneser–Ney on n-grams of up to `order` tokens (Chen & Goodman 1999)."""

    def __init__(self, vocab_size: int, order: int) -> None:
        self.vocab_size, self.order = vocab_size, order
        self.counts = [Counter() for _ in range(order + 1)]  # by length: n-gram → its count
        self.after = [{} for _ in range(order + 1)]  # context → [total, once, twice, more often]

    def read(self, ids: Sequence[int]) -> KneserNey:
        """Count a text; may be called again with more."""
        for gram in self._grams(ids, 0):
            self.add(gram)
        self.discounts = [discounts(counts) for counts in self.counts]
        return self

    def _grams(self, ids: Sequence[int], first: int) -> Iterator[tuple[int, ...]]:
        """The longest n-gram that ends at each place."""
        return (tuple(ids[max(0, n - self.order + 1) : n + 1]) for n in range(first, len(ids)))

    def add(self, gram: tuple[int, ...]) -> None:
        while gram and self._count(gram) == 1:  # a new one: count the shorter one inside it, too
            gram = gram[1:]

    def _count(self, gram: tuple[int, ...]) -> int:
        """Count it once more, and bring `after` up to date."""
        self.counts[len(gram)][gram] += 1
        count = self.counts[len(gram)][gram]
        kinds = self.after[len(gram)].setdefault(gram[:-1], [0, 0, 0, 0])
        kinds[0] += 1
        if count <= 3:
            kinds[count] += 1  # one more token that followed so often …
        if count in (2, 3):
            kinds[count - 1] -= 1  # … and one less that followed once less
        return count

    def p(self, past: tuple[int, ...], i: int) -> float:
        """Probability of token `i` after the tuple `past`."""
        p = 1 / self.vocab_size
        for length in range(1, min(self.order, len(past) + 1) + 1):
            context = past[len(past) - length + 1 :]
            if context not in self.after[length]:
                break  # longer ones were never seen either
            total, *kinds = self.after[length][context]
            count, take = self.counts[length][(*context, i)], self.discounts[length]
            taken = sum(d * kind for d, kind in zip(take[1:], kinds, strict=True))
            p = (max(count - take[min(count, 3)], 0) + taken * p) / total
        return p

    def nats(self, ids: Sequence[int], read_on: bool = False) -> np.ndarray:
        """-log p of every token but the first. With `read_on`, each is then counted, too."""
        found = []
        for gram in self._grams(ids, 1):
            found.append(-math.log(self.p(gram[:-1], gram[-1])))
            if read_on:
                self.add(gram)
        return np.array(found)
