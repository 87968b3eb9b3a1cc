"""How far two answers of a network are from one another."""

from __future__ import annotations

import torch
from torch import Tensor

from popcomm.agents.distributions import ActionDistribution, Categorical, DiagonalGaussian, MultiCategorical, allow


def total_variation(
    distribution: ActionDistribution, before: Tensor, after: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Total variation distance between two distributions of an action, 0 (the same) to 1; a mean over its parts.

    For a Box it is that of normal distributions with a deviation in common, erf(|difference of means| / (2 sqrt(2)
    deviation)), the deviation being the root of the mean variance: a change of deviations alone does not count.

    Args:
        distribution: of the actions.
        before: [..., A], a network's `action_logits`.
        after: [..., A].
        mask: [..., A] bool, True = allowed.

    Returns:
        [...]

    >>> half, sure = torch.tensor([0.0, 0.0]), torch.tensor([-40.0, 40.0])
    >>> round(total_variation(Categorical(2), half, sure).item(), 6)
    0.5
    """
    if isinstance(distribution, DiagonalGaussian):
        (mean, log_std), (other, other_std) = before.split(distribution.size, -1), after.split(distribution.size, -1)
        deviation = ((2 * log_std).exp() + (2 * other_std).exp()).div(2).sqrt()
        return torch.erf((mean - other).abs() / (2 * 2**0.5 * deviation)).mean(-1)
    if isinstance(distribution, MultiCategorical):
        p, q = distribution.logits(before, mask).softmax(-1), distribution.logits(after, mask).softmax(-1)
        return (p - q).abs().sum(-1).div(2).mean(-1)
    assert isinstance(distribution, Categorical)
    return (allow(before, mask).softmax(-1) - allow(after, mask).softmax(-1)).abs().sum(-1) / 2
