"""Any PettingZoo ParallelEnv as a World: B copies, stepped one after the other, told as tensors."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popcomm.envs.env_pickle import dump_envs
from popcomm.envs.flat_spaces import MASK, FlatAction, FlatObservation, mask_of
from popcomm.envs.foreign import create_env, flat_state, group_agents, position_source
from popcomm.envs.world import Species, World, WorldStep
from popcomm.errors import UserError

logger = logging.getLogger(__name__)


class ParallelEnvWorld(World):
    """B copies of a ParallelEnv.

    Agents with equal observation and action spaces are one species; seats follow the natural order of the agents' names
    (agent_2 before agent_10), species by species. Observations are flattened (`gymnasium.spaces.flatten`). Networks act
    in Discrete, MultiDiscrete or Box spaces that begin at zero: `start` is added, Box actions are clipped to their
    bounds, and MultiBinary is a MultiDiscrete of twos.

    Action masks come from a Dict observation that holds "action_mask" beside "observation", or from the infos; they are
    all True for seats that do not act and for a choice that the environment allows nothing in.

    An agent that is both terminated and truncated counts as terminated, and so does one that leaves `env.agents`
    without a word; agents may be born, and born again, within an episode. When no agent is left, the world is over.

    Positions are there if the environment, or `env.unwrapped`, has a method `agent_positions()` that returns
    {agent: [D] array}, or `positions` (see `popcomm.envs.foreign.position_source`). The latent state is `env.state()`.

    Args:
        creator: `creator(env_config)` returns a ParallelEnv; a function with the keys of env_config as its arguments,
            such as the `parallel_env` of PettingZoo's environments, gets them as keywords.
        num_worlds: B.
        device: where the tensors go.
        env_config: for the creator.

    Raises:
        UserError: num_worlds below one, a creator that does not return a ParallelEnv, spaces that are not supported,
            copies that differ in agents or spaces.
        RuntimeError: an error inside a copy, with the world, the step and the episode's seed; the copy's own traceback
            is its cause.
    """

    def __init__(
        self,
        creator: Callable[..., Any],
        num_worlds: int,
        device: str | torch.device = "cpu",
        **env_config: Any,
    ) -> None:
        if num_worlds < 1:
            raise UserError(f"num_worlds is {num_worlds}, and must be at least 1")
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self._envs = [create_env(creator, env_config) for _ in range(num_worlds)]
        groups = group_agents(self._envs[0])
        self._agents = [agent for group in groups.values() for agent in group]
        self._known = frozenset(self._agents)
        self._check_copies()
        first = self._envs[0]
        self._actions = {name: FlatAction(first.action_space(g[0]), g[0]) for name, g in groups.items()}
        self._obs = {
            name: FlatObservation(first.observation_space(g[0]), g[0], split_mask=not self._actions[name].is_box)
            for name, g in groups.items()
        }
        # What only a running episode shows: masks in infos, the sizes of positions and of the state.
        _, infos = first.reset(seed=0)
        self.species = self._make_species(groups, infos)
        positions = self._sources = [position_source(env) for env in self._envs]
        shown = positions[0]() if positions[0] is not None else {}
        self.position_size = next((len(p) for agent, p in shown.items() if agent in self._agents), 0)
        state = flat_state(first)
        self.state_size = 0 if state is None else state.size
        self._rows = self._allocate()
        self._views = self._seat_views()
        self._streams = _streams(None, num_worlds)
        self._episode = [{"seed": 0, "step": 0} for _ in range(num_worlds)]
        self._warned = False
        self._last: WorldStep | None = None

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self._streams = _streams(seed, self.num_worlds)
        self._clear()
        for world in range(self.num_worlds):
            self._open(world)
        return self._publish()

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        if self._last is None:
            raise UserError("the worlds were never reset; call reset before step")
        choices = self._choices(actions)
        symbols = None if spoken is None else spoken.detach().cpu().numpy()
        over = [not row.any() for row in self._rows["alive"]]
        self._clear()
        for world in range(self.num_worlds):
            if over[world]:
                self._open(world)
            else:
                self._advance(world, choices, symbols)
        return self._publish()

    def get_state(self) -> dict[str, Any] | None:
        """A pickle of the copies, their seed streams and the last row; None (told once in the log) without a pickle."""
        try:
            envs = dump_envs(self._envs)
        except Exception as error:  # whatever a foreign environment holds, training goes on without its state
            if not self._warned:
                logger.warning("'%s' cannot be pickled, so its state is not in checkpoints: %s", self._envs[0], error)
            self._warned = True
            return None
        return {
            "envs": envs,
            "streams": [stream.bit_generator.state for stream in self._streams],
            "episodes": [dict(episode) for episode in self._episode],
            "rows": {key: torch.tensor(row) for key, row in self._rows.items()},
        }

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        if len(state["streams"]) != self.num_worlds:
            raise UserError(f"the state is of {len(state['streams'])} worlds, and there are {self.num_worlds}")
        self._envs = pickle.loads(state["envs"])
        self._sources = [position_source(env) for env in self._envs]
        self._episode = [dict(episode) for episode in state["episodes"]]
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.bit_generator.state = saved
        for key, row in self._rows.items():
            row[...] = state["rows"][key].numpy()
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
                    f"copy {world} of '{env}' differs from copy 0 in its agents or spaces; all must be alike"
                )

    def _make_species(self, groups: dict[str, list[Any]], infos: dict[Any, Any]) -> dict[str, Species]:
        species, start = {}, 0
        for name, group in groups.items():
            flat, action = self._obs[name], self._actions[name]
            told = any(MASK in (infos.get(agent) or {}) for agent in group)
            masked = not action.is_box and (flat.has_mask or told)
            names, stop = tuple(map(str, group)), start + len(group)
            species[name] = Species(name, start, stop, flat.size, action.space, names, masked)
            start = stop
        return species

    def _allocate(self) -> dict[str, np.ndarray]:
        worlds, n = self.num_worlds, len(self._agents)
        rows = {name: np.zeros((worlds, n), bool) for name in ("terminated", "truncated", "alive", "first")}
        rows["rewards"] = np.zeros((worlds, n), np.float32)
        rows["positions"] = np.zeros((worlds, n, self.position_size), np.float32)
        rows["state"] = np.zeros((worlds, self.state_size), np.float32)
        for name, s in self.species.items():
            rows[f"observations/{name}"] = np.zeros((worlds, s.num_seats, s.obs_size), np.float32)
            if s.has_action_mask:
                rows[f"masks/{name}"] = np.ones((worlds, s.num_seats, self._actions[name].mask_size), bool)
        return rows

    def _seat_views(self) -> list[tuple[FlatObservation, FlatAction, np.ndarray, np.ndarray | None]]:
        """For every seat: how to read it, and where its observations [B, O] and masks [B, A] are kept."""
        views = []
        for name, s in self.species.items():
            masks = self._rows.get(f"masks/{name}")
            for i in range(s.num_seats):
                mask = None if masks is None else masks[:, i]
                views.append((self._obs[name], self._actions[name], self._rows[f"observations/{name}"][:, i], mask))
        return views

    def _choices(self, actions: dict[str, Tensor]) -> list[np.ndarray]:
        """{species: [B, N_s, ...]} -> for every seat [B, ...], as the environment wants them."""
        choices: list[np.ndarray] = []
        for name, s in self.species.items():
            values = actions[name].detach().cpu().numpy()
            if self._actions[name].is_box:
                broken = ~np.isfinite(values).all(-1) & self._rows["alive"][:, s.seats]
                if broken.any():
                    world, seat = np.argwhere(broken)[0]
                    raise ValueError(f"the action of '{s.agents[seat]}' in world {world} is not finite")
                values = np.nan_to_num(values)
            values = self._actions[name].to_env(values)
            choices.extend(values[:, i] for i in range(s.num_seats))
        return choices

    def _clear(self) -> None:
        for key in ("rewards", "terminated", "truncated", "first"):
            self._rows[key][...] = 0

    def _open(self, world: int) -> None:
        """Begin a new episode in one world."""
        seed = int(self._streams[world].integers(2**31 - 1))
        self._episode[world] = {"seed": seed, "step": 0}
        self._rows["alive"][world] = False
        with self._blame(world):
            observations, infos = self._envs[world].reset(seed=seed)
            if not self._envs[world].agents:
                raise UserError(f"'{self._envs[world]}' has no agents after reset, so it can never be stepped")
            self._absorb(world, observations, {}, {}, {}, infos)

    def _advance(self, world: int, choices: list[np.ndarray], spoken: np.ndarray | None) -> None:
        """One step of one world."""
        env = self._envs[world]
        self._episode[world]["step"] += 1
        acting = self._rows["alive"][world].nonzero()[0].tolist()
        with self._blame(world):
            if spoken is not None and hasattr(env, "speak"):
                env.speak({self._agents[seat]: float(spoken[world, seat]) for seat in acting})
            told = env.step({self._agents[seat]: choices[seat][world] for seat in acting})
            self._absorb(world, *told)

    def _absorb(self, world: int, observations: Any, rewards: Any, terminated: Any, truncated: Any, infos: Any) -> None:
        """Write what a copy says into the rows of its world."""
        self._check_known(world)
        rows, living = self._rows, set(self._envs[world].agents)
        for seat, agent in enumerate(self._agents):
            acted = rows["alive"][world, seat]
            cut, ended = bool(truncated.get(agent, False)), bool(terminated.get(agent, False))
            alive = agent in living and not cut and not ended
            if acted:
                rows["rewards"][world, seat] = rewards.get(agent, 0.0)
                rows["terminated"][world, seat] = not alive and (ended or not cut)
                rows["truncated"][world, seat] = cut and not ended
            else:
                rows["first"][world, seat] = alive
            rows["alive"][world, seat] = alive
            self._observe(world, seat, observations, infos, acted or alive, alive)
        self._read_globals(world)

    def _check_known(self, world: int) -> None:
        strange = set(self._envs[world].agents) - self._known
        if strange:
            raise UserError(f"agent '{min(strange)}' is not in possible_agents of '{self._envs[world]}'")

    def _observe(self, world: int, seat: int, observations: Any, infos: Any, shown: bool, alive: bool) -> None:
        """One seat's observation and mask. A seat that ends without a final observation keeps the one before it."""
        agent = self._agents[seat]
        flat, action, rows, masks = self._views[seat]
        if not shown:
            rows[world] = 0.0
        elif agent in observations:
            flat.write(rows[world], observations[agent])
        elif alive:
            raise UserError(f"agent '{agent}' lives, and '{self._envs[world]}' gave no observation for it")
        given = mask_of(observations[agent], infos.get(agent), flat) if alive and not action.is_box else None
        if masks is not None:
            masks[world] = True if given is None else action.read_mask(given)
        elif given is not None:
            raise UserError(f"agent '{agent}' got an action_mask in its info, but agents of its kind had none at reset")

    def _read_globals(self, world: int) -> None:
        """Positions of the agents that are shown (others keep theirs), and the state."""
        source = self._sources[world]
        if self.position_size and source is not None:
            shown = source()
            for seat, agent in enumerate(self._agents):
                if agent in shown:
                    self._rows["positions"][world, seat] = shown[agent]
        if self.state_size:
            state = np.ravel(np.asarray(self._envs[world].state(), np.float32))
            if state.size == self.state_size:
                self._rows["state"][world] = state
            # Environments that build the state from living agents have none at the end: the one before stands for it.
            elif self._rows["alive"][world].any():
                raise UserError(
                    f"state() of '{self._envs[world]}' had {self.state_size} numbers, and now has {state.size}"
                )

    def _publish(self) -> WorldStep:
        """The rows as tensors of their own: the rows are written again in the next step."""
        row = {key: torch.tensor(value, device=self.device) for key, value in self._rows.items()}
        masks = {name: row[f"masks/{name}"] for name, s in self.species.items() if s.has_action_mask}
        self._last = WorldStep(
            observations={name: row[f"observations/{name}"] for name in self.species},
            rewards=row["rewards"],
            terminated=row["terminated"],
            truncated=row["truncated"],
            alive=row["alive"],
            first=row["first"],
            positions=row["positions"] if self.position_size else None,
            state=row["state"] if self.state_size else None,
            action_masks=masks or None,
        )
        return self._last

    @contextmanager
    def _blame(self, world: int) -> Iterator[None]:
        """Say where a foreign error happened; its own traceback stays as the cause."""
        try:
            yield
        except Exception as error:
            at = self._episode[world]
            where = f"world {world} failed in step {at['step']} of the episode with seed {at['seed']}"
            raise RuntimeError(f"'{self._envs[world]}', {where}: {type(error).__name__}: {error}") from error


def _streams(seed: int | None, worlds: int) -> list[np.random.Generator]:
    """One stream of episode seeds for each world."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(worlds)]
