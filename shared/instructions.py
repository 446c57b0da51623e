"""Instructions."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence

from data.instructions import Entry, format_prompt
from data.world import explain, world
from shared.batches import IGNORED, _dealt
from shared.classroom.texts import load_instructions
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


# built in: 06_finetune_instructions/instructions.ipynb
def encode_exchange(entry: Entry, tokenizer) -> tuple[list[int], list[int]]:
    """Ids of an entry's prompt, and of its answer with <|endoftext|> at the end.

    Raises ValueError for an entry without an instruction or an output.
    """
    for key in ("instruction", "output"):
        if not (entry.get(key) or "").strip():
            raise ValueError(f"an entry has no {key}: write one, or leave it out: {entry!r:.200}")
    answer = [*tokenizer.encode(entry["output"]), tokenizer.eot_id]
    return tokenizer.encode(format_prompt(entry)), answer


# built in: 06_finetune_instructions/instructions.ipynb
def collate(rows: list, eot_id: int, mask_prompts: bool = True) -> tuple:
    """Rows of (prompt, answer) pairs → inputs and targets, each (rows, longest - 1) int64.

    A row is <|endoftext|>, prompt, answer, prompt, answer, …; targets are the inputs one token
    later. Padding, and the prompts where `mask_prompts`, are IGNORED as targets.
    """
    inputs, targets = [], []
    for exchanges in rows:
        ids, learn = [eot_id], [False]
        for prompt, answer in exchanges:
            ids += prompt + answer
            learn += [not mask_prompts] * len(prompt) + [True] * len(answer)
        ids, learn = torch.tensor(ids), torch.tensor(learn)
        inputs.append(ids[:-1])
        targets.append(ids[1:].masked_fill(~learn[1:], IGNORED))
    inputs = pad_sequence(inputs, batch_first=True, padding_value=eot_id)
    return inputs, pad_sequence(targets, batch_first=True, padding_value=IGNORED)


# built in: 06_finetune_instructions/instructions.ipynb
def rename(entry: Entry, rng: random.Random) -> Entry:
    """The entry with the names of the valley dealt anew; what is asked does not depend on them.

    He stays he and she stays she, so that pronouns stay right.
    """
    names, dealt = world().kinds["name"], {}
    for pronoun in ("he", "she"):
        group = [name["name"] for name in names if name["he"] == pronoun]
        dealt |= zip(group, rng.sample(group, len(group)), strict=True)
    known = re.compile(rf"\b({'|'.join(dealt)})\b")
    texts = {key: entry.get(key, "") for key in ("instruction", "input", "output")}
    return entry | {key: known.sub(lambda m: dealt[m[0]], text) for key, text in texts.items()}


class InstructionBatches:
    """batches[step] -> (inputs, targets): `batch_size` exchanges, one to `max_turns` in a row.

    Every epoch visits each entry once, in a new order and, with `renaming`, with new names; an
    entry that would become one of `held_out`, or too long, keeps its names. Step s is a function
    of (seed, s).
    Raises ValueError for an entry that cannot be encoded or does not fit into the context.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        tokenizer,
        batch_size: int,
        context_length: int,
        held_out: Sequence[Entry] = (),
        mask_prompts: bool = True,
        max_turns: int = 3,
        renaming: bool = True,
        seed: int = 123,
    ):
        if not entries:
            raise ValueError("there are no instructions to learn: give at least one")
        self.entries, self.tokenizer, self.batch_size = list(entries), tokenizer, batch_size
        self.context_length, self.max_turns = context_length, max_turns
        self.mask_prompts, self.renaming, self.seed = mask_prompts, renaming, seed
        self.held_out = {(entry["instruction"], entry.get("input", "")) for entry in held_out}
        for entry in self.entries:
            tokens = sum(map(len, encode_exchange(entry, tokenizer)))
            if tokens > context_length:
                raise ValueError(
                    f"an entry has {tokens} tokens, the context {context_length}: shorten it or "
                    f"leave it out: {entry!r:.200}"
                )

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng, rows, turns = random.Random(f"{self.seed} {step}"), [], 0
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        for number in _dealt(places, len(self.entries), self.seed):
            exchange = self._exchange(self.entries[number], rng)
            used = sum(len(ids) for pair in rows[-1] for ids in pair) if rows else 0
            if turns and used + sum(map(len, exchange)) <= self.context_length:
                rows[-1].append(exchange)
            else:
                rows.append([exchange])
                turns = rng.randint(1, self.max_turns)
            turns -= 1
        return collate(rows, self.tokenizer.eot_id, self.mask_prompts)

    def _exchange(self, entry: Entry, rng: random.Random) -> tuple[list[int], list[int]]:
        renamed = rename(entry, rng) if self.renaming else entry
        exchange = encode_exchange(renamed, self.tokenizer)
        taken = (renamed["instruction"], renamed.get("input", "")) in self.held_out
        if taken or sum(map(len, exchange)) > self.context_length:  # new names may be longer
            return encode_exchange(entry, self.tokenizer)
        return exchange
