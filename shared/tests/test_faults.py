"""Kinds of fault that people met in public reports or planted here, each with its right answer.

The last part is a list of inputs that must stay accepted: no mend may refuse what makes sense.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import pickle
import random
import subprocess
import sys
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiktoken
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from shared.attention import KVCache
from shared.chat import Chat
from shared.classification import PADDING, Classifier, encode_texts, log_odds, pad_texts
from shared.classroom import datasets, fetch, files
from shared.classroom.batches import (
    DocumentBatches,
    InstructionBatches,
    MessageBatches,
    create_dataloader,
    encode_documents,
)
from shared.classroom.figures import loss_curves
from shared.classroom.files import ROOT, remove_left_overs, vocabulary, write_atomically
from shared.classroom.machine import evaluating
from shared.classroom.scores import (
    best_threshold,
    classification_scores,
    naive_bayes,
    score_answers,
)
from shared.classroom.tales import TaleTest, rename
from shared.classroom.tensors import INDEX
from shared.generate import generate, next_token_probs
from shared.gpt import GPTConfig, GPTModel
from shared.instructions import answer
from shared.modern import RMSNorm
from shared.optim import Muon, learning_rate
from shared.preferences import dpo_loss
from shared.shards import Documents, read_index, write_shards
from shared.texts import IGNORED, NextTokenDataset
from shared.tokenizers import PATTERN, BPETokenizer, course_tokenizer
from shared.training import evaluate_loss, next_token_loss, train
from shared.weights import load_checkpoint, read_gpt2, save_checkpoint

CONFIG = GPTConfig(40, 16, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.0)
TOKENIZER = course_tokenizer()
ENTRY = {"instruction": "What is the past tense?", "input": "go", "output": "went"}


def tiny_model(seed: int = 0, **changes) -> GPTModel:
    torch.manual_seed(seed)
    return GPTModel(GPTConfig(**(vars(CONFIG) | changes)))


def batches(seed: int = 5) -> DocumentBatches:
    ids = np.random.default_rng(0).integers(0, 40, 300)
    return DocumentBatches(ids, np.arange(0, 300, 20), 12, batch_size=4, seed=seed)


def run(model: nn.Module, steps: int = 6, some: object = None, **options) -> list[dict]:
    options = {"max_lr": 1e-2, "warmup": 2, "device": torch.device("cpu")} | options
    return train(model, some or batches(), steps, **options)


def equal_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


# -- 1. bytes that depend on the machine ------------------------------------------------------


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_a_clone_as_windows_makes_it_has_the_same_bytes(tmp_path: Path) -> None:
    options = ["-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    clone = ["git", *options, "clone", "--quiet", str(ROOT), str(tmp_path / "clone")]
    subprocess.run(clone, check=True)
    written = (tmp_path / "clone").rglob("*")
    texts = [p for p in written if p.is_file() and ".git" not in p.parts and "safe" not in p.name]
    assert len(texts) > 100 and not [p for p in texts if b"\r\n" in p.read_bytes()]


def test_line_ends_do_not_change_the_fingerprint(tmp_path: Path, monkeypatch) -> None:
    content, before = (files.DATA / "course.tiktoken").read_bytes(), vocabulary()
    (tmp_path / "course.tiktoken").write_bytes(content.replace(b"\n", b"\r\n"))
    monkeypatch.setattr(files, "DATA", tmp_path)
    assert vocabulary() == before
    (tmp_path / "course.tiktoken").write_bytes(content[:-9])
    assert vocabulary() != before


BOM = b"\xef\xbb\xbf"


def test_vocabularies_and_mirrors_may_have_windows_line_ends(tmp_path: Path, monkeypatch) -> None:
    ranks = (files.DATA / "course.tiktoken").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "ours.tiktoken").write_bytes(BOM + ranks)
    assert BPETokenizer.load(tmp_path / "ours.tiktoken").ranks == TOKENIZER.ranks
    text = b"One line.\nAnother.\n"
    source = fetch.Source("a.txt", "a text", "CC0", len(text), hashlib.sha256(text).hexdigest(), ())
    monkeypatch.setattr(fetch, "CATALOGUE", {"a.txt": source})
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COURSE_MIRROR", str(tmp_path))
    (tmp_path / "a.txt").write_bytes(text.replace(b"\n", b"\r\n"))
    assert fetch.fetch("a.txt").read_bytes() == text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("windows.txt", b"One.\r\n\r\nTwo.\r\nIt goes on.\r\n\r\nThree."),
        ("bom.txt", BOM + b"One.\n\nTwo.\nIt goes on.\n\nThree."),
        (
            "bom.jsonl",
            BOM + b'{"text": "One."}\r\n{"text": "Two.\\nIt goes on."}\n{"text":"Three."}',
        ),
        ("SHOUTED.JSONL", b'{"text": "One."}\n{"text": "Two.\\nIt goes on."}\n{"text": "Three."}'),
        ("array.json", b'[{"text": "One."},\n{"text": "Two.\\nIt goes on."}, {"text": "Three."}]'),
        ("late.jl", b'\r\n [{"text": "One."}, {"text": "Two.\\nIt goes on."}, {"text": "Three."}]'),
        ("notepad.jsonl.txt", b'{"text":"One."}\n{"text":"Two.\\nIt goes on."}\n{"text":"Three."}'),
        ("old mac.txt", b"One.\r\rTwo.\rIt goes on.\r\rThree."),
        ("no dots", b"One.\n\nTwo.\nIt goes on.\n\nThree."),
        ("PACKED.TXT.GZ", gzip.compress(b"One.\r\n\r\nTwo.\r\nIt goes on.\r\n\r\nThree.", mtime=0)),
    ],
)
@pytest.mark.parametrize("chunk", [5, 9, 2**20])
def test_documents_are_read_as_others_write_them(
    tmp_path: Path, monkeypatch, name: str, content: bytes, chunk: int
) -> None:
    monkeypatch.setattr("shared.shards.CHUNK", chunk)  # a line end may lie across two of them
    (tmp_path / name).write_bytes(content)
    documents = list(Documents(tmp_path / name, separator="\n\n"))
    assert documents == ["One.", "Two.\nIt goes on.", "Three."]


@pytest.mark.parametrize(
    "content", ["Ein Märchen.".encode("utf-16"), "Eins.".encode("utf-16-le"), b"\x89PNG\0\0\1"]
)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes(content)
    for read in (lambda: list(Documents([path])), lambda: datasets.load_text(path)):
        with pytest.raises(ValueError, match=r"odd\.txt (is not UTF-8 text|holds zero bytes, so)"):
            read()


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (b"ham,hi,train,\r\nspam,win,test,\r\n", ["hi", "win"]),  # Excel's comma at the end
        (b"ham,hi, there,train\n", "message 1 has 4 fields, the first line 3; put"),
    ],
)
def test_messages_as_excel_writes_them(tmp_path: Path, monkeypatch, rows: bytes, found) -> None:
    (tmp_path / "messages.csv").write_bytes(BOM + b"label,text,split\r\n" + rows)
    monkeypatch.setattr(datasets, "DATA", tmp_path)
    if isinstance(found, list):
        assert datasets.load_messages()["text"].tolist() == found
    else:
        with pytest.raises(ValueError, match=found):
            datasets.load_messages()


# -- 2. training that keeps or takes what it should not ---------------------------------------


class Stopped:
    """The usual batches, until an error comes at one of them."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        self.at, self.error = at, error

    def __getitem__(self, step: int):
        if step == self.at:
            raise self.error
        return batches()[step]


@pytest.mark.parametrize("left", [math.nan, 0.5], ids=["an error", "Ctrl-C"])
def test_what_a_run_left_behind_does_not_reach_the_next(left: float) -> None:
    fresh, used = tiny_model(), tiny_model()
    for parameter in used.parameters():
        parameter.grad = torch.full_like(parameter, left)
    assert run(used) == run(fresh) and equal_weights(used, fresh)


def test_an_interrupted_run_leaves_its_history_and_goes_on(tmp_path: Path, capsys) -> None:
    whole, cut, history = tiny_model(), tiny_model(), []
    options = {"checkpoint": tmp_path / "run.pt", "save_every": 2}
    with pytest.raises(KeyboardInterrupt):
        run(cut, some=Stopped(5, KeyboardInterrupt), history=history, **options)
    assert [row["step"] for row in history] == [0, 1, 2, 3, 4]
    capsys.readouterr()
    assert run(cut, history=history, **options) is history
    assert history == run(whole) and equal_weights(cut, whole)
    assert f"resumed at step 4 of 6 from {tmp_path / 'run.pt'}" in capsys.readouterr().out


def test_no_error_leaves_a_model_in_evaluation_mode() -> None:
    model, classifier = tiny_model().train(), Classifier(tiny_model()).train()
    for use in (
        lambda: evaluate_loss(model, Stopped(0, KeyboardInterrupt), 1),
        lambda: next(TaleTest(["A hen sang."], TOKENIZER).predictions(model)),  # unknown ids
        lambda: log_odds(classifier, [[99]]),
    ):
        with pytest.raises((KeyboardInterrupt, ValueError)):
            use()
        assert model.training and classifier.training
    with pytest.raises(ValueError), evaluating(model):
        assert not model.training
        raise ValueError
    assert model.training
    modes = []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    run(model, evaluate=lambda model: model.eval() and {}, eval_every=1)
    assert all(modes)


def test_rates_never_rise_after_the_warm_up() -> None:
    assert learning_rate(35, 21, 1e-3, 2, 1e-5) == learning_rate(21, 21, 1e-3, 2, 1e-5) == 1e-5
    for max_lr in (5e-5, 2e-3):  # a usual rate for fine-tuning lies below the default's end
        rates = [row["lr"] for row in run(tiny_model(), 8, max_lr=max_lr)][1:]
        assert rates == sorted(rates, reverse=True)
    for use in (partial(run, tiny_model()), lambda **rates: learning_rate(3, 9, warmup=1, **rates)):
        with pytest.raises(ValueError, match="min_lr is 0.01, max_lr only 0.001: rates fall"):
            use(max_lr=1e-3, min_lr=1e-2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip": 0.0}, "clip is 0.0; it must be above 0"),
        ({"clip": None}, "clip is None; it must be above 0"),
        ({"accumulation": 0}, "accumulation is 0; it must be at least 1"),
        ({"warmup": -3}, "warmup is -3; it must be at least 0"),
        ({"warmup": 0.1}, "warmup is 0.1; it must be a whole number, no share"),
        ({"steps": 4.0}, "steps is 4.0; it must be a whole number"),
        ({"max_lr": -1}, "max_lr is -1; it must be at least 0"),
        ({"max_lr": math.nan}, "max_lr is nan; it must be at least 0"),
        ({"steps": None}, "steps is None; it must be a whole number"),
        ({"report_every": -1}, "report_every is -1; it must be at least 0"),
        ({"accumulation": 2, "shares": [1.0]}, "1 shares for 2 batches"),
        ({"accumulation": 2, "shares": [0, 0]}, "shares are .* one must be above"),
        ({"max_lr": math.inf}, "max_lr is inf; it must be finite"),
        ({"stop_after": -1}, "stop_after is -1; it must be at least 0"),
        ({"optimizers": [torch.optim.SGD([nn.Parameter(torch.ones(1))])]}, "of another model"),
    ],
    ids=str,
)
def test_settings_without_meaning_are_refused(settings: dict, message: str) -> None:
    model, before = tiny_model().eval(), tiny_model()
    with pytest.raises(ValueError, match=message):
        run(model, **settings)
    assert equal_weights(model, before) and not model.training


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: Muon([nn.Parameter(torch.ones(2, 2))], lr=-1), "lr is -1; it must be at least 0"),
        (lambda: dpo_loss(torch.ones(1), torch.ones(1), math.nan), "beta is nan; it must be above"),
        (lambda: log_odds(Classifier(tiny_model()), [[1]], 0), "batch_size is 0; it must be at"),
        (lambda: TaleTest(["A hen."], TOKENIZER, 2.5), "batch_size is 2.5; it must be a whole"),
        (lambda: Chat(tiny_model(), TOKENIZER, room=-1), "room is -1; it must be at least 1"),
        (lambda: NextTokenDataset([1] * 9, 4, 0.5), "stride is 0.5; it must be a whole number"),
        (lambda: generate(tiny_model(), ids(1), 2.5), "max_new_tokens is 2.5; it must be a whole"),
        (lambda: GPTConfig(n_layers=None), "n_layers is None; it must be a whole number"),
    ],
)
def test_numbers_without_meaning_are_refused_elsewhere_too(use, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        use()


def unequal() -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows, of which the first has 8 targets that count and the second one."""
    inputs, targets = torch.arange(16).view(2, 8), torch.arange(1, 17).view(2, 8).clone()
    targets[1, 1:] = IGNORED
    return inputs, targets


def test_every_target_counts_alike_in_training_and_evaluation() -> None:
    inputs, targets = unequal()
    parts = [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])]
    whole, in_parts = tiny_model(), tiny_model()
    assert evaluate_loss(whole, parts, 2) == pytest.approx(
        evaluate_loss(whole, [(inputs, targets)], 1)
    )
    empty = inputs, torch.full_like(targets, IGNORED)
    assert evaluate_loss(whole, [*parts, empty], 3) == evaluate_loss(whole, parts, 2)
    run(whole, 1, [(inputs, targets)])
    run(in_parts, 1, [*parts, empty], accumulation=3)
    for a, b in zip(whole.parameters(), in_parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    with pytest.raises(FloatingPointError, match="empty targets"):
        run(tiny_model(), 1, [empty])
    with pytest.raises(ValueError, match="not one target in 1 batches counts"):
        evaluate_loss(whole, [empty], 1)


def other_loss(logits: torch.Tensor, targets: torch.Tensor, scorer=None) -> torch.Tensor:
    return 2 * next_token_loss(logits, targets)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"some": batches(seed=6)}, "data="),
        ({"loss_function": other_loss}, "loss_function=other_loss"),
        ({"model": tiny_model(n_heads=4)}, "model="),
        ({"loss_function": partial(next_token_loss)}, "loss_function=next_token_loss"),
        ({"optimizers": lambda m: [torch.optim.SGD(m.parameters(), 1.0)]}, "SGD"),
        ({"optimizers": lambda m: [torch.optim.AdamW(m.parameters(), 1.0, eps=0.1)]}, "eps': 0.1"),
    ],
    ids=["data", "loss", "model", "partial", "optimizer", "its options"],
)
def test_the_state_of_another_run_is_refused(tmp_path: Path, changes: dict, named: str) -> None:
    path = tmp_path / "run.pt"
    run(tiny_model(), checkpoint=path)
    model = changes.pop("model", tiny_model(seed=3))
    if make := changes.get("optimizers"):
        changes["optimizers"] = make(model)
    with pytest.raises(ValueError, match=rf"run\.pt was saved with .*{named}"):
        run(model, checkpoint=path, **changes)


def test_a_checkpoint_reads_no_batch_ahead(tmp_path: Path) -> None:
    class Stream:
        """Batches that come once, one after the other, and not one too many."""

        def __init__(self) -> None:
            self.left = iter([batches()[step] for step in range(3)])

        def __getitem__(self, step: int):
            return next(self.left)

    plain, saving = tiny_model(), tiny_model()
    history = run(plain, 3, Stream())
    assert run(saving, 3, Stream(), checkpoint=tmp_path / "run.pt") == history
    assert equal_weights(plain, saving)
    assert run(tiny_model(), 3, [], checkpoint=tmp_path / "run.pt") == history  # finished


@pytest.mark.parametrize("some", [batches(), Stopped(1, KeyboardInterrupt)], ids=["end", "Ctrl-C"])
def test_own_optimizers_get_their_rates_back(some) -> None:
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    with suppress(KeyboardInterrupt):
        run(model, some=some, optimizers=[optimizer], max_lr=1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3]


def test_an_infinite_gradient_is_no_step(tmp_path: Path) -> None:
    class Root(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, slope):
            return slope * math.nan

    model, before = tiny_model(), tiny_model()
    with pytest.raises(RuntimeError, match="non-finite"):
        run(model, 1, loss_function=lambda *pair: Root.apply(next_token_loss(*pair)))
    assert equal_weights(model, before)


class AtRandom:
    """Batches drawn anew at every step, as in nanoGPT."""

    def __getitem__(self, step: int):
        ids = torch.randint(40, (2, 9))
        return ids[:, :-1], ids[:, 1:]


@pytest.mark.parametrize(
    ("some", "options"),
    [
        (AtRandom(), {}),
        (batches(), {"evaluate": lambda model: {"accuracy": np.mean([0.0, 1.0])}}),
        (batches(), {"max_lr": np.float64(1e-2), "betas": [0.9, 0.99]}),
        (batches(), {"accumulation": 2, "shares": np.array([0.5, 0.5])}),
        (batches(), {"loss_function": partial(other_loss, scorer=object())}),
    ],
    ids=["drawn at random", "NumPy's results", "NumPy's rates", "NumPy's shares", "an object"],
)
def test_what_can_be_saved_can_be_resumed(tmp_path: Path, some, options: dict) -> None:
    whole, cut, path = tiny_model(), tiny_model(), tmp_path / "run.pt"
    torch.manual_seed(1)
    history = run(whole, some=some, **options)
    torch.manual_seed(1)
    run(cut, some=some, checkpoint=path, save_every=2, stop_after=3, **options)
    torch.manual_seed(2)
    resumed = tiny_model(seed=3)
    assert run(resumed, some=some, checkpoint=path, **options) == history
    assert equal_weights(resumed, whole)
    assert run(tiny_model(seed=4), some=some, checkpoint=path, **options) == history  # finished


# -- 3. the wrong kind of argument ------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda text: encode_documents(text, TOKENIZER),
        lambda text: encode_texts(text, TOKENIZER, 16),
        lambda text: TaleTest(text, TOKENIZER),
        lambda text: naive_bayes([("win", 1), ("hi", 0)], text),
        lambda text: score_answers([ENTRY | {"task": "past_tense"}], text),
        lambda text: write_shards(text, "nowhere", TOKENIZER.to_tiktoken()),
    ],
    ids=["documents", "texts", "tales", "naive Bayes", "answers", "shards"],
)
def test_one_text_is_no_list_of_texts(use) -> None:
    with pytest.raises(TypeError, match=r"(\w+) is one text; give a list, \[\1\]"):
        use("Once upon a time")


def test_a_table_is_no_list_of_texts() -> None:
    table = datasets.load_messages("test")
    for use in (encode_documents, partial(encode_texts, context_length=9), TaleTest):
        with pytest.raises(TypeError, match=r"is a table; give one column of it"):
            use(table, tokenizer=TOKENIZER)


def test_what_is_held_out_stays_out_also_without_input(monkeypatch) -> None:
    ours, held = (ENTRY | {"instruction": f"Who is {n}?", "input": None} for n in ("Pip", "Mia"))
    monkeypatch.setattr("shared.classroom.batches.rename", lambda entry, rng: held | {"input": ""})
    learned = InstructionBatches([ours], TOKENIZER, 1, 64, held_out=[held])[0][0]
    assert "Pip" in TOKENIZER.decode(learned[0])
    for odd in ({"input": math.nan}, {"input": 5}, {"output": None}):
        with pytest.raises(ValueError, match="an entry has no (input|output)"):
            InstructionBatches([ENTRY | odd], TOKENIZER, 1, 64)


def test_one_entry_is_no_list_of_entries() -> None:
    for use in (
        lambda: answer(tiny_model(), TOKENIZER, ENTRY),
        lambda: InstructionBatches(ENTRY, TOKENIZER, 2, 64),
        lambda: InstructionBatches([ENTRY], TOKENIZER, 2, 64, held_out=ENTRY),
    ):
        with pytest.raises(TypeError, match=r"(entries|held_out) is one entry; give a list"):
            use()


@pytest.mark.parametrize(
    "kind", [list, tuple, torch.tensor, np.array, lambda x: torch.tensor(x).bool().float()]
)
def test_scores_take_labels_of_every_kind(kind) -> None:
    perfect = classification_scores(kind([1, 0, 1]), kind([1, 0, 1]))
    assert set(perfect.values()) == {1.0}
    assert classification_scores(kind([1, 1, 1, 0]), [1, 0, 1, 1])["precision"] == pytest.approx(
        2 / 3
    )
    assert MessageBatches([[1], [2]], kind([0, 1]), 2)[0][1].dtype == torch.int64


def test_labels_that_are_no_classes_are_refused() -> None:
    assert classification_scores([2, 2, 1, 0], [2, 2, 1, 0])["accuracy"] == 1.0  # a third class
    for labels in (["ham", "spam"], [-1, 1], [0.5, 1.0], [None, 1], [math.inf, 1]):
        with pytest.raises(ValueError, match="labels begin with .* whole numbers from 0"):
            classification_scores([0, 1], labels)
        with pytest.raises(ValueError, match="labels begin with"):
            MessageBatches([[1], [2]], labels, 2)
    with pytest.raises(ValueError, match="labels hold the class 2; there are 0 to 1"):
        naive_bayes([("win", 1), ("hi", 0), ("so", 2)], ["hi"])


def test_padding_stands_behind_a_text_or_is_refused() -> None:
    classifier = Classifier(tiny_model()).eval()
    text = torch.tensor([[5, 6, 7]])
    padded = nn.functional.pad(text, (0, 2), value=PADDING)
    torch.testing.assert_close(classifier(padded), classifier(text))
    for wrong in ([[PADDING, 5, 6, 7]], [[5, PADDING, 6]], [[5, 6], [PADDING, PADDING]]):
        with pytest.raises(ValueError, match="padding must stand behind a text"):
            classifier(torch.tensor(wrong))


def test_ids_of_the_wrong_shape_or_type_are_refused_by_name() -> None:
    model, two = tiny_model().eval(), torch.tensor([[1, 2], [3, 4]])
    for rows in (1, 3):
        with pytest.raises(ValueError, match=rf"the cache holds {rows} rows, ids have 2"):
            model(two, KVCache(model, rows))
    for wrong in (two.to(torch.uint16), two.float()):
        with pytest.raises(TypeError, match=r"ids are torch\.\w+; the model takes int64"):
            model(wrong)
    with pytest.raises(TypeError, match=r"one row of ids; of a batch ids\[0\]"):
        TOKENIZER.decode(two)
    assert TOKENIZER.decode(np.array([72, 105], dtype=np.uint16)) == "Hi"
    for use in (
        lambda: NextTokenDataset(torch.ones(9, 5), 4, 1),
        lambda: DocumentBatches(np.ones((9, 5), dtype=int), [0], 4, 2),
    ):
        with pytest.raises(ValueError, match=r"ids have shape \(9, 5\) of .*: give one row"):
            use()
    for use in (
        lambda: NextTokenDataset([0.5] * 9, 4, 1),
        lambda: DocumentBatches(np.ones(9), [0], 4, 2),
        lambda: pad_texts([[1, 2], [1.5]]),
    ):
        with pytest.raises(ValueError, match="row of integers|holds fractions"):
            use()
    assert pad_texts([np.array([1, 2], dtype=np.uint16), [3]]).tolist() == [[1, 2], [3, PADDING]]


def test_what_gives_no_batch_of_a_step_is_refused_by_name() -> None:
    loader = create_dataloader("A hen sang. " * 90, TOKENIZER, 2, 8, 8)
    for use in (
        lambda: run(tiny_model(), some=loader),
        lambda: evaluate_loss(tiny_model(), loader, 1),
    ):
        with pytest.raises(TypeError, match=r"a DataLoader cannot give the batch of a step"):
            use()


# -- 4. numbers at the edge -------------------------------------------------------------------


def test_half_precision_norms_stay_in_range() -> None:
    x = torch.tensor([300.0, 300.0, -300.0, 300.0])
    assert RMSNorm(4).half()(x.half()).tolist() == [1, 1, -1, 1]
    assert RMSNorm(4).half()(x.half()).dtype == torch.float16


def test_scores_that_are_no_numbers_are_never_drawn() -> None:
    model = tiny_model().eval()
    with torch.no_grad():
        model.final_norm.bias[0] = math.nan
    with warnings.catch_warnings(action="error"):  # such as about scores with a gradient
        next_token_probs(tiny_model()(torch.tensor([[1]]))[0, -1])
    for temperature in (0.0, 0.7):
        with pytest.raises(FloatingPointError, match="best score is nan"):
            generate(model, torch.tensor([[1]]), 3, temperature=temperature)
        for bad in (math.nan, math.inf):
            with pytest.raises(FloatingPointError, match=f"best score is {bad}"):
                next_token_probs(torch.tensor([0.0, bad]), temperature)
    with pytest.raises(ValueError, match="scores are no numbers"):
        log_odds(Classifier(model), [[1, 2]])
    with pytest.raises(ValueError, match="odds are no numbers"):
        best_threshold(torch.tensor([math.nan, 1.0]), [0, 1])


def test_top_k_and_top_p_together_are_those_of_transformers() -> None:
    hub = pytest.importorskip("transformers").generation.logits_process
    torch.manual_seed(0)
    for _ in range(200):
        logits, k, p = torch.randn(2, 30) * 3, int(torch.randint(1, 31, ())), float(torch.rand(()))
        theirs = hub.TopPLogitsWarper(p)(None, hub.TopKLogitsWarper(k)(None, logits))
        torch.testing.assert_close(next_token_probs(logits, 1.0, k, p), theirs.softmax(-1))


def test_probabilities_are_computed_in_single_precision() -> None:
    logits = (torch.randn(2000) * 8).bfloat16()
    torch.testing.assert_close(next_token_probs(logits, 0.7), (logits.float() / 0.7).softmax(-1))


def test_long_runs_of_blanks_never_reach_tiktoken() -> None:
    ours = pickle.loads(pickle.dumps(TOKENIZER.to_tiktoken()))  # as a worker process gets it
    plain = tiktoken.Encoding(
        "plain",
        pat_str=PATTERN,
        mergeable_ranks=TOKENIZER.ranks,
        special_tokens=TOKENIZER.special_tokens,
    )
    for text in ("x" + " " * 150_000 + "y", "\n" * 120_000, "a" + "\t " * 60_000 + ". " * 9):
        assert ours.encode_ordinary(text) == plain.encode_ordinary(text)
        text += "<|endoftext|>"
        assert ours.encode(text, allowed_special="all") == TOKENIZER.encode(text, "all")
    million = "x" + " " * 1_000_000 + "y"
    assert len(ours.encode_ordinary(million)) == len(TOKENIZER.encode(million)) == 1_000_001


# -- 5. weights -------------------------------------------------------------------------------


@pytest.fixture
def gpt2_file(tmp_path: Path) -> Path:
    """A tiny GPT-2 in Hugging Face's layout, with a head of its own."""
    from shared.tests.peers import hugging_face_gpt2

    pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = hugging_face_gpt2(GPTConfig(**(vars(CONFIG) | {"tie_weights": False})))
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, tmp_path / "m")
    ids = torch.arange(10)[None]
    torch.save(network(ids).logits.detach(), tmp_path / "logits")
    return tmp_path / "m"


def test_an_untied_head_is_read_or_refused(gpt2_file: Path) -> None:
    untied = GPTConfig(**(vars(CONFIG) | {"tie_weights": False}))
    logits = torch.load(gpt2_file.with_name("logits"), weights_only=True)
    model = read_gpt2(gpt2_file, untied)
    torch.testing.assert_close(model(torch.arange(10)[None]), logits, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="head of its own: read it with tie_weights=False"):
        read_gpt2(gpt2_file, CONFIG)


def test_shards_and_wrappers_are_read(gpt2_file: Path) -> None:
    untied = GPTConfig(**(vars(CONFIG) | {"tie_weights": False}))
    whole, tensors = read_gpt2(gpt2_file, untied), load_file(gpt2_file)
    for prefix in ("_orig_mod.", "module."):
        path = gpt2_file.with_name("wrapped")
        save_file({prefix + name: t for name, t in tensors.items()}, path)
        assert equal_weights(read_gpt2(path, untied), whole)
    folder, places = gpt2_file.parent / "sharded", {}
    folder.mkdir()
    for number, names in enumerate((list(tensors)[::2], list(tensors)[1::2])):
        places |= dict.fromkeys(names, f"part-{number}.safetensors")
        save_file({name: tensors[name] for name in names}, folder / f"part-{number}.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    assert equal_weights(read_gpt2(folder, untied), whole)
    assert equal_weights(read_gpt2(folder / INDEX, untied), whole)
    tensors["transformer.h.0.ln_1.bias"] = torch.ones(16, dtype=torch.int8)
    save_file(tensors, gpt2_file)
    with pytest.raises(ValueError, match=r"h\.0\.ln_1\.bias holds torch\.int8, no fractions"):
        read_gpt2(gpt2_file, untied)
    for odd in (places | {"more": "../../m"}, places | {"more": "part-0.safetensors"}, "no dict"):
        (folder / INDEX).write_text(json.dumps({"weight_map": odd}))
        with pytest.raises(ValueError, match=rf"{INDEX} (is damaged|and its files differ)"):
            read_gpt2(folder, untied)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_neither_saved_nor_loaded(tmp_path: Path, value) -> None:
    model, path = tiny_model(), tmp_path / "model.safetensors"
    save_checkpoint(path, model)
    before = path.read_bytes()
    with torch.no_grad():
        model.final_norm.weight[3] = value
    with pytest.raises(ValueError, match="final_norm.weight holds numbers that are not finite"):
        save_checkpoint(path, model)
    assert path.read_bytes() == before
    save_checkpoint(path, tiny_model())
    header = {"kind": "GPTConfig", "config": json.dumps(vars(CONFIG))}
    tensors = load_file(path) | {"final_norm.weight": model.final_norm.weight.detach()}
    save_file(tensors, path, header)
    with pytest.raises(ValueError, match="final_norm.weight holds numbers that are not finite"):
        load_checkpoint(path)


def test_a_head_that_left_its_embedding_is_not_lost(tmp_path: Path) -> None:
    model = tiny_model()
    model.head.weight = nn.Parameter(model.head.weight + 1)
    with pytest.raises(ValueError, match="head is no longer the embedding"):
        save_checkpoint(tmp_path / "model", model)


# -- 6. text as markup: test_figures.py; here what a figure says of a run that exploded --------


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([3.0, 2.0, math.nan], "a$b$, then nan"),
        ([3.0, math.inf], "a$b$, then inf"),
        ([math.nan], "a$b$, then nan"),
        ([], "a$b$"),
    ],
)
def test_an_exploded_run_can_be_drawn(losses: list[float], said: str) -> None:
    figure, axes = loss_curves({"a$b$": (range(len(losses)), losses)}, title="costs $5 to $6")
    figure.canvas.draw()
    assert [text.get_text() for text in axes.texts] == [said]
    assert axes.get_title() == "costs $5 to $6" and not axes.title.get_parse_math()


# -- 7. two at once, kill, links --------------------------------------------------------------


def test_only_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = files.socket.gethostname()
    left = [tmp_path / f".x.bin.{dead.pid}-7@{host}.part", tmp_path / f".x.bin.{dead.pid}-7.part"]
    kept = [
        tmp_path / f".x.bin.{os.getppid()}-7@{host}.part",  # lives
        tmp_path / f".x.bin.{dead.pid}-7@elsewhere.part",
        tmp_path / f".other.{dead.pid}-7@{host}.part",  # of another file
        tmp_path / ".x.bin.part",
    ]
    for path in left + kept:
        path.write_bytes(b"half")
    write_atomically(tmp_path / "x.bin", lambda file: file.write(b"whole"))
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "x.bin"])
    remove_left_overs(tmp_path)
    assert not kept[2].exists() and all(kept[n].exists() for n in (0, 1, 3))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such links and permissions")
def test_links_and_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "model", tmp_path / "model"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(target)
    write_atomically(link, lambda file: file.write(b"new"))
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o600
    write_atomically(tmp_path / ("n" * 250), lambda file: file.write(b"a long name"))


def test_shards_of_another_source_are_noticed_at_their_end(tmp_path: Path) -> None:
    encoding = TOKENIZER.to_tiktoken()
    write_shards(["same", "a", "b"], tmp_path, encoding, workers=1)
    with pytest.raises(ValueError, match="end with another document than this source"):
        write_shards(["same", "d", "e", "f"], tmp_path, encoding, workers=1)
    assert len(write_shards(["same", "a", "b", "c"], tmp_path, encoding, workers=1)["shards"]) == 2
    for odd, message in (([None], "document 0 is None"), (["a"], "give its to_tiktoken")):
        with pytest.raises(TypeError, match=message):
            tokenizer = encoding if odd[0] is None else TOKENIZER
            write_shards(odd, tmp_path / "new", tokenizer, workers=1)


def test_a_folder_is_no_checkpoint_and_that_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder: give the path of a file in it"):
        run(tiny_model(), checkpoint=tmp_path, some=Stopped(1, AssertionError))


def test_an_index_names_no_file_outside_its_folder(tmp_path: Path) -> None:
    write_shards(["A hen sang."] * 3, tmp_path, TOKENIZER.to_tiktoken(), workers=1)
    index = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(index.replace("train-00000.bin", "../train-00000.bin"))
    with pytest.raises(ValueError, match="is no index of shards"):
        read_index(tmp_path)


# -- nothing is refused that makes sense ------------------------------------------------------


def ids(*row: int) -> torch.Tensor:
    return torch.tensor([row])


class Quiet(GPTModel):
    """A model that overrides `train`, as one does to keep parts in evaluation mode."""

    def train(self, mode: bool = True) -> None:
        super().train(mode)


ACCEPTED = {
    "a rate of 0": lambda: run(tiny_model(), 1, max_lr=0.0, min_lr=0.0),
    "no warm-up": lambda: run(tiny_model(), 1, warmup=0),
    "a warm-up longer than the run": lambda: run(tiny_model(), 2, warmup=100),
    "no step at all": lambda: run(tiny_model(), 0),
    "reports, evaluations, states only at the end": lambda: run(
        tiny_model(), 2, report_every=0, eval_every=0, save_every=0, evaluate=lambda model: {}
    ),
    "never clipped": lambda: run(tiny_model(), 1, clip=math.inf),
    "numbers of NumPy and PyTorch": lambda: run(
        tiny_model(), np.int64(2), warmup=torch.tensor(1), max_lr=np.float32(1e-3)
    ),
    "counts as floats": lambda: run(tiny_model(), 1, warmup=0.05 * 50, eval_every=2.0),
    "a model whose train() gives nothing": lambda: run(Quiet(CONFIG), 1),
    "a classifier on the meta device": lambda: Classifier(tiny_model()).to("meta")(
        torch.ones(2, 3, dtype=torch.long, device="meta")
    ),
    "a device by name": lambda: run(tiny_model(), 1, device="cpu"),
    "targets that are no ids": lambda: run(
        nn.Linear(2, 1), 1, [(torch.ones(3, 2), torch.full((3, 1), -100.0))],
        loss_function=nn.functional.mse_loss,
    ),
    "shares in an array": lambda: run(tiny_model(), 1, accumulation=2, shares=np.array([0.5, 0.5])),
    "top_p of NumPy": lambda: generate(tiny_model(), ids(1), 2, 1.0, top_p=np.float32(0.9)),
    "documents of a generator": lambda: encode_documents((t for t in ["A hen."]), TOKENIZER),
    "a list of batches": lambda: run(tiny_model(), 1, [unequal()]),
    "shares of one batch": lambda: run(tiny_model(), 1, shares=[1.0]),
    "a loss that is a partial": lambda: run(
        tiny_model(), 1, loss_function=partial(next_token_loss)
    ),
    "frozen parts": lambda: run(tiny_model().requires_grad_(False).train(), 0),
    "a prompt of one token": lambda: generate(tiny_model(), ids(1), 2),
    "a prompt beyond the context": lambda: generate(tiny_model(), torch.zeros(1, 40).long(), 2),
    "int32 ids": lambda: tiny_model()(ids(1, 2).int()),
    "no new token": lambda: generate(tiny_model(), ids(1), 0),
    "a temperature of PyTorch": lambda: generate(tiny_model(), ids(1), 2, torch.tensor(0.8)),
    "an infinite temperature": lambda: next_token_probs(torch.rand(5), math.inf),
    "forbidden tokens": lambda: next_token_probs(torch.tensor([-math.inf, 0.0, 1.0]), 0.5, 9, 1.0),
    "a vocabulary smaller than top_k": lambda: next_token_probs(torch.rand(5), top_k=50),
    "a classifier of three classes": lambda: Classifier(tiny_model(), labels=3)(ids(1, 2)),
    "labels of a table": lambda: classification_scores(pd.Series([1, 0]), pd.Series([0, 1])),
    "classes in a tensor": lambda: best_threshold(torch.tensor([-1.0, 2]), torch.tensor([0, 1])),
    "texts of a table": lambda: encode_texts(datasets.load_messages("test")["text"], TOKENIZER, 64),
    "documents in a tuple": lambda: encode_documents(("A hen.", "An owl."), TOKENIZER),
    "an entry without input": lambda: rename(ENTRY | {"input": None}, random.Random(1)),
    "one path for many": lambda: list(Documents(files.DATA / "tale.txt")),
    "a text with zero width and NUL": lambda: TOKENIZER.encode("a\u200b\0b"),
    "ids of a generator": lambda: TOKENIZER.decode(id for id in (72, 105)),
    "one id of PyTorch": lambda: TOKENIZER.decode(torch.tensor([72, 105])),
    "a tokenizer without special tokens": lambda: BPETokenizer.train("ab ab", 257, ()),
}  # fmt: skip


@pytest.mark.parametrize("use", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_makes_sense_stays_accepted(use) -> None:
    use()
