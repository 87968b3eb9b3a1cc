"""How messages are learned with: what a config asks for, held against what its kind of message knows."""

from __future__ import annotations

from typing import Any

from popcomm.channels import message_kind
from popcomm.channels.kinds import gradients_of
from popcomm.channels.messages import reparameterised
from popcomm.errors import UserError
from popcomm.rllib.plan import Plan


def check_gradient(messages: Any, plan: Plan) -> None:
    """Whether senders can learn as it is planned.

    Args:
        messages: as the config names the kind, which says what it knows.

    Raises:
        UserError: the kind does not know the gradient, or lacks what it asks for.
    """
    kind = message_kind(messages)
    if kind is None or plan.message_kind is None:
        return
    known = gradients_of(kind)
    if plan.gradient not in known:
        hint = "" if len(known) > 1 else " (a class of your own names what else it knows in `gradients`)"
        raise UserError(
            f"communication.gradient is {plan.gradient!r}, and for {kind.kind} must be one of: {', '.join(known)}{hint}"
        )
    said = plan.message_kind  # in training; of "relaxed" another one
    gradients_of(said)
    noise = 0.0 if plan.channel is None else plan.channel.noise
    if noise and plan.carries_gradients and reparameterised(said) and not hasattr(said, "transmitted_again"):
        raise UserError(
            f"communication.noise is {noise}, and {said.kind} have no 'transmitted_again', by which messages are "
            "made anew that a noisy channel changed; use 0"
        )
