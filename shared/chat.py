"""A conversation: turn after turn in one row of tokens, nothing read twice.

Notable: the keys and values of everything said stay in the KV cache between turns, so a new turn
costs only its own tokens; when the context is full, the oldest exchange is forgotten, in the middle
of a long answer too. What a person types is plain text, whatever marks it contains.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from data.instructions import format_prompt
from shared.attention import KVCache
from shared.classroom.errors import whole
from shared.generate import check_sampling, stream
from shared.gpt import GPTModel

# built in 06_finetune_instructions/chat.ipynb: Chat


class Chat:
    """Talk to a model that follows instructions; it sees the exchanges before, if they fit."""

    def __init__(self, model: GPTModel, tokenizer, room: int = 64) -> None:
        whole(1, room=room)
        self.model, self.tokenizer, self.room = model, tokenizer, room
        self.exchanges: list[list[int]] = []  # of each turn: prompt, answer, <|endoftext|>
        self.cache = KVCache(model, batch_size=1)

    def say(self, instruction: str, text: str = "", temperature: float = 0.0) -> Iterator[str]:
        """Yield the answer in pieces, as they come; stop by closing it, before the next turn.

        Raises ValueError for an empty instruction, for one too long for the context, and for a
        temperature below 0.
        """
        if not instruction.strip():
            raise ValueError("the instruction is empty: ask for something")
        end, limit = self.tokenizer.eot_id, self.model.config.context_length
        check_sampling(temperature, None, None)
        prompt = self.tokenizer.encode(format_prompt({"instruction": instruction, "input": text}))
        if 1 + len(prompt) + self.room > limit:
            raise ValueError(
                f"the request has {len(prompt)} tokens; with room for an answer at most "
                f"{limit - self.room - 1} fit: shorten it"
            )
        while 1 + sum(map(len, self.exchanges)) + len(prompt) + self.room > limit:
            self.forget()
        exchange, answer, shown = list(prompt), [], ""
        self.exchanges.append(exchange)
        try:
            for new in self.write(temperature):
                exchange.append(new)
                if new == end:
                    return
                answer.append(new)
                said = self.tokenizer.decode(answer)
                if not said.endswith("\N{REPLACEMENT CHARACTER}"):  # half a character: wait
                    yield said[len(shown) :]
                    shown = said
        finally:
            if exchange[-1] != end:  # stopped, or no room left: the next turn needs the mark
                exchange.append(end)

    def forget(self) -> None:
        """Drop the oldest exchange; the rest moves to other places and must be read anew."""
        self.exchanges.pop(0)
        self.cache = KVCache(self.model, batch_size=1)

    def write(self, temperature: float) -> Iterator[int]:
        """Yield new ids after the last exchange; a long answer drives out what was said before."""
        end, limit = self.tokenizer.eot_id, self.model.config.context_length
        device = next(self.model.parameters()).device
        while True:
            ids = [end, *(id for exchange in self.exchanges for id in exchange)]
            row, room = torch.tensor([ids], device=device), limit - len(ids) - 1  # 1 for the mark
            new_ids = stream(self.model, row, room, temperature, eos_id=end, cache=self.cache)
            yield from (new.item() for new in new_ids)
            if self.exchanges[-1][-1] == end or len(self.exchanges) == 1:
                return
            self.forget()
