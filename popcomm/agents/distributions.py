"""Distributions of actions: from a network's `action_logits` to actions, log-probabilities and entropies.

Leading axes `...` are free ([P, R] in networks). The layout of `params` is RLlib's: the logits of a Discrete space, the
logits of a MultiDiscrete space one after another, the means and then the log standard deviations of a Box.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from popcomm.agents.evenness import even_use, gaussian_use
from popcomm.agents.openness import openness
from popcomm.channels.sampling import sample_categorical
from popcomm.errors import UserError

FORBIDDEN = -1e9  # a logit whose probability is exactly zero in float32, while sums of it stay finite
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

Pool: TypeAlias = Callable[[Tensor], Tensor]


class ActionDistribution(Protocol):
    """The distribution of one seat's action. `mask` [..., A] bool, True = allowed, has the shape of `params`."""

    def sample(self, params: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None) -> Tensor:
        """params [..., A] -> actions: [...] int64, [..., k] int64 or [..., d] float32."""
        ...

    def log_prob(self, params: Tensor, actions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-probability or log-density (nats) of whole actions: [...]."""
        ...

    def entropy(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        """Entropy (nats), differential for a Box: [...]."""
        ...

    def log_prob_and_entropy(
        self, params: Tensor, actions: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both at once, [...] each, from one normalisation."""
        ...

    def openness(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        """How far it is from ruling an allowed action out (nats, `popcomm.agents.openness`): [...], at most 0.

        Of k independent actions: their sum. 0 for a Box, whose entropy pulls at every width alike.
        """
        ...

    def entropy_of_all(self, params: Tensor, pool: Pool, mask: Tensor | None = None) -> Tensor:
        """[...] nats, whose mean over a group of rows is the entropy of what all of them do together.

        A surrogate, for gradients (`popcomm.agents.evenness`); of k independent actions: their sum.

        Args:
            pool: [..., n] of rows -> the means over the group of every row, [..., n], without gradients.
        """
        ...

    def mode(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        """The likeliest action, shaped as a sample."""
        ...

    def features(self, actions: Tensor) -> Tensor:
        """Actions as numbers for a network, [..., `num_features`] float32: one-hots, or the Box action itself."""
        ...

    @property
    def num_features(self) -> int:
        """Numbers in `features`."""
        ...


def allow(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Logits [..., A] with forbidden actions out of reach. Where nothing is allowed it is uniform, not NaN."""
    return logits if mask is None else logits.masked_fill(~mask, FORBIDDEN)


class Categorical:
    """Discrete: actions [...] int64 in 0 ... n - 1, params [..., n] logits."""

    def __init__(self, n: int) -> None:
        self.n = n

    @property
    def num_features(self) -> int:
        return self.n

    def sample(self, params: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None) -> Tensor:
        return sample_categorical(allow(params, mask), generator)

    def log_prob(self, params: Tensor, actions: Tensor, mask: Tensor | None = None) -> Tensor:
        log_p = allow(params, mask).log_softmax(-1)
        return log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        log_p = allow(params, mask).log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)

    def log_prob_and_entropy(
        self, params: Tensor, actions: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        log_p = allow(params, mask).log_softmax(-1)
        return log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1), -(log_p.exp() * log_p).sum(-1)

    def openness(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        return openness(allow(params, mask).log_softmax(-1), mask)

    def entropy_of_all(self, params: Tensor, pool: Pool, mask: Tensor | None = None) -> Tensor:
        p = allow(params, mask).softmax(-1)
        return even_use(p, pool(p))

    def mode(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        return allow(params, mask).argmax(-1)

    def features(self, actions: Tensor) -> Tensor:
        return _one_hots(actions.unsqueeze(-1), self.n)


class MultiCategorical:
    """MultiDiscrete: k independent actions [..., k] int64, params [..., sum of sizes], the logits one after another."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        starts = torch.tensor((0, *sizes[:-1])).cumsum(0)
        column = torch.arange(max(sizes))
        end = sum(sizes)
        # Ragged components are squared up with a column past the end, whose logit is FORBIDDEN.
        self._columns = torch.where(column < torch.tensor(sizes).unsqueeze(1), starts.unsqueeze(1) + column, end)
        self._starts = starts

    @property
    def num_features(self) -> int:
        return sum(self.sizes)

    def logits(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        """params [..., sum of sizes] -> [..., k, largest size], in one tensor so that one softmax does for all."""
        params = allow(params, mask)
        if len(set(self.sizes)) == 1:
            return params.unflatten(-1, (len(self.sizes), self.sizes[0]))
        return F.pad(params, (0, 1), value=FORBIDDEN)[..., self._columns.to(params.device)]

    def sample(self, params: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None) -> Tensor:
        return sample_categorical(self.logits(params, mask), generator)

    def log_prob(self, params: Tensor, actions: Tensor, mask: Tensor | None = None) -> Tensor:
        log_p = self.logits(params, mask).log_softmax(-1)
        return log_p.gather(-1, actions.unsqueeze(-1)).sum((-1, -2))

    def entropy(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        log_p = self.logits(params, mask).log_softmax(-1)
        return -(log_p.exp() * log_p).sum((-1, -2))

    def log_prob_and_entropy(
        self, params: Tensor, actions: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        log_p = self.logits(params, mask).log_softmax(-1)
        return log_p.gather(-1, actions.unsqueeze(-1)).sum((-1, -2)), -(log_p.exp() * log_p).sum((-1, -2))

    def openness(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        logits = self.logits(params, mask)
        return openness(logits.log_softmax(-1), logits > FORBIDDEN / 2).sum(-1)

    def entropy_of_all(self, params: Tensor, pool: Pool, mask: Tensor | None = None) -> Tensor:
        p = self.logits(params, mask).softmax(-1)
        sizes = torch.tensor(self.sizes, device=p.device).unsqueeze(-1)
        return even_use(p, pool(p), sizes).sum(-1)

    def mode(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.logits(params, mask).argmax(-1)

    def features(self, actions: Tensor) -> Tensor:
        return _one_hots(actions + self._starts.to(actions.device), self.num_features)


class DiagonalGaussian:
    """Box: actions [..., d] float32, params [..., 2 d]: means, then log standard deviations.

    Actions are in the unit of networks, and not clipped: `popcomm.agents.action_bounds` takes them to their space.

    Raises:
        UserError: an action mask is given.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    @property
    def num_features(self) -> int:
        return self.size

    def sample(self, params: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None) -> Tensor:
        mean, log_std = self._split(params, mask)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return torch.addcmul(mean, log_std.exp(), noise)

    def log_prob(self, params: Tensor, actions: Tensor, mask: Tensor | None = None) -> Tensor:
        mean, log_std = self._split(params, mask)
        z = (actions - mean) * (-log_std).exp()
        return -(0.5 * z.square() + log_std).sum(-1) - self.size * HALF_LOG_2PI

    def entropy(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._split(params, mask)[1].sum(-1) + self.size * (0.5 + HALF_LOG_2PI)

    def log_prob_and_entropy(
        self, params: Tensor, actions: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.log_prob(params, actions, mask), self.entropy(params)

    def openness(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.zeros_like(self._split(params, mask)[1][..., 0])

    def entropy_of_all(self, params: Tensor, pool: Pool, mask: Tensor | None = None) -> Tensor:
        mean, log_std = self._split(params, mask)
        return gaussian_use(mean, log_std, pool(mean), pool(mean.square() + (2 * log_std).exp()))

    def mode(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._split(params, mask)[0]

    def features(self, actions: Tensor) -> Tensor:
        return actions

    def _split(self, params: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if mask is not None:
            raise UserError(
                "the environment gives an action mask for a Box action space; only Discrete and MultiDiscrete"
            )
        mean, log_std = params.split(self.size, -1)
        return mean, log_std


def _one_hots(positions: Tensor, size: int) -> Tensor:
    """positions [..., k] int64 -> [..., size] float32 with k ones."""
    zeros = torch.zeros(*positions.shape[:-1], size, device=positions.device)
    return zeros.scatter_(-1, positions, 1.0)


def action_distribution(space: spaces.Space) -> ActionDistribution:
    """The distribution for an action space.

    Raises:
        UserError: a space that is not Discrete, MultiDiscrete or a one-dimensional Box.
    """
    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return MultiCategorical(tuple(int(n) for n in space.nvec))
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return DiagonalGaussian(int(space.shape[0]))
    raise UserError(f"the action space is {space}, and must be Discrete, MultiDiscrete or Box with one axis")


action_law = action_distribution  # its name before; programs of others may import it
