"""Playback: a population at play in one world, with what is said, who hears it, and pictures of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from popcomm.channels.kinds import counted
from popcomm.channels.mail import Mail
from popcomm.channels.messages import MessageKind
from popcomm.errors import UserError
from popcomm.rollout.players import Turn
from popcomm.rollout.rollout import Playable, Rollout


class Saying(NamedTuple):
    """What an agent says in a step."""

    agent: str
    member: int  # of its species
    message: list[int] | list[float]  # symbols; numbers of messages that have none
    bits: bool  # whether the symbols are bits
    receivers: list[str] | None  # in the next step or round; None: all others, or, of a log, who picks it up

    def __str__(self) -> str:
        """One line, symbol by symbol."""
        if self.bits:
            said = "".join(map(str, self.message))
        else:
            said = " ".join(str(part) if isinstance(part, int) else f"{part:+.2f}" for part in self.message)
        if self.receivers is None:
            return f"{self.agent}: {said}"
        return f"{self.agent}: {said} -> {', '.join(self.receivers) or 'nobody'}"


class Moment(NamedTuple):
    """One step of world 0."""

    step: int  # of its episode, from 1
    said: list[Saying]
    picture: np.ndarray | None  # [H, W, 3] uint8, after the step, with what is heard drawn as links


def moments(
    population: Playable,
    num_steps: int = 100,
    seed: int = 0,
    greedy: bool = False,
    env_config: Mapping[str, Any] | None = None,
    draw: bool = False,
) -> Iterator[Moment]:
    """What goes on in world 0, one step after another; fades stand where the training stands.

    Args:
        population: who plays.
        num_steps: how many.
        seed: of all that is random.
        greedy: take the likeliest actions and messages instead of sampling them.
        env_config: keys that differ from those of training.
        draw: whether there are pictures.

    Raises:
        UserError: there should be pictures, and the environment has none.
    """
    # As many worlds as seat the members evenly: the first of them is shown.
    rollout = population.rollout(seed, greedy, env_config=env_config)
    try:
        rollout.begin()
        age = 0
        for _ in range(num_steps):
            turn, _ = rollout.step()
            age = 1 if turn.reopened[0] else age + 1
            yield Moment(age, sayings(rollout, turn), _picture(rollout) if draw else None)
    finally:
        rollout.close()


def frames(population: Playable, num_steps: int = 100, seed: int = 0, greedy: bool = False) -> Iterator[np.ndarray]:
    """RGB pictures [H, W, 3] uint8 of world 0, one a step; fades stand where the training stands.

    Raises:
        UserError: the environment has no picture.
    """
    for moment in moments(population, num_steps, seed, greedy, draw=True):
        assert moment.picture is not None
        yield moment.picture


def sayings(rollout: Rollout, turn: Turn) -> list[Saying]:
    """What is said in world 0 in a turn that was just stepped, in the order of rounds and seats, without silence."""
    if turn.sent is None:
        return []
    if turn.rounds:
        return [saying for one in turn.rounds for saying in _said(rollout, turn, one.sent, one.voice, one.mail)]
    return _said(rollout, turn, turn.sent, turn.voice, rollout.players.mail)


def _said(rollout: Rollout, turn: Turn, sent: torch.Tensor, voice: torch.Tensor, mail: Mail | None) -> list[Saying]:
    """sent: [B, N, *message shape]; voice: [B, N] bool; mail: where it is heard."""
    players = rollout.players
    assert players.channel is not None
    kind, links = players.channel.messages, heard_links(mail)
    spoken = (voice & kind.spoken(sent))[0].tolist()
    agents, found = players.layout.agents, []
    for name, species in players.layout.species.items():
        for seat in range(species.start, species.stop):
            if spoken[seat]:
                heard = None if links is None else [agents[r] for s, r in links.tolist() if s == seat]
                member = int(turn.members[name][0, seat - species.start])
                found.append(Saying(agents[seat], member, *_symbols(kind, sent[0, seat]), heard))
    return found


def _symbols(kind: MessageKind, message: torch.Tensor) -> tuple[list[Any], bool]:
    """A message symbol by symbol, and whether they are bits."""
    if kind.alphabet is None:
        return message.flatten().tolist(), False
    symbols = [symbol for symbol in counted(kind, message).tolist() if symbol >= 0]
    return symbols, kind.alphabet == 2 and len(symbols) > 1


def _picture(rollout: Rollout) -> np.ndarray:
    try:
        return rollout.world.render(world=0, links=heard_links(rollout.players.mail))
    except NotImplementedError as error:
        raise UserError(f"{error}; popcomm play needs an environment that can be rendered") from error


def heard_links(mail: Mail | None) -> torch.Tensor | None:
    """(sender, receiver) pairs [M, 2] of world 0 in the present step; None in silence and where all hear all."""
    if mail is None or mail.hears is not None:
        return None
    senders, mask = (values[0] for values in mail.links)
    receivers = torch.arange(len(senders), device=senders.device).unsqueeze(1).expand_as(senders)
    return torch.stack([senders[mask], receivers[mask]], 1)
