"""ModernGPT: its parts against independent computations, its cache, its gradients, its refusals."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from shared.attention import KVCache
from shared.generate import generate
from shared.gpt import GPTConfig, GPTModel, count_parameters
from shared.modern import (
    ModernAttention,
    ModernConfig,
    ModernGPT,
    RMSNorm,
    SwiGLU,
    rotary_table,
    rotate,
)

CONFIG = ModernConfig(40, 24, emb_dim=48, n_heads=4, n_layers=2, n_kv_heads=2, init_std=0.2)


def lively(config: ModernConfig = CONFIG) -> ModernGPT:
    """A model whose gains are not all 1."""
    torch.manual_seed(0)
    model = ModernGPT(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("gain"):
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    return model


def test_rms_norm_is_pytorchs() -> None:
    torch.manual_seed(0)
    ours, theirs, x = RMSNorm(8), torch.nn.RMSNorm(8, eps=1e-6), 5 * torch.randn(2, 3, 8)
    theirs.weight.data = ours.gain.data = torch.randn(8)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=1e-5)
    # by hand: mean square of (3, 4, 0, 0) is 25 / 4
    assert RMSNorm(4)(torch.tensor([3.0, 4.0, 0, 0])).tolist() == pytest.approx([1.2, 1.6, 0, 0])


@pytest.mark.parametrize("base", [100.0, 10_000.0])
def test_rotation_is_complex_multiplication(base: float) -> None:
    torch.manual_seed(0)
    x, positions = torch.randn(2, 3, 9, 6, dtype=torch.double), torch.arange(4, 13)
    turned = rotate(x, *(part.double() for part in rotary_table(positions, 6, base)))
    for token, position in enumerate(positions.tolist()):
        for pair in range(3):
            factor = complex(0, position * base ** (-2 * pair / 6))
            factor = torch.exp(torch.tensor(factor, dtype=torch.cdouble))
            expected = torch.complex(x[..., token, pair], x[..., token, pair + 3]) * factor
            found = torch.complex(turned[..., token, pair], turned[..., token, pair + 3])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_scores_depend_on_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 16)
    scores = {}
    for m, n in ((3, 1), (10, 8), (90, 88), (5, 1)):
        turned = [rotate(v[None], *rotary_table(torch.tensor([p]), 16))
                  for v, p in ((query, m), (key, n))]  # fmt: skip
        scores[m, n] = (turned[0] @ turned[1].T).item()
    assert scores[3, 1] == pytest.approx(scores[10, 8], abs=1e-4)
    assert scores[3, 1] == pytest.approx(scores[90, 88], abs=1e-3)
    assert abs(scores[3, 1] - scores[5, 1]) > 0.01


def test_swiglu_by_hand() -> None:
    torch.manual_seed(0)
    layer, x = SwiGLU(3, 5), torch.randn(4, 3)
    gate, value = x @ layer.gate.weight.T, x @ layer.expand.weight.T
    expected = (gate / (1 + torch.exp(-gate)) * value) @ layer.out_proj.weight.T
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
def test_grouped_queries_share_keys_and_values() -> None:
    """As many key heads as query heads, pairs of them equal, is the same as half as many."""
    torch.manual_seed(0)
    shared = ModernAttention(CONFIG)
    full = ModernAttention(replace(CONFIG, n_kv_heads=4))
    state = shared.state_dict()
    for name in ("keys.weight", "values.weight"):
        heads = state[name].view(2, 12, 48)
        state[name] = heads.repeat_interleave(2, dim=0).reshape(48, 48)
    full.load_state_dict(state)
    x = torch.randn(2, 10, 48)
    torch.testing.assert_close(shared(x), full(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_future_is_not_seen() -> None:
    model, ids = lively(), torch.randint(0, 40, (1, 20))
    changed = ids.clone()
    changed[0, 12] = (ids[0, 12] + 1) % 40
    before, after = model(ids), model(changed)
    assert torch.allclose(before[:, :12], after[:, :12], atol=1e-5)
    assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_reading_in_pieces_equals_reading_at_once(kv_heads: int) -> None:
    model, ids = lively(replace(CONFIG, n_kv_heads=kv_heads)), torch.randint(0, 40, (3, 24))
    cache, pieces = KVCache(model, 3), []
    assert cache.keys.shape == (2, 3, kv_heads, 24, 12)
    for start, end in pairwise([0, 7, 8, 9, 16, 24]):
        pieces.append(model(ids[:, start:end], cache))
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids), atol=1e-5, rtol=1e-5)


def test_generation_is_the_same_with_and_without_cache() -> None:
    model, prompt = lively(), torch.randint(0, 40, (2, 3))
    texts = [generate(model, prompt, 30, temperature=0, use_cache=use) for use in (True, False)]
    assert torch.equal(*texts) and texts[0].shape == (2, 33)  # beyond the context of 24, too


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_reach_every_parameter(tied: bool) -> None:
    model = lively(replace(CONFIG, tie_weights=tied))
    model(torch.randint(0, 40, (4, 24))).logsumexp(-1).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert (model.head.weight is model.token_embedding.weight) == tied
    assert not any("bias" in name for name, _ in model.named_parameters())


def test_it_costs_about_as_much_as_gpt2() -> None:
    common = {"vocab_size": 100, "context_length": 32, "emb_dim": 96, "n_heads": 4, "n_layers": 3}
    modern = count_parameters(ModernGPT(ModernConfig(**common)))
    old = count_parameters(GPTModel(GPTConfig(**common)))
    assert 0.95 < modern / old < 1.0  # no positions, no biases


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"n_kv_heads": 3}, "n_heads 4 cannot share n_kv_heads 3"),
        ({"n_kv_heads": 0}, "cannot share n_kv_heads 0"),
        ({"emb_dim": 20}, "a head has 5 dimensions"),
        ({"emb_dim": 50}, "cannot be divided"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(CONFIG, **changes)


def test_too_long_and_unknown_ids_are_refused() -> None:
    model = lively()
    with pytest.raises(ValueError, match="25 tokens do not fit into context_length 24"):
        model(torch.zeros(1, 25, dtype=torch.long))
    with pytest.raises(ValueError, match="token id 40 is outside"):
        model(torch.tensor([[40]]))
