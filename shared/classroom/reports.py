"""What a training run says about itself: when, how far it is, and that it went wrong."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping

# built in 04_pretraining/pretraining.ipynb: due, check_finite, progress


def due(step: int, every: int) -> bool:
    """Does something that comes every so many steps (0: never) come after this one?"""
    return every > 0 and (step + 1) % every == 0


def check_finite(loss: float, step: int, rate: float) -> None:
    """Stop at once when the loss has become infinite or not a number."""
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {step} with learning rate {rate:.2e}: lower max_lr, "
            f"lengthen the warm-up, or look for empty targets in the data"
        )


def progress(row: Mapping, steps: int, tokens_per_second: float, seconds_per_step: float) -> str:
    """One line of plain text about a step: where we are, how long still; at the end, how fast."""
    left = (steps - 1 - row["step"]) * seconds_per_step / 60
    measured = [(k, v) for k, v in row.items() if k not in ("step", "loss", "lr")]
    extra = "".join(f"  {k} {v:.3f}" for k, v in measured[:2])  # the history has them all
    ending = f"{left:.1f} min left" if left else f"{tokens_per_second:,.0f} tokens/s"
    number = f"{row['step'] + 1:>{len(str(steps))}}"
    return f"step {number}/{steps}  loss {row['loss']:.3f}{extra}  {ending}"


def quietly() -> contextlib.AbstractContextManager:
    """For a `with` block, such as one of many trainings, whose lines of progress nobody needs."""
    return contextlib.redirect_stdout(io.StringIO())
