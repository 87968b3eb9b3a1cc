"""What vehicles of platoon_v0 see, and where in their observation it is."""

from __future__ import annotations

import math

import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.platoon_dynamics import Kind, Neighbours
from popcomm.envs.world import Species

TRUCK, CAR, EMERGENCY = "truck", "car", "emergency"
# Place and speed in all observations, and the criticality in those of emergency vehicles: what an urgency is read from.
PLACE, SPEED, CRITICALITY = slice(0, 2), 2, 3
SIZES = {TRUCK: 11, CAR: 14, EMERGENCY: 18}
CHOICES = {TRUCK: 5, CAR: 5, EMERGENCY: 6}
SPEED_SCALE = 30.0  # m / s, in which speeds are observed


def species_of(seats: dict[str, int]) -> dict[str, Species]:
    """{species: its Species}, of how many seats each has; those with none are left out."""
    species, start = {}, 0
    for name, many in seats.items():
        if many:
            agents = tuple(f"{name}_{i}" for i in range(many))
            action = spaces.Discrete(CHOICES[name])
            species[name] = Species(name, start, start + many, SIZES[name], action, agents)
            start += many
    return species


def on_ring(place: Tensor, road: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of places [B, N], m on a ring of `road` m."""
    angle = place * (2 * math.pi / road)
    return angle.cos(), angle.sin()


def observed(
    first: Tensor,
    mission: Tensor,
    lane: Tensor,
    speed: Tensor,
    around: tuple[Neighbours, Neighbours, Neighbours],
    kinds: Kind[Tensor],
) -> dict[str, Tensor]:
    """{species: [B, N, O]}, what every seat would observe if it were of that species.

    Args:
        first: [B, N, 3], place and speed.
        mission: [B, N, 4].
        lane, speed: [B, N].
        around: who is ahead on the own lane and on the other one, and behind on it.
        kinds: [N] each.
    """
    own, other, rear = around
    fore = [_seen(one, kinds.view, speed) for one in (own, other)]
    back, one = _seen(rear, kinds.mirror, speed), torch.ones_like(first[..., :1])
    side = lane.float().unsqueeze(-1)
    return {
        TRUCK: torch.cat((first, side, *fore, one), -1),
        CAR: torch.cat((first, side, *fore, back, one), -1),
        EMERGENCY: torch.cat((first, mission, side, *fore, back, one), -1),
    }


def _seen(one: Neighbours, view: Tensor, speed: Tensor) -> Tensor:
    """[B, N, 3] of a neighbour: seen, gap / view, difference of speeds; zeros where it is further away."""
    sees = one.gap < view
    apart = one.gap.masked_fill(~sees, 0.0) / view.clamp(min=1.0)
    faster = (speed.gather(1, one.seat) - speed) / SPEED_SCALE
    return torch.stack((sees.float(), apart, faster.masked_fill(~sees, 0.0)), -1)
