"""Instruction tuning (SFT): exchanges of a prompt and an answer, to learn from and to write.

Notable: only the answer is learned, the prompt is masked; several exchanges may share a row, so
that a model learns to attend to the last one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from data.instructions import Entry, format_prompt
from shared.classroom.errors import a_list, require
from shared.generate import generate
from shared.texts import IGNORED

# built in 06_finetune_instructions/instructions.ipynb: encode_exchange, collate, complete, answer


def encode_exchange(entry: Entry, tokenizer) -> tuple[list[int], list[int]]:
    """Ids of an entry's prompt, and of its answer with <|endoftext|> at the end.

    Raises ValueError for an entry without an instruction or an output.
    """
    for key in ("instruction", "input", "output"):
        text = entry.get(key) or ""
        if not isinstance(text, str) or (key != "input" and not text.strip()):
            raise ValueError(f"an entry has no {key}: write one, or leave it out: {entry!r:.200}")
    answer = [*tokenizer.encode(entry["output"]), tokenizer.eot_id]
    return tokenizer.encode(format_prompt(entry)), answer


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


def complete(
    model: nn.Module,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    end_id: int,
    temperature: float = 0.0,
) -> list[list[int]]:
    """What the model writes after each prompt, in their order: ids, with end_id where it came.

    Prompts of one length share a batch, so that nothing is padded. Raises ValueError for an empty
    prompt, and for one that leaves no room in the context.
    """
    a_list(prompts=prompts)
    context, places, written = model.config.context_length, defaultdict(list), [None] * len(prompts)
    for place, ids in enumerate(prompts):
        require(len(ids) > 0, f"prompt {place} is empty: give at least one token, such as end_id")
        if len(ids) >= context:
            raise ValueError(
                f"prompt {place} has {len(ids)} tokens; with {context} in the context no room is "
                "left for an answer: shorten it"
            )
        places[len(ids)].append(place)
    device = next(model.parameters()).device
    for length, group in places.items():
        rows = torch.tensor([prompts[place] for place in group], device=device)
        out = generate(model, rows, max_new_tokens, temperature, eos_id=end_id)[:, length:].tolist()
        for place, ids in zip(group, out, strict=True):
            end = ids.index(end_id) + 1 if end_id in ids else len(ids)
            written[place] = ids[:end]
    return written


def answer(
    model: nn.Module, tokenizer, entries: Sequence[Entry], max_new_tokens: int = 64
) -> list[str]:
    """The model's greedy answers to entries, in their order; as `complete`, with texts."""
    a_list(entries=entries)
    end = tokenizer.eot_id
    prompts = [[end, *tokenizer.encode(format_prompt(entry))] for entry in entries]
    written = complete(model, prompts, max_new_tokens, end)
    return [tokenizer.decode([id for id in ids if id != end]).strip() for ids in written]
