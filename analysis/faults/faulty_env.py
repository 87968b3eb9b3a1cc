"""A ParallelEnv of two agents in which something goes wrong at a step, once or always."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class FaultyEnv(ParallelEnv):
    """Pays 1 for action 1. Episodes have 8 steps.

    Args:
        fault: "none", "raise", "hang", "exit" (the process ends), "nan" (a reward that is none).
        at: in which step, counted over all copies in a process.
        flag: a file that the first to fail makes, so that no other fails; "": all do.
    """

    metadata = {"name": "faulty"}  # noqa: RUF012 (PettingZoo's)
    steps = 0

    def __init__(self, fault: str = "none", at: int = 100, flag: str = "") -> None:
        self.fault, self.at, self.flag = fault, at, flag
        self.possible_agents = ["a_0", "a_1"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Box(-1, 1, (3,), np.float32)

    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents, self.time = list(self.possible_agents), 0
        self.rng = np.random.default_rng(seed)
        return self._look(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[dict[str, Any], ...]:
        self.time += 1
        FaultyEnv.steps += 1
        rewards = {agent: float(actions[agent] == 1) for agent in self.agents}
        if self._due():
            self._fail(rewards)
        none, over = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, self.time == 8)
        infos: dict[str, Any] = {agent: {} for agent in self.agents}
        if self.time == 8:
            self.agents = []
        return self._look(), rewards, none, over, infos

    def _look(self) -> dict[str, Any]:
        return {agent: self.rng.uniform(-1, 1, 3).astype(np.float32) for agent in self.possible_agents}

    def _due(self) -> bool:
        if self.fault == "none" or FaultyEnv.steps < self.at:
            return False
        if not self.flag:
            return True
        try:
            os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def _fail(self, rewards: dict[str, float]) -> None:
        if self.fault == "raise":
            raise RuntimeError("the bridge fell down")
        if self.fault == "hang":
            time.sleep(1e6)
        if self.fault == "exit":
            os._exit(7)
        rewards["a_0"] = float("nan")
