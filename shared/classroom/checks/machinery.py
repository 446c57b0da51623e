"""What all checks share: how an answer is compared, and what is said about it.

Notable: every check tries an answer on small cases of its own and explains the first difference.
An answer that is None or raises NotImplementedError is a stub, not a mistake.
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
