"""What a policy is about to rule out: a pull that does not fade, where the gradient of an entropy does."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# n times the probability below which one of n possibilities is pulled at.
FAINT = 0.04


def openness(log_p: Tensor, allowed: Tensor | None = None) -> Tensor:
    """How far a distribution is from ruling something out: mean_i min(0, log p_i - log(FAINT / n)), of n possibilities.

    Where a policy is sure, the gradients of its losses and of its entropy are gone with the probabilities of what it
    does not do, and it does not find out that something else has become right since. The gradient of this one with
    respect to the logits is 1 / n for each of those below FAINT / n, however seldom they are; it is 0 while all can
    still happen, and so takes nothing from exploring in the first place.

    Args:
        log_p: log-probabilities (nats) [..., n].
        allowed: [..., n] bool; None: all of them. n counts the allowed ones.

    Returns:
        [...] nats, at most 0; 0 where nothing is allowed.
    """
    if allowed is None:
        return (log_p - math.log(FAINT / log_p.shape[-1])).clamp(max=0.0).mean(-1)
    n = allowed.sum(-1, keepdim=True).clamp(min=1)
    short = (log_p - (FAINT / n).log()).clamp(max=0.0)
    return torch.where(allowed, short, 0.0).sum(-1) / n.squeeze(-1)
