"""Communicative success: whether agents that answer what they heard about answer right, and so did those who told them.

That of language games (Steels 1995): a game is won where the hearer gets it right, by speaker and hearer together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from popcomm.channels.mail import Mail
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import Species
from popcomm.rllib.member_statistics import MemberStatistics
from popcomm.rllib.supervision import due
from popcomm.rollout import Turn


class Games(NamedTuple):
    """What was played in a step; a game counts for each seat that took part."""

    played: Tensor  # [B, N] float32, games in which a seat answered, or was heard by who did
    won: Tensor  # [B, N] float32, those in which the answer was right


def games(
    answers: Mapping[str, Tensor], actions: Mapping[str, Tensor], species: Mapping[str, Species], mail: Mail
) -> Games | None:
    """The games that end in a step; None where no answer is due.

    Who answers and has heard nobody plays no game: what it says is no matter of what was said.

    Args:
        answers: {species: [B, N_s, ...] int64}, the right actions, -1 where none is called for.
        actions: {species: [B, N_s, ...]}, those that were taken.
        species: of all seats.
        mail: what was heard when they were.
    """
    asked, right = (torch.zeros(mail.mask.shape[:2], dtype=torch.bool, device=mail.mask.device) for _ in range(2))
    for name, correct in answers.items():
        seats, shape = species[name].seats, tuple(species[name].action_space.shape or ())
        asked[:, seats] = due(correct, shape)
        same = actions[name] == correct
        right[:, seats] = same.flatten(-len(shape)).all(-1) if shape else same
    if not bool(asked.any()):
        return None
    return Games(_shared(asked, mail), _shared(asked & right, mail))


def _shared(answered: Tensor, mail: Mail) -> Tensor:
    """[B, N] float32, in how many of these answers each seat took part. answered: [B, N] bool."""
    if mail.hears is not None:  # everybody hears all who are on the air, but not themselves
        there = mail.mask.squeeze(-1)
        hears = answered & mail.hears & (there.sum(1, keepdim=True) > there.long())
        own = hears.float()
        return own + there * (own.sum(1, keepdim=True) - own)
    heard = mail.said & answered.unsqueeze(-1)
    told = torch.zeros_like(answered, dtype=torch.float32)
    told.scatter_add_(1, mail.senders.clamp(max=answered.shape[1] - 1).flatten(1), heard.flatten(1).float())
    return told + heard.any(-1)


def count_games(
    members: Mapping[str, MemberStatistics], turn: Turn, layout: WorldLayout, whole: NDArray[np.bool_] | None
) -> None:
    """Take in the games of a step.

    Args:
        members: {species: statistics of its members}, which they are added to.
        whole: [B, N] bool, lives that were not begun by who sat there before; None: all.
    """
    answers = turn.seen.answers
    if not members or turn.mail is None or answers is None:
        return
    found = games(answers, turn.actions, layout.species, turn.mail)
    if found is None:
        return
    played, won = (values.cpu().numpy() for values in found)
    counted = played > 0 if whole is None else (played > 0) & whole
    for name, own in members.items():
        seats = layout.species[name].seats
        there = counted[:, seats]
        own.played(turn.members[name][there], played[:, seats][there], won[:, seats][there])
