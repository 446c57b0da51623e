"""The checks that several files share, each with a message that says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from operator import index

import numpy as np


def require(fine: bool, message: str) -> None:
    """Raise ValueError with the message unless all is fine."""
    if not fine:
        raise ValueError(message)


def plain(number: object) -> object:
    """A number of PyTorch or NumPy as Python's; anything else as it is."""
    return number.item() if getattr(number, "ndim", None) == 0 else number


def at_least(limit: float, **numbers: float) -> None:
    """Refuse what is no number of at least the limit; the first one is named."""
    for name, number in numbers.items():
        fine = isinstance(plain(number), Real) and number >= limit  # not a number (nan) is not
        require(fine, f"{name} is {number}; it must be at least {limit}")


def above(limit: float, **numbers: float) -> None:
    """Refuse what is no number above the limit; the first one is named."""
    for name, number in numbers.items():
        fine = isinstance(plain(number), Real) and number > limit
        require(fine, f"{name} is {number}; it must be above {limit}")


def whole(limit: int, **counts: int) -> None:
    """Refuse what is no whole number of at least the limit; the first one is named."""
    for name, count in counts.items():
        require(isinstance(plain(count), Integral), f"{name} is {count}; it must be a whole number")
        at_least(limit, **{name: count})


def no_share(**counts: float) -> None:
    """Refuse a share of something, such as 0.1, where a count is due; 0 and 100.0 are fine."""
    for name, count in counts.items():
        at_least(0, **{name: count})
        require(not 0 < count < 1, f"{name} is {count}; it must be a whole number, no share")


def one_of(choices: Iterable[str], **values: str) -> None:
    """Refuse values that are not among the choices; the first one is named."""
    for name, value in values.items():
        require(value in choices, f"unknown {name} {value!r}: choose one of {', '.join(choices)}")


def must_divide(**two: int) -> None:
    """Refuse two numbers of which the second does not divide the first."""
    (name, total), (by, parts) = two.items()
    if parts < 1 or total % parts:
        raise ValueError(
            f"{name} {total} cannot be divided among {by} {parts}: choose a number that "
            f"divides {total}"
        )


def must_fit(tokens: int, context_length: int) -> None:
    """Refuse more tokens than the context holds."""
    if tokens > context_length:
        raise ValueError(
            f"{tokens} tokens do not fit into context_length {context_length}: "
            f"keep the last {context_length} with ids[:, -{context_length}:]"
        )


def check_id(id: int, vocab_size: int) -> int:
    """Return a token id that the vocabulary has; refuse every other."""
    try:
        number = index(id)  # whole numbers only, also NumPy's and PyTorch's
    except TypeError as error:
        raise TypeError(
            f"a token id is a whole number, not {id!r:.60}: give one row of ids; of a batch ids[0]"
        ) from error
    if not 0 <= number < vocab_size:
        raise ValueError(
            f"token id {number} is outside the vocabulary (0 to {vocab_size - 1}): "
            f"was it made by another tokenizer?"
        )
    return number


def check_text(text: str) -> None:
    """Raise for what is no text: another type, or half a character (a lone surrogate)."""
    if not isinstance(text, str):
        raise TypeError(f"a tokenizer reads a text (str), not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text holds a lone surrogate, {text[error.start]!r}, at position {error.start}: "
            f"that is half a character and has no bytes. Clean the text first, for example with "
            f"text.encode('utf-8', 'replace').decode()"
        ) from None


def unknown_token(token: str, vocab_size: int) -> ValueError:
    """The error for a token that is not in a vocabulary made from a text."""
    return ValueError(
        f"{token!r} is not in the vocabulary of {vocab_size} tokens: build the tokenizer from a "
        f"text that has it, or with unk=True, which gives <|unk|> for everything unknown"
    )


def a_list(**values: Iterable) -> None:
    """Refuse one text, or one entry, where a list of them is due: it would be taken apart."""
    for name, value in values.items():
        if hasattr(value, "columns"):
            raise TypeError(f"{name} is a table; give one column of it, such as table['text']")
        if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
            kind = {str: "one text", dict: "one entry"}.get(type(value), type(value).__name__)
            raise TypeError(f"{name} is {kind}; give a list, [{name}]")


def classes(count: int | None = None, **labels: Sequence[int]) -> np.ndarray:
    """Labels as an array of classes 0, 1, …; lists, arrays and tensors, True and 1.0 are fine.

    Raises ValueError for anything else, such as "spam", and for a class that is not below `count`.
    """
    ((name, values),) = labels.items()
    found = np.asarray(values.tolist() if hasattr(values, "tolist") else list(values))
    fine = found.ndim == 1 and (found.dtype.kind in "iuf" or found.dtype == bool)
    if not fine or not np.isfinite(found).all() or (found < 0).any() or (found % 1).any():
        raise ValueError(
            f"{name} begin with {found.ravel()[:3].tolist()}; they must be one row of classes, "
            f"whole numbers from 0 (such as 1 for spam, 0 for ham)"
        )
    if count and len(found) and found.max() >= count:
        raise ValueError(f"{name} hold the class {found.max():.0f}; there are 0 to {count - 1}")
    return found.astype(np.int64)


def steps_of(batches: object) -> None:
    """Refuse what does not give the batch of a step: TypeError says how it can."""
    if not hasattr(batches, "__getitem__"):
        raise TypeError(
            f"a {type(batches).__name__} cannot give the batch of a step, batches[step]: "
            f"take list(…) of it, or DocumentBatches"
        )


def all_different(**texts: Sequence[str]) -> None:
    """Refuse anything but a sequence of different, non-empty texts."""
    for name, some in texts.items():
        if isinstance(some, str) or "" in some or len(set(some)) < len(some):
            raise ValueError(f"{name} is {some!r}; give a tuple of different, non-empty texts")
