"""What networks make of observations alone: in no step is it waited for, so it is made of all steps at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from popcomm.agents.contract import AgentSpec, sees_first
from popcomm.agents.seating import Seating
from popcomm.rllib.fragment import Steps


def seatings_of(members: Tensor, opens: Sequence[bool], count: int) -> list[Seating]:
    """Who sits where in every step; steps in which no life begins share one.

    Args:
        members: [B, T, N] int64.
        opens: T, whether a life begins in a step.
        count: P.
    """
    seatings = [Seating(members[:, 0], count)]
    for t, begins in enumerate(opens[1:], 1):
        seatings.append(Seating(members[:, t], count) if begins and count > 1 else seatings[-1])
    return seatings


def seen_of(agent: Any, spec: AgentSpec, steps: Steps, seatings: Sequence[Seating]) -> Sequence[Tensor | None]:
    """What a network sees in every step, [P, R, ...] each; None of those that see for themselves.

    Args:
        agent: a `popcomm.agents.contract.Agent`.
        steps: of its species' fragment.
        seatings: in every step.
    """
    if not sees_first(agent):
        return [None] * len(seatings)
    rows = [seating.to_members(steps.at(t, "obs")) for t, seating in enumerate(seatings)]
    seen: Tensor = agent.see(spec.numbers(torch.cat(rows, 1)))
    return seen.split([seating.rows for seating in seatings], 1)
