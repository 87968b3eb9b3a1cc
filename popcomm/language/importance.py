"""Counterfactual importance: what would have become of listeners had a message been another one, or missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcomm.errors import UserError
from popcomm.language.signalling import probabilities

Array = NDArray[Any]


def counterfactual_importance(policy: ArrayLike, otherwise: ArrayLike, messages: ArrayLike | None = None) -> Array:
    """How much a message matters to a listener: the total variation distance between its policy and the one that it
    would have had, in expectation over what the sender would have said otherwise.

    sum over m of p(m) TV(pi(. given the message), pi(. given m)), p being the sender's own distribution of messages, as
    in COMA's baseline (Foerster et al. 2018, eq. 4) and in social influence (Jaques et al. 2019, eq. 1). A message that
    was the only thing to say has none, and neither has one that nobody follows. With one alternative, the policy
    without the message, it is the importance of a message that is removed. All slots of all inboxes at once: the
    leading axes may be worlds, listeners and slots.

    Args:
        policy: [..., A] probabilities of the listener's actions, given what it heard.
        otherwise: [..., M, A] the same, had the message been another one, all else as it was; or [..., A], of one.
        messages: [..., M] the sender's probabilities of the alternatives, what it did say among them; [M], the same
            ones everywhere; None: all are as likely.

    Returns:
        [...] in 0 ... 1.

    Raises:
        UserError: shapes that do not fit, or rows that are no probabilities.

    >>> sure, other = [1.0, 0.0], [0.0, 1.0]
    >>> float(counterfactual_importance(sure, [sure, other], [0.75, 0.25]))
    0.25
    """
    before, after = probabilities("policy", policy), probabilities("otherwise", otherwise)
    if after.ndim == before.ndim:
        after = after[..., None, :]
    if after.ndim != before.ndim + 1 or after.shape[-1] != before.shape[-1]:
        raise UserError(
            f"policy has the shape {before.shape} and otherwise {np.shape(otherwise)}, which must be that with an axis "
            "of alternatives before the last"
        )
    if after.shape[:-2] != before.shape[:-1]:
        raise UserError(
            f"policy has the shape {before.shape} and otherwise {after.shape}, and their first axes must be the same"
        )
    distances: Array = np.abs(before[..., None, :] - after).sum(-1) / 2
    if messages is None:
        return np.asarray(distances.mean(-1))
    says = probabilities("messages", messages)
    if says.shape[-1] != distances.shape[-1]:
        raise UserError(f"otherwise has {distances.shape[-1]} messages and messages has {says.shape[-1]}")
    if says.shape not in (distances.shape, distances.shape[-1:]):
        raise UserError(
            f"messages has the shape {says.shape}, and must be {distances.shape}, or {distances.shape[-1:]} for all"
        )
    return np.asarray((says * distances).sum(-1))


def importance_matrix(values: ArrayLike, senders: ArrayLike, mask: ArrayLike, num_agents: int) -> Array:
    """Who matters to whom: the mean of a value over the messages that went from each sender to each receiver.

    Args:
        values: [..., N, K], of the message in every slot of every inbox.
        senders: [..., N, K] int, whose it is.
        mask: [..., N, K] bool, slots that hold one.
        num_agents: N.

    Returns:
        [N (sender), N (receiver)] float64; nan where nobody was heard.

    Raises:
        UserError: shapes that do not fit, or a sender that is none of the N.
    """
    worth, seats, real = np.asarray(values, float), np.asarray(senders), np.asarray(mask, bool)
    if worth.ndim < 2 or worth.shape[-2] != num_agents or not worth.shape == seats.shape == real.shape:
        raise UserError(
            f"values, senders and mask have the shapes {worth.shape}, {seats.shape} and {real.shape}, and must all be "
            f"[..., {num_agents}, slots]"
        )
    if real.any() and not (seats[real].min() >= 0 and seats[real].max() < num_agents):
        raise UserError(f"senders has seats {seats[real].min()} to {seats[real].max()} of 0 to {num_agents - 1}")
    receivers = np.broadcast_to(np.arange(num_agents)[:, None], worth.shape)
    codes = (seats * num_agents + receivers)[real]
    total = np.bincount(codes, worth[real], minlength=num_agents**2)
    count = np.bincount(codes, minlength=num_agents**2)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean.reshape(num_agents, num_agents)
