"""Decoding: the same text with and without the cache, filters that cut what they should."""

import math

import pytest
import torch
from torch import nn

from shared.attention import KVCache, MultiHeadAttention
from shared.classroom.fast import streamlined, writer
from shared.generate import generate, next_token_probs, stream
from shared.gpt import FeedForward, GPTConfig, GPTModel
from shared.lora import add_lora
from shared.modern import ModernConfig, ModernGPT

VOCAB, CONTEXT = 50, 16
FOUR = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()  # logits of four tokens with these probabilities


@pytest.fixture(scope="module")
def model() -> GPTModel:
    """Weights large enough that what it writes depends on all it has read."""
    torch.manual_seed(0)
    sizes = {"emb_dim": 32, "n_heads": 4, "n_layers": 2}
    model = GPTModel(GPTConfig(VOCAB, CONTEXT, **sizes, drop_rate=0.5, tie_weights=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def prompt(batch: int, tokens: int) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, tokens), generator=torch.Generator().manual_seed(tokens))


def by_hand(model: GPTModel, ids: torch.Tensor, new: int) -> torch.Tensor:
    """Greedy decoding in its plainest form: read the last window, append the favourite."""
    with torch.no_grad():
        for _ in range(new):
            favourite = model(ids[:, -CONTEXT:])[:, -1].argmax(dim=-1, keepdim=True)
            ids = torch.cat([ids, favourite], dim=1)
    return ids


# -- generate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 5, CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * CONTEXT])
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_text_is_the_same_with_and_without_cache(
    model: GPTModel, tokens: int, use_cache: bool
) -> None:
    ids = prompt(3, tokens)
    text = generate(model, ids, 2 * CONTEXT, temperature=0, use_cache=use_cache)
    assert text.shape == (3, tokens + 2 * CONTEXT) and text.dtype == torch.int64
    assert torch.equal(text, by_hand(model, ids, 2 * CONTEXT))
    assert len(text[:, tokens:].unique()) > 5  # not one token over and over


def test_the_cache_has_room_for_this_text_and_no_more() -> None:
    sizes = {"emb_dim": 8, "n_heads": 2, "n_kv_heads": 1, "n_layers": 1}
    far = ModernGPT(ModernConfig(VOCAB, context_length=10**12, **sizes)).eval()  # 64 TB if full
    assert generate(far, prompt(2, 3), 4, temperature=0).shape == (2, 7)
    assert KVCache(far, batch_size=2, room=5).keys.shape == (1, 2, 1, 5, 4)


def test_of_a_prompt_only_the_last_place_gets_scores(model: GPTModel) -> None:
    asked = []
    head = model.head.forward
    model.head.forward = lambda x: asked.append(x.shape[1]) or head(x)  # its own: all places
    generate(model, prompt(1, 5), 2, temperature=0)
    del model.head.forward
    twin, ids = writer(model), prompt(2, 7)
    assert asked == [5, 1]
    assert torch.allclose(twin(ids), model(ids)[:, -1:], atol=1e-5) and twin(ids).shape[1] == 1
    handle = model.register_forward_hook(lambda *_: None)
    assert writer(model)(ids).shape[1] == 7  # somebody looks
    handle.remove()


def test_the_cache_saves_work(model: GPTModel) -> None:
    read: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[1]))
    generate(model, prompt(1, 13), 6, temperature=0)
    # The prompt at once, then token by token; a full window slides and is read anew.
    assert read == [13, 1, 1, 1, 16, 16]
    read.clear()
    generate(model, prompt(1, 13), 6, temperature=0, use_cache=False)
    hook.remove()
    assert read == [13, 14, 15, 16, 16, 16]


def test_only_the_last_window_counts(model: GPTModel) -> None:
    long = prompt(2, 40)
    text = generate(model, long, 5, temperature=0)
    assert torch.equal(text[:, :40], long)
    assert torch.equal(text[:, 40:], generate(model, long[:, -CONTEXT:], 5, temperature=0)[:, -5:])


def test_rows_of_a_batch_are_continued_independently(model: GPTModel) -> None:
    ids = prompt(4, 6)
    alone = torch.cat([generate(model, row[None], 12, temperature=0) for row in ids])
    assert torch.equal(generate(model, ids, 12, temperature=0), alone)


def test_no_new_tokens_gives_the_prompt(model: GPTModel) -> None:
    assert torch.equal(generate(model, prompt(2, 4), 0), prompt(2, 4))


def test_sampling_is_reproducible_with_a_seed(model: GPTModel) -> None:
    def sample(seed: int, **options) -> torch.Tensor:
        torch.manual_seed(seed)
        return generate(model, prompt(2, 4), 30, temperature=1.5, **options)

    assert torch.equal(sample(1), sample(1))
    assert torch.equal(sample(1), sample(1, use_cache=False))
    assert not torch.equal(sample(1), sample(2))


@pytest.mark.parametrize(
    "options", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 0}, {"temperature": 1e-4}]
)
def test_narrowest_sampling_is_greedy(model: GPTModel, options: dict) -> None:
    torch.manual_seed(0)
    text = generate(model, prompt(2, 4), 30, **options)
    assert torch.equal(text, by_hand(model, prompt(2, 4), 30))


def test_sampled_frequencies_follow_the_probabilities(model: GPTModel) -> None:
    ids = prompt(1, 4)
    with torch.no_grad():
        probs = next_token_probs(model(ids)[0, -1], temperature=2.0, top_k=5)
    torch.manual_seed(0)
    drawn = generate(model, ids.expand(4000, -1), 1, temperature=2.0, top_k=5)[:, -1]
    counts = torch.bincount(drawn, minlength=VOCAB)
    assert (counts[probs == 0] == 0).all()
    torch.testing.assert_close(counts / 4000, probs, atol=0.04, rtol=0)


def test_a_row_that_ended_is_filled_with_the_stop_token(model: GPTModel) -> None:
    ids, free = prompt(3, 4), by_hand(model, prompt(3, 4), 12)
    written = [set(row[4:-1].tolist()) for row in free]
    stop = min(written[0] - written[2])  # row 0 writes it, row 2 does not
    expected = free.clone()
    for row in expected:
        places = (row[4:] == stop).nonzero()
        if len(places):
            row[4 + int(places[0]) :] = stop
    assert not torch.equal(expected[0], free[0]) and torch.equal(expected[2], free[2])
    for use_cache in (True, False):
        text = generate(model, ids, 12, temperature=0, eos_id=stop, use_cache=use_cache)
        assert torch.equal(text, expected)


def test_generation_stops_when_every_row_has_ended(model: GPTModel) -> None:
    free = by_hand(model, prompt(1, 4), 12)[0, 4:].tolist()
    stop = free[6]
    text = generate(model, prompt(1, 4), 12, temperature=0, eos_id=stop)
    assert text[0, 4:].tolist() == free[: free.index(stop) + 1]


def test_a_stop_token_in_the_prompt_does_not_stop(model: GPTModel) -> None:
    free = by_hand(model, prompt(1, 4), 5)
    stop = int(prompt(1, 4)[0, 0])
    assert stop not in free[0, 4:]
    assert torch.equal(generate(model, prompt(1, 4), 5, temperature=0, eos_id=stop), free)


def test_stream_gives_what_generate_gives(model: GPTModel) -> None:
    for options in ({"temperature": 0}, {"temperature": 1.2, "top_k": 20, "top_p": 0.9}):
        torch.manual_seed(3)
        pieces = list(stream(model, prompt(2, 4), 20, **options))
        torch.manual_seed(3)
        whole = generate(model, prompt(2, 4), 20, **options)
        assert all(piece.shape == (2, 1) for piece in pieces) and len(pieces) == 20
        assert torch.equal(torch.cat(pieces, dim=1), whole[:, 4:])


def test_training_mode_is_left_for_decoding_and_restored(model: GPTModel) -> None:
    expected = by_hand(model, prompt(1, 4), 10)
    try:
        model.train()
        assert torch.equal(generate(model, prompt(1, 4), 10, temperature=0), expected)
        assert model.training and model.blocks[0].training
        pieces = stream(model, prompt(1, 4), 10)
        next(pieces)
        assert not model.training
        pieces.close()  # the reader has seen enough
        assert model.training
        with pytest.raises(ValueError):
            generate(model, torch.tensor([[VOCAB]]), 3)
        assert model.training
    finally:
        model.eval()
    generate(model, prompt(1, 4), 1)
    assert not model.training


def test_generation_keeps_no_gradients(model: GPTModel) -> None:
    seen = []
    hook = model.register_forward_hook(lambda *args: seen.append(args[2].requires_grad))
    generate(model, prompt(1, 4), 2)
    hook.remove()
    assert seen == [False, False]


def test_new_ids_can_be_trained_on(model: GPTModel) -> None:
    new = next(stream(model, prompt(1, 4), 1))
    model(new).sum().backward()  # refuses ids that were made in inference mode
    model.zero_grad()


# -- the faster twin ---------------------------------------------------------------------------


def twins() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    sizes = {"emb_dim": 32, "n_heads": 4, "n_layers": 2, "drop_rate": 0.5}
    plain, adapted = (GPTModel(GPTConfig(VOCAB, CONTEXT, **sizes)) for _ in range(2))
    add_lora(adapted, rank=2)
    modern = ModernGPT(ModernConfig(VOCAB, CONTEXT, n_kv_heads=2, **sizes))
    return {"GPT": plain, "LoRA": adapted, "modern": modern}


@pytest.mark.parametrize("name", ["GPT", "LoRA", "modern"])
@torch.no_grad()
def test_a_streamlined_twin_gives_the_same_numbers_with_the_same_weights(name: str) -> None:
    original = twins()[name].eval()
    twin, ids = streamlined(original), prompt(2, 9)
    assert torch.equal(twin(ids), original(ids))
    cache, other = KVCache(original, 2), KVCache(twin, 2)
    for piece in ids.split([5, 1, 3], dim=1):
        assert torch.equal(twin(piece, other), original(piece, cache))
    before = original(ids)
    for parameter in original.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.3)
    assert not torch.allclose(original(ids), before)
    assert torch.equal(twin(ids), original(ids))  # the weights are shared, not copied


@torch.no_grad()
def test_a_streamlined_twin_leaves_its_original_alone() -> None:
    original = twins()["GPT"]
    names = {name: set(vars(part)) for name, part in original.named_modules()}
    kinds = [type(part) for part in original.modules()]
    assert streamlined(original.eval()).blocks[0].attention.qkv.weight is not None
    assert {name: set(vars(part)) for name, part in original.named_modules()} == names
    assert [type(part) for part in original.modules()] == kinds
    original.train()
    assert not torch.equal(original(prompt(1, 9)), original(prompt(1, 9)))  # dropout is still there


@torch.no_grad()
def test_what_hangs_on_a_part_is_heard_in_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    original, ids = twins()["GPT"].eval(), prompt(1, 9)
    expected = original(ids)
    layer = original.blocks[1].feed_forward
    hooks = [layer.out_proj.register_forward_hook(lambda part, args, out: 0 * out)]
    muted = original(ids)
    assert not torch.allclose(muted, expected)
    assert torch.equal(streamlined(original)(ids), muted)
    hooks.pop().remove()
    hooks.append(layer.register_forward_pre_hook(lambda part, args: (0 * args[0],)))
    assert torch.equal(streamlined(original)(ids), original(ids))
    assert not torch.allclose(original(ids), expected)
    hooks.pop().remove()
    hooks.append(layer.dropout.register_forward_hook(lambda part, args, out: 0 * out))
    assert torch.equal(streamlined(original)(ids), muted)
    hooks.pop().remove()
    layer.forward = lambda x: 0 * x  # a forward of its own
    assert torch.equal(streamlined(original)(ids), muted)
    del layer.forward
    assert torch.equal(streamlined(original)(ids), expected)
    monkeypatch.setattr(FeedForward, "forward", lambda self, x: 0 * x)  # its whole class, later
    assert torch.equal(streamlined(original)(ids), original(ids))
    assert not torch.allclose(original(ids), expected)


@torch.no_grad()
def test_a_hook_for_all_modules_hears_every_call() -> None:
    heard = []
    hook = nn.modules.module.register_module_forward_hook(lambda *call: heard.append(call[0]))
    try:
        generate(twins()["GPT"].eval(), prompt(1, 4), 2, temperature=0)
    finally:
        hook.remove()
    assert {nn.Linear, MultiHeadAttention} <= {type(part) for part in heard}


# -- from logits to probabilities -------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0}, [0, 1, 0, 0]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),  # squares, rescaled
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 4}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 99}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.01}, [0, 1, 0, 0]),
        ({"top_p": 0.39}, [0, 1, 0, 0]),
        ({"top_p": 0.41}, [0, 4 / 7, 0, 3 / 7]),  # the token that crosses p is kept
        ({"top_p": 0.69}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.71}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 0.95}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 3, "top_p": 0.41}, [0, 1, 0, 0]),  # of what top_k left: 4/9
        ({"top_k": 3, "top_p": 0.45}, [0, 4 / 7, 0, 3 / 7]),
        ({"temperature": 1e-40}, [0, 1, 0, 0]),  # no step from tiny to 0
        ({"temperature": 1e-45, "top_p": 0.5}, [0, 1, 0, 0]),
        ({"top_k": 2, "top_p": 0.95}, [0, 4 / 7, 0, 3 / 7]),
        ({"temperature": 0.5, "top_p": 0.5}, [0, 1, 0, 0]),  # temperature comes first: 16/30
        ({"temperature": 0, "top_k": 3, "top_p": 0.9}, [0, 1, 0, 0]),
    ],
    ids=str,
)
def test_filters_keep_what_they_should(options: dict, expected: list[float]) -> None:
    expected = torch.tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(next_token_probs(FOUR, **options), expected)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_ties_are_cut_to_exactly_k(top_k: int) -> None:
    probs = next_token_probs(torch.tensor([0.0, 1, 1, 1, 1]), top_k=top_k)
    expected = [0.0, *[1 / top_k] * top_k, *[0.0] * (4 - top_k)]  # the lower ids win
    torch.testing.assert_close(probs, torch.tensor(expected))


def test_ties_under_top_p_and_greedy() -> None:
    four_equal = torch.zeros(4)
    torch.testing.assert_close(
        next_token_probs(four_equal, top_p=0.6), torch.tensor([1 / 3, 1 / 3, 1 / 3, 0])
    )
    for options in ({"temperature": 0}, {"top_k": 1}, {"top_p": 0.1}):
        assert next_token_probs(four_equal, **options).tolist() == [1, 0, 0, 0]


def test_probabilities_of_any_shape_sum_to_one() -> None:
    logits = torch.randn(2, 3, 1000, generator=torch.Generator().manual_seed(0)) * 5
    before = logits.clone()
    for options in ({}, {"temperature": 0}, {"temperature": 3}, {"top_k": 7}, {"top_p": 0.8}):
        probs = next_token_probs(logits, **options)
        assert probs.shape == logits.shape and (probs >= 0).all()
        torch.testing.assert_close(probs.sum(dim=-1), torch.ones(2, 3))
    assert torch.equal(logits, before)
    rows = torch.stack([next_token_probs(row, top_p=0.8) for row in logits[0]])
    assert torch.equal(next_token_probs(logits, top_p=0.8)[0], rows)


def test_top_k_and_top_p_keep_the_most_likely_of_a_large_vocabulary() -> None:
    logits = torch.randn(50_257, generator=torch.Generator().manual_seed(0)) * 3
    probs = logits.softmax(dim=-1)
    kept = next_token_probs(logits, top_k=40) > 0
    assert kept.sum() == 40 and probs[kept].min() >= probs[~kept].max()
    kept = next_token_probs(logits, top_p=0.9) > 0
    assert probs[kept].min() >= probs[~kept].max()
    assert probs[kept].sum() >= 0.9 - 1e-4
    assert probs[kept].sum() - probs[kept].min() < 0.9 + 1e-4  # and none too many


def test_top_p_of_one_keeps_every_token() -> None:
    # The sum of 50,257 rounded probabilities reaches 1 long before the last of them.
    logits = torch.randn(50_257, generator=torch.Generator().manual_seed(0)) * 5
    assert torch.equal(next_token_probs(logits, top_p=1.0), next_token_probs(logits))


def test_temperature_flattens_and_sharpens() -> None:
    def entropy(temperature: float) -> float:
        probs = next_token_probs(FOUR, temperature)
        return -(probs * probs.log()).sum().item()

    assert entropy(0.5) < entropy(1.0) < entropy(2.0) < entropy(1e6)
    assert entropy(1e6) == pytest.approx(math.log(4), abs=1e-4)


# -- bad input --------------------------------------------------------------------------------

BAD = [
    ({"temperature": -0.5}, "temperature is -0.5; it must be at least 0"),
    ({"temperature": float("nan")}, "temperature is nan; it must be at least 0"),
    ({"top_k": 0}, "top_k is 0; it must be at least 1"),
    ({"top_k": -3}, "top_k is -3; it must be at least 1"),
    ({"top_p": 0}, r"top_p is 0; it must lie in \(0, 1\]"),
    ({"top_p": 0.0}, r"top_p is 0.0; it must lie in \(0, 1\]"),
    ({"top_p": 1.01}, r"top_p is 1.01; it must lie in \(0, 1\]"),
    ({"top_p": -0.1}, r"top_p is -0.1; it must lie in \(0, 1\]"),
    ({"top_p": float("nan")}, r"top_p is nan; it must lie in \(0, 1\]"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_meaningless_settings_are_refused(model: GPTModel, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next_token_probs(FOUR, **options)
    for settings in (options, {"temperature": 0} | options):  # also where greedy would not look
        with pytest.raises(ValueError, match=message):
            generate(model, prompt(1, 4), 3, **settings)
    with pytest.raises(ValueError, match=message):  # before anything is generated
        generate(model, prompt(1, 4), 0, **options)


def test_a_negative_number_of_tokens_is_refused(model: GPTModel) -> None:
    with pytest.raises(ValueError, match="max_new_tokens is -1; it must be at least 0"):
        generate(model, prompt(1, 4), -1)


def test_bad_prompts_are_refused(model: GPTModel) -> None:
    for use_cache in (True, False):
        with pytest.raises(ValueError, match=r"shape \(1, 0\).*at least one token"):
            generate(model, torch.zeros(1, 0, dtype=torch.int64), 3, use_cache=use_cache)
        with pytest.raises(ValueError, match="id 50 is outside the vocabulary"):
            generate(model, torch.tensor([[1, 50]]), 3, use_cache=use_cache)


def test_a_prompt_without_batch_dimension_is_refused(model: GPTModel) -> None:
    for use_cache in (True, False):
        with pytest.raises(ValueError, match=r"shape \(2,\).*ids\[None\]"):
            generate(model, torch.tensor([1, 2]), 3, use_cache=use_cache)
