"""A text as a network reads it: windows of token ids, and the same ids one token later."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.classroom.errors import require, whole

# built in 01_text_data/text_data.ipynb: NextTokenDataset

IGNORED = -100  # a target that cross_entropy leaves out


class NextTokenDataset(Dataset):
    """Windows of `context_length` tokens; the target is the same window one token later."""

    def __init__(self, ids: Sequence[int], context_length: int, stride: int) -> None:
        whole(1, context_length=context_length, stride=stride)
        self.ids = torch.as_tensor(ids)
        fine = self.ids.dim() == 1 and not (len(ids) and self.ids.is_floating_point())
        shape = f"shape {tuple(self.ids.shape)} of {self.ids.dtype}"
        require(fine, f"ids have {shape}: give one row of integers")
        self.ids = self.ids.long()
        if len(ids) <= context_length:
            raise ValueError(
                f"the text has {len(ids)} tokens, but one window needs {context_length + 1}: "
                "take a longer text or a shorter context_length"
            )
        self.context_length = context_length
        self.starts = range(0, len(ids) - context_length, stride)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start = self.starts[index]
        window = self.ids[start : start + self.context_length + 1]
        return window[:-1], window[1:]  # (context_length,), (context_length,)


def encode_plain(tokenizer, text: str) -> list[int]:
    """The ids of a text, `<|endoftext|>` in it as plain text, which tiktoken's `encode` refuses."""
    return getattr(tokenizer, "encode_ordinary", tokenizer.encode)(text)


def end_of_text(tokenizer) -> int:
    """The id of <|endoftext|>, in a tokenizer of ours or tiktoken's."""
    return tokenizer.eot_id if hasattr(tokenizer, "eot_id") else tokenizer.eot_token


def size_of(tokenizer) -> int:
    """How many tokens the vocabulary has, in a tokenizer of ours or tiktoken's."""
    return tokenizer.n_vocab if hasattr(tokenizer, "n_vocab") else tokenizer.vocab_size
