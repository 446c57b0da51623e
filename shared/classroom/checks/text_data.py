"""The checks of the exercises on text and tokens, 1.1 to 1.9."""

from __future__ import annotations

from collections.abc import Callable

import torch

from shared.classroom.checks.machinery import agree, exercise, parts, worked_out


@exercise("1.1")
def _windows_of_a_text(answer: int) -> None:
    hint = "the first starts at 0, each next one 2 later, and the last one still needs 8 tokens "
    worked_out(answer, 496, hint + "and the one after them.")


@exercise("1.2")
def _bytes_of_owls(answer: int) -> None:
    worked_out(answer, len("🦉🦉".encode()), "how many bytes has an owl in UTF-8?")


@exercise("1.3")
def _encode_with_unknown(answer: Callable) -> None:
    vocab = {"the": 0, "owl": 1, "<|unk|>": 2}
    agree(answer(["the", "owl"], vocab), [0, 1], "['the', 'owl']")
    agree(answer(["the", "emu"], vocab), [0, 2], "['the', 'emu']", "Look up <|unk|> in the vocab.")
    vocab = {"<|unk|>": 0, "fox": 1}
    agree(answer(["emu", "fox"], vocab), [0, 1], "a vocabulary in which <|unk|> is 0")
    agree(answer([], vocab), [], "an empty list")


@exercise("1.4")
def _sliding_windows(answer: Callable) -> None:
    ids = [5, 6, 7, 8, 9, 10]
    agree(answer(ids, 4, 4), [([5, 6, 7, 8], [6, 7, 8, 9])], "ids 5 to 10, length 4, stride 4")
    expected = [([5, 6], [6, 7]), ([6, 7], [7, 8]), ([7, 8], [8, 9]), ([8, 9], [9, 10])]
    hint = "The last window needs a target for its last token."
    agree(answer(ids, 2, 1), expected, "ids 5 to 10, length 2, stride 1", hint)
    agree(answer(ids, 2, 3), [expected[0], expected[3]], "ids 5 to 10, length 2, stride 3")


@exercise("1.5")
def _one_hot(answer: Callable) -> None:
    expected = torch.tensor([[0.0, 0, 1], [1, 0, 0]])
    agree(answer(torch.tensor([2, 0]), 3), expected, "ids [2, 0] of 3", dtype="float")
    agree(answer(torch.tensor([1]), 2), torch.tensor([[0.0, 1]]), "id [1] in a vocabulary of 2")


@exercise("1.6")
def _embed(answer: Callable) -> None:
    tokens = torch.arange(10.0).view(5, 2)
    places = torch.tensor([[100.0, 200], [300, 400], [500, 600]])
    ids = torch.tensor([[4, 4], [0, 1]])
    expected = tokens[ids] + places[:2]
    hint = "Every row of the batch gets the positions 0, 1, …, as many as it has tokens."
    agree(answer(ids, tokens, places), expected, "ids [[4, 4], [0, 1]]", hint)


@exercise("1.7")
def _most_frequent_pair(answer: Callable) -> None:
    words = {("l", "o", "w"): 3, ("n", "e", "w"): 5}
    hint = "A word that occurs 5 times counts 5 times."
    agree(answer(words), ("e", "w"), "low × 3, new × 5", hint)
    words = {("b", "b", "b"): 2, ("x", "y"): 3}
    agree(answer(words), ("b", "b"), "bbb × 2, xy × 3", "bbb holds the pair bb twice.")
    tie = {("z", "a"): 1, ("a", "z"): 1}
    agree(answer(tie), ("a", "z"), "za and az, once each", "Of equals take the smallest.")


@exercise("1.8")
def _pad(answer: Callable) -> None:
    case = "[[7, 8, 9], [5], [6, 7]]"
    ids, mask = parts(answer([[7, 8, 9], [5], [6, 7]], 0), 2, case)
    agree(ids, torch.tensor([[7, 8, 9], [5, 0, 0], [6, 7, 0]]), f"ids of {case} padded with 0")
    expected = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
    agree(mask, expected, f"mask of {case}", "True where a token is real.", dtype="bool")
    _, mask = parts(answer([[0, 0], [4]], 0), 2, "[[0, 0], [4]]")
    hint = "The mask must not depend on the value: a real token may be 0, too."
    agree(mask, torch.tensor([[True, True], [True, False]]), "mask of [[0, 0], [4]]", hint)


@exercise("1.9")
def _rows_that_move(answer: Callable) -> None:
    hint = "A row gets a gradient only when it is looked up."
    for ids, targets, rows in (
        ([[2, 0], [2, 2]], [[1, 3], [4, 0]], [0, 2]),
        ([[4]], [[1]], [4]),
        ([[1, 3, 1, 3]], [[3, 1, 3, 0]], [1, 3]),
    ):
        table = torch.nn.Embedding.from_pretrained(torch.eye(5) / 2, freeze=False)
        given = answer(table, torch.tensor(ids), torch.tensor(targets))
        agree(given, rows, f"ids {ids}, targets {targets}, 5 tokens", hint)
