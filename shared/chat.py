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
from shared.texts import encode_plain, end_of_text

# built in 06_finetune_instructions/chat.ipynb: Chat
# built in 06_finetune_instructions/real_llm_chat.ipynb: ChatML


class Chat:
    """Talk to a model that follows instructions; it sees the exchanges before, if they fit."""

    def __init__(self, model: GPTModel, tokenizer, room: int = 64) -> None:
        whole(1, room=room)
        self.model, self.tokenizer, self.room = model, tokenizer, room
        self.end = end_of_text(tokenizer)  # closes an answer
        self.opening = [self.end]  # before the first turn
        self.exchanges: list[list[int]] = []  # of each turn: prompt, answer, the mark of its end
        self.cache = KVCache(model, batch_size=1)

    def prompt(self, instruction: str, text: str) -> list[int]:
        """Ids of a request, as the model met requests in its tuning."""
        request = format_prompt({"instruction": instruction, "input": text})
        return encode_plain(self.tokenizer, request)

    def say(self, instruction: str, text: str = "", temperature: float = 0.0) -> Iterator[str]:
        """Yield the answer in pieces, as they come; stop by closing it, before the next turn.

        Raises ValueError for an empty instruction, for one too long for the context, and for a
        temperature below 0.
        """
        if not instruction.strip():
            raise ValueError("the instruction is empty: ask for something")
        check_sampling(temperature, None, None)
        prompt = self.prompt(instruction, text)
        limit = self.model.config.context_length - len(self.opening) - self.room
        if len(prompt) > limit:
            raise ValueError(f"{len(prompt)} tokens; with an answer only {limit} fit: shorten it")
        while sum(map(len, self.exchanges)) + len(prompt) > limit:
            self.forget()
        exchange, answer, shown = list(prompt), [], ""
        self.exchanges.append(exchange)
        try:
            for new in self.write(temperature):
                exchange.append(new)
                if new == self.end:
                    return
                answer.append(new)
                said = self.tokenizer.decode(answer)
                if not said.endswith("\N{REPLACEMENT CHARACTER}"):  # half a character: wait
                    yield said[len(shown) :]
                    shown = said
        finally:
            if exchange[-1] != self.end:  # stopped, or no room left: the next turn needs the mark
                exchange.append(self.end)

    def forget(self) -> None:
        """Drop the oldest exchange; the rest moves to other places and must be read anew."""
        self.exchanges.pop(0)
        self.cache = KVCache(self.model, batch_size=1)

    def write(self, temperature: float) -> Iterator[int]:
        """Yield new ids after the last exchange; a long answer drives out what was said before."""
        end, limit = self.end, self.model.config.context_length
        device = next(self.model.parameters()).device
        while True:
            ids = [*self.opening, *(id for exchange in self.exchanges for id in exchange)]
            row, room = torch.tensor([ids], device=device), limit - len(ids) - 1  # 1 for the mark
            new_ids = stream(self.model, row, room, temperature, eos_id=end, cache=self.cache)
            yield from (new.item() for new in new_ids)
            if self.exchanges[-1][-1] == end or len(self.exchanges) == 1:
                return
            self.forget()


class ChatML(Chat):
    """The same conversation in the format of SmolLM2 and Qwen: who speaks is a special token."""

    def __init__(self, model: GPTModel, tokenizer, room: int = 64) -> None:
        super().__init__(model, tokenizer, room)
        self.speaks = tokenizer.encode_single_token("<|im_start|>")
        self.end = tokenizer.encode_single_token("<|im_end|>")
        self.opening = []

    def prompt(self, instruction: str, text: str) -> list[int]:
        """Ids of what a person says, and of the assistant's turn as far as its first word."""
        said = encode_plain(self.tokenizer, "user\n" + "\n".join(filter(None, (instruction, text))))
        line, name = (encode_plain(self.tokenizer, plain) for plain in ("\n", "assistant\n"))
        between = line if self.exchanges else []
        return [*between, self.speaks, *said, self.end, *line, self.speaks, *name]
