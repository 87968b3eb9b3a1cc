"""Missions of emergency vehicles in platoon_v0: how they begin, go on and end, as functions of tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEAST = 1e-3  # the least urgency of a mission; 0 is that of who has none


class Missions(NamedTuple):
    """What every seat is on its way to; all but the urgency says nothing where there is no mission."""

    urgency: Tensor  # [B, N] float32 in [0, 1], 0 without a mission
    side: Tensor  # [B, N] int64, its lane
    left: Tensor  # [B, N] float32, m to go, 0 without one
    since: Tensor  # [B, N] float32, s since it began

    @property
    def runs(self) -> Tensor:
        """[B, N] bool, who is on one."""
        return self.left > 0


def none_yet(shape: tuple[int, int], device: torch.device) -> Missions:
    """Nobody is on a mission."""
    zeros = torch.zeros(shape, device=device)
    return Missions(zeros, zeros.long(), zeros.clone(), zeros.clone())


def called(now: Missions, able: Tensor, draws: Tensor, rate: float, metres: float) -> Missions:
    """The missions after each seat that is `able` [B, N] bool, and has none, got one with probability `rate`.

    draws: [2, B, N], even on [0, 1): those below the rate are even below it, which makes the urgency; the others make
    the lane.
    """
    calls = able & ~now.runs & (draws[0] < rate)
    urgency = (draws[0] / max(rate, 1e-9)).clamp(LEAST, 1.0)
    return Missions(
        torch.where(calls, urgency, now.urgency),
        torch.where(calls, (draws[1] < 0.5).long(), now.side),
        torch.where(calls, metres, now.left),
        now.since.masked_fill(calls, 0.0),
    )


def gone_on(now: Missions, way: Tensor, lane: Tensor, seconds: float) -> tuple[Missions, Tensor, Tensor]:
    """The missions after a step, who finished one [B, N] bool, and the seconds that it took [B, N].

    Args:
        way: [B, N], m in the step, which count on the lane of the mission.
        lane: [B, N] int64.
        seconds: of the step; of the last one of a mission, the part counts that it took.
    """
    way = way * (lane == now.side)
    since = now.since + seconds * now.runs
    part = (now.left / way.clamp(min=1e-6)).clamp(max=1.0)
    left = torch.where(now.runs, (now.left - way).clamp(min=0.0), now.left)
    urgency = now.urgency.masked_fill(left <= 0, 0.0)
    return Missions(urgency, now.side, left, since), now.runs & (left <= 0), since - seconds * (1.0 - part)
