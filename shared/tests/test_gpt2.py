"""GPT-2's weights: read exactly or not at all, and small where replaced."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.attention import KVCache
from shared.classroom import gpt2
from shared.classroom.fetch import GPT2
from shared.classroom.files import ROOT
from shared.classroom.gpt2 import gpt2_config, gpt2_path, load_gpt2
from shared.classroom.memory import memory_while
from shared.gpt import PRESETS, GPTConfig, GPTModel, count_parameters
from shared.tests.peers import hugging_face_gpt2
from shared.weights import read_gpt2

CONFIG = GPTConfig(50, 12, emb_dim=32, n_heads=4, n_layers=2, drop_rate=0.0)
SIZES = {"124M": 124_439_808, "355M": 354_823_168, "774M": 774_030_080, "1558M": 1_557_611_200}


def openai_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes as in OpenAI's files, which keep a layer's matrix as (in, out)."""
    width = config.emb_dim
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, width),
        "wpe.weight": (config.context_length, width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    for layer in range(config.n_layers):
        for name, shape in {
            "ln_1": (width,),
            "attn.c_attn": (width, 3 * width),
            "attn.c_proj": (width, width),
            "ln_2": (width,),
            "mlp.c_fc": (width, 4 * width),
            "mlp.c_proj": (4 * width, width),
        }.items():
            shapes[f"h.{layer}.{name}.weight"] = shape
            shapes[f"h.{layer}.{name}.bias"] = shape[-1:]
    return shapes


def write_gpt2(path: Path, config: GPTConfig = CONFIG, **changes: torch.Tensor | None) -> Path:
    """A file of random tensors in OpenAI's layout; `changes` replace, add or (None) leave out."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator) / 4
        for name, shape in openai_shapes(config).items()
    }
    kept = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
    save_file(kept, path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


# -- the same numbers as Hugging Face transformers --------------------------------------------


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    """Needs the package transformers, which stands in shared/tests/requirements.txt."""
    return pytest.importorskip("transformers", reason="pip install transformers to compare with it")


def hugging_face_model(config: GPTConfig):
    """A GPT2LMHeadModel in which every number is random, gains and biases too."""
    model = hugging_face_gpt2(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
            parameter.copy_(gain + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def as_on_the_hub(saved: Path, config: GPTConfig) -> Path:
    """The same file as OpenAI's repository has it: no prefix, and the masks of every layer."""
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(saved).items()}
    assert tensors.keys() == openai_shapes(config).keys()
    size = config.context_length
    for layer in range(config.n_layers):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, size, size).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    path = saved.with_name("hub.safetensors")
    save_file(tensors, path)
    return path


@torch.no_grad()
@pytest.mark.parametrize(
    "config",
    [
        GPTConfig(97, 24, emb_dim=128, n_heads=2, n_layers=2),
        GPTConfig(50, 40, emb_dim=60, n_heads=5, n_layers=3),
        GPTConfig(131, 16, emb_dim=48, n_heads=1, n_layers=1),
    ],
    ids=["64 per head", "12 per head", "one head"],
)
def test_logits_equal_hugging_face(
    transformers: ModuleType, tmp_path: Path, config: GPTConfig
) -> None:
    theirs = hugging_face_model(config)
    theirs.save_pretrained(tmp_path)
    saved = tmp_path / "model.safetensors"
    assert all(name.startswith("transformer.") for name in load_file(saved))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(config.vocab_size, (3, config.context_length), generator=generator)
    expected = theirs(ids).logits
    assert expected.std() > 1  # logits that could differ
    for file in (saved, as_on_the_hub(saved, config)):
        model = read_gpt2(file, config)
        torch.testing.assert_close(model(ids), expected, atol=1e-4, rtol=1e-4)
        cache, chunks = KVCache(model, 3), []
        for start, end in pairwise([0, 7, 8, 9, 13, config.context_length]):
            chunks.append(model(ids[:, start:end], cache))
        torch.testing.assert_close(torch.cat(chunks, dim=1), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_becomes_single(path: Path, half: torch.dtype) -> None:
    tensors = {name: tensor.to(half) for name, tensor in load_file(write_gpt2(path)).items()}
    save_file(tensors, path)
    model = read_gpt2(path, CONFIG)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    rounded = {name: tensor.float() for name, tensor in tensors.items()}
    same = read_gpt2(write_gpt2(path.with_name("single.safetensors"), **rounded), CONFIG)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, same.get_parameter(name)), name


# -- a model to work with ---------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_head_and_embedding_are_one_matrix_or_two_equal_ones(path: Path, tied: bool) -> None:
    model = read_gpt2(write_gpt2(path), replace(CONFIG, tie_weights=tied))
    head, embedding = model.head.weight, model.token_embedding.weight
    assert torch.equal(head, embedding) and torch.equal(head, load_file(path)["wte.weight"])
    assert (head is embedding) == tied and (head.data_ptr() == embedding.data_ptr()) == tied
    assert count_parameters(model) == count_parameters(GPTModel(model.config))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_nothing_stays_without_memory(path: Path, tied: bool) -> None:
    config = replace(CONFIG, tie_weights=tied)
    model = read_gpt2(write_gpt2(path), config)
    assert model.config == config and not model.training
    assert not [name for name, p in model.state_dict().items() if p.is_meta]
    assert not [name for name, buffer in model.named_buffers() if buffer.is_meta]
    assert all(p.is_contiguous() for p in model.parameters())
    assert model.state_dict().keys() == GPTModel(config).state_dict().keys()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_step_of_training_reaches_every_parameter(path: Path, tied: bool) -> None:
    model = read_gpt2(write_gpt2(path), replace(CONFIG, tie_weights=tied)).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    ids = torch.arange(2 * 12).reshape(2, 12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(2):
        logits = model(ids)[:, :-1].flatten(0, 1)
        losses.append(torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[1] < losses[0]
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        assert not torch.equal(parameter, before[name]), name
    assert torch.equal(model.head.weight, model.token_embedding.weight) == tied


def test_the_model_does_not_change_with_its_file(path: Path) -> None:
    model = read_gpt2(write_gpt2(path), replace(CONFIG, tie_weights=False))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with open(path, "r+b") as file:  # in place, as a mapping of the file would see it
        file.write(b"\x7f" * path.stat().st_size)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert len(storages) == len(before)  # and none is part of another


# -- files that do not fit --------------------------------------------------------------------


def complaints(path: Path, config: GPTConfig = CONFIG) -> set[str]:
    """What read_gpt2 finds wrong, each once."""
    with pytest.raises(ValueError) as error:
        read_gpt2(path, config)
    start, _, rest = str(error.value).partition(": ")
    assert start == f"{path} does not hold the GPT-2 that was asked for"
    found = rest.split("; ")
    assert len(set(found)) == len(found), found
    return set(found)


def layer_names(layer: int) -> set[str]:
    return {name for name in openai_shapes(CONFIG) if name.startswith(f"h.{layer}.")}


@pytest.mark.parametrize("name", ["wpe.weight", "h.1.ln_2.bias", "h.0.attn.c_attn.weight"])
def test_a_missing_tensor_is_named(path: Path, name: str) -> None:
    assert complaints(write_gpt2(path, **{name: None})) == {f"{name} is missing"}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_missing_embedding_is_named_once(path: Path, tied: bool) -> None:
    write_gpt2(path, **{"wte.weight": None})
    config = replace(CONFIG, tie_weights=tied)
    assert complaints(path, config) == {"wte.weight is missing"}


def test_another_shape_is_named_with_both(path: Path) -> None:
    write_gpt2(path, **{"ln_f.bias": torch.zeros(7), "wpe.weight": torch.zeros(24, 32)})
    assert complaints(path) == {
        "ln_f.bias has shape (7,), not (32,)",
        "wpe.weight has shape (24, 32), not (12, 32)",
    }


def test_a_matrix_stored_as_out_in_is_named_with_the_shape_in_the_file(path: Path) -> None:
    write_gpt2(path, **{"h.1.mlp.c_fc.weight": torch.zeros(128, 32)})
    assert complaints(path) == {"h.1.mlp.c_fc.weight has shape (128, 32), not (32, 128)"}


def test_unknown_tensors_are_named_but_masks_and_the_heads_other_name_are_fine(path: Path) -> None:
    known = {"h.0.attn.bias": torch.ones(1, 1, 12, 12), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    embedding = load_file(write_gpt2(path))["wte.weight"].clone()
    read_gpt2(write_gpt2(path, **known, **{"lm_head.weight": embedding}), CONFIG)
    strange = {"h.0.attn.rotary": torch.zeros(3), "score.weight": torch.zeros(2, 32)}
    assert complaints(write_gpt2(path, **known, **strange)) == {
        "h.0.attn.rotary is unknown",
        "score.weight is unknown",
    }


def test_everything_wrong_is_named_at_once(path: Path) -> None:
    write_gpt2(
        path,
        **{"h.0.ln_1.weight": None, "ln_f.weight": torch.ones(31), "cls.weight": torch.ones(2)},
    )
    assert complaints(path) == {
        "h.0.ln_1.weight is missing",
        "ln_f.weight has shape (31,), not (32,)",
        "cls.weight is unknown",
    }


def test_biases_that_the_configuration_does_not_have_are_unknown(path: Path) -> None:
    found = complaints(write_gpt2(path), replace(CONFIG, qkv_bias=False))
    assert found == {f"h.{layer}.attn.c_attn.bias is unknown" for layer in range(2)}


def test_another_number_of_layers_is_noticed(path: Path) -> None:
    write_gpt2(path, **{f"h.{layer}.attn.bias": torch.ones(1, 1, 12, 12) for layer in range(2)})
    fewer, more = (complaints(path, replace(CONFIG, n_layers=n)) for n in (1, 3))
    assert fewer == {f"{name} is unknown" for name in layer_names(1)}
    assert more == {f"{name.replace('0', '2', 1)} is missing" for name in layer_names(0)}


def test_damaged_files_are_refused(path: Path) -> None:
    whole = write_gpt2(path).read_bytes()
    damaged = [whole[:size] for size in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1)]
    damaged += [b"\xff" * 8 + whole[8:], whole[:8] + b"?" + whole[9:], whole + b"more"]
    damaged += [b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.safetensors is damaged, or no safetensors"):
            read_gpt2(path, CONFIG)


class Intruder:
    """Unpickling it makes a folder: harmless, but it is code that ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_a_pickle_is_refused_and_runs_nothing(tmp_path: Path, write: Callable) -> None:
    trace, path = tmp_path / "was here", tmp_path / "pytorch_model.bin"
    write({"wte.weight": torch.zeros(50, 32), "more": Intruder(trace)}, path)
    with pytest.raises(ValueError, match="pytorch_model.bin is damaged.*pickles"):
        read_gpt2(path, CONFIG)
    assert not trace.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "nowhere.safetensors", tmp_path):  # a folder is no file
        with pytest.raises(FileNotFoundError, match=f"{missing}: .*check the path"):
            read_gpt2(missing, CONFIG)


# -- memory -----------------------------------------------------------------------------------

# Not resource.getrusage: its maximum begins with that of the process that started this one.
MEASURE = """
import os, sys
import torch
from pathlib import Path
from safetensors.torch import load_file
from shared.gpt import GPTConfig, GPTModel
from shared.weights import gpt2_name, read_gpt2

def memory(kind):
    (line,) = (x for x in open("/proc/self/status") if x.startswith(kind))
    return 1024 * int(line.split()[1])

def read_all_at_once(path, config):
    model, tensors, state = GPTModel(config), load_file(path), {}
    for name in model.state_dict():
        tensor = tensors[gpt2_name(name)]
        state[name] = tensor.T if ".c_" in gpt2_name(name) and tensor.dim() == 2 else tensor
    model.load_state_dict(state)
    return model

torch.set_num_threads(1)
folder, how, *sizes = sys.argv[1:]
read = read_gpt2 if how == "read_gpt2" else read_all_at_once
read(Path(folder, "warm-up"), GPTConfig(8, 8, 8, n_heads=1, n_layers=1))
before = memory("VmRSS")
model = read(Path(folder, "model"), GPTConfig(*map(int, sizes)))
print((memory("VmHWM") - before) / sum(4 * p.numel() for p in model.parameters()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_reading_takes_little_more_memory_than_the_model(tmp_path: Path) -> None:
    sizes = (20_000, 64, 384, 6, 6)  # 73 MB; as in GPT-2 small, the embedding is a large part
    write_gpt2(tmp_path / "warm-up", GPTConfig(8, 8, 8, n_heads=1, n_layers=1))
    write_gpt2(tmp_path / "model", GPTConfig(*sizes))

    def peak(how: str) -> float:
        """In models: the highest amount of memory, beyond what there was before."""
        command = [sys.executable, "-c", MEASURE, str(tmp_path), how, *map(str, sizes)]
        return float(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)

    try:
        assert 0.95 < peak("read_gpt2") < 1.6
        assert peak("all at once") > 1.9  # so the measurement would notice
    finally:
        (tmp_path / "model").unlink()


@pytest.mark.slow
def test_memory_is_watched_while_a_model_is_loaded() -> None:
    seconds, memory = memory_while(read_gpt2, GPTConfig(20_000, 64, 384, 6, 6))
    assert len(seconds) == len(memory) and seconds == sorted(seconds)
    assert memory[0] < 0.3 and 0.9 < max(memory) < 1.6


# -- presets and their stand-ins --------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """COURSE_WEIGHTS=stand-in; the folder in which the stand-ins appear."""
    monkeypatch.setenv("COURSE_WEIGHTS", "stand-in")
    monkeypatch.setattr(gpt2, "BUILD", tmp_path / "build")
    yield tmp_path / "build"
    shutil.rmtree(tmp_path / "build", ignore_errors=True)


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_a_stand_in_is_small_and_has_gpt2s_vocabulary_and_context(
    stand_in: Path, size: str
) -> None:
    model = load_gpt2(size, drop_rate=0.25)
    config, preset = model.config, PRESETS[size]
    assert (config.vocab_size, config.context_length) == (50_257, 1024)
    assert config.emb_dim // config.n_heads == preset.emb_dim // preset.n_heads == 64
    assert count_parameters(model) < SIZES["124M"] / 5
    assert config.drop_rate == 0.25 and gpt2_config(size).drop_rate == preset.drop_rate
    shapes = {name: tuple(t.shape) for name, t in load_file(gpt2_path(size)).items()}
    assert shapes == openai_shapes(config) and gpt2_path(size).is_relative_to(stand_in)
    logits = model(torch.tensor([[15496, 11, 995, 50256]]))
    assert logits.isfinite().all() and logits.std() > 0.1


def test_stand_ins_grow_with_the_model_they_stand_for(stand_in: Path) -> None:
    configs = [gpt2_config(size) for size in SIZES]
    for smaller, larger in pairwise(configs):
        assert smaller.emb_dim < larger.emb_dim and smaller.n_layers < larger.n_layers


def test_a_stand_in_is_the_same_every_time(stand_in: Path) -> None:
    files, models = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(load_gpt2("124M", tie_weights=False).state_dict())
        (file,) = (path for path in stand_in.rglob("*") if path.is_file())
        files.append(file.read_bytes())
        file.unlink()
    assert files[0] == files[1]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_every_tensor_of_a_stand_in_is_random(stand_in: Path) -> None:
    """Zeros and ones would hide that two of them are mixed up."""
    seen: dict[bytes, str] = {}
    for name, tensor in load_file(gpt2_path("124M")).items():
        assert tensor.std() > 0.005, name
        start = tensor.flatten()[:16].numpy().tobytes()
        assert start not in seen, (name, seen[start])
        seen[start] = name


def test_a_stand_in_leaves_the_random_state_alone(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)  # no fork covers the GPU's
    torch.manual_seed(5)
    seeded.clear()
    expected = torch.rand(3)
    torch.manual_seed(5)
    seeded.clear()
    load_gpt2("124M")
    assert torch.equal(torch.rand(3), expected)
    assert seeded == []


@pytest.mark.parametrize("value", [None, "", "real"])
def test_without_the_variable_the_configurations_are_the_presets(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("COURSE_WEIGHTS", raising=False)
    else:
        monkeypatch.setenv("COURSE_WEIGHTS", value)
    monkeypatch.setattr(gpt2, "fetch_gpt2", lambda size: Path(f"fetched-{size}"))
    for size, parameters in SIZES.items():
        config = gpt2_config(size)
        assert config == PRESETS[size] and gpt2_path(size) == Path(f"fetched-{size}")
        with torch.device("meta"):
            assert count_parameters(GPTModel(config)) == parameters, size
    assert gpt2_config() == PRESETS["124M"]
    assert gpt2_config("355M", drop_rate=0.0) == replace(PRESETS["355M"], drop_rate=0.0)


@pytest.mark.parametrize("weights_are", ["stand-in", "real"])
@pytest.mark.parametrize("size", ["gpt-3", "course", "small"])
def test_an_unknown_size_is_refused_with_the_known_ones(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, weights_are: str, size: str
) -> None:
    monkeypatch.setenv("COURSE_WEIGHTS", weights_are)
    with pytest.raises(ValueError, match=f"{size}.* 124M, 355M, 774M, 1558M"):
        load_gpt2(size)


def test_every_size_has_a_repository_a_commit_and_a_hash() -> None:
    assert GPT2.keys() == SIZES.keys() == PRESETS.keys() - {"course"}
    for size, (repository, commit, sha256) in GPT2.items():
        assert repository.startswith("openai-community/gpt2"), size
        assert len(bytes.fromhex(commit)) == 20 and len(bytes.fromhex(sha256)) == 32
    assert all(len(set(column)) == 4 for column in zip(*GPT2.values(), strict=True))


def test_another_word_for_the_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_WEIGHTS", "standin")
    with pytest.raises(ValueError, match="'standin'; it must be 'real' or 'stand-in'"):
        gpt2_config("124M")
