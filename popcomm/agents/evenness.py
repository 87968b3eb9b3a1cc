"""How evenly possibilities are used over many rows: an entropy of the whole, whose gradients reach every single row."""

from __future__ import annotations

import math

from torch import Tensor

# Weight of the pull at possibilities that are hardly used, beside the entropy; and how seldom is hardly.
RARE, SCARCE = 0.2, 1e-3


def pull_to_even(mean: Tensor, sizes: Tensor | int | None = None) -> Tensor:
    """What one more use of a possibility is worth: RARE / (V max(m, SCARCE)) - log m.

    The gradient of H(m) + RARE / V sum_i log m_i, where m is the mean of rows' probabilities p, is that of sum_i p_i
    pull_i with the pull taken as given. The first term is the cross-entropy of the even distribution: unlike that of
    the entropy, its gradient does not fade for a possibility that all have forgotten.

    Args:
        mean: m, [..., V] probabilities.
        sizes: V where it is less than there are columns, broadcast to [..., 1]; None: all columns.

    Returns:
        [..., V] nats.
    """
    count = mean.shape[-1] if sizes is None else sizes
    return RARE / count / mean.clamp(min=SCARCE) - mean.clamp(min=1e-8).log()


def even_use(p: Tensor, mean: Tensor, sizes: Tensor | int | None = None) -> Tensor:
    """p and mean [..., V] -> [...] nats, sum_i p_i pull_i - RARE; averaged over the rows that `mean` is the mean of, it
    is their entropy H(m) where all V are used in at least SCARCE of them, and else less by at most RARE. `mean` is
    taken as given; `sizes`: as of `pull_to_even`."""
    return (p * pull_to_even(mean, sizes)).sum(-1) - RARE


def gaussian_use(mean: Tensor, log_std: Tensor, of_means: Tensor, of_squares: Tensor) -> Tensor:
    """The same of normal distributions: the entropy (nats) of one that is as wide as all of them together.

    With V the variance of the mixture, 0.5 log(2 pi e V) is what all rows add up to, and ((mu - m)^2 + sigma^2) / V,
    whose mean is 1, what a row adds: the gradient of the mean of these is that of log V.

    Args:
        mean, log_std: mu and log sigma of a row, [..., d].
        of_means, of_squares: means over its group of mu and of mu^2 + sigma^2, [..., d], taken as given.

    Returns:
        [...], summed over d.
    """
    variance = (of_squares - of_means.square()).clamp(min=1e-12)
    share = ((mean - of_means).square() + (2 * log_std).exp()) / variance
    return 0.5 * (share + variance.log() + math.log(2 * math.pi)).sum(-1)
