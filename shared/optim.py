"""Optimizers: the learning-rate schedule, AdamW, one step of training, and Muon.

Notable: AdamW decays matrices only; the rate warms up and then follows half a cosine; Muon moves
the matrices inside a network by steps in which every direction counts alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from shared.classroom.errors import at_least, require

# built in 04_pretraining/pretraining.ipynb: learning_rate, make_optimizer, set_rates,
#   optimizer_step
# built in 04_pretraining/training_faster.ipynb: orthogonalize, Muon, muon_and_adamw


def learning_rate(step: int, steps: int, max_lr: float, warmup: int, min_lr: float) -> float:
    """Linear warm-up over `warmup` steps to `max_lr`, then half a cosine down to `min_lr`."""
    require(min_lr <= max_lr, f"min_lr is {min_lr}, max_lr only {max_lr}: rates fall")
    if step < warmup:
        return max_lr * (step + 1) / warmup
    progress = min(1, (step - warmup) / max(1, steps - warmup))  # and stay there
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def make_optimizer(
    model: nn.Module, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), one fused kernel for all parameters.

    Only matrices decay: pulling biases and norm gains towards zero would change what a layer
    can express, not how complicated its function is.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1.0, betas=betas, fused=True)


def set_rates(
    optimizers: Sequence[torch.optim.Optimizer], own_rates: Sequence[Sequence[float]], rate: float
) -> None:
    """Give every group of every optimizer its own rate times `rate`."""
    for optimizer, rates in zip(optimizers, own_rates, strict=True):
        for group, own_rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = float(own_rate * rate)


def optimizer_step(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    clip: float,
) -> Tensor:
    """Clip the gradients of a model to the norm `clip`, take one step, and clear the gradients.

    Returns the norm before clipping, one number. `scaler` multiplied the loss for half precision;
    it knows the factor and takes it out again.
    """
    for optimizer in optimizers:
        scaler.unscale_(optimizer)  # clipping must see the true gradients
    # Infinite gradients are the scaler's business; without it they would end the model.
    stop = not scaler.is_enabled()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip, error_if_nonfinite=stop)
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    model.zero_grad()
    return norm


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of (…, rows, columns) matrices near 1, directions unchanged.

    Newton–Schulz with the polynomial of Muon, whose values end between 0.7 and 1.2: it need not
    converge, only grow fast from small ones. Source: Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon
    """
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # no value above 1
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # the square below is then the smaller one
    for _ in range(steps):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonal matrices: every direction learns equally fast.

    For the matrices inside a network; embeddings, heads, norms and biases belong to AdamW.
    Raises ValueError for a parameter that is no matrix. Source: as `orthogonalize`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)
        for group in self.param_groups:
            at_least(0, **{name: group[name] for name in defaults})
            require(group["momentum"] < 1, f"momentum is {momentum}; it must lie below 1")
            for p in group["params"]:
                message = f"Muon is for matrices, not for shape {tuple(p.shape)}: give it to AdamW"
                require(p.dim() == 2, message)

    @torch.no_grad()
    def step(self) -> None:
        """Move every matrix against its orthogonalised momentum."""
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    same_shape.setdefault(p.shape, []).append(p)
            for (rows, columns), parameters in same_shape.items():  # one product for all of them
                steps = orthogonalize(torch.stack([self._momentum(p, group) for p in parameters]))
                scale = group["lr"] * max(1, rows / columns) ** 0.5
                for p, step in zip(parameters, steps, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(scale * step)

    def _momentum(self, p: nn.Parameter, group: dict) -> Tensor:
        """Nesterov's: the mean of past gradients, looked at one step ahead."""
        mean = self.state[p].setdefault("mean", torch.zeros_like(p))
        mean.lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(mean, group["momentum"])


def muon_and_adamw(
    model: nn.Module,
    muon_lr: float = 0.02,
    adamw_lr: float = 0.01,
    momentum: float = 0.95,
    weight_decay: float = 0.01,
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else: `train(optimizers=…)`."""
    inside = [p for p in model.blocks.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if all(p is not matrix for matrix in inside)]
    return [
        Muon(inside, muon_lr, momentum, weight_decay),
        torch.optim.AdamW(rest, adamw_lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True),
    ]
