"""The checks of all exercises: `check("1.3", answer)` says whether an answer is right.

Notable: exercises.ipynb and solutions.ipynb of a chapter hold the same calls of `check`.
"""

from __future__ import annotations

from importlib import import_module

from shared.classroom.checks.machinery import CHECKS, check

__all__ = ["CHECKS", "check"]

CHAPTERS = "warm_up text_data attention gpt pretraining classification instructions".split()
for chapter in CHAPTERS:  # in the order of the course; importing one registers its checks
    import_module(f"{__name__}.{chapter}")
