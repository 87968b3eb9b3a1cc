"""What scripted agents earn in navigation_v0: the lines that learned ones are held against.

A script is a function of the world that returns actions {species: [B, N] int64}. Mean returns per agent and episode of
1,000 episodes (`popcomm.envs.scripted.episode_returns`), extent (N / 3)^0.5, 25 steps:

| N | random | nearest | own | assigned |
| --- | --- | --- | --- | --- |
| 3 | -26.7 | -17.3 | -11.8 | -8.9 |
| 5 | -42.4 | -28.5 | -23.1 | -15.3 |
| 7 | -58.4 | -38.9 | -35.1 | -21.5 |
| 16 | -126.6 | -84.7 | -97.7 | -50.2 |
| 128 (16 episodes) | -925 | -606 | -998 | -424 |

Nobody evades another, so the best is a little better than `assigned`.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from popcomm.envs.navigation_v0 import DAMPING, DT, NAME, PUSHES, THRUST, NavigationWorld, lengths

# Who coasts from velocity v comes to rest v * COAST further on, the sum of DT * v * (1 - DAMPING)^t.
COAST = DT / DAMPING
STRIDE = THRUST * DT * COAST  # by so much an action moves the place of rest


def nearest(world: NavigationWorld) -> dict[str, Tensor]:
    """Each goes to the landmark nearest to it, whoever else does."""
    place, _, landmarks = world.here()
    goals = lengths(place.unsqueeze(2) - landmarks.unsqueeze(1)).argmin(-1)
    return to_landmarks(world, goals)


def assigned(world: NavigationWorld) -> dict[str, Tensor]:
    """Each goes to a landmark of its own, so that the ways together are the shortest (Kuhn 1955)."""
    return to_landmarks(world, assignment(world))


def own(world: NavigationWorld) -> dict[str, Tensor]:
    """Agent i goes to landmark i: what can be done with view = 0 by those who tell nobody anything."""
    goals = torch.arange(world.num_agents, device=world.device)
    return to_landmarks(world, goals.expand(world.num_worlds, -1))


def assignment(world: NavigationWorld) -> Tensor:
    """[B, N] int64, a landmark of its own for each agent; the sum of distances is the least possible."""
    place, _, landmarks = world.here()
    costs = lengths(place.unsqueeze(2) - landmarks.unsqueeze(1)).cpu().numpy()
    return torch.tensor([linear_sum_assignment(cost)[1].tolist() for cost in costs], device=world.device)


def to_landmarks(world: NavigationWorld, goals: Tensor) -> dict[str, Tensor]:
    """The actions that bring each place of rest nearest to the goals, landmarks [B, N] int64.

    Coasting does not move the place of rest, and an action moves it by 0.2: so it ends within 0.1 of the goal on both
    axes, after one step for each 0.2 of the way.
    """
    place, velocity, landmarks = world.here()
    rest = place + COAST * velocity
    goal = landmarks.gather(1, goals.unsqueeze(-1).expand(-1, -1, 2))
    moved = torch.tensor(PUSHES, dtype=place.dtype, device=place.device) * STRIDE
    return {NAME: lengths(rest.unsqueeze(2) + moved - goal.unsqueeze(2)).argmin(-1)}
