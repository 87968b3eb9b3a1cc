"""Signalling and listening: do messages depend on what is seen, and do actions depend on messages?

Mutual informations are those of `mutual_information.py`: adjusted for chance, in bits, with an interval and a p-value.
What is computed from policies, which are known and not counted, needs neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcomm.errors import UserError
from popcomm.language.arrays import Messages
from popcomm.language.measured import Bits
from popcomm.language.mutual_information import information

Array = NDArray[Any]

ROUNDING = 1e-3  # by which probabilities, in float16 even, may miss one


def positive_signalling(
    messages: Messages, observations: ArrayLike, streams: ArrayLike | None = None, **settings: Any
) -> Bits:
    """I(message; what its speaker saw): does the speaker say different things of different things? (Lowe et al. 2019,
    definition 1)

    Args:
        messages: [M, L].
        observations: [M] classes (negative: nothing was seen, the row is dropped) or [M, A].
        streams: [M], see `information`, which takes the other settings.

    Returns:
        0 ... min(H(message), H(observation)) bits; at chance about 0.
    """
    return information(messages, observations, streams, **settings)


def speaker_consistency(
    messages: Messages, actions: ArrayLike, streams: ArrayLike | None = None, **settings: Any
) -> Bits:
    """I(an agent's message; its own action): does it say what it does? (Jaques et al. 2019, in bits, not normalised)

    Args:
        messages: [M, L], of an agent at a step.
        actions: [M] classes or [M, A], of the same agent at the same step.
        streams: [M], see `information`, which takes the other settings.
    """
    return information(messages, actions, streams, **settings)


def instantaneous_coordination(
    messages: Messages, actions: ArrayLike, streams: ArrayLike | None = None, **settings: Any
) -> Bits:
    """I(a message; what another agent does on hearing it): is anybody guided by it? (Jaques et al. 2019)

    Both may follow what both see: that is coordination, and no influence of the message (Lowe et al. 2019).

    Args:
        messages: [M, L], as they were heard; a message that k agents hear stands in k rows.
        actions: [M] classes or [M, A], of the hearer, in the step in which it hears.
        streams: [M], see `information`, which takes the other settings.
    """
    return information(messages, actions, streams, **settings)


def positive_listening(policy: ArrayLike, swapped: ArrayLike) -> float:
    """How much a listener's policy changes when another message stands in for the one that was sent (Lowe et al. 2019,
    definition 2).

    The total variation distance, half the sum over actions of absolute differences, mean over all rows. The training
    measures the same as `language/listening`, of messages that worlds exchange.

    Args:
        policy: [..., A] probabilities of the actions with the message.
        swapped: [..., A] with another message or none, the rest of the observation as it was.

    Returns:
        0 ... 1; 0: nobody listens.

    Raises:
        UserError: arrays of different shapes, or rows that are no probabilities.

    >>> positive_listening([[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]])
    0.5
    """
    before, after = probabilities("policy", policy), probabilities("swapped", swapped)
    if before.shape != after.shape:
        raise UserError(f"policy has the shape {before.shape} and swapped {after.shape}, and they must be the same")
    return float(np.abs(before - after).sum(-1).mean() / 2)


def causal_influence_of_communication(policy: ArrayLike, messages: ArrayLike | None = None) -> float:
    """CIC: I(message; action) if messages are set from outside (Lowe et al. 2019, algorithm 1, in bits).

    sum over m and a of p(a, m) log2 p(a, m) / (p(a) p(m)), with p(a, m) = pi(a given do(m), o) p(m given o) and p(a)
    its *sum* over m; mean over observations.

    Args:
        policy: [..., M, A], the listener's probabilities of A actions after each of M messages.
        messages: [..., M], the speaker's probabilities; None: all messages are as likely.

    Returns:
        0 ... log2 min(M, A) bits.

    Raises:
        UserError: rows that are no probabilities, or another number of messages.

    >>> causal_influence_of_communication(np.eye(4))
    2.0
    """
    acts: Array = probabilities("policy", policy)
    shape: tuple[int, ...] = acts.shape
    if len(shape) < 2:
        raise UserError(f"policy must be [..., messages, actions], and its shape is {shape}")
    if messages is None:
        says = np.full(shape[:-1], 1.0 / shape[-2])
    else:
        says = probabilities("messages", messages)
        if says.shape[-1] != shape[-2]:
            raise UserError(f"policy has {shape[-2]} messages and messages has {says.shape[-1]}")
    from scipy.special import entr  # trainings begin without it

    joint = acts * says[..., None]
    # H(a) - H(a given m): where a message is never said it counts nothing.
    given = (says * entr(acts).sum(-1)).sum(-1)
    return float(np.maximum(entr(joint.sum(-2)).sum(-1) - given, 0.0).mean() / np.log(2))


def probabilities(name: str, values: ArrayLike) -> Array:
    """[..., A] float64, rows that sum to one."""
    array: Array = np.asarray(values, float)
    if not array.ndim or not array.size:
        raise UserError(f"{name} has the shape {array.shape}, and must hold probabilities [..., A]")
    total = array.sum(-1, keepdims=True)
    if not (array >= 0).all() or not (np.abs(total - 1) < ROUNDING).all():
        raise UserError(f"{name} must be probabilities, 0 or above, that sum to one along the last axis")
    return array / total
