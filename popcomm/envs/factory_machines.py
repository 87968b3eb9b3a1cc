"""Machines of factory_v0: what heats them, wears them out and breaks them, as functions of tensors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

RUN, SLOW, STOP, REPAIR, ROUTE = range(5)
ACTIONS = ("run", "slow", "stop", "repair", "route")
SPEEDS = (1.0, 0.5, 0.0, 0.0, 0.0)  # of each action, as a share of the full speed; jobs done in a step
ROUTED = 3.0  # jobs that "route" hands to the next machine in a step
ROOM = 12.0  # jobs that wait at a machine at most

TAU = 3.0  # steps in which a temperature comes by 1 - 1 / e of the way to where it is going
# K above the surroundings at which a machine at full speed stays: with its cooling, and without it.
WARM, HOT = 40.0, 120.0
LIMIT = 60.0  # K, above which a delicate product is harmed; a robust one never is
EXCESS = 20.0  # K above the limit that do one unit of damage in a step
WARNING = 4  # steps of full speed from the first sign of a defect to the breakdown, the step of the first sign included


class Machines(NamedTuple):
    """What there is at the M machines of B factories."""

    temperature: Tensor  # [B, M] float32, K above the surroundings
    cooled: Tensor  # [B, M] bool, its cooling works
    shaking: Tensor  # [B, M] bool, it vibrates
    wear: Tensor  # [B, M] float32, 0 without a defect, and 1 where it breaks
    down: Tensor  # [B, M] int64, steps in which it will not work yet, under repair or broken
    queue: Tensor  # [B, M] float32, jobs that wait

    @property
    def works(self) -> Tensor:
        """[B, M] bool."""
        return self.down == 0


def heated(temperature: Tensor, cooled: Tensor, speed: Tensor) -> Tensor:
    """[B, M], the temperature a step later: a lumped body (Newton's law of cooling), solved exactly over the step.

    d temperature / dt = (speed * gain - temperature) / TAU, with gain WARM where it is cooled, else HOT, in K above the
    surroundings; speed is constant in the step.

    >>> float(heated(torch.tensor(40.0), torch.tensor(True), torch.tensor(1.0)))
    40.0
    """
    goal = torch.where(cooled, WARM, HOT) * speed
    return goal + (temperature - goal) * math.exp(-1.0 / TAU)


def worn(wear: Tensor, speed: Tensor, defect: Tensor) -> Tensor:
    """[B, M], the wear a step later; a machine whose wear comes to 1 breaks.

    The delay-time model of maintenance (Christer & Waller 1984): a defect arises by chance, can be seen from then on,
    and becomes a breakdown after a time at work, here WARNING steps at full speed, unless it is repaired before.

    Args:
        wear: [B, M].
        speed: [B, M], of the step.
        defect: [B, M] bool, where a defect arises by the end of the step, if there is none yet.
    """
    grown = wear + speed / WARNING
    return torch.where(wear > 0, grown, defect / WARNING).clamp(max=1.0)


def routed(queue: Tensor, routes: Tensor) -> Tensor:
    """[B, M], the jobs that wait after those of `routes` [B, M] bool hand some on to the next machine, round a circle.

    As many as the next one had room for before.
    """
    room = (ROOM - queue).roll(-1, -1)
    moved = torch.minimum(queue, room).clamp(max=ROUTED) * routes
    return queue - moved + moved.roll(1, -1)


def switched(state: Tensor, begins: float, ends: float, draws: Tensor) -> Tensor:
    """`state` [...] bool a step later, a Markov chain of two states: the share of True is begins / (begins + ends).

    draws: [...], even on [0, 1).
    """
    return torch.where(state, draws >= ends, draws < begins)


def share_of(begins: float, ends: float) -> float:
    """In the long run, of the steps in which such a chain is True."""
    return begins / (begins + ends) if begins else 0.0
