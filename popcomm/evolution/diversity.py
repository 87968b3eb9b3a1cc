"""How much members differ: in their weights, and in what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from popcomm.evolution.generation import Floats


@torch.no_grad()
def of_weights(tensors: Sequence[Tensor]) -> float:
    """Root mean squared deviation of members from their mean, over the root mean square of all, in [0, 1].

    All numbers of a member count alike. 0: all members have the same weights; about 1: they have nothing in common.

    Args:
        tensors: [P, ...] float each.

    >>> of_weights([torch.tensor([[1.0, 2.0], [1.0, 2.0]])])
    0.0
    """
    apart, whole = 0.0, 0.0
    for tensor in tensors:
        flat = tensor.reshape(len(tensor), -1)
        apart += (flat - flat.mean(0)).double().square().sum().item()
        whole += flat.double().square().sum().item()
    return float(np.sqrt(apart / whole)) if whole else 0.0


def of_messages(use: Floats) -> float:
    """Jensen-Shannon divergence of the members' use of symbols, in bits (Lin 1991, eq. 5.1, equal weights).

    The entropy of what all say minus the mean entropy of what each says: 0, all use symbols alike.

    Args:
        use: [P, D] distributions; rows of nan are left out.

    >>> of_messages(np.array([[1.0, 0.0], [0.0, 1.0]]))
    1.0
    """
    known = use[~np.isnan(use).any(1)]
    if not len(known):
        return float("nan")
    return float(_entropy(known.mean(0)) - _entropy(known).mean())


def _entropy(p: Floats) -> Floats:
    logs = np.log2(p, out=np.zeros_like(p), where=p > 0)
    return -(p * logs).sum(-1)
