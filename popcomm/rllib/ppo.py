"""Proximal policy optimisation on [B, T, N] and [P, R] tensors: advantages, losses, normalisers. Plain torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

Reduce = Callable[[Tensor], Tensor]
OwnersOf = Sequence[Tensor | None]


def same(values: Tensor) -> Tensor:
    """The reduction over learners when there is only one."""
    return values


class Advantages(NamedTuple):
    """Result of `generalised_advantages`."""

    advantages: Tensor  # [B, T, N]
    targets: Tensor  # [B, T, N], the returns that the value function is to predict


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    alive: Tensor,
    gamma: float,
    lambda_: float,
) -> Advantages:
    """Generalised advantage estimation per seat (Schulman 2016, eq. 16), with lives that end inside the fragment.

    A life that terminates has no future; one that is truncated is bootstrapped by the value of its final observation,
    which stands in the row that follows. Nothing is carried over either, nor over a seat that is empty.

    Args:
        rewards: [B, T, N] float32.
        values: [B, T + 1, N] float32, in the units of the rewards; the last row is the bootstrap.
        terminated: [B, T, N] bool.
        truncated: [B, T, N] bool.
        alive: [B, T, N] bool, seats that acted.
    """
    # where, and no products with 0: what is not finite in one life must not reach another on the same seat.
    following = torch.where(terminated, 0.0, values[:, 1:])
    carried = ~terminated & ~truncated & alive
    deltas = torch.where(alive, rewards + gamma * following - values[:, :-1], 0.0)
    advantages = torch.empty_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        running = deltas[:, t] + torch.where(carried[:, t], gamma * lambda_ * running, 0.0)
        advantages[:, t] = running
    return Advantages(advantages, advantages + values[:, :-1])


def member_moments(values: Tensor, members: Tensor, mask: Tensor, num_members: int, reduce: Reduce = same) -> Tensor:
    """Count, mean and variance per member over all learners' shards: [3, P] float64.

    Two passes, the second over deviations from the first one's mean (Chan 1983, eq. 1.7): sums of squares would lose
    the variance of values that are far from 0. Of a member without entries mean and variance are 0.

    Args:
        values, members, mask: [B, T, N]; only entries with `mask` count.
    """
    chosen = values[mask].double()
    owner = members[mask].long()

    def sums(*parts: Tensor) -> Tensor:
        result = torch.zeros(len(parts), num_members, dtype=torch.float64, device=values.device)
        for row, part in zip(result, parts, strict=True):
            row.index_add_(0, owner, part)
        return reduce(result)

    count, total = sums(torch.ones_like(chosen), chosen)
    safe = count.clamp(min=1)
    mean = total / safe
    deviation = chosen - mean[owner]
    rest, squares = sums(deviation, deviation.square())
    variance = ((squares - rest.square() / safe) / safe).clamp(min=0)
    return torch.stack([count, mean + rest / safe, variance])


def standardise(values: Tensor, members: Tensor, mask: Tensor, num_members: int, reduce: Reduce = same) -> Tensor:
    """(x - mean) / max(1e-4, std), with each member's own mean and deviation as RLlib's PPO has each module's."""
    _, mean, variance = member_moments(values, members, mask, num_members, reduce)
    deviation = variance.sqrt().clamp(min=1e-4)
    owner = members.long()
    return ((values - mean[owner]) / deviation[owner]).to(values.dtype)


def explained_variance(values: Tensor, targets: Tensor, mask: Tensor, reduce: Reduce = same) -> float:
    """1 - Var(target - value) / Var(target) over all learners' shards; 0 where the targets do not vary.

    Args:
        values, targets: [B, T, N], in the units of the rewards.
        mask: [B, T, N] bool, rows that acted.
    """
    nobody = torch.zeros_like(mask, dtype=torch.int64)
    target, error = (
        member_moments(x, nobody, mask, 1, reduce)[2].item() for x in (targets, targets.double() - values.double())
    )
    return 1 - error / target if target > 1e-12 else 0.0


class ReturnNormaliser(nn.Module):
    """Running mean and variance of the returns, per member (PopArt's statistics, van Hasselt 2016, eq. 3).

    Networks predict normalised returns. The averages are exponential with weight `rate` for a new batch and are
    unbiased from the first one on. Mean and variance themselves are kept, not moments about 0 (West 1979): returns of
    1e4 +- 1 have a deviation of 1.

    Where returns are not normalised (`stay_raw`) values are in the units of rewards. What a network puts out keeps its
    meaning when that changes from one training to the next: `gain` and `offset` turn it into what it is to be.

    Buffers: running_mean, running_variance, weight [P] float64, where a weight of -1 says that values were learned in
    the units of rewards; gain and offset [P] float64, None while no network's output has changed its units.
    """

    running_mean: Tensor
    running_variance: Tensor
    weight: Tensor
    gain: Tensor | None
    offset: Tensor | None

    def __init__(self, members: int, rate: float = 0.02) -> None:
        super().__init__()
        self.rate = rate
        for name in ("running_mean", "running_variance", "weight"):
            self.register_buffer(name, torch.zeros(members, dtype=torch.float64))
        for name in ("gain", "offset"):
            self.register_buffer(name, None)

    def update(self, moments: Tensor) -> None:
        """moments [3, P] float64: count, mean and variance of a batch of returns (`member_moments`).

        Members without samples keep their statistics, and so do those whose returns are not finite.
        """
        usable = moments.isfinite().all(0) & (moments[0] > 0)
        _, mean, variance = torch.where(usable, moments, 0.0)
        rate = torch.where(usable, self.rate, 0.0)
        raw = usable & (self.weight < 0)  # to be normalised from now on
        weight = torch.where(raw, 0.0, self.weight)
        weight = weight + rate * (1 - weight)
        # The share of this batch in all that is remembered: 1 for the first.
        share = rate / torch.where(usable, weight, 1.0)
        delta = mean - self.running_mean
        kept = self.running_variance + share * delta.square()
        self.running_variance.copy_((1 - share) * kept + share * variance)
        self.running_mean.add_(share * delta)
        self.weight.copy_(weight)
        if bool(raw.any()):
            scale = torch.where(raw, 1 / self.std, 1.0)
            self._restate(scale, torch.where(raw, -self.mean * scale, 0.0))

    def stay_raw(self) -> None:
        """From now on all values are in the units of rewards; what was predicted so far stays as it is."""
        if bool((self.weight > 0).any()):
            self._restate(self.std, self.mean)
        self.running_mean.zero_()
        self.running_variance.zero_()
        self.weight.fill_(-1.0)

    def begin_anew(self, members: Tensor) -> None:
        """The networks of some are made anew, and what they put out is meant as it is. members: [P] bool."""
        if self.gain is not None and self.offset is not None:
            self.gain[members], self.offset[members] = 1.0, 0.0

    def _restate(self, scale: Tensor, shift: Tensor) -> None:
        """Values v become v * scale + shift, both [P] float64."""
        if self.gain is None or self.offset is None:
            self.gain, self.offset = torch.ones_like(self.weight), torch.zeros_like(self.weight)
        self.gain.mul_(scale)
        self.offset.mul_(scale).add_(shift)

    def of_output(self, values: Tensor) -> Tensor:
        """[P, R], what networks put out -> normalised values, or raw ones."""
        if self.gain is None or self.offset is None:
            return values
        return (values * self.gain[:, None] + self.offset[:, None]).float()

    @property
    def mean(self) -> Tensor:
        """[P] float64; 0 before the first batch, and of raw values."""
        return self.running_mean

    @property
    def std(self) -> Tensor:
        """[P] float64; 1 before the first batch, and of raw values; never below 1e-3."""
        return torch.where(self.weight > 0, self.running_variance.sqrt().clamp(min=1e-3), 1.0)

    def normalise_of(self, returns: Tensor, members: Tensor) -> Tensor:
        """Returns of those members, both of one shape -> normalised; the difference is taken in float64."""
        return ((returns - self.mean[members]) / self.std[members]).to(returns.dtype)

    def denormalise(self, values: Tensor) -> Tensor:
        """[P, R] normalised values -> returns."""
        return (values * self.std[:, None] + self.mean[:, None]).to(values.dtype)

    def denormalise_of(self, values: Tensor, members: Tensor) -> Tensor:
        """Normalised values of those members, both of one shape -> returns."""
        return (values * self.std[members] + self.mean[members]).to(values.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """torch's hook; args: local_metadata, strict, missing_keys, unexpected_keys, error_msgs."""
        if f"{prefix}mean_sum" in state_dict:
            args[-1].append(
                "its return statistics are in float32, as an earlier popcomm kept them, and cannot be continued; "
                "train anew, or use the popcomm that its manifest.json names"
            )
            return
        for name in ("gain", "offset"):
            setattr(self, name, torch.zeros_like(self.weight) if f"{prefix}{name}" in state_dict else None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def surrogate(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip_param: float) -> tuple[Tensor, Tensor]:
    """Clipped surrogate loss (Schulman 2017, eq. 7, negated) and probability ratio; all tensors [P, R]."""
    ratio = (log_prob - old_log_prob).exp()
    return -torch.min(advantages * ratio, advantages * ratio.clamp(1 - clip_param, 1 + clip_param)), ratio


def value_error(values: Tensor, targets: Tensor, vf_clip_param: float) -> Tensor:
    """RLlib's value loss: the squared error, clipped at vf_clip_param; all tensors [P, R].

    vf_clip_param is in the unit of `targets`, squared: variances of the returns where they are normalised, else
    rewards squared. What is above it has no gradient; the default, infinity, lets every error teach.
    """
    return (values - targets).square().clamp(0, vf_clip_param)


def a_step_later(values: Tensor, alive: Tensor, first: Tensor) -> Tensor:
    """What messages are credited with: rewards or advantages [B, T, N] of step t + 1, put at step t.

    A message is heard one step after it was sent, so what it can change begins with the rewards of that step. Crediting
    it with the advantage of step t + 1 keeps the mean of the policy gradient, since the value of those observations is
    a baseline that the message cannot change either (Sutton 2000, theorem 1), and loses the noise of step t. 0 where
    the seat's life has no next step, and on the last row, whose future is in the next fragment.

    Args:
        alive: [B, T, N] bool.
        first: [B, T + 1, N] bool, rows that open a life.
    """
    later = torch.zeros_like(values)
    follows = alive[:, 1:] & ~first[:, 1:-1]
    later[:, :-1] = torch.where(follows, values[:, 1:], 0.0)
    return later


def clip_owned(gradients: list[Tensor], members: int, max_norm: float, owners: OwnersOf = ()) -> Tensor:
    """Scale each member's gradients, in place, to a global norm of at most `max_norm`; returns the norms [P].

    With one member this is torch's clip_grad_norm_. With more, no member's large gradient shrinks another's.

    Args:
        owners: whose each row of a gradient is, [axis 0] int64; None, or no entry at all: the first axis is the
            members.
    """
    norms = member_norms(gradients, members, owners)
    scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    if members == 1:
        torch._foreach_mul_(gradients, scale.squeeze(0))
        return norms
    for g, owner in _owned(gradients, owners):
        g.mul_((scale if owner is None else scale[owner]).view(-1, *[1] * (g.ndim - 1)))
    return norms


def clip_values(gradients: list[Tensor], members: int, limit: float, owners: OwnersOf = ()) -> Tensor:
    """Clamp every number of the gradients, in place, to [-limit, limit]; returns the norms [P] from before."""
    norms = member_norms(gradients, members, owners)
    torch._foreach_clamp_min_(gradients, -limit)
    torch._foreach_clamp_max_(gradients, limit)
    return norms


def member_norms(gradients: list[Tensor], members: int, owners: OwnersOf = ()) -> Tensor:
    """[P], the global norm of each member's gradients. owners: as in `clip_owned`."""
    if members == 1:
        return get_total_norm(gradients).view(1)
    return torch.stack([_norms_of(g, members, owner) for g, owner in _owned(gradients, owners)]).norm(dim=0)


def _norms_of(gradient: Tensor, members: int, owner: Tensor | None) -> Tensor:
    """[P], of one gradient."""
    if owner is None:
        return gradient.reshape(members, -1).norm(dim=1)
    squares = gradient.square() if gradient.ndim == 1 else gradient.flatten(1).square().sum(1)
    return squares.new_zeros(members).index_add_(0, owner, squares).sqrt()


def _owned(gradients: list[Tensor], owners: OwnersOf) -> Iterator[tuple[Tensor, Tensor | None]]:
    return zip(gradients, owners or [None] * len(gradients), strict=True)
