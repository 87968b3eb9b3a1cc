"""Scripted swarms that set the scale for learned ones: random, alone with what each sees, told what anyone sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from popcomm.envs.swarm_v0 import SwarmWorld
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError

BRAKING = 2.0  # steps ahead that a steering boid takes its own velocity into account; of 1 to 9 the best in trials
DEAD_BAND = 0.1  # units of length: nearer than this no thrust is better than any

# (world, step, generator) -> actions [B, N] int64 in 0 ... 4
Policy = Callable[[SwarmWorld, WorldStep, torch.Generator], Tensor]

MEANINGS = {
    "random": "random actions",
    "alone": "scripted: each steers to where it saw the beacon last, and searches straight on before",
    "told": "scripted: the same, but all are told (one step later) what anyone sees",
}


def random_actions(world: SwarmWorld, step: WorldStep, generator: torch.Generator) -> Tensor:
    """Any of the five thrusts."""
    return torch.randint(5, tuple(step.alive.shape), generator=generator)


class Searcher:
    """Boids that go straight on until they know of the beacon, then steer to where it was seen last.

    What they know is exact, and all hear all: this is a mark for scale, not a bound on what can be learned.

    Args:
        told: whether what anyone perceived one step before is known to all.
    """

    def __init__(self, told: bool) -> None:
        self.told = told
        self._target: Tensor | None = None  # [B, N, 2]
        self._known: Tensor | None = None  # [B, N] bool
        self._heading: Tensor | None = None  # [B, N] int64, the thrust of the search
        self._news: tuple[Tensor, Tensor] | None = None  # ([B] bool, [B, 1, 2]): what anyone perceived

    def __call__(self, world: SwarmWorld, step: WorldStep, generator: torch.Generator) -> Tensor:
        assert step.positions is not None
        observation = step.observations["swarm"]
        perceives, beacon = observation[..., 9] > 0, beacon_of(step, world.size)
        if self._target is None or bool(step.first.all()):
            self._target, self._known = torch.zeros_like(step.positions), torch.zeros_like(perceives)
            self._heading = torch.randint(1, 5, tuple(perceives.shape), generator=generator)
            self._news = None
        assert self._known is not None
        assert self._heading is not None
        if self.told and self._news is not None:
            heard, where = self._news
            self._target = torch.where(heard[:, None, None], where, self._target)
            self._known = self._known | heard[:, None]
        self._target = torch.where(perceives.unsqueeze(-1), beacon, self._target)
        self._known = self._known | perceives
        self._news = (perceives.any(1), beacon)
        velocity = observation[..., 4:6] * world.max_speed
        steered = thrust_towards(self._target - step.positions, velocity, world.size)
        return torch.where(self._known, steered, self._heading)


def beacon_of(step: WorldStep, size: float) -> Tensor:
    """[B, 1, 2], the beacon's place, from its angles in the latent state."""
    assert step.state is not None
    cosine, sine = step.state[:, 7:9], step.state[:, 9:11]
    return (torch.atan2(sine, cosine) * (size / (2 * math.pi))).remainder(size).unsqueeze(1)


def thrust_towards(displacement: Tensor, velocity: Tensor, size: float) -> Tensor:
    """[B, N, 2] -> actions [B, N]: along the axis with the larger error, ahead by `BRAKING` steps of the velocity."""
    shortest = displacement - size * (displacement / size).round()
    error = shortest - BRAKING * velocity
    along_y = error[..., 1].abs() > error[..., 0].abs()
    chosen = torch.where(along_y, error[..., 1], error[..., 0])
    action = 1 + 2 * along_y.long() + (chosen < 0).long()
    return torch.where(chosen.abs() < DEAD_BAND, 0, action)


def mean_return(policy: Policy, env_config: Mapping[str, Any], worlds: int = 256, seed: int = 0) -> float:
    """Mean return of an agent over one episode of every world."""
    world = SwarmWorld(num_worlds=worlds, **env_config)
    if world.continuous_actions:
        raise UserError(
            "environment.env_config.continuous_actions is true, and the scripted controls need it to be false"
        )
    generator = torch.Generator().manual_seed(seed)
    step = world.reset(seed)
    total = torch.zeros_like(step.rewards)
    for _ in range(world.max_steps):
        step = world.step({"swarm": policy(world, step, generator)})
        total += step.rewards
    return float(total.mean())


def controls(env_config: Mapping[str, Any], worlds: int = 256, seed: int = 0) -> dict[str, float]:
    """{name as in MEANINGS: mean return of an agent and episode}."""
    policies: dict[str, Policy] = {
        "random": random_actions,
        "alone": Searcher(told=False),
        "told": Searcher(told=True),
    }
    return {name: mean_return(policy, env_config, worlds, seed) for name, policy in policies.items()}
