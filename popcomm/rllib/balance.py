"""The balance of symbols: all of them are said, and what two things share as their word parts again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from popcomm.agents.evenness import RARE, pull_to_even
from popcomm.agents.openness import openness
from popcomm.channels.messages import told
from popcomm.rllib.ppo import Reduce


def pooled(
    values: Tensor,
    group: Tensor,
    groups: int,
    mask: Tensor,
    reduce: Reduce,
    shares: bool = False,
    of: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Means over groups of rows, at every row, without gradients.

    Args:
        values: [P, R, ...].
        group: [P, R] int64, 0 ... groups - 1.
        groups: how many there are.
        mask: [P, R] bool, rows that count.
        reduce: sum over learners.
        shares: whether the last axis sums to 1 in each mean, so that rows count as much as theirs does.
        of: what is wanted of the means [groups, ...]; None: the means.

    Returns:
        [P, R, ...].
    """
    real = mask.reshape(-1, *[1] * (values.dim() - 2))
    with torch.no_grad():
        flat = torch.where(real, values.flatten(0, 1), 0.0)
        sums = flat.new_zeros(groups, *flat.shape[1:]).index_add_(0, group.flatten(), flat)
        if shares:
            counts = reduce(sums.sum(-1, keepdim=True)).clamp(min=1e-8)
        else:
            counts = torch.bincount(group.flatten()[mask.flatten()], minlength=groups).to(sums.dtype)
            counts = reduce(counts).clamp(min=1).view(-1, *[1] * (sums.dim() - 1))
        means = reduce(sums) / counts
        means = means if of is None else of(means)
        return means.index_select(0, group.flatten()).view_as(values)


def evenness(
    shares: Tensor, group: Tensor, groups: int, mask: Tensor, reduce: Reduce, sent: Tensor | None = None
) -> Tensor:
    """How evenly the symbols of a group of rows are used: a surrogate of H(m) + RARE / V sum_i log m_i, for gradients.

    m is the mean of p over the group's rows, over all learners. Its entropy alone hardly pulls at a symbol that nobody
    says: the gradient has the factor m_i. That of the second term, the cross-entropy of the even distribution (V
    symbols in each position), has the factor p_i / m_i instead, which is as large for a symbol that all have forgotten,
    and largest for the row that is nearest to saying it. So two things that share a word part again.

    Args:
        shares: p, [P, R, positions, alphabet], probabilities of the symbols.
        group: [P, R] int64, 0 ... groups - 1: rows that speak at the same step on the same seat, in other worlds.
        groups: how many there are.
        mask: [P, R] bool, rows that count.
        sent: [P, R, positions], how much each position of a row counts, in m and in the result; None: all as one.

    Returns:
        [P, R] nats, sum_i p_i (RARE / (V max(m_i, SCARCE)) - log m_i) - RARE for each position, where m is taken as
        given; its mean over a group is H(m) where all symbols are said in at least SCARCE of the rows, and else less by
        at most RARE. 0 where the mask is False.
    """
    if sent is not None:
        shares = shares * sent.unsqueeze(-1)
    pull = pooled(shares, group, groups, mask, reduce, shares=sent is not None, of=pull_to_even)
    least = RARE * shares.shape[-2] if sent is None else RARE * sent.sum(-1)
    return torch.where(mask, (shares * pull).sum((-1, -2)) - least, 0.0)


def kept_in_use(
    kind: Any,
    params: Tensor,
    said: Tensor | None,
    group: Tensor,
    groups: int,
    voices: Tensor,
    reduce: Reduce,
    mean: Callable[[Tensor], Tensor],
    weights: Mapping[str, float],
) -> tuple[Tensor, Tensor]:
    """What keeps all symbols of a species in use, and makes each of them sure.

    Args:
        kind: of the messages.
        params: [P, R, *params_shape], of what was said.
        said: [P, R, ...], the same of networks that speak symbol by symbol.
        group, groups: as `evenness` takes them.
        voices: [P, R] bool, rows whose message went out.
        reduce: sum over learners.
        mean: [P, R] -> the sum over members of the mean over their rows.
        weights: {"message_balance", "message_sharpness"}.

    Returns:
        the loss, and how evenly symbols are used (nats), summed over members.
    """

    def voiced(values: Tensor) -> Tensor:
        return mean(torch.where(voices, values, 0.0))

    params = params.float()
    share = kind.share(params, **told(kind, said)).detach() if getattr(kind, "ends", False) else None
    spread = mean(evenness(kind.probabilities(params), group, groups, voices, reduce, share))
    total = -weights["message_balance"] * spread
    if hasattr(kind, "log_drawn"):  # numbers of a DRU want to be far apart
        open_ = openness(kind.log_drawn(params))
        total = total - weights["message_balance"] * voiced((open_ if share is None else open_ * share).sum(-1))
    if weights["message_sharpness"]:
        unsure = kind.entropy(params, **told(kind, said))
        total = total + weights["message_sharpness"] * voiced(unsure)
    return total, spread
