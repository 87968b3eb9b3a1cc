"""A ParallelEnv whose lives follow a script, so that trajectories can be written down by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

Event = str  # "terminated", "truncated", "both", "vanished" or "born"


class ScriptedEnv(ParallelEnv):
    """script[t] says what happens to agents in step t + 1; the end of the script truncates those who are left.

    An agent observes (number of the episode, step, its own number), its reward is its action. With `show_seed` the seed
    takes the place of the episode's number. `seeds` and `taken` keep the seeds and actions that came in.
    """

    metadata = {"name": "scripted", "is_parallelizable": True}  # noqa: RUF012

    def __init__(
        self,
        script: list[dict[str, Event]],
        opening: tuple[str, ...] = ("a_0", "a_1"),
        possible: tuple[str, ...] = ("a_0", "a_1", "a_2", "a_3"),
        mask: str | None = None,
        positions: bool = False,
        show_seed: bool = False,
    ) -> None:
        self.script, self.opening, self.mask, self.show_seed = script, opening, mask, show_seed
        self.possible_agents, self.agents = list(possible), []
        self.episode, self.t = -1, 0
        self.seeds: list[int | None] = []
        self.taken: list[dict[str, Any]] = []
        vector: spaces.Space = spaces.Box(-1.0, 1000.0, (3,), np.float32)
        if mask == "observation":
            vector = spaces.Dict({"observation": vector, "action_mask": spaces.MultiBinary(4)})
        self.observation_spaces = {a: vector for a in possible}
        self.action_spaces = {a: spaces.Discrete(4) for a in possible}
        if positions:
            self.agent_positions = lambda: {a: np.array([self._number(a) ** 2, self.t]) for a in self.agents}

    def observation_space(self, agent: str) -> spaces.Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        return self.action_spaces[agent]

    def _number(self, agent: str) -> int:
        return self.possible_agents.index(agent)

    def _allowed(self, agent: str) -> np.ndarray:
        """Action t of step t is forbidden, and agent 3 may do nothing at all."""
        allowed = np.ones(4, np.int8)
        allowed[self.t % 4] = 0
        return allowed if self._number(agent) < 3 else np.zeros(4, np.int8)

    def _observe(self, agents: list[str]) -> dict[str, Any]:
        rows = {a: np.array([self.episode, self.t, self._number(a)], np.float32) for a in agents}
        if self.mask != "observation":
            return rows
        return {a: {"observation": row, "action_mask": self._allowed(a)} for a, row in rows.items()}

    def _infos(self, agents: list[str]) -> dict[str, Any]:
        return {a: {"action_mask": self._allowed(a)} if self.mask == "info" else {} for a in agents}

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.seeds.append(seed)
        self.episode, self.t = (seed or 0) % 1000 if self.show_seed else self.episode + 1, 0
        self.agents = list(self.opening)
        return self._observe(self.agents), self._infos(self.agents)

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        assert set(actions) == set(self.agents), f"actions of {set(actions)} where {set(self.agents)} act"
        self.taken.append(dict(actions))
        self.t += 1
        events = dict(self.script[self.t - 1]) if self.t <= len(self.script) else {}
        if self.t >= len(self.script):
            events.update({a: "truncated" for a in self.agents if a not in events})
        shown = [a for a in self.agents if events.get(a) != "vanished"]
        terminated = {a: events.get(a) in ("terminated", "both") for a in shown}
        truncated = {a: events.get(a) in ("truncated", "both") for a in shown}
        rewards = {a: float(actions[a]) for a in self.agents}
        born = [a for a, event in events.items() if event == "born"]
        self.agents = [a for a in shown if a not in events] + born
        shown += born
        for told in (terminated, truncated):
            told.update(dict.fromkeys(born, False))
        rewards.update(dict.fromkeys(born, 0.0))
        return self._observe(shown), rewards, terminated, truncated, self._infos(shown)


class SpaceEnv(ParallelEnv):
    """Agents with given spaces; what they observe is fixed, and what they do is kept in `taken`."""

    metadata = {"name": "spaces"}  # noqa: RUF012

    def __init__(self, faces: dict[str, tuple[spaces.Space, Any, spaces.Space]]) -> None:
        self.faces = faces
        self.possible_agents, self.agents = list(faces), []
        self.taken: list[dict[str, Any]] = []

    def observation_space(self, agent: str) -> spaces.Space:
        return self.faces[agent][0]

    def action_space(self, agent: str) -> spaces.Space:
        return self.faces[agent][2]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.agents = list(self.possible_agents)
        return {a: face[1] for a, face in self.faces.items()}, {a: {} for a in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        self.taken.append(dict(actions))
        no = dict.fromkeys(self.agents, False)
        rewards = dict.fromkeys(self.agents, 0.0)
        return {a: self.faces[a][1] for a in self.agents}, rewards, no, dict(no), {a: {} for a in self.agents}
