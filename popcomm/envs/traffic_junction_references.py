"""How scripted drivers fare in traffic_junction_v0: the lines that learned ones are held against.

A script is a function of the world that returns actions [B, N] int64; a `Planner` remembers, and is made anew for each
world. Success in 4,000 episodes, and 1,000 at "hard":

| level | random | gas | planner |
| --- | --- | --- | --- |
| easy | 0.01 | 0.32 | 1 |
| medium | 0 | 0.04 | 1 |
| hard | 0 | 0.09 | 1 |

Without a view and without talk nobody knows when another car comes, so no script is known here that does better than
gas in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from popcomm.envs.traffic_junction_v0 import BRAKE, GAS, NAME, TrafficJunctionWorld

Script = Callable[[TrafficJunctionWorld], Tensor]


class Played(NamedTuple):
    """Means over one episode of each of a world's road maps."""

    success: float  # share of episodes without a crash
    collisions: float  # times that cars stood in a cell with another one, per episode
    reward: float  # of all cars together, per episode


def played(world: TrafficJunctionWorld, script: Script, seed: int = 0) -> Played:
    """One episode of every road map under a script; the world is reset."""
    step = world.reset(seed)
    crashes = torch.zeros(world.num_worlds, dtype=torch.int64, device=world.device)
    rewards = torch.zeros(world.num_worlds, device=world.device)
    running = step.alive.any(1)
    while bool(running.any()):
        step = world.step({NAME: script(world)})
        crashes += world.crashed().sum(1) * running
        rewards += step.rewards.sum(1) * running
        running &= step.alive.any(1)
    return Played((crashes == 0).float().mean().item(), crashes.float().mean().item(), rewards.mean().item())


def randomly(seed: int = 0) -> Script:
    """Even chances for gas and brake."""
    generator = torch.Generator().manual_seed(seed)
    return lambda world: torch.randint(2, (world.num_worlds, world.num_agents), generator=generator).to(world.device)


def gas(world: TrafficJunctionWorld) -> Tensor:
    """Never brake: the quickest, and what needs no information."""
    return torch.full((world.num_worlds, world.num_agents), GAS, device=world.device)


def gas_success(world: TrafficJunctionWorld) -> float:
    """The exact success of `gas` at the level "easy", where N is so large that no car is ever turned away (14).

    Two cars crash if they enter in the same step, and have the time to drive to the middle, m = 3 cells on. With rate p
    and T steps, no such pair comes in T - m steps with probability (1 - p^2)^(T - m), of which episodes without any car
    before the last step, (1 - p)^(2 T - 2), are left out.
    """
    rate, steps, middle = world.add_rate, world.max_steps, world.roads.size // 2
    none = (1 - rate) ** (2 * steps - 2)
    return ((1 - rate**2) ** max(steps - middle, 0) - none) / (1 - none)


def brake_success(world: TrafficJunctionWorld) -> float:
    """The exact success of those who always brake, where N is so large that no car is ever turned away.

    All is well as long as no second car comes to an entry: with rate p, E entries and T steps, that has the probability
    ((1 - p)^T + T p (1 - p)^(T - 1))^E, of which the same episodes as in `gas_success` are left out.
    """
    rate, steps, entries = world.add_rate, world.max_steps, len(world.roads.lengths)
    one = (1 - rate) ** steps + steps * rate * (1 - rate) ** (steps - 1)
    # Left out: no car in the first T - 1 steps; in the last one, at most one comes to each entry at any rate.
    none = (1 - rate) ** (entries * (steps - 1))
    return (one**entries - none) / (1 - none)


class Planner:
    """The oracle: knows all routes, and plans for each car as it enters to be out soonest.

    A plan says in which cell a car is after each step to come; it avoids every cell that an earlier plan claims for the
    same step, and among those that are out soonest it drives on first and waits late, so that entries stay free
    (prioritised planning; Erdmann & Lozano-Perez 1987, Silver 2005). A plan is changed only where a car would have to
    wait at its entry, where the next one may come: then all plan anew, those from this entry first, if all of them find
    a plan so. A car that finds none without a crash drives on.

    Attributes:
        stuck: how many cars found no plan.
    """

    def __init__(self, world: TrafficJunctionWorld) -> None:
        steps, cells = world.max_steps, len(world.roads.cells)
        # After each step: the cells that are claimed (and one that never is, off the road), and who brakes in it.
        self._claimed = torch.zeros(steps + 1, world.num_worlds, cells + 1, dtype=torch.bool, device=world.device)
        self._brakes = torch.zeros(*self._claimed.shape[:2], world.num_agents, dtype=torch.bool, device=world.device)
        off = torch.full((len(world._ways), 1), cells, device=world.device)
        self._ways = torch.cat((world._ways, off), 1)
        self._ways[torch.arange(self._ways.shape[1], device=world.device) >= world._lengths.unsqueeze(1)] = cells
        self._worlds = torch.arange(world.num_worlds, device=world.device)
        self.stuck = 0

    def __call__(self, world: TrafficJunctionWorld) -> Tensor:
        step = world._last
        assert step is not None
        # Nobody has driven before: an episode opens, or time has passed on an empty road.
        self._claimed[:, ~(step.alive & ~step.first).any(1)] = False
        age = world._age.clamp(max=world.max_steps)
        left, waits = step.first.clone(), torch.zeros_like(step.first)
        while bool(left.any()):
            seats, plans = left.long().argmax(1), left.any(1)
            self.stuck += int((~self._plan(world, seats, age, plans)).sum())
            waits[self._worlds, seats] |= plans & self._brakes[age, self._worlds, seats]
            left[self._worlds, seats] = False
        if bool(waits.any()):
            self._replan(world, waits, age)
        return torch.where(self._brakes[age, self._worlds], BRAKE, GAS)

    def _replan(self, world: TrafficJunctionWorld, waits: Tensor, age: Tensor) -> None:
        """All cars of those worlds anew in which one `waits` [B, N] bool at its entry."""
        before = self._claimed.clone(), self._brakes.clone()
        plans, entry = waits.any(1), world._route // world._choices
        self._claimed[:, plans] = self._brakes[:, plans] = False
        same = entry == entry.gather(1, waits.long().argmax(1, keepdim=True))
        # Those from the same entry by their place, the foremost first, and then the rest, by the time they have driven.
        rank = torch.where(same, world.max_steps + 1 + world._place, world._since).masked_fill(~world._driving, -1)
        found = torch.ones_like(plans)
        for seats in rank.argsort(1, descending=True).unbind(1):
            found &= self._plan(world, seats, age, plans & world._driving[self._worlds, seats])
        for now, old in zip((self._claimed, self._brakes), before, strict=True):
            now[:, ~found] = old[:, ~found]

    def _plan(self, world: TrafficJunctionWorld, seats: Tensor, age: Tensor, plans: Tensor) -> Tensor:
        """One car of each world, `seats` [B], from step `age` [B] on, in worlds `plans` [B]; False: there is no way."""
        worlds, place = self._worlds, world._place[self._worlds, seats]
        route, last, off = world._route[worlds, seats], len(self._claimed) - 1, self._claimed.shape[2] - 1
        if not bool(plans.any()):
            return ~plans
        since, ways = int(age[plans].min()), self._ways[route]
        out = self._soonest(ways, world._lengths[route], since)
        found = ~(plans & out[age.clamp(min=since), worlds, place].isinf())
        for t in range(since, last):
            drives, on = plans & (age <= t), (place + 1).clamp(max=ways.shape[1] - 1)
            goes = out[t + 1, worlds, on] <= out[t + 1, worlds, place]
            self._brakes[t, worlds, seats] = torch.where(drives, ~goes, self._brakes[t, worlds, seats])
            place = torch.where(drives & goes, on, place)
            cell = ways[worlds, place]
            self._claimed[t + 1, worlds, cell] |= drives & (cell < off)
        return found

    def _soonest(self, ways: Tensor, lengths: Tensor, since: int) -> Tensor:
        """[T + 1, B, L + 1]: the first step after which a car can be out, from each place after each step >= since.

        Backwards in time: that of the better of the two places to which a step leads; no such, inf, where another car
        is. After the last step the road counts as free.
        """
        last = len(self._claimed) - 1
        ahead = (lengths.unsqueeze(1) - torch.arange(ways.shape[1], device=ways.device)).clamp(min=0)
        out = torch.full((last + 1, *ways.shape), float("inf"), device=ways.device)
        out[last] = (last + ahead).float()
        for t in range(last, since - 1, -1):
            if t < last:
                out[t, :, :-1] = torch.minimum(out[t + 1, :, :-1], out[t + 1, :, 1:])
                out[t].masked_fill_(ahead == 0, float(t))
            out[t].masked_fill_(self._claimed[t].gather(1, ways), float("inf"))
        return out
