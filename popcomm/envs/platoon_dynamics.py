"""Vehicles of platoon_v0 and how they move, in SI units, as functions of tensors."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
from torch import Tensor
from typing_extensions import NamedTuple  # generic ones need Python 3.11

HOLD, FASTER, SLOWER, BRAKE, MERGE, SPRINT = range(6)
ACTIONS = ("hold", "faster", "slower", "brake", "merge", "sprint")
GRAVITY = 9.81  # m / s^2
AIR = 1.2  # kg / m^3
HEATING = 43e6  # J / kg, of diesel and petrol
SLIPSTREAM, SLIP_LENGTH = 0.4, 20.0  # share of the drag that is saved right behind another, and m in which it fades
MARGIN = 2.0  # m that must be free before and behind who merges

A = TypeVar("A", float, Tensor)


class Kind(NamedTuple, Generic[A]):
    """A species of vehicle; of Tensors, all seats of a world, [N] each.

    An acceleration is what its wheels may do; its engine may have less.
    """

    mass: A  # kg
    length: A  # m
    wish: A  # m / s, the speed at which it is not late
    top: A  # m / s, never exceeded
    faster: A  # m / s^2, of these actions
    slower: A
    brake: A
    power: A  # W, of the engine
    drag: A  # m^2, drag coefficient times front
    rolling: A  # resistance, as a share of the weight
    efficiency: A  # work at the wheels per heat of the fuel
    view: A  # m, how far ahead it sees
    mirror: A  # m, how far back on the other lane


KINDS = {
    "truck": Kind(30_000, 16.0, 22.0, 25.0, 0.5, 1.0, 5.0, 350e3, 6.0, 0.006, 0.42, 80.0, 0.0),
    "car": Kind(1_500, 4.5, 33.0, 36.0, 2.0, 2.0, 8.0, 110e3, 0.7, 0.01, 0.30, 80.0, 30.0),
    # An ambulance, whose wish is that of a car while it has no mission, and its top speed on one.
    "emergency": Kind(2_500, 5.5, 33.0, 45.0, 2.0, 2.0, 7.0, 300e3, 1.2, 0.01, 0.33, 150.0, 30.0),
}


class Neighbours(NamedTuple):
    """Who is where from each seat: index of the seat [B, N], and m of road between them [B, N], inf for nobody."""

    seat: Tensor
    gap: Tensor


def ahead(place: Tensor, length: Tensor, lane: Tensor, road: float, other: bool = False) -> Neighbours:
    """The next one ahead, on the own lane or the other one; the gap is negative beside a vehicle.

    Args:
        place: [B, N], m along a road that is a ring, of the front.
        length: [N], m.
        lane: [B, N] int64.
        road: m around.
        other: look at the other lane.
    """
    apart = (place.unsqueeze(1) - place.unsqueeze(2)).remainder(road)  # [B, N, N], of the second from the first
    return _nearest(apart - length, lane, apart, other)


def behind(place: Tensor, length: Tensor, lane: Tensor, road: float) -> Neighbours:
    """The next one behind on the other lane; the gap is negative beside a vehicle. Arguments as those of `ahead`."""
    apart = (place.unsqueeze(2) - place.unsqueeze(1)).remainder(road)
    return _nearest(apart - length.unsqueeze(-1), lane, apart, other=True)


def _nearest(gaps: Tensor, lane: Tensor, apart: Tensor, other: bool) -> Neighbours:
    """The one at the least `apart` [B, N, N] on that lane."""
    wanted = (lane.unsqueeze(1) == lane.unsqueeze(2)) != other
    wanted = wanted & ~torch.eye(lane.shape[1], dtype=torch.bool, device=lane.device)
    distance, seat = apart.masked_fill(~wanted, torch.inf).min(-1)
    return Neighbours(seat, torch.where(distance.isinf(), distance, gaps.gather(2, seat.unsqueeze(-1)).squeeze(-1)))


def moved(speed: Tensor, acceleration: Tensor, top: Tensor, seconds: float) -> tuple[Tensor, Tensor]:
    """Speed after `seconds` of a constant acceleration, and the way in m, exactly: who stops or is at `top` stays so.

    From speed v a brake of b brings a vehicle to a halt after v^2 / (2 b).

    >>> [round(float(x), 2) for x in moved(torch.tensor(3.0), torch.tensor(-6.0), torch.tensor(9.0), 1.0)]
    [0.0, 0.75]
    """
    end = torch.minimum((speed + acceleration * seconds).clamp(min=0.0), torch.maximum(top, speed))
    # Seconds in which the speed changes.
    changing = torch.where(acceleration == 0, seconds, (end - speed) / acceleration.where(acceleration != 0, 1.0))
    return end, (speed + end) / 2 * changing + end * (seconds - changing)


def resistance(speed: Tensor, gap: Tensor, mass: Tensor, drag: Tensor, rolling: Tensor) -> Tensor:
    """N: rolling + air, rolling * m g + AIR / 2 * drag * v^2, less in the slipstream of who is `gap` m ahead."""
    shelter = 1.0 - SLIPSTREAM * torch.exp(-gap.clamp(min=0.0) / SLIP_LENGTH)
    return rolling * mass * GRAVITY + 0.5 * AIR * drag * speed.square() * shelter


def safe_speed(gap: Tensor, speed: Tensor, ahead: Tensor, brake: Tensor, brake_ahead: Tensor, seconds: float) -> Tensor:
    """m / s after `seconds`, so that who brakes from then on stops behind one who brakes now (Gipps 1981, equation 2).

    Args:
        gap: m to the one ahead, of which 2 are kept; inf where there is none.
        speed, ahead: m / s, the own one and that of the one ahead.
        brake, brake_ahead: m / s^2, how hard both can brake.
    """
    b = brake * seconds
    root = b.square() + brake * (2.0 * (gap - MARGIN) - speed * seconds + ahead.square() / brake_ahead)
    return (root.clamp(min=0.0).sqrt() - b).clamp(min=0.0)


def collided(way: Tensor, speed: Tensor, gap: Tensor, leader: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ways, speeds and who ran into the one ahead, [B, N] each.

    Who would come further than the tail of the one ahead stops there, and both go on at the speed at which their
    momentum is what it was (perfectly inelastic). Where three meet in a step, each pair is looked at by itself.

    Args:
        way, speed: [B, N], of the step and after it.
        gap, leader: [B, N], of the one ahead, before it.
        mass: [N], kg.
    """
    front = gap + way.gather(1, leader)  # as far as there is road
    hits = way > front
    masses = mass.expand_as(speed)
    before, theirs = speed.gather(1, leader), masses.gather(1, leader)
    common = (masses * speed + theirs * before) / (masses + theirs)
    faster = hits & (speed > before)
    pushed = torch.zeros_like(speed).scatter_reduce(1, leader, common.masked_fill(~faster, 0.0), "amax")
    after = torch.where(faster, common, torch.maximum(speed, pushed))
    return torch.where(hits, front.clamp(min=0.0), way), after, hits
