"""A scenario of VMAS whose answers are known on paper, for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vmas.simulator.core import Agent, Sphere, World
from vmas.simulator.scenario import BaseScenario


class Counting(BaseScenario):
    """Every world counts down from a number drawn at reset, and is done at zero. Two walkers and a watcher, who sees
    less; each agent sees the count, is paid its number, and tells in its info the count and how it was pushed."""

    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        self.most = kwargs.pop("most", 6)
        self.broken = kwargs.pop("broken", -1)
        if self.most < 1:
            raise ValueError("nothing to count")
        world = World(batch_dim, device)
        for name in ("walker_1", "watcher", "walker_0"):
            world.add_agent(Agent(name=name, shape=Sphere(0.01), collide=False))
        self.left = torch.zeros(batch_dim, device=device)
        return world

    def reset_world_at(self, env_index: int | None = None) -> None:
        drawn = torch.randint(1, self.most + 1, (self.world.batch_dim if env_index is None else 1,))
        for agent in self.world.agents:
            place = torch.rand(self.world.batch_dim if env_index is None else 1, 2)
            agent.set_pos(place if env_index is None else place[0], env_index)
        if env_index is None:
            self.left = drawn.float()
        else:
            self.left[env_index] = drawn.float()

    def post_step(self) -> None:
        self.left = self.left - 1

    def observation(self, agent: Agent) -> Any:
        seen = torch.where(self.left == self.broken, torch.inf, self.left).unsqueeze(1)
        if agent.name == "watcher":
            return seen
        return {"where": agent.state.pos, "count": seen}

    def reward(self, agent: Agent) -> Tensor:
        return torch.full((self.world.batch_dim, 1), float(self.world.agents.index(agent)))

    def done(self) -> Tensor:
        return self.left <= 0

    def info(self, agent: Agent) -> dict[str, Any]:
        return {"left": self.left, "pushed": {"xy": agent.action.u}}
