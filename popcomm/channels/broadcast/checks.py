"""What does not go with a shared log of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from popcomm.channels.broadcast.reflexes import Reflex, check_together
from popcomm.channels.messages import MessageKind
from popcomm.channels.relaxed import RelaxedSymbols
from popcomm.channels.topology import Learned, Topology
from popcomm.errors import UserError

NO_GATE = " (gate 'none' takes away also that of an agent that is known with one, such as ic3net)"


def check_log(
    cause: str,
    messages: MessageKind,
    topology: Topology,
    rounds: int,
    reflexes: Sequence[Reflex],
    refused: Mapping[str, Any],
) -> None:
    """Whether the rest of a channel goes with its log.

    Args:
        cause: of the log: "reflexes", "capacity" or "inbox".
        messages, topology, rounds, reflexes: of the channel.
        refused: {key: what was asked of it, or None}, of rules that a log has of its own.

    Raises:
        UserError: something that does not, or reflexes that do not go together.
    """
    if messages.kind != "words":
        told = "symbols" if isinstance(messages, RelaxedSymbols) else messages.kind
        raise UserError(f"communication.{cause} act on words, and messages are {told}; use kind words")
    if rounds:
        raise UserError(
            f"communication.rounds is {rounds}, and communication.{cause} asks for a log, whose words are "
            "heard one step later; use rounds 0"
        )
    check_together(reflexes)
    if isinstance(topology, Learned):
        raise UserError(
            "communication.topology learned makes links stronger and weaker, and a log of words has none; use "
            "it without reflexes, capacity and inbox"
        )
    if topology.schedule is not None:
        raise UserError(
            f"communication.topology {type(topology).__name__} changes while training goes on, and a log of "
            "words is sized for one that stays; use it without reflexes, capacity and inbox"
        )
    for key, asked_for in refused.items():
        if asked_for is not None:
            raise UserError(
                f"communication.{key} is {asked_for!r}, and reflexes, capacity and inbox make a log, which has "
                f"rules of its own; use one or the other{NO_GATE if key == 'gate' else ''}"
            )
