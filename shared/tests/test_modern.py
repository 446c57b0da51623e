"""ModernGPT: its parts against independent computations, its cache, its gradients, its refusals."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from shared.attention import KVCache
from shared.generate import generate
from shared.gpt import PRESETS, GPTConfig, GPTModel, count_parameters
from shared.modern import (
    ModernAttention,
    ModernConfig,
    ModernGPT,
    RMSNorm,
    SquaredReLU,
    SwiGLU,
    rotary_table,
    rotate,
)
from shared.optim import Muon, muon_and_adamw, orthogonalize

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


def test_angles_stay_exact_where_other_numbers_are_short() -> None:
    positions = torch.arange(4000, 4004)
    expected = rotary_table(positions, 16)
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = rotary_table(positions, 16)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))


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
def test_squared_relu_by_hand() -> None:
    torch.manual_seed(0)
    layer, x = SquaredReLU(3, 5), torch.randn(4, 3)
    hidden = (x.double() @ layer.expand.weight.double().T).clamp(min=0)
    expected = (hidden * hidden) @ layer.out_proj.weight.double().T
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-6, rtol=1e-5)


def test_either_feed_forward_costs_the_same() -> None:
    """Within the rounding of 8/3 of the dimensions."""
    counts = [
        count_parameters(ModernGPT(replace(CONFIG, feed_forward=name)))
        for name in ("swiglu", "relu2")
    ]
    assert counts[0] == pytest.approx(counts[1], rel=0.01)
    blocks = ModernGPT(replace(CONFIG, feed_forward="relu2")).blocks
    assert all(isinstance(block.feed_forward, SquaredReLU) for block in blocks)


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
        ({"n_kv_heads": 3}, "n_heads 4 cannot be divided among n_kv_heads 3"),
        ({"n_kv_heads": 0}, "cannot be divided among n_kv_heads 0"),
        ({"emb_dim": 20}, "a head has 5 dimensions"),
        ({"emb_dim": 50}, "cannot be divided"),
        ({"feed_forward": "gelu"}, "unknown feed_forward 'gelu': choose one of swiglu, relu2"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(CONFIG, **changes)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_its_own_kind_of_model(name: str) -> None:
    config = ModernConfig.preset(name, rotary_base=500.0)
    assert type(config) is ModernConfig and config.rotary_base == 500
    assert config.emb_dim == GPTConfig.preset(name).emb_dim
    with torch.device("meta"):
        assert (
            type(config.build()) is ModernGPT and type(GPTConfig.preset(name).build()) is GPTModel
        )


def test_too_long_and_unknown_ids_are_refused() -> None:
    model = lively()
    with pytest.raises(ValueError, match="25 tokens do not fit into context_length 24"):
        model(torch.zeros(1, 25, dtype=torch.long))
    with pytest.raises(ValueError, match="token id 40 is outside"):
        model(torch.tensor([[40]]))


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(*shape, dtype=torch.double), full_matrices=False)
    values = torch.linspace(0.05, 3, 8, dtype=torch.double)
    result = orthogonalize(1e3 * left @ torch.diag(values) @ right)
    inside = left.T @ result @ right.T  # diagonal if and only if all directions stayed
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), atol=1e-9, rtol=0)
    assert 0.65 < inside.diagonal().min() and inside.diagonal().max() < 1.25


def test_orthogonalize_takes_many_at_once() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 6, 4)
    together = orthogonalize(matrices)
    for one, expected in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalize(one), expected)


@pytest.mark.parametrize("shape", [(6, 6), (12, 6), (6, 12)])
def test_muon_goes_where_pytorchs_goes(shape: tuple[int, int]) -> None:
    """PyTorch's orthogonalises in bf16, so each step agrees to some percent of its length."""
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().clone())
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    optimizers = Muon([ours], **settings), torch.optim.Muon([theirs], **settings)
    for number in range(10):
        before = ours.detach().clone()
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(number))
        theirs.data.copy_(ours.data)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
        assert (ours - theirs).norm() < 0.05 * (ours - before).norm()


def test_muon_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    gradients = torch.randn(6, 4, 4)

    def walk(parameter: torch.nn.Parameter, optimizer: Muon, some: torch.Tensor) -> None:
        for gradient in some:
            parameter.grad = gradient
            optimizer.step()

    whole, halved = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    walk(whole, Muon([whole]), gradients)
    first = Muon([halved])
    walk(halved, first, gradients[:3])
    second = Muon([halved])
    second.load_state_dict(first.state_dict())
    walk(halved, second, gradients[3:])
    assert torch.equal(whole, halved)


def test_muon_leaves_alone_what_has_no_gradient_and_refuses_vectors() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    Muon([parameter], weight_decay=0.5).step()
    assert torch.equal(parameter, torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"not for shape \(3,\): give it to AdamW"):
        Muon([torch.nn.Parameter(torch.ones(3))])


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_has_one_optimizer(tied: bool) -> None:
    model = ModernGPT(replace(CONFIG, tie_weights=tied))
    muon, adamw = muon_and_adamw(model)
    theirs = [p for optimizer in (muon, adamw) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(map(id, theirs)) == sorted(map(id, model.parameters()))
    matrices = {id(p) for g in muon.param_groups for p in g["params"]}
    assert id(model.token_embedding.weight) not in matrices
    assert id(model.head.weight) not in matrices
    assert len(matrices) == CONFIG.n_layers * 7  # 4 of attention, 3 of SwiGLU
