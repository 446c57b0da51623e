"""What all checks share: how an answer is called and compared, and what is said about it.

Notable: every check tries an answer on small cases of its own and explains the first difference.
An answer that is None, or a function that raises a bare NotImplementedError, is a stub and not a
mistake; a function that gives None has lost its `return`. Values decide, whatever way led to them:
other dtypes, arrays for tensors and tensors for lists are as good.
"""

from __future__ import annotations

import inspect
import linecache
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from numbers import Real
from pathlib import Path
from traceback import walk_tb
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor

CHECKS: dict[str, Callable[[Any], None]] = {}

FOUR_DIGITS = 5e-5  # how far off an answer is that somebody rounded
ROUNDING = 2.0**-22  # what a few steps in float32 lose, as a share of the numbers that went in
FEW = 8  # as many numbers of a tensor are still read at a glance
WIDE = 12  # as large a mask can be drawn in a line


class Unsolved(Exception):
    """The answer is still the stub."""


class Wrong(Exception):
    """The answer differs; the message says where, and a hint may follow."""

    def __str__(self) -> str:
        return " ".join(filter(None, self.args))


class Raised(Wrong):
    """The student's own code raised the exception that caused this one."""


def exercise(name: str) -> Callable[[Callable], Callable]:
    """Register the check of one exercise under its number."""

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        CHECKS[name] = function
        return function

    return register


def check(name: str, answer: Any) -> None:
    """Print whether `answer` (a value or a function) solves the exercise `name`.

    Raises ValueError for an exercise that does not exist.
    """
    if name not in CHECKS:
        raise ValueError(f"there is no exercise {name!r}: choose one of {', '.join(CHECKS)}")
    try:
        if answer is None:
            raise Unsolved
        # A check says by its annotation whether the answer is a function.
        wants_function = get_type_hints(CHECKS[name])["answer"] is Callable
        if callable(answer) != wants_function:
            wanted = "a function" if wants_function else "a value"
            raise Wrong(f"The exercise wants {wanted}; this is {kind(answer)}.")
        CHECKS[name](guarded(answer) if wants_function else answer)
    except Unsolved:
        print(f"exercise {name}: not solved yet")
    except Wrong as difference:
        print(f"exercise {name}: not right yet. {difference}")
    except Exception as error:
        fault = f"the check itself raises {type(error).__name__}: {error}"
        print(f"exercise {name}: cannot say, {fault}. That is a fault of the course, not yours.")
    else:
        print(f"exercise {name}: solved")


def guarded(function: Callable) -> Callable:
    """A student's function, called with copies, for it may work in place; it raises only Raised."""

    def call(*arguments: Any, copied: bool = True) -> Any:
        arguments = deepcopy(arguments) if copied else arguments
        try:
            return function(*arguments)
        except Exception as error:
            # PyTorch, too, raises NotImplementedError, for a dtype that it cannot compute with.
            if isinstance(error, NotImplementedError) and not error.args:
                raise Unsolved from error
            said = f": {error}" if str(error) else ""
            where = line_of(error, function)
            raise Raised(f"It raises {type(error).__name__}{where}{said}") from error

    return call


def line_of(error: Exception, function: Callable) -> str:
    """Where in the student's code an exception arose; all cells of a notebook share their names."""
    names = getattr(inspect.unwrap(function), "__globals__", None)
    frames = [(f.f_code, line) for f, line in walk_tb(error.__traceback__) if f.f_globals is names]
    if not frames:
        return ""
    code, line = frames[-1]
    path = Path(code.co_filename)
    source = linecache.getline(code.co_filename, line).strip()
    place = f" in line {line} of {path.name if path.exists() else 'your cell'}"
    return f"{place} (`{source}`)" if source else place


def refuses(answer: Callable, *arguments: Any, case: str) -> None:
    """Raise Wrong when the answer does not raise ValueError for these arguments."""
    try:
        answer(*arguments)
    except Raised as raised:
        if isinstance(raised.__cause__, ValueError):
            return
        raise
    raise Wrong(f"{case} must raise a ValueError.")


def agree(
    found: Any,
    expected: Any,
    case: str,
    hint: str = "",
    slack: float = FOUR_DIGITS,
    dtype: str = "",
) -> None:
    """Raise Wrong when `found` is not what is expected for the case.

    Numbers that are not whole may be off by `slack`. A `dtype` that the exercise asks for counts.
    """
    given, wanted = plainly(found, expected, case, hint, dtype), plain(expected)
    if same(given, wanted, slack):
        return
    if is_mask(expected):
        drawn = side_by_side(given, wanted)
        raise Wrong(f"{case}: yours, and what is wanted (■ is True):\n{drawn}\n{hint}".rstrip())
    if isinstance(expected, Tensor) and expected.numel() > FEW:
        raise Wrong(f"{case} gives {first_difference(given, wanted, slack)}.", hint)
    raise Wrong(f"{case} gives {told(given, wanted)}.", hint)


def is_mask(thing: Any) -> bool:
    """Whether a thing is a table of truth values that is small enough to be drawn."""
    table = isinstance(thing, Tensor) and thing.dtype == torch.bool and thing.ndim == 2
    return table and 1 < max(thing.shape) <= WIDE


def told(found: Any, expected: Any) -> str:
    """Two plain things that differ, in four digits where these are enough to tell them apart."""
    given, wanted = rounded(found), rounded(expected)
    if repr(given) == repr(wanted):
        given, wanted = found, expected
    return f"{given!r}, not {wanted!r}"


def rounded(thing: Any) -> Any:
    """A plain thing with four digits of each number that is not whole."""
    if isinstance(thing, float):
        return round(thing, 4) if abs(thing) >= 1 else float(f"{thing:.4g}")
    if isinstance(thing, Mapping):
        return {key: rounded(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return type(thing)(map(rounded, thing))
    return thing


def first_difference(found: list, expected: list, slack: float) -> str:
    """Where two tables of one shape differ first, and in how many places."""
    pairs = list(numbered(found, expected))
    place, *values = next(pair for pair in pairs if not same(*pair[1:], slack))
    many = sum(not same(*pair[1:], slack) for pair in pairs)
    return f"{told(*values)} at {list(place)} ({many} of {len(pairs)} numbers differ)"


def numbered(found: Any, expected: Any, place: tuple = ()) -> Iterator[tuple[tuple, Any, Any]]:
    """The numbers of two tables of one shape, each pair after its place."""
    if not isinstance(expected, list):
        yield place, found, expected
        return
    for index, (left, right) in enumerate(zip(found, expected, strict=True)):
        yield from numbered(left, right, (*place, index))


def side_by_side(found: list, expected: list) -> str:
    """Two masks of one shape, drawn beside each other."""

    def drawn(row: list) -> str:
        return " ".join("·■"[bool(cell)] for cell in row)

    rows = zip(found, expected, strict=True)
    return "\n".join(f"    {drawn(left)}      {drawn(right)}" for left, right in rows)


def worked_out(answer: Any, expected: Any, hint: str) -> None:
    """Like `agree` for a value found by thinking, which the message does not give away."""
    if not same(found := plainly(answer, expected, "This question"), expected, FOUR_DIGITS):
        raise Wrong(f"{found!r} is not it:", hint)


def parts(found: Any, count: int, case: str) -> list:
    """The parts of an answer that gives several things; raise Wrong for another number of them."""
    returned(found, case)
    held = list(found) if is_sequence(found) else [found]
    if any(part is None for part in held):
        raise Unsolved
    if len(held) != count:
        raise Wrong(f"{case} calls for {count} parts, not for {len(held)} ({kind(found)}).")
    return held


def shaped(found: Any, shape: Sequence[int], case: str, hint: str = "") -> None:
    """Raise Wrong when `found` is not a tensor (or an array) of that shape."""
    if not isinstance(found, Tensor | np.ndarray):
        raise Wrong(f"{case} calls for a tensor, not for {kind(found)}.", hint)
    if tuple(found.shape) != tuple(shape):
        raise Wrong(f"{case} gives the shape {tuple(found.shape)}, not {tuple(shape)}.", hint)


def plainly(found: Any, expected: Any, case: str, hint: str = "", dtype: str = "") -> Any:
    """`found` as plain values; raise Wrong when it is another kind."""
    returned(found, case)
    wanted = plain(expected)
    if isinstance(wanted, Real):  # of which a tensor of one number is as good
        single = isinstance(found, Tensor | np.ndarray) and math.prod(found.shape) == 1
        found = found.reshape(()) if single else found
    elif isinstance(expected, Tensor):
        shaped(found, expected.shape, case, hint)
        if dtype not in str(found.dtype):
            raise Wrong(f"{case} calls for a tensor of {dtype}, not of {found.dtype}.", hint)
    found = plain(found)
    family = next(kin for kin in (Real, str, Mapping, list | tuple) if isinstance(wanted, kin))
    if not isinstance(found, family):
        raise Wrong(f"{case} calls for {kind(wanted)}, not for {kind(found)}.", hint)
    return found


def returned(found: Any, case: str) -> None:
    """Raise Wrong for None, which a function gives that has lost its `return`."""
    if found is None:
        raise Wrong(f"{case} gives None. Is there a `return`?")


def is_sequence(thing: Any) -> bool:
    """Whether a thing has parts in an order, and is not a text."""
    if isinstance(thing, Tensor | np.ndarray):
        return thing.ndim > 0
    return isinstance(thing, Sequence) and not isinstance(thing, str | bytes)


def plain(thing: Any) -> Any:
    """Tensors, and what NumPy has, as lists and numbers, also inside of lists and dictionaries."""
    if isinstance(thing, Tensor | np.ndarray | np.generic):
        return thing.tolist()
    if isinstance(thing, Mapping):
        return {key: plain(value) for key, value in thing.items()}
    if is_sequence(thing):
        return tuple(map(plain, thing)) if isinstance(thing, tuple) else list(map(plain, thing))
    return thing


def same(found: Any, expected: Any, slack: float) -> bool:
    """Whether two plain things mean the same: tuple or list, 1 or 1.0, and nearly 0.1 or 0.1."""
    if isinstance(expected, Mapping):
        same_keys = isinstance(found, Mapping) and found.keys() == expected.keys()
        return same_keys and all(same(found[key], expected[key], slack) for key in expected)
    if isinstance(expected, list | tuple):
        same_length = isinstance(found, list | tuple) and len(found) == len(expected)
        return same_length and all(same(*pair, slack) for pair in zip(found, expected, strict=True))
    if isinstance(expected, float) and isinstance(found, Real):
        return math.isclose(found, expected, rel_tol=1e-5, abs_tol=slack)
    return found == expected


def kind(thing: Any) -> str:
    """What a thing is, in words."""
    words = {bool: "True or False", Real: "a number", str: "a text", Mapping: "a dictionary"}
    words |= {Tensor: "a tensor", np.ndarray: "an array", type: "a class", Callable: "a function"}
    named = (words[kin] for kin in words if isinstance(thing, kin))
    return next(named, f"a {type(thing).__name__}")
