"""Checkpoints: exact round trips, and no file, however bad, that is half read or runs code."""

import json
import os
import pickle
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from shared.classroom import files
from shared.classroom.datasets import load_instructions, load_tales
from shared.classroom.files import BUNDLED, course_checkpoint, vocabulary
from shared.classroom.scores import score_answers
from shared.classroom.tales import TaleTest
from shared.generate import generate
from shared.gpt import GPTConfig, GPTModel
from shared.instructions import answer
from shared.lora import add_lora, merge_lora
from shared.modern import ModernConfig, ModernGPT
from shared.tokenizers import course_tokenizer
from shared.training import load_state, save_state
from shared.weights import (
    load_checkpoint,
    load_course_model,
    read_checkpoint,
    save_checkpoint,
)

CONFIG = GPTConfig(40, 12, emb_dim=32, n_heads=4, n_layers=2, drop_rate=0.1)


def tiny_model(seed: int = 0, **changes) -> GPTModel:
    torch.manual_seed(seed)
    return GPTModel(replace(CONFIG, **changes)).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A good checkpoint, to be spoilt."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, tiny_model())
    return path


def rewrite(path: Path, tensors: dict | None = None, header: dict | None = None) -> None:
    """Replace parts of a checkpoint."""
    with safe_open(path, framework="pt") as file:
        old_header = file.metadata()
    save_file(load_file(path) if tensors is None else tensors, path, header or old_header)


# -- round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_saved_model_comes_back_whole(tmp_path: Path, tied: bool) -> None:
    model, path = tiny_model(tie_weights=tied).train(), tmp_path / "new" / "model.safetensors"
    save_checkpoint(path, model)
    torch.manual_seed(99)  # nothing may be left to chance
    loaded = load_checkpoint(path, model.config)
    assert loaded.config == model.config and not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert (loaded.head.weight is loaded.token_embedding.weight) == tied
    assert (loaded.head.weight.data_ptr() == loaded.token_embedding.weight.data_ptr()) == tied
    assert ("head.weight" in load_file(path)) != tied  # a shared matrix is stored once
    ids = torch.arange(12)[None]
    assert torch.equal(loaded(ids), model.eval()(ids))


def test_configuration_and_notes_travel_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    notes = {"val_loss": 0.345, "steps": 4000, "gpu": None, "who": "Zoë", "recall": {"names": 0.9}}
    save_checkpoint(path, tiny_model(), **notes)
    config, read, tensors = read_checkpoint(path)
    assert config == CONFIG and read == notes
    assert tensors.keys() == dict(tiny_model().named_parameters()).keys()
    save_checkpoint(path, tiny_model())
    assert read_checkpoint(path)[1] == {}


MODERN = ModernConfig(40, 12, emb_dim=32, n_heads=4, n_layers=2, n_kv_heads=2)


@pytest.mark.parametrize("feed_forward", ["swiglu", "relu2"])
@torch.no_grad()
def test_a_modern_model_comes_back_whole(tmp_path: Path, feed_forward: str) -> None:
    config, path = replace(MODERN, feed_forward=feed_forward), tmp_path / "modern.safetensors"
    model = config.build().eval()
    save_checkpoint(path, model)
    loaded = load_checkpoint(path, config)
    assert type(loaded) is ModernGPT and loaded.config == config
    ids = torch.arange(12)[None]
    assert torch.equal(loaded(ids), model(ids))
    assert torch.equal(generate(loaded, ids[:, :4], 6, 0), generate(model, ids[:, :4], 6, 0))
    with pytest.raises(ValueError, match="holds another model: .*n_kv_heads is 2, not None"):
        load_checkpoint(path, CONFIG)


def test_a_wrapped_model_is_saved_as_the_one_inside(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "model.safetensors"
    for wrapped in (torch.compile(model), nn.DataParallel(model)):
        save_checkpoint(path, wrapped)
        assert torch.equal(load_checkpoint(path).head.weight, model.head.weight)


def test_lora_is_merged_first_or_refused(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "model.safetensors"
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match="is no part of what GPTConfig .* call merge_lora"):
        save_checkpoint(path, model)
    merge_lora(model)
    save_checkpoint(path, model)
    assert torch.equal(load_checkpoint(path).head.weight, model.head.weight)


# -- a checkpoint of another model ------------------------------------------------------------


def test_every_field_that_differs_is_named(saved: Path) -> None:
    with pytest.raises(ValueError) as error:
        load_checkpoint(saved, replace(CONFIG, emb_dim=64, n_layers=3, qkv_bias=False))
    message = str(error.value)
    for part in (
        str(saved), "emb_dim is 32, not 64", "n_layers is 2, not 3", "qkv_bias is True, not False"
    ):  # fmt: skip
        assert part in message
    for field in ("vocab_size", "context_length", "n_heads", "drop_rate", "tie_weights"):
        assert field not in message


def test_tensors_that_do_not_fit_are_all_named(saved: Path) -> None:
    tensors = load_file(saved)
    del tensors["blocks.0.norm1.weight"]
    tensors["final_norm.bias"] = torch.zeros(7)
    tensors["blocks.9.norm1.weight"] = torch.zeros(32)
    rewrite(saved, tensors)
    with pytest.raises(ValueError) as error:
        load_checkpoint(saved)
    message = str(error.value)
    for part in (
        str(saved),
        "blocks.0.norm1.weight is missing",
        "final_norm.bias has another shape",
        "blocks.9.norm1.weight is unknown",
    ):
        assert part in message
    assert message.count(";") == 2  # and no others


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_missing_embedding_is_named(saved: Path, tied: bool) -> None:
    save_checkpoint(saved, tiny_model(tie_weights=tied))
    tensors = load_file(saved)
    del tensors["token_embedding.weight"]
    rewrite(saved, tensors)
    with pytest.raises(ValueError, match="token_embedding.weight is missing"):
        load_checkpoint(saved)


def test_a_file_without_configuration_is_no_checkpoint(saved: Path) -> None:
    rewrite(saved, header={"format": "pt"})
    with pytest.raises(ValueError, match="not a checkpoint of this course"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ("{emb_dim", "header"),
        (json.dumps(asdict(CONFIG) | {"n_experts": 8}), "n_experts"),
        (json.dumps(asdict(CONFIG) | {"n_heads": 5}), "n_heads 5"),
        (json.dumps(asdict(CONFIG) | {"n_layers": 10**6}), "1000000 layers"),
        (json.dumps(asdict(CONFIG) | {"vocab_size": 10**9}), "another shape"),
        (json.dumps(asdict(CONFIG) | {"vocab_size": 40.5}), "header"),
    ],
    ids=["no JSON", "unknown field", "impossible", "endless", "enormous", "not whole"],
)
def test_a_bad_configuration_in_the_file_is_refused(saved: Path, config: str, part: str) -> None:
    rewrite(saved, header={"config": config})
    with pytest.raises(ValueError) as error:
        load_checkpoint(saved)
    assert part in str(error.value) and str(saved) in str(error.value)


@pytest.mark.parametrize("notes", ["{half", "[1, 2]", '"text"'])
def test_notes_that_are_no_notes_are_refused(saved: Path, notes: str) -> None:
    rewrite(saved, header={"config": json.dumps(asdict(CONFIG)), "notes": notes})
    with pytest.raises(ValueError, match="model.safetensors has a header that cannot be used"):
        load_checkpoint(saved)


# -- damaged and missing files ----------------------------------------------------------------


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.safetensors"
    with pytest.raises(FileNotFoundError, match="nowhere.*fetch or train it first"):
        load_checkpoint(missing)
    with pytest.raises(FileNotFoundError, match="nowhere.*train first, or check the path"):
        load_state(missing, {})
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path)  # a folder


def test_a_truncated_checkpoint_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="model.safetensors is damaged.*save_checkpoint"):
            load_checkpoint(saved)


def test_a_corrupted_header_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for spoilt in (b"\xff" * 8 + whole[8:], whole[:8] + b"?" + whole[9:], whole + b"more"):
        saved.write_bytes(spoilt)
        with pytest.raises(ValueError, match="model.safetensors is damaged"):
            load_checkpoint(saved)


def test_damaged_files_of_torch_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {}, {"weights": torch.arange(500.0)})
    whole = path.read_bytes()
    assert torch.equal(load_state(path, {})["weights"], torch.arange(500.0))
    damaged = [whole[:size] for size in (0, 1, 50, len(whole) // 2, len(whole) - 1)]
    damaged += [b"0", b"}q\x00.", b"\x80\x02.", b"<html>404</html>", bytes(range(256))]
    for spoilt in damaged:
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match="state.pt is damaged"):
            load_state(path, {})


# -- a pickle posing as a checkpoint ----------------------------------------------------------


def read_state(path: Path) -> dict:
    return load_state(path, {})


class Intruder:
    """Unpickling it makes a folder: harmless, but it is code that ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch", "state"])
@pytest.mark.parametrize("load", [load_checkpoint, read_state])
def test_a_pickle_is_refused_and_runs_nothing(tmp_path: Path, kind: str, load) -> None:
    trace, path = tmp_path / "was here", tmp_path / "model.safetensors"
    intruder = Intruder(trace)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(intruder, protocol=2))
    elif kind == "state":
        torch.save({"settings": {}, "model": {"weight": torch.zeros(2), "more": intruder}}, path)
    else:
        torch.save(intruder, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(ValueError) as error:
        load(path)
    assert not trace.exists()
    assert str(path) in str(error.value)
    remedy = "save_checkpoint" if load is load_checkpoint else "from a source you trust"
    assert remedy in str(error.value)

    pickle.loads(pickle.dumps(intruder))  # the trap works: a careless reader would have run it
    assert trace.exists()


def test_a_refused_pickle_brings_no_advice_to_open_it_anyway(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save(Intruder(tmp_path / "was here"), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError) as error:
            load_state(path, {})
    message = str(error.value)
    assert message.isprintable(), message  # no colour codes
    assert "weights_only" not in message and "can still be loaded" not in message


def test_notes_that_are_no_json_leave_the_old_checkpoint(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        save_checkpoint(saved, tiny_model(seed=1), note=object())
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_bundled_checkpoint_fits_the_bundled_vocabulary_and_tales() -> None:
    model = load_checkpoint(BUNDLED)
    tales = TaleTest(load_tales("val")[:12], course_tokenizer())
    assert model.config == GPTConfig.preset("course")
    assert tales(model)["val_loss"] < 1.3 * tales.floor  # with another vocabulary: ten times it


# -- which checkpoint is the course's ---------------------------------------------------------


def test_own_run_is_preferred_unless_the_bundled_one_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, bundled = (tmp_path / place / "course.safetensors" for place in ("own", "bundled"))
    monkeypatch.setattr(files, "OWN", own)
    monkeypatch.setattr(files, "BUNDLED", bundled)
    monkeypatch.delenv("COURSE_CHECKPOINT", raising=False)
    with pytest.raises(FileNotFoundError, match="fetch or train it first"):
        load_course_model()
    models = {bundled: tiny_model(seed=1), own: tiny_model(seed=2)}

    def course_model_is(path: Path) -> bool:
        same = torch.equal(load_course_model().head.weight, models[path].head.weight)
        return course_checkpoint() == path and same

    save_checkpoint(bundled, models[bundled], vocabulary=vocabulary())
    assert course_model_is(bundled)
    save_checkpoint(own, models[own], vocabulary=vocabulary())
    assert course_model_is(own)
    assert course_checkpoint("chat") == bundled.with_name("chat.safetensors")
    monkeypatch.setenv("COURSE_CHECKPOINT", "bundled")
    assert course_model_is(bundled)


@pytest.mark.parametrize("notes", [{}, {"vocabulary": "of yesterday"}])
def test_a_model_of_another_vocabulary_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: dict
) -> None:
    own = tmp_path / "course.safetensors"
    monkeypatch.setattr(files, "OWN", own)
    monkeypatch.delenv("COURSE_CHECKPOINT", raising=False)
    save_checkpoint(own, tiny_model(), **notes)
    with pytest.raises(ValueError, match="another vocabulary .*COURSE_CHECKPOINT=bundled"):
        load_course_model()


def test_the_bundled_chat_model_answers() -> None:
    entries = [e for e in load_instructions("test") if e["task"] in ("plural", "where")]
    answers = answer(load_checkpoint(BUNDLED.with_stem("chat")), course_tokenizer(), entries)
    assert score_answers(entries, answers).loc["all", "exact match"] > 0.8
