"""Masked means and explained variances, per member and pooled: what auxiliary losses and diagnostics are made of."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_VARIANCE = 1e-8  # dimensions that vary less carry nothing to be explained


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean per member over what is real; 0 where nothing is. values, mask bool [P, R, ...] of one shape -> [P]."""
    total = torch.where(mask, values, 0.0).flatten(1).sum(1)
    return total / mask.flatten(1).sum(1).clamp(min=1)


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error per member over what is real; 0 where nothing is.

    Args:
        prediction: [P, R, ...].
        target: the same shape; numbers that are masked may be anything, NaN included.
        mask: bool, broadcast against the target.

    Returns:
        [P].
    """
    mask = mask.expand(target.shape)
    # Masked before the square: the gradient of a masked NaN would be NaN.
    error = torch.where(mask, prediction - target, 0.0)
    return error.square().flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)


def r_squared(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - (squared error / squared deviation from the mean) per dimension over all real rows, then averaged.

    Args:
        prediction: [..., D].
        target: [..., D].
        mask: bool, broadcast against the target.

    Returns:
        A scalar; dimensions with a variance below 1e-8 are left out, and it is 0 when none is left.
    """
    size = target.shape[-1]
    mask = mask.expand(target.shape).reshape(-1, size)
    zero = torch.zeros((), dtype=torch.float64, device=target.device)
    actual = torch.where(mask, target.reshape(-1, size).double(), zero)
    error = torch.where(mask, prediction.reshape(-1, size).double() - actual, zero)
    count = mask.sum(0).clamp(min=1)
    deviation = torch.where(mask, actual - actual.sum(0) / count, zero)
    spread = deviation.square().sum(0)
    varies = spread / count >= MIN_VARIANCE
    explained = 1 - error.square().sum(0) / torch.where(varies, spread, 1.0)
    return (torch.where(varies, explained, zero).sum() / varies.sum().clamp(min=1)).float()
