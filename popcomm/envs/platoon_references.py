"""What scripted drivers lose in platoon_v0: the lines that learned ones are held against.

A script is a function of the world that returns actions {species: [B, N_s] int64}; `Told` remembers what it heard, and
is made anew for each world. All keep the safe speed of Gipps (1981), by what they see themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from popcomm.envs.platoon_dynamics import BRAKE, FASTER, HOLD, MARGIN, MERGE, SLOWER, SPRINT, safe_speed
from popcomm.envs.platoon_v0 import DT, PlatoonWorld
from popcomm.envs.scripted import Delayed

Actions = dict[str, Tensor]
RIGHT = 0
WARNED = 300.0  # m, how far ahead of an emergency vehicle the road is made free
# A criticality from which on it is; below, it costs more than it saves.
URGENT = 0.1


def alone(world: PlatoonWorld) -> Actions:
    """Nobody tells anything: each overtakes where the other lane is freer, as far as it sees."""
    return driven(world, _to_missions(world, _overtakes(world)))


def keep_right(world: PlatoonWorld) -> Actions:
    """Nobody tells anything: all who have no mission keep right, so that the left lane is free for half of them."""
    _, _, lane = world.here()
    return driven(world, _to_missions(world, lane != RIGHT))


class Told:
    """All know where emergency vehicles are, on which lane, and how critical it is, `delay` steps late.

    In the first steps of every episode what was so in its first is taken for what is heard.
    Those less than 300 m ahead of one on a mission go and stay where it does not. All others overtake as in `alone`. It
    is a script, and a little more may be possible.
    """

    def __init__(self, delay: int = 1) -> None:
        self.delay = delay
        self._delayed = Delayed(delay)

    def __call__(self, world: PlatoonWorld) -> Actions:
        place, _, lane = world.here()
        then, criticality, side = self._delayed(world, (place, world.criticality(), world.missions()[1]))
        # [B, N, N], how far each seat is ahead of each emergency vehicle.
        apart = (place.unsqueeze(2) - then.unsqueeze(1)).remainder(world.road)
        near = (apart < WARNED) & (criticality >= URGENT).unsqueeze(1)
        # The nearest one decides.
        who = apart.masked_fill(~near, torch.inf).argmin(-1)
        taken = side.gather(1, who)
        merges = torch.where(near.any(-1), lane == taken, _overtakes(world))
        return driven(world, _to_missions(world, merges))


def _to_missions(world: PlatoonWorld, merges: Tensor) -> Tensor:
    """Who merges, [B, N] bool: on a mission, who is not on its lane yet."""
    runs, side = world.missions()
    return torch.where(runs, world.here()[2] != side, merges)


def _overtakes(world: PlatoonWorld) -> Tensor:
    """[B, N] bool, who is slower than it wishes, and sees more room on the other lane."""
    own, other, _ = world.neighbours()
    _, speed, _ = world.here()
    view = world.kinds.view
    room, there = torch.minimum(own.gap, view), torch.minimum(other.gap, view)
    return (speed < 0.9 * world.wishes()) & (there > room + 20.0)


def driven(world: PlatoonWorld, merges: Tensor) -> Actions:
    """Actions of drivers who merge where they want to [B, N] bool and it is safe, as far as they see.

    Otherwise each does what brings it nearest to its wish, and not above the safe speed.
    """
    own, other, rear = world.neighbours()
    _, speed, _ = world.here()
    safe = world.safe_speeds(own)
    kinds = world.kinds
    # Who comes behind must be able to brake.
    seen = rear.gap < kinds.mirror
    theirs = speed.gather(1, rear.seat)
    brakes = kinds.brake.expand_as(speed)
    follows = safe_speed(rear.gap, theirs, speed, brakes.gather(1, rear.seat), brakes, DT)
    clear = (other.gap >= MARGIN) & (rear.gap >= MARGIN) & (~seen | (follows >= theirs - 0.5 * kinds.brake))
    clear = clear & (world.safe_speeds(other) >= speed - 0.5 * kinds.brake)
    chosen = torch.full_like(own.seat, BRAKE)
    limit = torch.minimum(safe, world.wishes() + 0.5)
    for action in (SLOWER, HOLD, FASTER, SPRINT):
        gain = world._accelerations[:, action] * DT
        allowed = speed + gain <= limit
        if action == SPRINT:
            allowed = allowed & world._saves
        chosen = chosen.masked_fill(allowed, action)
    chosen = torch.where(merges & clear, MERGE, chosen)
    return {name: chosen[:, s.seats] for name, s in world.species.items()}
