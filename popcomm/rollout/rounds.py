"""Rounds: messages that are exchanged within a step, on the same observation, before anybody acts.

Whoever is on a seat thinks R + 1 times in a step of R rounds, and its memory goes on from one time to the next: so do
it the recurrent variant of CommNet (Sukhbaatar et al. 2016, section 2.2), whose rounds are steps of one recurrent
module, and the published code of IC3Net and TarMAC, whose LSTM is called once for every round. What was heard in an
earlier round is then remembered by recurrent networks, and lost by others unless it is said again. Nothing is heard at
first, and of the last time only actions and values are looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput
from popcomm.channels.mail import Mail
from popcomm.envs.world import WorldStep
from popcomm.rollout.actor import Thought, Utterance
from popcomm.rollout.sending import send

if TYPE_CHECKING:
    from popcomm.rollout.players import Players


class Round(NamedTuple):
    """One round of B worlds: what was said, and where it was heard."""

    outputs: dict[str, AgentOutput]  # {species: [P, R, ...]}, of those who spoke
    said: dict[str, Utterance]  # {species: [P, R, ...]}
    sent: Tensor  # [B, N, *message shape]
    transmitted: Tensor  # [B, N, *message shape], the same after the channel's noise
    voice: Tensor  # [B, N] bool, whose message went out, be it silence in words
    load: Tensor  # [B, N] float32, symbols that were spent on it
    fees: Tensor | None  # [B, N] float32, what gates and budgets charge for it
    mail: Mail  # as it was heard in the round that followed, or by those who acted then


class Exchange(NamedTuple):
    """All rounds of a step, and what species then make of it."""

    rounds: tuple[Round, ...]
    # {species: Thought} of those who act; what it says was said in the last round.
    thoughts: dict[str, Thought]

    @property
    def fees(self) -> Tensor | None:
        """[B, N] float32, prices of all rounds together; None where nothing has any."""
        each = [one.fees for one in self.rounds if one.fees is not None]
        return torch.stack(each).sum(0) if each else None

    def loads(self) -> Tensor:
        """[B, N] float32, symbols that were spent in all rounds together."""
        return torch.stack([one.load for one in self.rounds]).sum(0)


def exchange(players: Players, step: WorldStep) -> Exchange:
    """The rounds of a step of a population whose channel has some; its memories stay as they were.

    Where an episode is over those who lived until then still talk, for the value of its last row; nobody hears that
    they did.

    Args:
        players: with a session.
        step: what they perceive.
    """
    session = players.session
    assert session is not None
    there = players.speaks & players.living
    able = there if step.speaks is None else there & step.speaks
    hears = players.hears & players.living
    mail = session.converse(hears, step.positions, begun=step.first)
    memories, thoughts = dict(players.memories), {}
    rounds: list[Round] = []
    for number in range(session.channel.rounds + 1):
        last = {n: one.message for n, one in rounds[-1].said.items()} if number == session.channel.rounds else {}
        for name, actor in players.actors.items():
            thought = actor.think(
                step, mail, players.seatings[name], memories[name], players.explore, players.open_symbols,
                again=number > 0, said=last.get(name),
            )  # fmt: skip
            memories[name], thoughts[name] = thought.output.state, thought
        if number < session.channel.rounds:
            rounds.append(_round(players, step, thoughts, able, hears))
            mail = rounds[-1].mail
    return Exchange(tuple(rounds), {name: _as_said(t, rounds[-1].outputs[name]) for name, t in thoughts.items()})


def _round(players: Players, step: WorldStep, thoughts: dict[str, Thought], able: Tensor, hears: Tensor) -> Round:
    """Everybody says a message, and it is heard."""
    session = players.session
    assert session is not None
    said = {name: players.actors[name].say(thought.output, players.explore) for name, thought in thoughts.items()}
    messages, drawn = {n: one.message for n, one in said.items()}, {n: one.drawn for n, one in said.items()}
    sent = send(players, messages, drawn, able, step)
    mail = session.deliver(torch.ones_like(able), hears, step.positions)
    return Round({name: thought.output for name, thought in thoughts.items()}, said, *sent, mail)


def _as_said(thought: Thought, spoken: AgentOutput) -> Thought:
    """What those who act would say is not said: in its place stands what was, in the last round."""
    return thought._replace(
        output=thought.output._replace(message=spoken.message, said=spoken.said, manner=spoken.manner)
    )
