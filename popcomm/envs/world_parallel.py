"""The PettingZoo face of a World: one world as a ParallelEnv, or as an AECEnv."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import wrappers
from pettingzoo.utils.conversions import parallel_to_aec
from torch import Tensor

from popcomm.envs.world import Species, World, WorldStep
from popcomm.errors import UserError, unknown

RENDER_MODES = ("rgb_array",)


class Observations(dict[str, Any]):
    """{agent: its observation}, which know their environment: what is not in them can be asked of it.

    A copy, also by a pickle, is a plain dict.
    """

    def __init__(self, env: WorldParallelEnv) -> None:
        super().__init__()
        self.env = env

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class WorldParallelEnv(ParallelEnv):
    """A World with one world in it as a PettingZoo ParallelEnv.

    Observations are float32 [O]; where a species has action masks they are {"observation": [O] float32, "action_mask":
    [A] int8}, PettingZoo's convention. Infos hold the seat's private "label" where the world has labels. `state()` is
    the world's latent state [S] float32, where it has one. The observations after the last step are the final ones;
    then `agents` is empty and `reset` opens the next episode.

    PettingZoo's agents do not come back. So where a world `reopens_seats`, all agents are there until it is over: who
    is not alive waits, observes what the world says of empty seats, and may not speak; its action does not matter, and
    its info says "alive": False.

    Args:
        world: a World with num_worlds = 1.
        name: what `metadata["name"]` says.
        render_mode: None or "rgb_array".
        render_fps: pictures per second for those who make films.

    Raises:
        UserError: more than one world, an unknown render mode, actions for an agent that does not act or none for one
            that does, speech of an unknown agent.
    """

    metadata: dict[str, Any]

    def __init__(self, world: World, name: str, render_mode: str | None = None, render_fps: int = 15) -> None:
        if world.num_worlds != 1:
            raise UserError(
                f"a ParallelEnv shows one world, and this one has num_worlds = {world.num_worlds}; must be 1"
            )
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise unknown("render_mode", render_mode, RENDER_MODES)
        self.world, self.render_mode = world, render_mode
        self.metadata = {
            "name": name,
            "render_modes": list(RENDER_MODES),
            "is_parallelizable": True,
            "render_fps": render_fps,
        }
        self._seats = {agent: seat for s in world.species.values() for agent, seat in _names(s).items()}
        self._species = {agent: s for s in world.species.values() for agent in _names(s)}
        self.possible_agents = sorted(self._seats, key=self._seats.__getitem__)
        self.agents: list[str] = []
        # Spaces are copies, one for each agent: seeding one agent's space must not move another's.
        shown = world.env_spaces
        told = {agent: shown[species.name] for agent, species in self._species.items()}
        self.observation_spaces = {agent: copy.deepcopy(observed) for agent, (observed, _) in told.items()}
        self.action_spaces = {agent: copy.deepcopy(done) for agent, (_, done) in told.items()}
        if world.state_size:
            self.state_space = spaces.Box(-np.inf, np.inf, (world.state_size,), np.float32)
        self._spoken = np.zeros((1, world.num_agents), dtype=np.float32)
        self._step: WorldStep | None = None

    def observation_space(self, agent: str) -> gymnasium.Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Open an episode; with a seed the future is a function of it. `options` are ignored."""
        self._step = self.world.reset(seed)
        self._spoken[:] = 0.0
        self.agents = self._present(self._step)
        return self._observations(self.agents), self._infos(self.agents)

    def speak(self, spoken: dict[str, float]) -> None:
        """Symbols that agents spend on their messages in the next step; silence for those who are not named."""
        for agent, symbols in spoken.items():
            if agent not in self._seats:
                raise unknown("agent", agent, self.possible_agents)
            self._spoken[0, self._seats[agent]] = symbols

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        acted = set(self.agents)
        self._check(actions)
        spoken = torch.from_numpy(self._spoken.copy()).to(self.world.device)
        self._spoken[:] = 0.0
        now = self._step = self.world.step(self._batch(actions), spoken)
        self.agents = self._present(now)
        shown = [agent for agent in self.possible_agents if agent in self.agents or agent in acted]
        rewards, terminated, truncated = (
            self._by_agent(values, shown) for values in (now.rewards, now.terminated, now.truncated)
        )
        if self.world.reopens_seats:
            over = not self.agents
            terminated = {agent: over and ended for agent, ended in terminated.items()}
            truncated = {agent: over and not terminated[agent] for agent in shown}
        return self._observations(shown), rewards, terminated, truncated, self._infos(shown)

    def _present(self, step: WorldStep) -> list[str]:
        """The agents that act on a WorldStep: those alive, or all of a world that goes on, if seats come back."""
        alive = step.alive[0].tolist()
        if self.world.reopens_seats:
            return list(self.possible_agents) if any(alive) else []
        return [agent for agent in self.possible_agents if alive[self._seats[agent]]]

    def may_speak(self) -> dict[str, bool]:
        """Whose messages count in the step to come: {agent: bool} of all possible agents."""
        told = self._step.speaks if self._step is not None else None
        now = [True] * self.world.num_agents if told is None else told[0].tolist()
        if self._step is not None and self.world.reopens_seats:
            now = [may and alive for may, alive in zip(now, self._step.alive[0].tolist(), strict=True)]
        return {agent: now[self._seats[agent]] and self._species[agent].speaks for agent in self.possible_agents}

    def lives(self) -> dict[str, tuple[bool, bool]]:
        """{agent: whether it is alive, and whether its life begins with these observations} of all possible agents."""
        if self._step is None:
            return {agent: (False, False) for agent in self.possible_agents}
        alive, first = self._step.alive[0].tolist(), self._step.first[0].tolist()
        return {agent: (alive[seat], first[seat]) for agent, seat in self._seats.items()}

    def state(self) -> np.ndarray:
        """The world's latent state [S] float32."""
        if self._step is None or self._step.state is None:
            raise UserError(f"{self.metadata['name']} has no state to show; it keeps none, or was not reset")
        return self._step.state[0].cpu().numpy().copy()

    def agent_positions(self) -> dict[str, np.ndarray]:
        """{agent: [D] float32} of all possible agents, in the world's unit of length; empty where there are none."""
        if self._step is None or self._step.positions is None:
            return {}
        rows = self._step.positions[0].cpu().numpy().copy()
        return {agent: rows[self._seats[agent]] for agent in self.possible_agents}

    def render(self) -> np.ndarray | None:
        """The world as an RGB picture [H, W, 3] uint8, or None without a render mode."""
        return self.world.render(0) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.world.close()

    def _check(self, actions: dict[str, Any]) -> None:
        if not self.agents:
            raise UserError("the episode is over, or was never begun; call reset before step")
        for agent in actions:
            if agent not in self.agents:
                raise unknown("acting agent", agent, self.agents)
        for agent in self.agents:
            if agent not in actions:
                raise UserError(f"agent '{agent}' acts in this step, and `actions` has no action for it")

    def _batch(self, actions: dict[str, Any]) -> dict[str, Tensor]:
        """One action for each agent -> {species: [1, N_s, ...]}; seats that do not act get zeros, which are ignored."""
        batch = {}
        for name, species in self.world.species.items():
            space = species.action_space
            dtype = np.float32 if isinstance(space, spaces.Box) else np.int64
            array = np.zeros((1, species.num_seats, *(space.shape or ())), dtype=dtype)
            for agent, seat in _names(species).items():
                if agent in actions:
                    array[0, seat - species.start] = actions[agent]
            batch[name] = torch.from_numpy(array).to(self.world.device)
        return batch

    def _by_agent(self, values: Tensor, agents: list[str]) -> dict[str, Any]:
        """[1, N] -> {agent: number}."""
        row = values[0].tolist()
        return {agent: row[self._seats[agent]] for agent in agents}

    def _observations(self, agents: list[str]) -> dict[str, Any]:
        assert self._step is not None
        # Copies: what the user does to an observation must not reach the world.
        rows = {name: values[0].cpu().numpy().copy() for name, values in self._step.observations.items()}
        masks = {k: v[0].cpu().numpy().astype(np.int8) for k, v in (self._step.action_masks or {}).items()}
        found = Observations(self)
        for agent in agents:
            species = self._species[agent]
            seat = self._seats[agent] - species.start
            found[agent] = rows[species.name][seat]
            if species.has_action_mask:
                found[agent] = {"observation": found[agent], "action_mask": masks[species.name][seat]}
        return found

    def _infos(self, agents: list[str]) -> dict[str, dict[str, Any]]:
        assert self._step is not None
        told: dict[str, Tensor] = {}
        if self._step.labels is not None:
            told["label"] = self._step.labels
        if self.world.reopens_seats:
            told["alive"] = self._step.alive
        columns = {name: self._by_agent(values, agents) for name, values in told.items()}
        return {agent: {name: column[agent] for name, column in columns.items()} for agent in agents}


def turn_based_raw(env: ParallelEnv) -> AECEnv:
    """A ParallelEnv as an AECEnv, one agent at a time."""
    return parallel_to_aec(env)


def turn_based(env: ParallelEnv) -> AECEnv:
    """A ParallelEnv as an AECEnv in PettingZoo's usual wrappers: bounds of actions, order of calls."""
    raw = turn_based_raw(env)
    kinds = {type(env.action_space(agent)) for agent in env.possible_agents}
    if kinds == {spaces.Discrete}:
        raw = wrappers.AssertOutOfBoundsWrapper(raw)
    elif kinds == {spaces.Box}:
        raw = wrappers.ClipOutOfBoundsWrapper(raw)
    return wrappers.OrderEnforcingWrapper(raw)


def _names(species: Species) -> dict[str, int]:
    """{agent: seat}; a species that names no agents counts them."""
    names = species.agents or tuple(f"{species.name}_{i}" for i in range(species.num_seats))
    return dict(zip(names, range(species.start, species.stop), strict=True))
