"""An environment that costs nothing: as a World, as RLlib's MultiAgentEnv, and as PettingZoo's ParallelEnv.

Its numbers are prepared.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from torch import Tensor

from popcomm.envs.world import Species, World, WorldStep

OBS_SIZE, NUM_ACTIONS = 18, 5
PREPARED = 16  # different observations, used in turn


class FreeWorld(World):
    """B worlds of N seats with prepared observations [B, N, 18] and rewards; five actions without any effect.

    Args:
        num_worlds: B.
        num_agents: N.
        device: where the tensors live.
        max_steps: length of an episode.
    """

    def __init__(
        self, num_worlds: int, num_agents: int = 3, device: str | torch.device = "cpu", max_steps: int = 64
    ) -> None:
        self.num_worlds, self.device, self.max_steps = num_worlds, torch.device(device), max_steps
        self.species = {"free": Species("free", 0, num_agents, OBS_SIZE, spaces.Discrete(NUM_ACTIONS))}
        generator = torch.Generator().manual_seed(0)
        shape = (num_worlds, num_agents)
        self._observations = [torch.randn(*shape, OBS_SIZE, generator=generator) for _ in range(PREPARED)]
        self._rewards = [torch.randn(shape, generator=generator) for _ in range(PREPARED)]
        self._zeros, self._no, self._yes = torch.zeros(shape), torch.zeros(shape).bool(), torch.ones(shape).bool()
        self._age = 0

    def reset(self, seed: int | None = None) -> WorldStep:
        self._age = 0
        return WorldStep({"free": self._observations[0]}, self._zeros, self._no, self._no, self._yes, self._yes)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        if self._age == self.max_steps:
            return self.reset()
        self._age += 1
        over = self._age == self.max_steps
        i = self._age % PREPARED
        ended, alive = (self._yes, self._no) if over else (self._no, self._yes)
        return WorldStep({"free": self._observations[i]}, self._rewards[i], self._no, ended, alive, self._no)

    def get_state(self) -> dict[str, Any] | None:
        return None

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        raise NotImplementedError("a FreeWorld has no state worth saving")


class FreeMultiAgentEnv(MultiAgentEnv):
    """One such world for RLlib. config: {"num_agents": N, "max_steps": steps}. Dictionaries are prepared, too."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        super().__init__()
        config = config or {}
        self.max_steps = config.get("max_steps", 64)
        self.agents = self.possible_agents = [f"free_{i}" for i in range(config.get("num_agents", 3))]
        box = spaces.Box(-np.inf, np.inf, (OBS_SIZE,), np.float32)
        self.observation_spaces = dict.fromkeys(self.agents, box)
        self.action_spaces = dict.fromkeys(self.agents, spaces.Discrete(NUM_ACTIONS))
        rng = np.random.default_rng(0)
        drawn = rng.standard_normal((PREPARED, len(self.agents), OBS_SIZE)).astype(np.float32)
        self._observations = [dict(zip(self.agents, rows, strict=True)) for rows in drawn]
        rewards = rng.standard_normal((PREPARED, len(self.agents))).tolist()
        self._rewards = [dict(zip(self.agents, row, strict=True)) for row in rewards]
        self._age = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self._age = 0
        return self._observations[0], {}

    def step(self, action_dict: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        self._age += 1
        i = self._age % PREPARED
        truncated = {"__all__": self._age >= self.max_steps}
        return self._observations[i], self._rewards[i], {"__all__": False}, truncated, {}


class FreeParallelEnv(ParallelEnv):
    """One such world for PettingZoo, from the same dictionaries. Arguments: `FreeMultiAgentEnv`'s config."""

    metadata: ClassVar[dict[str, Any]] = {"name": "free"}

    def __init__(self, num_agents: int = 3, max_steps: int = 64) -> None:
        self._env = FreeMultiAgentEnv({"num_agents": num_agents, "max_steps": max_steps})
        self.possible_agents = list(self._env.possible_agents)
        self.observation_spaces, self.action_spaces = self._env.observation_spaces, self._env.action_spaces
        self._no, self._yes = (dict.fromkeys(self.possible_agents, value) for value in (False, True))
        self._infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.possible_agents}

    def observation_space(self, agent: str) -> spaces.Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents = list(self.possible_agents)
        return self._env.reset()[0], self._infos

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        observations, rewards, _, truncated, _ = self._env.step(actions)
        over = truncated["__all__"]
        if over:
            self.agents = []
        return observations, rewards, self._no, self._yes if over else self._no, self._infos
