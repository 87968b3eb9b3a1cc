"""Any PettingZoo ParallelEnv as a World: B copies, stepped one after the other, told as tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.checks import whole
from popcomm.envs.env_pickle import dump_envs, loaded_envs
from popcomm.envs.flat_spaces import MASK, FlatAction, FlatObservation
from popcomm.envs.foreign import (
    PositionSource,
    can_be_called,
    create_env,
    group_agents,
    position_size_of,
    position_source,
    positions_now,
    structure_behind,
)
from popcomm.envs.foreign_answers import Answer, reset_env, step_env
from popcomm.envs.foreign_rows import Face, ForeignRows
from popcomm.envs.foreign_state import StateReader
from popcomm.envs.world import Species, World, WorldStep
from popcomm.errors import UserError

logger = logging.getLogger(__name__)


class ParallelEnvWorld(World):
    """B copies of a ParallelEnv.

    Agents with equal observation and action spaces are one species; seats follow the natural order of the agents' names
    (agent_2 before agent_10), species by species. Observations are flattened (`gymnasium.spaces.flatten`) and held
    against their spaces: shapes, choices, bounds of whole numbers; bounds of real numbers are not, for few environments
    keep them. Networks act in Discrete, MultiDiscrete or Box spaces that begin at zero: `start` is added, Box actions
    are clipped to their bounds, and MultiBinary is a MultiDiscrete of twos.

    Action masks come from a Dict observation that holds "action_mask", or from the infos; they are all True for seats
    that do not act and for a choice that the environment allows nothing in.

    An agent that is both terminated and truncated counts as terminated, and so does one that leaves `env.agents`
    without a word; agents may be born, and born again, within an episode. One that ends and stays in `env.agents`,
    while others go on, was put back at once: the row holds the first observation of its new life, and since there is no
    final one it counts as terminated. If that life ends in its first step, the environment merely keeps its dead in
    `env.agents`: they wait there, are given the first action of their space, and live again when no flag says
    otherwise. When no agent is left that goes on, the world is over.

    Positions are there if the environment, or `env.unwrapped`, has a method `agent_positions()` that returns
    {agent: [D] array}, or `positions` (see `popcomm.envs.foreign.position_source`). The latent state is `env.state()`
    (see `popcomm.envs.foreign_state`), asked for while `tells_state` is True.

    Args:
        creator: `creator(env_config)` returns a ParallelEnv; a function with the keys of env_config as its arguments,
            such as the `parallel_env` of PettingZoo's environments, gets them as keywords.
        num_worlds: B.
        device: where the tensors go.
        env_config: for the creator; its keys may stand beside the arguments as well.

    Raises:
        UserError: num_worlds below one, a creator that does not return a ParallelEnv, spaces that are not supported,
            copies that differ in agents or spaces; in reset and step, an answer that does not fit what was declared, a
            number that is not finite, or one who lives without a position where there are some, with the world, the
            step, the agent and the episode's seed.
        RuntimeError: an error inside a copy, with the world, the step and the episode's seed; the copy's own traceback
            is its cause.
    """

    def __init__(
        self,
        creator: Callable[..., Any],
        num_worlds: int,
        device: str | torch.device = "cpu",
        env_config: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> None:
        env_config = {**(env_config or {}), **keys}
        whole("num_worlds", num_worlds, 1)
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self._envs = [create_env(creator, env_config) for _ in range(num_worlds)]
        groups = group_agents(self._envs[0])
        self._agents = [agent for group in groups.values() for agent in group]
        self._check_copies()
        first = self._envs[0]
        self._faces = {name: _face(first, group[0]) for name, group in groups.items()}
        self._episode = [{"seed": 0, "step": 0} for _ in range(num_worlds)]
        self._streams = self._new_streams(None)
        self._warned, self.pickle_failure, self.position_failure = False, "", ""
        self._last: WorldStep | None = None
        self._look(groups)

    def _look(self, groups: dict[str, list[Any]]) -> None:
        """Open one episode, for what only a running one shows: masks in infos, positions, the state, and mistakes."""
        first = self._envs[0]
        with self._blame(0):
            opening = reset_env(first, 0)
        position_size, self.position_failure = position_size_of(position_source(first), self._agents)
        self._settle(self._make_species(groups, opening.infos), position_size, StateReader(first))
        trial = ForeignRows(self.species, self._agents, self._faces, 1, position_size, self.state_size)
        with self._blame(0):
            trial.absorb(0, first, opening)
        self._check_numbers(trial)

    def _settle(self, species: dict[str, Species], position_size: int, state: StateReader) -> None:
        """Keep what was found of the environment, and make room for what it will say."""
        self.species, self.position_size = species, position_size
        self._state, self.state_size = state, state.size
        # Found in each copy once it was reset: many environments place their agents there.
        self._sources: list[PositionSource | None] = [None] * self.num_worlds
        sizes = (position_size, state.size)
        self._rows = ForeignRows(species, self._agents, self._faces, self.num_worlds, *sizes)

    @property
    def agents(self) -> list[Any]:
        """The agents in the order of seats, as the environment calls them."""
        return list(self._agents)

    @property
    def env_spaces(self) -> dict[str, tuple[spaces.Space, spaces.Space]]:
        """{species: what one agent observes and does, as the environment says it}."""
        env = self._envs[0]
        seats = {name: self._agents[species.start] for name, species in self.species.items()}
        return {name: (env.observation_space(agent), env.action_space(agent)) for name, agent in seats.items()}

    def face_of(self, agent: Any) -> Face:
        """How an agent's observations are read and its actions told."""
        return next(self._faces[n] for n, s in self.species.items() if str(agent) in s.agents)

    @property
    def state_failure(self) -> str:
        """How state() first failed, or ""."""
        return self._state.failure

    @property
    def seeds(self) -> list[int]:
        """The seed of the episode that runs in each world."""
        return [episode["seed"] for episode in self._episode]

    def reset(self, seed: int | None = None) -> WorldStep:
        """Raises UserError: a copy gives a number that cannot be."""
        if seed is not None:
            self._streams = self._new_streams(seed)
        self._rows.clear()
        for world in range(self.num_worlds):
            self._open(world)
        self._check_numbers(self._rows)
        return self._publish()

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        """Raises UserError: never reset, or as `reset`; ValueError: an action that is not finite."""
        if self._last is None:
            raise UserError("the worlds were never reset; call reset before step")
        choices = self._choices(actions)
        symbols = None if spoken is None else spoken.detach().cpu().numpy()
        over = [not row.any() for row in self._rows.arrays["alive"]]
        self._rows.clear()
        for world in range(self.num_worlds):
            if over[world]:
                self._open(world)
            else:
                self._advance(world, choices, symbols)
        self._check_numbers(self._rows)
        return self._publish()

    def get_state(self) -> dict[str, Any] | None:
        """A pickle of the copies, their seed streams and the last row; None (told once in the log) without a pickle."""
        try:
            envs = self._dumped()
        except Exception as error:  # whatever a foreign environment holds, training goes on without its state
            self.pickle_failure = str(error)
            if not self._warned:
                logger.warning("'%s' cannot be pickled, so its state is not in checkpoints: %s", self._envs[0], error)
            self._warned = True
            return None
        return {
            "envs": envs,
            "streams": [stream.bit_generator.state for stream in self._streams],
            "episodes": [dict(episode) for episode in self._episode],
            "rows": {key: torch.from_numpy(row.copy()) for key, row in self._rows.arrays.items()},
        }

    def _dumped(self) -> bytes | list[bytes]:
        return dump_envs(self._envs)

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        """Raises UserError: the state is of another number of worlds."""
        if len(state["streams"]) != self.num_worlds:
            raise UserError(f"the state is of {len(state['streams'])} worlds, and there are {self.num_worlds}")
        self._envs = loaded_envs(state["envs"])
        self._sources = [position_source(env) for env in self._envs]
        self._episode = [dict(episode) for episode in state["episodes"]]
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.bit_generator.state = saved
        for key, row in self._rows.arrays.items():
            row[...] = state["rows"][key].numpy() if key in state["rows"] else 0  # older checkpoints have fewer
        return self._publish()

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """The copy's own picture; it knows nothing of links.

        Raises:
            UserError: the copies were not made with render_mode "rgb_array".
        """
        env = self._envs[world]
        mode = getattr(env, "render_mode", None)
        if mode != "rgb_array":
            raise UserError(
                f"render_mode of '{env}' is {mode!r}, and must be 'rgb_array' in env_config to get pictures"
            )
        return np.asarray(env.render(), dtype=np.uint8)

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _check_copies(self) -> None:
        def face(env: Any) -> list[Any]:
            return [(agent, env.observation_space(agent), env.action_space(agent)) for agent in self._agents]

        for world, env in enumerate(self._envs[1:], 1):
            if set(env.possible_agents) != set(self._agents) or face(env) != face(self._envs[0]):
                raise UserError(
                    f"copy {self._number(world)} of '{env}' differs from copy {self._number(0)} in its agents or "
                    "spaces; all must be alike"
                )

    def _make_species(self, groups: dict[str, list[Any]], infos: dict[Any, Any]) -> dict[str, Species]:
        species, start = {}, 0
        for name, group in groups.items():
            flat, action = self._faces[name]
            told = any(MASK in (infos.get(agent) or {}) for agent in group)
            masked = not action.is_box and (flat.has_mask or told)
            names, stop = tuple(map(str, group)), start + len(group)
            env = self._envs[0]
            form = structure_behind(env, group[0], env.observation_space(group[0])) or flat.structure
            species[name] = Species(name, start, stop, flat.size, action.space, names, masked, structure=form)
            start = stop
        return species

    def _choices(self, actions: dict[str, Tensor]) -> list[np.ndarray]:
        """{species: [B, N_s, ...]} -> for every seat [B, ...], as the environment wants them."""
        choices: list[np.ndarray] = []
        for name, s in self.species.items():
            values = actions[name].detach().cpu().numpy()
            action = self._faces[name].action
            if action.is_box:
                broken = ~np.isfinite(values).all(-1) & self._rows.arrays["alive"][:, s.seats]
                if broken.any():
                    world, seat = np.argwhere(broken)[0]
                    raise ValueError(f"the action of '{s.agents[seat]}' in world {self._number(world)} is not finite")
                values = np.nan_to_num(values)
            values = action.to_env(values)
            choices.extend(values[:, i] for i in range(s.num_seats))
        return choices

    def _open(self, world: int) -> None:
        """Begin a new episode in one world."""
        seed = int(self._streams[world].integers(2**31 - 1))
        self._episode[world] = {"seed": seed, "step": 0}
        self._rows.close(world)
        with self._blame(world):
            opening = reset_env(self._envs[world], seed)
            self._sources[world] = position_source(self._envs[world])
            self._absorb(world, opening)

    def _advance(self, world: int, choices: list[np.ndarray], spoken: np.ndarray | None) -> None:
        """One step of one world."""
        env = self._envs[world]
        self._episode[world]["step"] += 1
        with self._blame(world):
            if spoken is not None and can_be_called(getattr(env, "speak", None), {}):
                acting = self._rows.arrays["alive"][world].nonzero()[0].tolist()
                env.speak({self._agents[seat]: float(spoken[world, seat]) for seat in acting})
            self._absorb(world, step_env(env, self._rows.actions_in(world, env, choices)))

    def _absorb(self, world: int, answer: Answer) -> None:
        """Take in what a copy says, positions of the agents that are shown (others keep theirs), and the state where
        somebody reads it."""
        env, source, rows = self._envs[world], self._sources[world], self._rows.arrays
        self._rows.absorb(world, env, answer)
        if self.position_size:
            living = {self._agents[seat] for seat in rows["alive"][world].nonzero()[0].tolist()}
            shown = positions_now(source, self._agents, living, self.position_size)
            for seat, agent in enumerate(self._agents):
                if agent in shown:
                    rows["positions"][world, seat] = shown[agent]
        if self.state_size and self.tells_state:
            self._state.read(env, rows["state"][world], bool(rows["alive"][world].any()))

    def _check_numbers(self, rows: ForeignRows) -> None:
        """Raises UserError for the first number that cannot be, with its world, step and agent."""
        wrong = rows.wrong_number()
        if wrong is not None:
            with self._blame(wrong[0]):
                raise UserError(wrong[1])

    def _publish(self) -> WorldStep:
        """The rows as tensors of their own: the rows are written again in the next step."""
        self._last = as_step(self._rows.arrays, self)
        return self._last

    def _new_streams(self, seed: int | None) -> list[np.random.Generator]:
        """One stream of episode seeds for each world."""
        return _streams(seed, self.num_worlds)

    def _number(self, world: int) -> int:
        """The number of a world, as errors say it."""
        return world

    @contextmanager
    def _blame(self, world: int) -> Iterator[None]:
        """Say where it happened: what the environment's answer lacks, or a foreign error, whose traceback stays."""
        try:
            yield
        except Exception as error:
            at, env = self._episode[world], self._envs[world]
            where = f"world {self._number(world)} failed in step {at['step']} of the episode with seed {at['seed']}"
            if isinstance(error, UserError):
                raise UserError(f"'{env}', {where}: {error}") from error
            raise RuntimeError(f"'{env}', {where}: {type(error).__name__}: {error}") from error


def as_step(arrays: Mapping[str, np.ndarray], world: World) -> WorldStep:
    """Copies of `ForeignRows.arrays` as what that world says."""
    # torch.tensor would take ten times as long for the same copy.
    row = {key: torch.from_numpy(value.copy()).to(world.device) for key, value in arrays.items()}
    masks = {name: row[f"masks/{name}"] for name, s in world.species.items() if s.has_action_mask}
    return WorldStep(
        observations={name: row[f"observations/{name}"] for name in world.species},
        rewards=row["rewards"],
        terminated=row["terminated"],
        truncated=row["truncated"],
        alive=row["alive"],
        first=row["first"],
        positions=row["positions"] if world.position_size else None,
        state=row["state"] if world.state_size and world.tells_state else None,
        action_masks=masks or None,
    )


def _face(env: Any, agent: Any) -> Face:
    """How an agent is read and answered. Only choices can be masked."""
    action = FlatAction(env.action_space(agent), agent)
    return Face(FlatObservation(env.observation_space(agent), agent, split_mask=not action.is_box), action)


def _streams(seed: int | None, worlds: int) -> list[np.random.Generator]:
    """One stream of episode seeds for each world."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(worlds)]
