"""Sending: what is said on the seats of B worlds, on its way into the channel, once in a step or in each round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from popcomm.channels import Channel
from popcomm.channels.gates import MIDDLE
from popcomm.channels.manner import Drawn
from popcomm.channels.vocabulary import narrowed, points, widened
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError
from popcomm.rollout.interference import Interference, as_symbols

if TYPE_CHECKING:
    from popcomm.rollout.players import Players


class Sent(NamedTuple):
    """Messages of B worlds that were sent."""

    sent: Tensor  # [B, N, *message shape], what was said
    transmitted: Tensor  # [B, N, *message shape], the same after the channel's noise
    voice: Tensor  # [B, N] bool, whose message went out, be it silence in words
    load: Tensor  # [B, N] float32, symbols that were spent on it
    fees: Tensor | None  # [B, N] float32, what gates and budgets charge for it, in units of reward; None: nothing


def send(
    players: Players,
    said: Mapping[str, Tensor | None],
    drawn: Mapping[str, Drawn | None],
    able: Tensor,
    step: WorldStep,
) -> Sent:
    """Let all say their messages; they are under way in the session then.

    Args:
        players: with a session.
        said: {species: [P, R, *message shape]}.
        drawn: {species: how it was said}.
        able: [B, N] bool, who may speak.
        step: what they perceive.

    Raises:
        UserError: a species that speaks gave no message.
    """
    session = players.session
    assert session is not None
    messages = heard = _all_said(players, session.channel, said)
    opens, priority = _manners(players, session.channel, drawn)
    voice = able if opens is None else able & opens
    if players.interference is not None:
        heard, voice = _interfered(players, session.channel, players.interference, messages, voice)
    voice = session.send(heard, voice, step.alive.any(1), priority) & step.alive
    kind = session.channel.messages
    fees = _fees(session.channel, voice & kind.spoken(messages), priority)
    return Sent(messages, session.transmitted, voice, kind.load(messages) * voice, fees)


def _all_said(players: Players, channel: Channel, messages: Mapping[str, Tensor | None]) -> Tensor:
    """The messages of all seats, [B, N, *message shape]; zeros of species that never speak."""
    kind, parts = channel.messages, []
    for name, message in messages.items():
        species = players.layout.species[name]
        if not species.speaks:
            shape = (players.num_worlds, species.num_seats, *kind.shape)
            parts.append(torch.zeros(shape, dtype=kind.dtype, device=players.speaks.device))
        elif message is None:
            agent = type(players.actors[name].network.agent).__name__
            raise UserError(f"population.agent {agent} gave no message for species '{name}', and there is a channel")
        else:
            parts.append(players.seatings[name].to_worlds(message))
    said = torch.cat(parts, 1)
    return as_symbols(kind, said) if players.in_play else said


def _manners(
    players: Players, channel: Channel, drawn: Mapping[str, Drawn | None]
) -> tuple[Tensor | None, Tensor | None]:
    """Whose message goes out [B, N] bool, and how urgent it is, [B, N] in [0, 1]; None where that is not asked."""
    if not (channel.gates.sender or channel.budget.ranks):
        return None, None
    opens, priority = [], []
    for name, one in drawn.items():
        shape = (players.num_worlds, players.layout.species[name].num_seats)
        to_worlds = players.seatings[name].to_worlds
        opens.append(players.speaks.new_ones(shape) if one is None else to_worlds(one.opens))
        middle = torch.full(shape, MIDDLE, device=players.speaks.device)
        priority.append(middle if one is None else to_worlds(one.haste).sigmoid())
    return torch.cat(opens, 1), torch.cat(priority, 1)


def _interfered(
    players: Players, channel: Channel, interference: Interference, sent: Tensor, voice: Tensor
) -> tuple[Tensor, Tensor]:
    """What becomes of messages on their way; of noise come symbols that are open."""
    kind, many = channel.messages, players.open_symbols
    heard, voice = interference(narrowed(kind, many), points(kind, sent, many), voice, players.generator)
    return (heard if many is None else widened(kind, heard)), voice


def _fees(channel: Channel, spoke: Tensor, priority: Tensor | None) -> Tensor | None:
    """[B, N], what those are charged who said something, which silence in words is not; None: nothing."""
    if not (channel.gates.price or channel.budget.price):
        return None
    fee = channel.gates.price * spoke.float()
    return fee if priority is None else fee + channel.budget.price * priority * spoke
