"""Helpers of tests of worlds whose seats begin and end together: random play, twins, means with their errors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.scripted import episode_returns


class Random:
    """All actions equally likely, from a generator of its own."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, world: EpisodicWorld) -> dict[str, Tensor]:
        return {
            name: torch.randint(int(s.action_space.n), (world.num_worlds, s.num_seats), generator=self.generator)
            for name, s in world.species.items()
        }


def earned(world: EpisodicWorld, policy: Any, seed: int = 5) -> tuple[float, float]:
    """Mean return per seat of one episode of every world, and its standard error over worlds."""
    returns = episode_returns(world, policy, seed).mean(-1).double()
    return returns.mean().item(), (returns.std() / world.num_worlds**0.5).item()


def future(world: EpisodicWorld, steps: int = 12, seed: int = 1) -> list[Tensor]:
    """What is seen and earned under random play from the present on."""
    policy, seen = Random(seed), []
    for _ in range(steps):
        step = world.step(policy(world))
        seen.append(torch.cat([step.rewards, *(o.flatten(1) for o in step.observations.values())], 1))
    return seen
