"""The checks of the exercises on text and tokens, 1.1 to 1.11."""

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
    worked_out(answer, len("🦉🦉".encode()), "how many bytes do two owls have in UTF-8?")


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
    places = torch.tensor([[100.0, 200], [300, 400], [500, 600], [700, 800]])
    hint = "Every row of the batch gets the positions 0, 1, …, as many as it has tokens."
    for rows in ([[4, 4, 2]], [[4, 4, 2], [0, 1, 3]]):
        ids = torch.tensor(rows)
        agree(answer(ids, tokens, places), tokens[ids] + places[:3], f"ids {rows}", hint)


@exercise("1.7")
def _changed_counts(answer: Callable) -> None:
    lost, new = {("l", "o"): -1, ("o", "w"): -1, ("w", "e"): -1}, {("l", "ow"): 1, ("ow", "e"): 1}
    hint = "The neighbours of the merged place change as well, on both sides."
    agree(answer(tuple("lower"), ("o", "w")), lost | new, "o + w in l o w e r", hint)
    agree(answer(tuple("abc"), ("c", "a")), {}, "c + a in a b c", "No pair has changed.")
    expected = {("a", "b"): -2, ("b", "a"): -1, ("ab", "ab"): 1}
    agree(answer(tuple("abab"), ("a", "b")), expected, "a + b in a b a b", "Both are merged.")
    hint = "b b b becomes bb b: from left to right, and no letter is used twice."
    agree(
        answer(tuple("bbb"), ("b", "b")), {("b", "b"): -2, ("bb", "b"): 1}, "b + b in b b b", hint
    )
    hint = "Leave out what is as frequent as before."
    expected = {("x", "y"): -1, ("y", "a"): -1, ("xy", "a"): 1}
    agree(answer(tuple("xyabab"), ("x", "y")), expected, "x + y in x y a b a b", hint)


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
        case, start = f"ids {ids}, targets {targets}, 5 tokens", torch.eye(5) / 2
        inputs, wanted = torch.tensor(ids), torch.tensor(targets)
        table = torch.nn.Embedding.from_pretrained(start.clone(), freeze=False)
        given = answer(table, inputs.clone(), wanted.clone(), copied=False)
        agree(given, rows, case, hint)
        start.requires_grad_()
        loss = torch.nn.functional.cross_entropy(start[inputs].flatten(0, 1), wanted.flatten())
        [slopes] = torch.autograd.grad(loss, start)
        step = "One step on `table.weight`: minus the gradient of the mean cross-entropy."
        agree(table.weight.detach(), (start - slopes).detach(), f"the table after {case},", step)


@exercise("1.10")
def _learn_merges(answer: Callable) -> None:
    words = {tuple("low"): 3, tuple("new"): 5, tuple("lower"): 1}
    case = "low × 3, new × 5, lower × 1"
    hint = "A word that occurs 5 times counts 5 times; of equals take the smallest."
    merges = [("e", "w"), ("n", "ew"), ("l", "o"), ("lo", "w")]
    for count, stage in ((1, "stage 1, the first merge"), (4, "stage 2, four merges")):
        agree(answer(words, count), merges[:count], f"{stage} of {case},", hint)
        hint = "Each merge is carried out in all words before the pairs are counted again."
    words = {("b", "b", "b"): 2, ("x", "y"): 3}
    hint = "b b b becomes bb b, and after three merges no word has two tokens left."
    merges = [("b", "b"), ("x", "y"), ("bb", "b")]
    agree(answer(words, 10), merges, "stage 3, ten merges of bbb × 2, xy × 3,", hint)


@exercise("1.11")
def _encode_word(answer: Callable) -> None:
    merges = [("e", "w"), ("n", "ew"), ("l", "o"), ("lo", "w"), ("low", "new")]
    for word, tokens in (
        ("lower", ["low", "e", "r"]),
        ("newlow", ["new", "low"]),
        ("lownewel", ["lownew", "e", "l"]),
        ("zoo", ["z", "o", "o"]),
        ("", []),
    ):
        said = ", ".join("+".join(pair) for pair in merges)
        agree(answer(word, merges), tokens, f"{word!r} with the merges {said}")
    hint = "The merges have an order: b+c comes first, and then no b is left for a+b."
    agree(answer("abc", [("b", "c"), ("a", "b")]), ["a", "bc"], "'abc' with b+c, a+b", hint)
    agree(answer("bbb", [("b", "b")]), ["bb", "b"], "'bbb' with b+b", "From left to right.")
