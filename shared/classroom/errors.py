"""The checks that several files share, each with a message that says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index


def require(fine: bool, message: str) -> None:
    """Raise ValueError with the message unless all is fine."""
    if not fine:
        raise ValueError(message)


def at_least(limit: int, **numbers: int) -> None:
    """Refuse numbers below the limit; the first one is named."""
    for name, number in numbers.items():
        require(number >= limit, f"{name} is {number}; it must be at least {limit}")


def one_of(choices: Iterable[str], **values: str) -> None:
    """Refuse values that are not among the choices; the first one is named."""
    for name, value in values.items():
        require(value in choices, f"unknown {name} {value!r}: choose one of {', '.join(choices)}")


def must_divide(**two: int) -> None:
    """Refuse two numbers of which the second does not divide the first."""
    (name, whole), (by, parts) = two.items()
    if parts < 1 or whole % parts:
        raise ValueError(
            f"{name} {whole} cannot be divided among {by} {parts}: choose a number that "
            f"divides {whole}"
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
    number = index(id)  # whole numbers only, also NumPy's and PyTorch's
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


def all_different(**texts: Sequence[str]) -> None:
    """Refuse anything but a sequence of different, non-empty texts."""
    for name, some in texts.items():
        if isinstance(some, str) or "" in some or len(set(some)) < len(some):
            raise ValueError(f"{name} is {some!r}; give a tuple of different, non-empty texts")
