"""Helpers of tests of worlds whose seats begin and end together: twins, means with their errors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.scripted import Randomly, episode_returns


def earned(world: EpisodicWorld, policy: Any, seed: int = 5) -> tuple[float, float]:
    """Mean return per seat of one episode of every world, and its standard error over worlds."""
    returns = episode_returns(world, policy, seed).mean(-1).double()
    return returns.mean().item(), (returns.std() / world.num_worlds**0.5).item()


def future(world: EpisodicWorld, steps: int = 12, seed: int = 1) -> list[Tensor]:
    """What is seen and earned under random play from the present on."""
    policy, seen = Randomly(seed), []
    for _ in range(steps):
        step = world.step(policy(world))
        seen.append(torch.cat([step.rewards, *(o.flatten(1) for o in step.observations.values())], 1))
    return seen
