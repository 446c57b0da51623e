"""Messages and classifiers: batches, pooling, scores, LoRA; and bad input, named and refused."""

from __future__ import annotations

import math
from collections import Counter
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data.messages import pattern_of
from shared.classification import (
    PADDING,
    Classifier,
    encode_texts,
    freeze,
    log_odds,
    pad_texts,
    pool,
)
from shared.classroom import datasets
from shared.classroom.batches import MessageBatches
from shared.classroom.datasets import balance, load_messages, load_sms, split_table
from shared.classroom.scores import (
    average_precision,
    best_threshold,
    classification_scores,
    line_on_words,
    naive_bayes,
)
from shared.gpt import GPTConfig, GPTModel, count_parameters
from shared.lora import LoRALinear, adapter_state, add_lora, merge_lora
from shared.tokenizers import course_tokenizer
from shared.training import train
from shared.weights import load_checkpoint, read_checkpoint, save_checkpoint

CONFIG = GPTConfig(30, 16, emb_dim=24, n_heads=2, n_layers=2, drop_rate=0.0, init_std=0.2)
POOLINGS = ("last", "mean", "max")


def tiny_model(seed: int = 0) -> GPTModel:
    torch.manual_seed(seed)
    return GPTModel(CONFIG)


def rows_of(*lengths: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 30, length).tolist() for length in lengths]


# -- batches ----------------------------------------------------------------------------------


def test_every_class_has_its_share_of_a_balanced_batch() -> None:
    labels = [0] * 20 + [1] * 3
    batches = MessageBatches([[n] for n in range(23)], labels, batch_size=8)
    for step in range(6):
        ids, classes = batches[step]
        assert ids.shape == (8, 1) and classes.shape == (8,)
        assert Counter(classes.tolist()) == {0: 4, 1: 4}
        assert [labels[n] for n in ids[:, 0].tolist()] == classes.tolist()


def test_an_epoch_shows_every_text_once_in_a_new_order() -> None:
    batches = MessageBatches([[n] for n in range(12)], [0, 1] * 6, batch_size=4, balanced=False)
    epochs = [[i for s in range(3 * e, 3 * e + 3) for i in batches[s][0][:, 0].tolist()]
              for e in range(2)]  # fmt: skip
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]
    rare = MessageBatches([[n] for n in range(12)], [0] * 9 + [1] * 3, batch_size=2)
    seen = [rare[step][0][1, 0].item() for step in range(6)]
    assert sorted(seen[:3]) == sorted(seen[3:]) == [9, 10, 11]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    rows, labels = rows_of(*range(1, 13)), [0, 1] * 6
    first, again, other = (MessageBatches(rows, labels, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[7][0], again[7][0])
    assert any(not torch.equal(first[s][1], other[s][1]) or first[s][0].shape != other[s][0].shape
               or not torch.equal(first[s][0], other[s][0]) for s in range(3))  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "labels", "size", "complaint"),
    [
        ([[1], [2]], [0, 0], 2, "class 1 has no example"),
        ([[1], [2]], [1, 1], 2, "class 0 has no example"),
        ([[1], [2]], [0, 2], 2, "class 1 has no example"),
        ([[1], []], [0, 1], 2, "text 1 has no tokens"),
        ([[1], [2]], [0], 2, "2 texts and 1 labels"),
        ([], [], 2, "0 texts"),
        ([[1], [2]], [0, 1], 3, "batch_size 3 cannot be divided among classes 2"),
        ([[1], [2]], [0, 1], 0, "batch_size is 0"),
    ],
)
def test_batches_that_cannot_be_are_refused(rows, labels, size, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        MessageBatches(rows, labels, size)


def test_padding_stands_behind_and_is_no_token() -> None:
    ids = pad_texts([[3, 4, 5], [6]])
    assert ids.tolist() == [[3, 4, 5], [6, PADDING, PADDING]]
    assert PADDING < 0


def test_a_text_begins_like_a_document_and_is_cut_at_its_end() -> None:
    tokenizer = course_tokenizer()
    text = "The fox <|endoftext|> lost a kite."
    (row,), (cut,) = encode_texts([text], tokenizer, 256), encode_texts([text], tokenizer, 5)
    assert row[0] == tokenizer.eot_id and tokenizer.eot_id not in row[1:]  # the mark is plain text
    assert tokenizer.decode(row[1:]) == text
    assert cut == row[:5]


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_text_is_refused(empty: str) -> None:
    with pytest.raises(ValueError, match="text 1 is empty"):
        encode_texts(["Hello", empty], course_tokenizer(), 8)


# -- tables -----------------------------------------------------------------------------------


def some_table(ham: int, spam: int) -> pd.DataFrame:
    labels = ["ham"] * ham + ["spam"] * spam
    return pd.DataFrame({"label": labels, "text": [f"message {n}" for n in range(len(labels))]})


def test_balance_keeps_all_of_the_rarest() -> None:
    table = balance(some_table(50, 7), seed=1)
    assert table["label"].value_counts().to_dict() == {"ham": 7, "spam": 7}
    assert table["text"].is_unique
    assert not table["label"].iloc[:7].eq("ham").all()  # mixed
    assert table["text"].tolist() == balance(some_table(50, 7), seed=1)["text"].tolist()


def test_a_split_deals_every_row_once() -> None:
    table = some_table(70, 30)
    parts = split_table(table, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    assert {name: len(part) for name, part in parts.items()} == {"train": 70, "val": 10, "test": 20}
    assert sorted(pd.concat(parts.values())["text"]) == sorted(table["text"])


@pytest.mark.parametrize(
    ("shares", "complaint"),
    [
        ({"train": 0.7, "test": 0.2}, "add up to 1"),
        ({"train": 1.2, "test": -0.2}, "above 0"),
        (
            {"train": 0.99, "val": 0.005, "test": 0.005},
            "'val' has 1 messages and none that is spam",
        ),
        ({"train": 0.95, "test": 0.05}, "'test' has 5 messages and none that is spam"),
    ],
)
def test_a_split_without_a_label_is_refused(shares: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        split_table(some_table(98, 2), shares, seed=0)


def sms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    path = tmp_path / "sms.tsv"
    path.write_text(content, encoding="utf-8")
    monkeypatch.setattr(datasets, "fetch", lambda name: path)


def test_real_messages_come_once_each_with_their_quotation_marks(tmp_path, monkeypatch) -> None:
    sms(tmp_path, monkeypatch, 'ham\tHe said "hi\nspam\tWIN\tnow\nham\tHe said "hi \nham\tOk\n')
    table = load_sms()
    assert table.to_numpy().tolist() == [
        ["ham", 'He said "hi'], ["spam", "WIN\tnow"], ["ham", "Ok"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("ham\tOk\neggs\tNo\n", "message 2: unknown label 'eggs'"),
        ("ham\tOk\nspam\t \n", "message 2 has an empty text"),
        ("ham\tOk\nspam\n", "message 2 has an empty text"),
    ],
)
def test_a_bad_line_is_named(tmp_path, monkeypatch, content: str, complaint: str) -> None:
    sms(tmp_path, monkeypatch, content)
    with pytest.raises(ValueError, match=complaint):
        load_sms()


# -- pooling and the classifier ---------------------------------------------------------------


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0], [5.0], [3.0], [99.0]], [[2.0], [7.0], [-4.0], [6.0]]])
    real = torch.tensor([[True, True, True, False], [True, True, True, True]])
    expected = {"last": [3, 6], "mean": [3, 2.75], "max": [5, 7]}
    for how in POOLINGS:
        assert pool(hidden, real, how)[:, 0].tolist() == expected[how]
    with pytest.raises(ValueError, match="choose last, mean"):
        pool(hidden, real, "median")


@torch.no_grad()
@pytest.mark.parametrize("pooling", POOLINGS)
def test_neither_padding_nor_neighbours_change_a_verdict(pooling: str) -> None:
    classifier = Classifier(tiny_model(), pooling=pooling).eval()
    rows = rows_of(3, 9, 1, 6)
    together = classifier(pad_texts(rows))
    alone = torch.cat([classifier(torch.tensor([row])) for row in rows])
    assert together.shape == (4, 2)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert together.std() > 1e-3


def test_log_odds_come_in_the_order_of_the_texts() -> None:
    classifier = Classifier(tiny_model())
    rows = rows_of(7, 1, 12, 4, 4)
    odds = log_odds(classifier, rows, batch_size=2)
    scores = torch.cat([classifier(torch.tensor([row])) for row in rows]).detach()
    torch.testing.assert_close(odds, scores[:, 1] - scores[:, 0], atol=1e-5, rtol=1e-5)
    assert classifier.training  # as before


@pytest.mark.parametrize("learn", ["all", "last block", "head"])
def test_only_what_may_learn_moves(learn: str) -> None:
    classifier = freeze(Classifier(tiny_model()), learn)
    before = {name: p.detach().clone() for name, p in classifier.named_parameters()}
    batches = MessageBatches(rows_of(*range(1, 13)), [0, 1] * 6, 4)
    train(classifier, batches, 3, max_lr=1e-2, warmup=1, report_every=99,
          loss_function=torch.nn.functional.cross_entropy, device=torch.device("cpu"))  # fmt: skip
    moved = {n for n, p in classifier.named_parameters() if not torch.equal(p, before[n])}
    free = {"all": "", "last block": ("body.blocks.1.", "body.final_norm.", "label_head."),
            "head": "label_head."}[learn]  # fmt: skip
    assert moved == {name for name in before if name.startswith(free)}
    with pytest.raises(ValueError, match="choose one of all, last block, head"):
        freeze(classifier, "some")


def test_a_classifier_learns_what_can_be_learned() -> None:
    rows = rows_of(*([6] * 40), seed=1)
    labels = [int(row[2] < 15) for row in rows]  # the third token decides
    classifier = Classifier(tiny_model())
    batches = MessageBatches(rows, labels, 16)
    train(classifier, batches, 60, max_lr=3e-3, warmup=5, report_every=99,
          loss_function=torch.nn.functional.cross_entropy, device=torch.device("cpu"))  # fmt: skip
    guesses = (log_odds(classifier, rows) > 0).int().tolist()
    assert classification_scores(guesses, labels)["accuracy"] == 1


def test_a_classifier_is_saved_whole(tmp_path: Path) -> None:
    classifier, rows = Classifier(tiny_model(), labels=2, pooling="max"), rows_of(3, 5)
    path = tmp_path / "spam.safetensors"
    save_checkpoint(path, classifier, shift=-1.5)
    torch.manual_seed(9)
    again = load_checkpoint(path)
    assert again.pooling == "max" and not again.training
    assert read_checkpoint(path)[1]["shift"] == -1.5
    assert torch.equal(log_odds(again, rows), log_odds(classifier, rows))


# -- scores -----------------------------------------------------------------------------------


def test_scores_by_hand_and_at_the_edges() -> None:
    found = classification_scores([1, 1, 0, 0, 1], [1, 0, 1, 0, 1])
    assert found == pytest.approx({"accuracy": 0.6, "precision": 2 / 3, "recall": 2 / 3,
                                   "F1": 2 / 3})  # fmt: skip
    nothing = classification_scores([0, 0], [1, 0])
    assert nothing["accuracy"] == 0.5 and nothing["recall"] == nothing["F1"] == 0.0
    assert math.isnan(nothing["precision"])  # nothing was filtered: there is no such share
    undefined = classification_scores([0], [0])
    assert all(math.isnan(undefined[name]) for name in ("precision", "recall", "F1"))


def test_average_precision_by_hand_and_at_the_edges() -> None:
    assert average_precision(torch.tensor([4.0, 3, 1, -1, -2]), [1, 1, 0, 1, 0]) == pytest.approx(
        (1 + 1 + 3 / 4) / 3
    )
    assert average_precision([0.1, 9.0, 5.0], [0, 1, 1]) == 1.0
    assert average_precision([3.0, 2.0, 1.0], [0, 0, 1]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="at least one text of class 1"):
        average_precision([1.0, 2.0], [0, 0])


def test_the_best_threshold_may_be_far_from_zero() -> None:
    odds = torch.tensor([20.0, 30.0, 31.0, 10.0])  # as naive Bayes has them
    assert best_threshold(odds, [0, 1, 1, 0]) == 25.0
    assert best_threshold(torch.tensor([1.0, 2.0]), [1, 1]) < 1.0  # all are to be found


def test_a_threshold_needs_something_to_find() -> None:
    with pytest.raises(ValueError, match="no text of class 1"):
        best_threshold(torch.tensor([1.0, 2.0]), [0, 0])


def test_no_pattern_of_messages_is_in_two_parts() -> None:
    table = load_messages()
    table["pattern"] = [pattern_of(text)[0] for text in table["text"]]
    assert table["pattern"].notna().all() and table.groupby("pattern")["split"].nunique().max() == 1


def test_a_line_on_words_learns_a_weight_for_every_word_and_sign() -> None:
    known = [("Win £900!", 1), ("win tea", 1), ("tea at 5", 0), ("see you", 0), ("Win or lose", 0)]
    prize, words, nothing = line_on_words(known, ["£100 !", "tea or see", "never met"])
    assert prize > nothing > words  # every number of three digits is the same
    assert line_on_words(known, ["or"], penalty=10)[0] > line_on_words(known, ["or"])[0]
    seen = line_on_words(known, [text for text, _ in known])
    assert sum(1 / (1 + math.exp(-odds)) for odds in seen) == pytest.approx(2, abs=0.2)
    with pytest.raises(ValueError, match="both classes"):
        line_on_words([("a", 1)], ["a"])


def test_naive_bayes_by_hand() -> None:
    known = [("win win now", 1), ("tea now", 0), ("tea", 0)]
    # P(spam) 1/3, P(win | spam) 3/6; P(ham) 2/3, P(win | ham) 1/6
    assert naive_bayes(known, ["Win!", "tea", "win tea", "now"]) == [1, 0, 0, 0]


def test_counting_words_is_far_from_perfect_on_new_patterns() -> None:
    known, new = load_messages("train"), load_messages("test")
    pairs = [(text, int(label == "spam")) for label, text, _ in known.to_numpy()]
    labels = (new["label"] == "spam").astype(int).tolist()
    f1 = classification_scores(naive_bayes(pairs, new["text"].tolist()), labels)["F1"]
    assert 0.6 < f1 < 0.75


# -- LoRA -------------------------------------------------------------------------------------


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """With detours that do something."""
    torch.manual_seed(7)
    for module in model.modules():
        if isinstance(module, LoRALinear):
            torch.nn.init.normal_(module.up, std=0.3)
    return model


@torch.no_grad()
@pytest.mark.parametrize("rank", [1, 4, 24])
def test_a_detour_changes_nothing_at_first_and_merges_without_a_trace(rank: int) -> None:
    model, ids = tiny_model().eval(), torch.tensor(rows_of(8, 8))
    plain, tuned = model(ids), deepcopy(model)
    names = add_lora(tuned, rank)
    assert len(names) == 8 and all("blocks." in name for name in names)
    assert torch.equal(tuned(ids), plain)
    detoured = lively(tuned)(ids)
    assert (detoured - plain).abs().max() > 0.1
    merge_lora(tuned)
    torch.testing.assert_close(tuned(ids), detoured, atol=1e-5, rtol=1e-5)
    assert tuned.state_dict().keys() == model.state_dict().keys()


def test_the_detour_is_the_formula() -> None:
    torch.manual_seed(0)
    layer = LoRALinear(torch.nn.Linear(5, 3), rank=2, alpha=6)
    torch.nn.init.normal_(layer.up)
    x = torch.randn(4, 5)
    weight = layer.linear.weight + 6 / 2 * layer.up @ layer.down
    torch.testing.assert_close(layer(x), x @ weight.T + layer.linear.bias)


def test_only_detours_learn_and_only_they_are_saved() -> None:
    classifier = Classifier(tiny_model())
    names = add_lora(classifier, rank=2)
    classifier.label_head.requires_grad_(True)
    adapter = adapter_state(classifier)
    assert set(adapter) == {f"{n}.{part}" for n in names for part in ("up", "down")} | {
        "label_head.weight", "label_head.bias"
    }  # fmt: skip
    assert sum(t.numel() for t in adapter.values()) == count_parameters(classifier, trainable=True)
    restored = Classifier(tiny_model())
    add_lora(restored, rank=2)
    restored.load_state_dict({n: t for n, t in adapter_state(lively(classifier)).items()}, False)
    rows = rows_of(4, 9)
    assert torch.equal(log_odds(restored, rows), log_odds(classifier, rows))


@pytest.mark.parametrize("rank", [0, 25, -1])
def test_an_impossible_rank_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank is {rank}"):
        add_lora(tiny_model(), rank)


def test_detours_are_not_laid_twice() -> None:
    model = tiny_model()
    add_lora(model, 2)
    with pytest.raises(ValueError, match="merge_lora first"):
        add_lora(model, 2)
    merge_lora(model)
    assert len(add_lora(model, 2)) == 8


def test_a_model_without_blocks_is_refused_and_not_frozen() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"no linear layer of the model has 'blocks\.'"):
        add_lora(model, 2)
    assert all(p.requires_grad for p in model.parameters())
