"""Learning from preferences directly (DPO), without a reward model."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from shared.classroom.errors import above
from shared.texts import IGNORED

# built in 06_finetune_instructions/preferences_dpo.ipynb: answer_log_probs, dpo_loss


def answer_log_probs(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Log-probability (rows,) of each row's answer: of all its targets that are not IGNORED."""
    log_probs = model(inputs).float().log_softmax(dim=-1)  # (rows, tokens, vocab)
    counted = targets != IGNORED
    each = log_probs.gather(-1, targets.masked_fill(~counted, 0)[..., None])[..., 0]
    return (each * counted).sum(dim=-1)


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): the mean loss.

    `chosen` and `rejected`, each (pairs,), are log-probabilities of the answers, the learning
    model's minus the frozen reference's. Raises ValueError for a beta that is not above 0.
    """
    above(0, beta=beta)
    return -F.logsigmoid(beta * (chosen - rejected)).mean()
