"""A scenario of VMAS as a World, for the benchmark beside BenchMARL."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.world import Species, World, WorldStep


class VmasWorld(World):
    """B worlds of N agents with discrete actions; all episodes begin and end together.

    Args:
        num_worlds: B.
        scenario: its name in VMAS.
        num_agents: N.
        device: where the tensors live.
        max_steps: length of an episode.
    """

    def __init__(
        self,
        num_worlds: int,
        scenario: str = "simple_spread",
        num_agents: int = 3,
        device: str | torch.device = "cpu",
        max_steps: int = 100,
    ) -> None:
        import vmas

        self.num_worlds, self.device, self.max_steps = num_worlds, torch.device(device), max_steps
        self._env = vmas.make_env(
            scenario=scenario, num_envs=num_worlds, device=device, continuous_actions=False, seed=0, n_agents=num_agents
        )
        size = self._env.observation_space[0].shape[0]
        actions = spaces.Discrete(int(self._env.action_space[0].n))
        self.species = {"agents": Species("agents", 0, num_agents, size, actions)}
        self._no = torch.zeros(num_worlds, num_agents, dtype=torch.bool, device=self.device)
        self._age = 0

    def reset(self, seed: int | None = None) -> WorldStep:
        self._age = 0
        seed = None if seed is None else seed % 2**32  # numpy's limit
        return self._look(self._env.reset(seed=seed), self._no.float(), first=True)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        if self._age == self.max_steps:
            return self.reset()
        self._age += 1
        observations, rewards, _, _ = self._env.step(list(actions["agents"].unbind(1)))
        return self._look(observations, torch.stack(rewards, 1))

    def _look(self, observations: list[Tensor], rewards: Tensor, first: bool = False) -> WorldStep:
        over = self._no | (self._age == self.max_steps)
        opened = ~self._no if first else self._no
        return WorldStep({"agents": torch.stack(observations, 1)}, rewards, self._no, over, ~over, opened)

    def get_state(self) -> dict[str, Any] | None:
        return None

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        raise NotImplementedError("a VmasWorld has no state worth saving")
