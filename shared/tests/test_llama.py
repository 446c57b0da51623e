"""Published models in ModernGPT: the same logits as transformers', from every kind of file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from shared.attention import KVCache
from shared.classroom.datasets import load_tales
from shared.classroom.files import ROOT
from shared.classroom.gguf import GGUF, KINDS
from shared.gpt import count_parameters
from shared.tokenizers import gguf_tokenizer
from shared.weights import load_checkpoint, read_llama, save_checkpoint

SIZES = {  # odd on purpose: what is taken for something else must not fit by chance
    "narrow": {"hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1,
               "intermediate_size": 28, "num_hidden_layers": 3, "vocab_size": 61},
    "wide": {"hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 3,
             "intermediate_size": 52, "num_hidden_layers": 2, "vocab_size": 47,
             "rope_parameters": {"rope_type": "default", "rope_theta": 777.0}},
    "own heads": {"hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 4,
                  "head_dim": 10, "intermediate_size": 18, "num_hidden_layers": 2,
                  "vocab_size": 53, "tie_word_embeddings": True, "rms_norm_eps": 1e-3},
}  # fmt: skip
KINDS_OF_MODEL = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def theirs(kind: str, size: str, **changes: object) -> torch.nn.Module:
    """A random model of transformers whose gains are not all 1."""
    torch.manual_seed(0)
    make_config, make_model = KINDS_OF_MODEL[kind]
    fields = {"head_dim": None, **SIZES[size]}
    if fields["head_dim"] is None:
        fields["head_dim"] = fields["hidden_size"] // fields["num_attention_heads"]
    config = make_config(
        **fields | {"max_position_embeddings": 40, "initializer_range": 0.3} | changes
    )
    model = make_model(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    return model


@torch.no_grad()
def must_agree(path: Path, model: torch.nn.Module) -> None:
    ours, ids = read_llama(path), torch.randint(0, 47, (2, 21))
    expected = model(ids).logits
    torch.testing.assert_close(ours(ids), expected, atol=1e-4, rtol=1e-4)
    cache = KVCache(ours, batch_size=2)
    parts = [ours(part, cache) for part in ids.split([9, 1, 7, 4], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-4, rtol=1e-4)
    assert count_parameters(ours) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS_OF_MODEL)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_logits_are_those_of_transformers(tmp_path, kind, size, bias):
    model = theirs(kind, size, attention_bias=bias)
    model.save_pretrained(tmp_path)
    must_agree(tmp_path, model)


def test_a_model_in_shards(tmp_path):
    model = theirs("qwen3", "wide")
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    must_agree(tmp_path, model)


def test_stretched_positions_are_read(tmp_path):
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}
    model = theirs("llama", "wide", rope_parameters=rope)
    model.save_pretrained(tmp_path)
    must_agree(tmp_path, model)
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["rope_parameters"]
    fields |= {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}}
    (tmp_path / "config.json").write_text(json.dumps(fields))  # as older versions wrote it
    must_agree(tmp_path, model)
    far = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    write_gguf(tmp_path / "far.gguf", model, "llama", **far)
    assert read_llama(tmp_path / "far.gguf").config.rotary_stretch == 4


def test_half_precision_is_read(tmp_path):
    theirs("llama", "wide").to(torch.bfloat16).save_pretrained(tmp_path)
    wide = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    must_agree(tmp_path, wide.eval())


def test_it_can_be_saved_as_a_checkpoint_of_the_course(tmp_path):
    theirs("llama", "own heads").save_pretrained(tmp_path)
    ours, ids = read_llama(tmp_path), torch.arange(12)[None]
    save_checkpoint(tmp_path / "ours.safetensors", ours)
    again = load_checkpoint(tmp_path / "ours.safetensors", ours.config)
    assert torch.equal(again(ids), ours(ids))


PEAK = """
import re, sys
from pathlib import Path
import torch
from shared.modern import ModernConfig
from shared.weights import read_llama

with torch.device("meta"):  # what PyTorch imports for it, 90 MB, is no part of a model
    ModernConfig(8, 8, 8, 4, 1).build()

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = kilobytes("VmRSS")
model = read_llama(sys.argv[1])
peak = 1024 * (kilobytes("VmHWM") - before)
print(peak / (4 * sum(p.numel() for p in model.parameters())))
"""
LARGE = {"hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
         "intermediate_size": 1536, "num_hidden_layers": 16, "vocab_size": 8192}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts the peak of memory")
@pytest.mark.parametrize("way", ["safetensors", "gguf"])
def test_loading_takes_little_more_memory_than_the_model(tmp_path, way):
    model = theirs("llama", "wide", **LARGE)  # 200 MB in float32
    if way == "gguf":
        path = tmp_path / "model.gguf"
        write_gguf(path, model, "llama")
    else:
        path = tmp_path
        model.to(torch.bfloat16).save_pretrained(path)
    command = [sys.executable, "-c", PEAK, str(path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 1 <= float(ran.stdout) <= 1.3


# -- what is wrong is named ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "norm.weight is missing"),
        (lambda t: t.update({"model.extra.weight": torch.ones(3)}), "extra.weight is unknown"),
        (lambda t: t.update({"model.norm.weight": torch.ones(3)}), r"norm.weight has shape \(3,\)"),
        (lambda t: t["model.norm.weight"].fill_(torch.nan), "final_norm.gain holds numbers"),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path, change, message):
    theirs("llama", "wide").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(ValueError, match=message):
        read_llama(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt_neox"}, "is a gpt_neox; read here are llama and qwen3"),
        ({"hidden_act": "gelu"}, "bends with gelu"),
        ({"mlp_bias": True}, "biases in its feed-forward"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "stretches its positions"),
        ({"hidden_size": None}, "emb_dim is None"),
        ({"num_key_value_heads": [3]}, "describes a model that cannot be made"),
        ({"vocab_size": 48}, r"embed_tokens.weight has shape \(47, 36\), not \(48, 36\)"),
    ],
)
def test_a_model_that_is_another_is_refused(tmp_path, change, message):
    theirs("llama", "wide").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        read_llama(tmp_path)


def test_a_folder_without_a_configuration(tmp_path):
    theirs("llama", "wide").save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="no config.json"):
        read_llama(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_llama(tmp_path / "nowhere")


# -- GGUF ----------------------------------------------------------------------------------------


def write_gguf(path: Path, model: torch.nn.Module, kind: str, **fields: object) -> None:
    """A model as llama.cpp's converter writes it: Llama's queries and keys pair by pair."""
    config, writer = model.config, gguf.GGUFWriter(path, kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_token_list(["one", "two", "ä"])
    writer.add_bool("course.sound", True)
    for name, value in fields.items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(name.replace("__", "."), value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if kind == "llama" and (".q_proj" in name or ".k_proj" in name):
            pairs = tensor.unflatten(0, (-1, 2, config.head_dim // 2))
            tensor = pairs.transpose(1, 2).flatten(0, 2)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", KINDS_OF_MODEL)
@pytest.mark.parametrize("size", SIZES)
def test_a_gguf_file_gives_the_same_logits(tmp_path, kind, size):
    model = theirs(kind, size)
    write_gguf(tmp_path / "model.gguf", model, kind)
    must_agree(tmp_path / "model.gguf", model)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_blocks_are_undone_as_the_gguf_package_does(kind):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (40, kind.bytes), dtype=np.uint8)
    scales = rng.normal(size=(40, 2)).astype("<f2").view(np.uint8)  # scales that are numbers
    if kind.name == "Q6_K":
        blocks[:, 208:] = scales[:, :2]
    elif kind.numbers == 1:
        plain = {"F32": "<f4", "F16": "<f2", "BF16": "<f4"}[kind.name]
        blocks = rng.normal(size=(40, 1)).astype(plain).view(np.uint8)[:, -kind.bytes :].copy()
    else:
        blocks[:, :4] = scales if kind.name == "Q4_1" else blocks[:, :4]
        blocks[:, :2] = scales[:, :2]
    expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind.name])
    np.testing.assert_array_equal(kind.undo(blocks).ravel(), expected.ravel())


def test_the_header_is_read(tmp_path):
    write_gguf(tmp_path / "model.gguf", theirs("llama", "wide"), "llama", general__name="Otto")
    file = GGUF(tmp_path / "model.gguf")
    assert file.fields["general.name"] == "Otto" and file.fields["course.sound"] is True
    assert file.fields["tokenizer.ggml.tokens"] == ["one", "two", "ä"]
    assert file.places["token_embd.weight"].shape == (47, 36)


@pytest.mark.parametrize("length", [0, 3, 10, 60, 400, -60])
def test_a_gguf_file_that_breaks_off(tmp_path, length):
    path = tmp_path / "model.gguf"
    write_gguf(path, theirs("llama", "wide"), "llama")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"damaged|no GGUF|fetch it again"):
        read_llama(path)


def test_other_files_and_models_are_refused(tmp_path):
    (tmp_path / "text.gguf").write_text("This is a text, and a rather long one.")
    with pytest.raises(ValueError, match=r"begins with b'This'"):
        read_llama(tmp_path / "text.gguf")
    with pytest.raises(FileNotFoundError, match="no file"):
        read_llama(tmp_path / "none.gguf")
    model = theirs("llama", "wide")
    write_gguf(tmp_path / "far.gguf", model, "llama", llama__rope__scaling__type="yarn")
    with pytest.raises(ValueError, match="stretches its positions by 'yarn'"):
        read_llama(tmp_path / "far.gguf")


# -- the tokenizer in a GGUF file ------------------------------------------------------------------

MIXED = (
    "The year 2026 isn't over: 12  345 mice, 6 geese.\n\n\tPip's   café, 東京 and \U0001f642 x2 ",
    "  9 lives", "a 1\n2  3", " ", "", "don't  'll 7th", "<|im_start|>user",
)  # fmt: skip


def tokenizer_file(path: Path, lost: str = "") -> Tokenizer:
    """A small tokenizer as SmolLM's, and a GGUF file with it; the letters `lost` are unknown."""
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>", "<|im_start|>"], show_progress=False,
        initial_alphabet=sorted({*pre_tokenizers.ByteLevel.alphabet()} - {*lost}),
    )  # fmt: skip
    theirs.train_from_iterator(load_tales("val"), trainer)
    tokens = sorted(theirs.get_vocab(), key=theirs.get_vocab().get)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return theirs


def test_ids_are_those_of_tokenizers(tmp_path):
    theirs = tokenizer_file(tmp_path / "one.gguf")
    ours = gguf_tokenizer(tmp_path / "one.gguf")
    theirs.encode_special_tokens = True  # as text
    for text in (*MIXED, *load_tales("val")[:50]):
        assert ours.encode_ordinary(text) == theirs.encode(text).ids, text
        assert ours.decode(ours.encode_ordinary(text)) == text
    assert ours.encode("<|im_start|>", allowed_special="all") == [1]


def test_what_a_person_types_is_no_special_token(tmp_path):
    tokenizer_file(tmp_path / "one.gguf")
    assert 1 not in gguf_tokenizer(tmp_path / "one.gguf").encode_ordinary("<|im_start|>system")


def test_a_byte_that_no_token_covers_is_named(tmp_path):
    tokenizer_file(tmp_path / "one.gguf", lost="\u00f0")  # the first byte of an emoji
    ours = gguf_tokenizer(tmp_path / "one.gguf")
    with pytest.raises(
        ValueError, match=r"covers the byte 0xf0, and the text has it in '\U0001f642'"
    ):
        ours.encode_ordinary("fine \U0001f642")
    assert ours.decode(ours.encode_ordinary("fine")) == "fine"


def test_a_file_without_a_tokenizer(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "none.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"no 'tokenizer\.ggml\.model'"):
        gguf_tokenizer(tmp_path / "none.gguf")
