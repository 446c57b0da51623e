"""LoRA: learn two thin matrices beside a frozen one, then merge them into it without a trace.

Source: LoRA: Low-Rank Adaptation of Large Language Models, Hu et al. 2021, arXiv 2106.09685.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# built in 05_finetune_classification/lora.ipynb: LoRALinear, check_rank, add_lora, merge_lora,
#   adapter_state


def check_rank(rank: int, linear: nn.Linear) -> None:
    """Refuse a rank that the matrix of a layer cannot have."""
    if not 1 <= rank <= min(linear.weight.shape):
        raise ValueError(
            f"rank is {rank}; for a matrix of {tuple(linear.weight.shape)} it must lie between "
            f"1 and {min(linear.weight.shape)}"
        )


class LoRALinear(nn.Module):
    """A frozen linear layer and beside it a thin detour that learns."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        check_rank(rank, linear)
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.down = nn.Parameter(torch.empty(rank, linear.in_features, **like))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, **like))  # at first: nothing
        nn.init.normal_(self.down, std=linear.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        return self.linear(x) + self.scale * (x @ self.down.T) @ self.up.T

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One ordinary layer that computes the same."""
        self.linear.weight += self.scale * self.up @ self.down
        return self.linear


def add_lora(model: nn.Module, rank: int = 4, alpha: float | None = None) -> list[str]:
    """Freeze a model, put a LoRALinear in place of every linear layer of its blocks; return them.

    `alpha`, 2 × rank when None, scales what the detours add. Returns the layers' names. Raises
    ValueError for a model that has detours already, or no linear layer in its `blocks`.
    """
    if any(isinstance(m, LoRALinear) for m in model.modules()):
        raise ValueError("the model has detours already: merge_lora first")
    found = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    names = [name for name in found if "blocks." in name]
    if not names:
        raise ValueError("no linear layer of the model has 'blocks.' in its name: rename one")
    for name in names:
        check_rank(rank, found[name])  # all of them, before one is changed
    model.requires_grad_(False)
    alpha = 2.0 * rank if alpha is None else alpha
    for name in names:
        model.set_submodule(name, LoRALinear(found[name], rank, alpha))
    return names


def merge_lora(model: nn.Module) -> None:
    """Add every detour to the matrix beside it: ordinary layers again, though still frozen."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            model.set_submodule(name, module.merged())


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that learn, all that has to be saved beside the base model."""
    return {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
