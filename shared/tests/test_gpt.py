"""The model: GPT-2's size, start, and arithmetic; causal, cached, and clear about bad input."""

import math
from dataclasses import asdict
from itertools import pairwise

import pytest
import torch

from shared.attention import KVCache, MultiHeadAttention
from shared.classroom.heads import attention_weights
from shared.gpt import PRESETS, GPTConfig, GPTModel, count_parameters
from shared.tests.peers import hugging_face_gpt2

VOCAB, CONTEXT = 50, 24


def tiny_config(**changes) -> GPTConfig:
    sizes = {"vocab_size": VOCAB, "context_length": CONTEXT, "emb_dim": 32, "n_heads": 4}
    return GPTConfig(**(sizes | {"n_layers": 2, "drop_rate": 0.0} | changes))


def lively_model(seed: int = 0, **changes) -> GPTModel:
    """A tiny model in evaluation mode whose every parameter matters, biases and gains too."""
    torch.manual_seed(seed)
    model = GPTModel(tiny_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def random_ids(batch: int, tokens: int, seed: int = 1, vocab_size: int = VOCAB) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (batch, tokens), generator=generator)


# -- size and start ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tied", "parameters"), [(True, 124_439_808), (False, 163_037_184)], ids=["tied", "untied"]
)
def test_gpt2_small_has_its_parameters(tied: bool, parameters: int) -> None:
    with torch.device("meta"):  # shapes only: takes no memory
        model = GPTModel(GPTConfig(qkv_bias=True, tie_weights=tied))
    assert all(p.is_meta for p in model.parameters())
    assert count_parameters(model) == parameters


def test_qkv_bias_is_optional() -> None:
    with torch.device("meta"):
        model = GPTModel(GPTConfig(qkv_bias=False))
    assert count_parameters(model) == 124_439_808 - 12 * 3 * 768


def test_the_defaults_are_gpt2_small_and_presets_build() -> None:
    assert GPTConfig.preset("124M") == GPTConfig() == GPTConfig(50_257, 1024, 768, 12, 12)
    sizes = {"124M": 124_439_808, "355M": 354_823_168, "774M": 774_030_080, "1558M": 1_557_611_200}
    assert PRESETS.keys() == sizes.keys() | {"course"}
    for name, parameters in sizes.items():
        with torch.device("meta"):
            assert count_parameters(GPTModel(GPTConfig.preset(name))) == parameters, name
    with torch.device("meta"):
        course = GPTModel(GPTConfig.preset("course"))
    assert count_parameters(course) <= 2_400_000 and course.config.context_length >= 256


def test_a_preset_takes_changes_and_stays_as_it_was() -> None:
    before = asdict(PRESETS["course"])
    changed = GPTConfig.preset("course", drop_rate=0.25, n_layers=1)
    assert (changed.drop_rate, changed.n_layers) == (0.25, 1)
    assert asdict(PRESETS["course"]) == before


def test_tied_weights_share_storage() -> None:
    tied, untied = GPTModel(tiny_config()), GPTModel(tiny_config(tie_weights=False))
    assert tied.head.weight.data_ptr() == tied.token_embedding.weight.data_ptr()
    assert untied.head.weight.data_ptr() != untied.token_embedding.weight.data_ptr()
    assert count_parameters(untied) - count_parameters(tied) == VOCAB * 32


def test_count_parameters_can_leave_out_frozen_ones() -> None:
    model = GPTModel(tiny_config())
    everything = count_parameters(model)
    model.position_embedding.requires_grad_(False)
    assert count_parameters(model) == everything
    assert count_parameters(model, trainable=True) == everything - CONTEXT * 32


@pytest.mark.parametrize("changes", [{}, {"init_std": 0.09}], ids=["GPT-2", "wider"])
def test_weights_start_as_in_gpt2(changes: dict) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 500, "context_length": 128, "emb_dim": 64, "n_layers": 8}
    config = tiny_config(**sizes, tie_weights=False, **changes)
    std = changes.get("init_std", 0.02)  # GPT-2's own is the default
    for name, parameter in GPTModel(config).named_parameters():
        if "norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            expected = std
            if "out_proj" in name:  # attention and feed-forward add to the shortcut 2 * 8 times
                expected = std / 4
            if "position" in name:
                expected = 0.01
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
            assert abs(parameter.mean().item()) < 5 * expected / parameter.numel() ** 0.5, name


def test_an_untrained_model_is_nearly_undecided() -> None:
    torch.manual_seed(0)
    model = GPTModel(tiny_config(tie_weights=False)).eval()
    log_probs = model(random_ids(4, CONTEXT)).log_softmax(dim=-1)
    assert log_probs.mean().item() == pytest.approx(-math.log(VOCAB), abs=0.05)


# -- what it computes -------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [0, 7, CONTEXT - 1])
def test_a_token_cannot_change_what_came_before(changed: int) -> None:
    model, ids = lively_model(), random_ids(2, CONTEXT)
    other = ids.clone()
    other[:, changed] = (other[:, changed] + 1) % VOCAB
    before, after = model(ids), model(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    for position in range(changed, CONTEXT):  # and it does reach everything that follows
        assert not torch.allclose(before[:, position], after[:, position], atol=1e-4), position


def test_positions_matter() -> None:
    model = lively_model()
    same_token = model(torch.full((1, 3), 7))
    assert not torch.allclose(same_token[0, 0], same_token[0, 2], atol=1e-3)


def test_rows_of_a_batch_do_not_meet() -> None:
    model, ids = lively_model(), random_ids(3, 10)
    alone = torch.cat([model(row[None]) for row in ids])
    torch.testing.assert_close(model(ids), alone, atol=1e-5, rtol=1e-5)


def test_dropout_works_in_training_only() -> None:
    model, ids = lively_model(drop_rate=0.5), random_ids(2, 10)
    plain = GPTModel(tiny_config()).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(ids), model(ids))
    assert torch.equal(model(ids), plain(ids))
    model.train()
    assert not torch.allclose(model(ids), model(ids), atol=1e-3)


def test_each_kind_of_dropout_is_there() -> None:
    """On the embeddings, on attention's weights, and on what each sub-layer adds."""
    ids = random_ids(2, 10)
    for kind in ("embedding", "weights", "attention", "feed_forward"):
        model = lively_model().train()
        if kind == "embedding":
            model.dropout.p = 0.5
        if kind == "weights":
            model.blocks[0].attention.drop_rate = 0.5
        if kind == "attention":
            model.blocks[0].attention.dropout.p = 0.5
        if kind == "feed_forward":
            model.blocks[0].feed_forward.dropout.p = 0.5
        assert not torch.allclose(model(ids), model(ids), atol=1e-3), kind


def test_attention_equals_its_formula() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 8, context_length=5, n_heads=2, qkv_bias=True).eval()
    x = torch.randn(1, 5, 6)
    queries, keys, values = attention.qkv(x)[0].split(8, dim=-1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = queries[:, head] @ keys[:, head].T / 2  # the root of head_dim 4
        scores[torch.ones(5, 5).triu(1).bool()] = -torch.inf
        heads.append(scores.softmax(dim=-1) @ values[:, head])
    expected = attention.out_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x)[0], expected, atol=1e-6, rtol=1e-5)


def test_attention_weights_are_those_the_layers_use() -> None:
    model, ids = lively_model(), random_ids(1, 9)[0]
    read, attended = [], []  # of each layer: what its attention gets, and what reaches out_proj
    for block in model.blocks:
        attention = block.attention
        attention.qkv.register_forward_pre_hook(lambda m, args: read.append(args[0][0]))
        attention.out_proj.register_forward_pre_hook(lambda m, args: attended.append(args[0][0]))
    weights = attention_weights(model, ids)
    assert weights.shape == (2, 4, 9, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 9))
    assert weights.triu(1).eq(0).all()
    for layer, block in enumerate(model.blocks):
        values = block.attention.qkv(read[layer]).chunk(3, dim=-1)[2].unflatten(-1, (4, -1))
        context = torch.einsum("hqk,khd->qhd", weights[layer], values).flatten(1)
        torch.testing.assert_close(context, attended[layer], atol=1e-5, rtol=1e-4)


def test_attention_weights_leave_no_hooks_behind() -> None:
    model = lively_model()
    attention_weights(model, random_ids(1, 5)[0])
    with pytest.raises(ValueError, match="do not fit"):
        attention_weights(model, random_ids(1, CONTEXT + 1)[0])
    assert not any(block.attention.qkv._forward_hooks for block in model.blocks)


# -- the same network in Hugging Face transformers --------------------------------------------


@pytest.fixture(scope="module")
def transformers():
    """Needs the package transformers, which stands in shared/tests/requirements.txt."""
    return pytest.importorskip("transformers", reason="pip install transformers to compare with it")


def as_hugging_face(model: GPTModel):
    """A GPT2LMHeadModel with the weights of ours."""
    config = model.config
    theirs = hugging_face_gpt2(config)
    ours = model.state_dict()
    names = {"wte": "token_embedding", "wpe": "position_embedding", "ln_f": "final_norm"}
    for i in range(config.n_layers):
        names |= {
            f"h.{i}.ln_1": f"blocks.{i}.norm1",
            f"h.{i}.ln_2": f"blocks.{i}.norm2",
            f"h.{i}.attn.c_attn": f"blocks.{i}.attention.qkv",
            f"h.{i}.attn.c_proj": f"blocks.{i}.attention.out_proj",
            f"h.{i}.mlp.c_fc": f"blocks.{i}.feed_forward.expand",
            f"h.{i}.mlp.c_proj": f"blocks.{i}.feed_forward.out_proj",
        }
    state = {"lm_head.weight": ours["head.weight"]}
    for name in theirs.state_dict().keys() - state.keys():
        layer, _, kind = name.removeprefix("transformer.").rpartition(".")
        if f"{names[layer]}.{kind}" not in ours:  # ours has no bias there
            state[name] = torch.zeros_like(theirs.state_dict()[name])
            continue
        state[name] = ours[f"{names[layer]}.{kind}"]
        if ".c_" in name and kind == "weight":  # Conv1D keeps (in, out), Linear (out, in)
            state[name] = state[name].T
    theirs.load_state_dict(state)
    return theirs


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_weights": False, "emb_dim": 48, "n_heads": 3, "n_layers": 3},
        {"qkv_bias": False, "vocab_size": 97, "context_length": 40, "n_heads": 1},
    ],
    ids=["tied", "untied", "without qkv bias"],
)
def test_logits_equal_hugging_face(transformers, changes: dict) -> None:
    model = lively_model(**changes)
    theirs = as_hugging_face(model)
    config = model.config
    ids = random_ids(3, config.context_length, vocab_size=config.vocab_size)
    ours = model(ids)
    torch.testing.assert_close(ours, theirs(ids).logits, atol=1e-4, rtol=1e-4)
    assert ours.std() > 0.5  # logits that could differ

    cache, past = KVCache(model, 3), None
    for start, end in pairwise([0, 9, 10, 11, 17, config.context_length]):
        step = theirs(ids[:, start:end], past_key_values=past, use_cache=True)
        past = step.past_key_values
        torch.testing.assert_close(model(ids[:, start:end], cache), step.logits, atol=1e-4, rtol=0)


# -- the KV cache -----------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[1], [5, 6, 13], [8, 16], list(range(1, CONTEXT))])
def test_reading_in_chunks_equals_reading_at_once(cuts: list[int]) -> None:
    model, ids = lively_model(), random_ids(2, CONTEXT)
    cache = KVCache(model, 2)
    chunks = []
    for start, end in pairwise([0, *cuts, CONTEXT]):
        assert cache.length == start
        chunks.append(model(ids[:, start:end], cache))
    assert cache.length == CONTEXT
    torch.testing.assert_close(torch.cat(chunks, dim=1), model(ids), atol=1e-5, rtol=1e-5)


def test_cache_has_room_for_a_full_context_and_the_type_of_the_model() -> None:
    model = lively_model().double()
    cache = KVCache(model, 3)
    assert cache.keys.shape == cache.values.shape == (2, 3, 4, CONTEXT, 8)
    assert cache.keys.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert KVCache(lively_model(), 1).keys.dtype == torch.bfloat16


@torch.no_grad()
def test_cache_works_in_half_precision() -> None:
    model, ids = lively_model(), random_ids(1, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = KVCache(model, 1)
        model(ids[:, :8], cache)
        chunked, whole = model(ids[:, 8:], cache), model(ids)[:, 8:]
    torch.testing.assert_close(chunked.float(), whole.float(), atol=0.3, rtol=0.1)


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"emb_dim": 33}, ["emb_dim 33", "n_heads 4", "divides 33"]),
        ({"vocab_size": 0}, ["vocab_size is 0", "at least 1"]),
        ({"context_length": -1}, ["context_length is -1", "at least 1"]),
        ({"emb_dim": 0}, ["emb_dim is 0", "at least 1"]),
        ({"n_heads": 0}, ["n_heads is 0", "at least 1"]),
        ({"n_layers": -2}, ["n_layers is -2", "at least 1"]),
        ({"init_std": 0.0}, ["init_std is 0.0", "above 0"]),
        ({"init_std": -0.02}, ["init_std is -0.02", "above 0"]),
        ({"drop_rate": 1.0}, ["drop_rate is 1.0", "[0, 1)"]),
        ({"drop_rate": -0.1}, ["drop_rate is -0.1", "[0, 1)"]),
        ({"drop_rate": float("nan")}, ["drop_rate is nan", "[0, 1)"]),
    ],
)
def test_a_bad_configuration_is_refused(changes: dict, parts: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        tiny_config(**changes)
    assert all(part in str(error.value) for part in parts), error.value


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'gpt-3'.*course, 124M, 355M, 774M, 1558M"):
        GPTConfig.preset("gpt-3")


def test_attention_refuses_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="d_out 10 .* n_heads 3: .* divides 10"):
        MultiHeadAttention(10, 10, 5, n_heads=3)


def test_attention_refuses_too_many_tokens() -> None:
    with pytest.raises(ValueError, match="6 tokens do not fit into context_length 5: .* last 5"):
        MultiHeadAttention(8, 8, 5, n_heads=2)(torch.zeros(1, 6, 8))


def test_the_longest_text_fits_and_one_token_more_does_not() -> None:
    model = lively_model()
    assert model(random_ids(1, CONTEXT)).shape == (1, CONTEXT, VOCAB)
    with pytest.raises(ValueError, match=r"25 tokens .* context_length 24: .*ids\[:, -24:\]"):
        model(random_ids(1, CONTEXT + 1))


def test_cached_tokens_count_towards_the_limit() -> None:
    model = lively_model()
    cache = KVCache(model, 1)
    model(random_ids(1, 20), cache)
    with pytest.raises(ValueError, match="25 tokens do not fit into context_length 24"):
        model(random_ids(1, 5), cache)
    assert cache.length == 20
    assert model(random_ids(1, 4), cache).shape == (1, 4, VOCAB)


@pytest.mark.parametrize("bad", [-1, VOCAB, VOCAB + 1000])
def test_an_id_outside_the_vocabulary_is_named(bad: int) -> None:
    ids = random_ids(2, 6)
    ids[1, 4] = bad
    with pytest.raises(ValueError, match=rf"id {bad} .*vocabulary \(0 to 49\): .*tokenizer"):
        lively_model()(ids)


def test_the_last_id_of_the_vocabulary_is_fine() -> None:
    assert lively_model()(torch.tensor([[0, VOCAB - 1]])).shape == (1, 2, VOCAB)


@pytest.mark.parametrize("shape", [(5,), (1, 0), (1, 2, 3), ()])
def test_ids_of_a_wrong_shape_are_refused(shape: tuple) -> None:
    with pytest.raises(ValueError) as error:
        lively_model()(torch.zeros(shape, dtype=torch.int64))
    message = str(error.value)
    assert f"shape {shape}" in message and "(batch, tokens)" in message and "ids[None]" in message
