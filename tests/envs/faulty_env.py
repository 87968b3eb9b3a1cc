"""A ParallelEnv of two agents whose third step does what no environment should, where it is asked for."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

STEPS = 5


class FaultyEnv(ParallelEnv):
    """Agents see numbers drawn from the seed; rewards are 0.5 for action 1. Copies are numbered in the order of making.

    Args:
        fault: "raise", "stop" (StopIteration), "sleep", "spin" (Python that never ends), "exit", "nan" (as a reward);
            None: nothing is wrong.
        odd: the fault comes in episodes with an odd seed alone.
        pickles: whether it can be pickled.
        milliseconds: of CPU that a step takes.
        closed: a file that is written when it is closed.
    """

    metadata = {"name": "faulty"}  # noqa: RUF012

    def __init__(
        self,
        fault: str | None = None,
        odd: bool = False,
        pickles: bool = True,
        milliseconds: float = 0.0,
        closed: str | None = None,
        actions: int = 2,
        render_mode: str | None = None,
    ) -> None:
        self.fault, self.odd, self.milliseconds, self.closed = fault, odd, milliseconds, closed
        self.render_mode = render_mode
        self.possible_agents, self.agents = ["a_0", "a_1"], []
        self.spaces = spaces.Box(-10.0, 10.0, (3,), np.float32), spaces.Discrete(actions)
        self.held = None if pickles else (one for one in ())
        self.spoken: dict[str, float] = {}

    def observation_space(self, agent: str) -> spaces.Space:
        return self.spaces[0]

    def action_space(self, agent: str) -> spaces.Space:
        return self.spaces[1]

    def agent_positions(self) -> dict[str, np.ndarray]:
        return {agent: np.array([i, self.t], np.float32) for i, agent in enumerate(self.possible_agents)}

    def state(self) -> np.ndarray:
        return np.array([self.t], np.float32)

    def speak(self, spoken: dict[str, float]) -> None:
        self.spoken = spoken

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.seed, self.t, self.agents = seed or 0, 0, list(self.possible_agents)
        self.rng = np.random.default_rng(seed)
        return self._look(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        until = time.process_time() + self.milliseconds / 1000
        while time.process_time() < until:
            pass
        self.t += 1
        paid = {agent: 0.5 * float(actions[agent]) - self.spoken.get(agent, 0.0) for agent in self.agents}
        if self.t == 3 and (self.seed % 2 or not self.odd):
            paid = self._fail(paid)
        over = dict.fromkeys(self.agents, self.t == STEPS)
        told = self._look(), paid, dict.fromkeys(self.agents, False), over, {agent: {} for agent in self.agents}
        self.agents = [] if self.t == STEPS else self.agents
        return told

    def _fail(self, paid: dict[str, float]) -> dict[str, float]:
        if self.fault == "raise":
            raise KeyError("no such road")
        if self.fault == "stop":
            raise StopIteration("no more data")
        if self.fault == "sleep":
            time.sleep(1000)
        while self.fault == "spin":
            pass
        if self.fault == "exit":
            os._exit(3)
        return dict.fromkeys(paid, np.nan) if self.fault == "nan" else paid

    def _look(self) -> dict[str, Any]:
        return {agent: self.rng.uniform(-1, 1, 3).astype(np.float32) for agent in self.agents}

    def render(self) -> np.ndarray:
        return np.full((4, 4, 3), self.t, np.uint8)

    def close(self) -> None:
        if self.closed is not None:
            with Path(self.closed).open("a") as file:
                file.write("closed\n")


def made(config: dict[str, Any]) -> FaultyEnv:
    return FaultyEnv(**config)
