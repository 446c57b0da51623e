"""Fine-tuning: what a model that was only taught to go on can be taught to do.

Notable: answers are scored exactly, task by task, since the right ones are known; no second model
judges. Tales have many right endings: there the grammar itself says whether one fits. Preferences
are learned directly (DPO), without a reward model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.instructions import Entry, format_prompt
from data.world import explain
from shared.datasets import IGNORED, load_instructions
from shared.generate import generate
from shared.gpt import GPTModel

RESPONSE = "### Response:\n"
FREE_TASK = "continue"  # has many right answers: scored by a rule, and counted apart


# built in: 06_finetune_instructions/instructions.ipynb
def extract_response(text: str) -> str:
    """What stands behind the last "### Response:", without the end mark; "" when nothing does."""
    _, mark, response = text.rpartition(RESPONSE)
    return response.split("<|endoftext|>")[0].strip() if mark else ""


# built in: 06_finetune_instructions/instructions.ipynb
def answer(
    model: GPTModel, tokenizer, entries: Sequence[Entry], max_new_tokens: int = 64
) -> list[str]:
    """The model's greedy answers to entries, in their order.

    Prompts of one length share a batch, so that nothing is padded. Raises ValueError for a prompt
    that leaves no room in the context.
    """
    by_length, texts = defaultdict(list), [""] * len(entries)
    for place, entry in enumerate(entries):
        ids = [tokenizer.eot_id, *tokenizer.encode(format_prompt(entry))]
        if len(ids) >= model.config.context_length:
            raise ValueError(
                f"a prompt has {len(ids)} tokens; with {model.config.context_length} in the "
                f"context no room is left for an answer: shorten {entry['instruction']!r:.80}"
            )
        by_length[len(ids)].append((place, ids))
    device = next(model.parameters()).device
    for length, group in by_length.items():
        ids = torch.tensor([ids for _, ids in group], device=device)
        out = generate(model, ids, max_new_tokens, temperature=0, eos_id=tokenizer.eot_id)
        for (place, _), new in zip(group, out[:, length:].tolist(), strict=True):
            end = new.index(tokenizer.eot_id) if tokenizer.eot_id in new else len(new)
            texts[place] = tokenizer.decode(new[:end]).strip()
    return texts


# built in: 06_finetune_instructions/instructions.ipynb
def exact_match(given: str, expected: str) -> bool:
    """The same words, letters and marks; only white space does not count."""
    return given.split() == expected.split()


# built in: 06_finetune_instructions/instructions.ipynb
def token_f1(given: str, expected: str) -> float:
    """Words in common, as the harmonic mean of the share of the given and of the expected ones."""
    words, right = Counter(given.lower().split()), Counter(expected.lower().split())
    common = (words & right).total()
    return 2 * common / (words.total() + right.total()) if common else 0.0


# built in: 06_finetune_instructions/instructions.ipynb
def fits_tale(beginning: str, given: str) -> bool:
    """Is the beginning with the given text a whole tale that the grammar could tell?"""
    return explain(f"{beginning} {given}").ways > 0


def score_answers(entries: Sequence[Entry], answers: Sequence[str]) -> pd.DataFrame:
    """Per task: entries, share of exact matches, mean token F1; last the row "all".

    The free task is left out. Raises ValueError for a task that the course does not know, or when
    nothing is left to score.
    """
    known, rows = {entry["task"] for entry in load_instructions()}, defaultdict(list)
    for entry, given in zip(entries, answers, strict=True):
        if (task := entry.get("task")) not in known:
            raise ValueError(
                f"no rule to score the task {task!r}: choose one of {', '.join(sorted(known))}, "
                f"or use exact_match and token_f1 directly"
            )
        if task != FREE_TASK:
            score = exact_match(given, entry["output"]), token_f1(given, entry["output"])
            rows[task].append(score)
    if not rows:
        raise ValueError("there is nothing to score: give entries of other tasks than the free one")
    tasks = {task: rows[task] for task in sorted(rows)}
    tasks["all"] = [score for scores in rows.values() for score in scores]
    table = {
        task: (len(scores), *(sum(column) / len(scores) for column in zip(*scores, strict=True)))
        for task, scores in tasks.items()
    }
    return pd.DataFrame.from_dict(table, "index", columns=["entries", "exact match", "token F1"])


# built in: 06_finetune_instructions/preferences_dpo.ipynb
def answer_log_probs(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Log-probability (rows,) of each row's answer: of all its targets that are not IGNORED."""
    log_probs = model(inputs).float().log_softmax(dim=-1)  # (rows, tokens, vocab)
    counted = targets != IGNORED
    each = log_probs.gather(-1, targets.masked_fill(~counted, 0)[..., None])[..., 0]
    return (each * counted).sum(dim=-1)


# built in: 06_finetune_instructions/preferences_dpo.ipynb
def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): the mean loss.

    `chosen` and `rejected`, each (pairs,), are log-probabilities of the answers, the learning
    model's minus the frozen reference's. Raises ValueError for a beta that is not above 0.
    """
    if beta <= 0:
        raise ValueError(f"beta is {beta}; it must be above 0 (0.1 is usual)")
    return -F.logsigmoid(beta * (chosen - rejected)).mean()
