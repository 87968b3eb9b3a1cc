"""Scenarios of VMAS (Bettini et al. 2022, arXiv:2207.03530) as Worlds: its tensors [B, ...] go straight through."""

from __future__ import annotations

import inspect
import logging
import traceback
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.checks import true_or_false, whole
from popcomm.envs.foreign import group_by_spaces
from popcomm.envs.foreign_memory import ForeignMemory
from popcomm.envs.lent_draws import LentDraws
from popcomm.envs.vmas_infos import InfoMeans
from popcomm.envs.vmas_scenarios import check_arguments, scenario_class
from popcomm.envs.world import Species, World, WorldStep
from popcomm.errors import UserError

logger = logging.getLogger(__name__)

LARGEST_SEED = 2**32  # NumPy's limit
AXES = 2
OWN = ("max_steps", "continuous_actions", "multidiscrete_actions")


class VmasWorld(World):
    """B worlds of a scenario of VMAS, `env: vmas:NAME`; its agents are the seats.

    Agents with equal observation and action spaces are one species, in the natural order of their names. Observations
    that are a dict are put in a row in the order of their keys. Positions [B, N, 2] are the agents' `state.pos`. The
    state [B, 6 E] is of all E entities, agents first: position, velocity, rotation and angular velocity. What the
    scenario tells in `info` is a metric: its mean over agents, steps, worlds, and its numbers where it has several.

    All worlds are stepped together, and so are they opened: an episode that begins in world w is, to the last bit, the
    one that row w of a new VMAS environment has after `reset(seed=seeds[w])`. Where only some worlds open, VMAS resets
    all of them once, and the others get their tensors back: the cost of two or three of VMAS's own `reset_at` for a
    single world, however many open.

    VMAS draws from the global generators of torch, NumPy and Python; they are lent a state of this world's own, and are
    as they were afterwards. What a scenario draws while an episode runs (noise, targets of `discovery`) comes from one
    stream for all worlds, as in VMAS. There worlds are not quite apart: bodies are asked whether they touch only where
    two of them are near in any world (`balance`), and few scenarios keep a part of their state for all worlds together
    (the goals of `simple_reference`), which stays as it was where only some open.

    Args:
        num_worlds: B.
        scenario: its name in VMAS, "module:Class", or a class of VMAS's BaseScenario.
        device: where the tensors live.
        max_steps: steps after which an episode is truncated; None: it ends by the scenario's own `done` alone.
        continuous_actions: Box actions (forces, for most scenarios); False: VMAS's choices, Discrete.
        multidiscrete_actions: the choices as a MultiDiscrete, one for each axis.
        scenario_config: arguments of the scenario itself, such as n_agents.

    Attributes:
        seeds: [B] int64, of the episode that runs in each world.
        made_of: the scenario's class, and what VMAS's Environment was given beside it.

    Raises:
        UserError: VMAS is not installed, no such scenario, an argument that it does not know or does not like; in reset
            and step, a number that is not finite, with the world and the agent; actions of another shape.
    """

    def __init__(
        self,
        num_worlds: int,
        scenario: Any,
        device: str | torch.device = "cpu",
        max_steps: int | None = 100,
        continuous_actions: bool = True,
        multidiscrete_actions: bool = False,
        **scenario_config: Any,
    ) -> None:
        self.num_worlds, self.device = whole("num_worlds", num_worlds, 1), torch.device(device)
        found = scenario_class(scenario)
        self.name = f"vmas:{scenario if isinstance(scenario, str) else found.__name__}"
        self.max_steps = None if max_steps is None else whole(f"{self.name}: max_steps", max_steps, 1)
        for key, value in (("continuous", continuous_actions), ("multidiscrete", multidiscrete_actions)):
            true_or_false(f"{self.name}: {key}_actions", value)
        if continuous_actions and multidiscrete_actions:
            raise UserError(f"{self.name}: multidiscrete_actions is true, and needs continuous_actions: false")
        check_arguments(self.name, found, scenario_config, OWN)
        self._draws = LentDraws(0, self.device)
        kind = {"continuous_actions": continuous_actions, "multidiscrete_actions": multidiscrete_actions}
        self._env = self._make(found, kind | scenario_config)
        self._memory = ForeignMemory(self._env.scenario)
        self._birth = self._memory.take()
        self._seats = self._seat()
        self.position_size = AXES
        self.state_size = 6 * len(self._env.world.entities)
        self._infos = InfoMeans()
        self._seed, self._time, self._told = 0, 0, False
        self._nobody = torch.zeros(num_worlds, self.num_agents, dtype=torch.bool, device=self.device)
        self._last: WorldStep | None = None
        self.seeds: Tensor = torch.zeros(num_worlds, dtype=torch.int64, device=self.device)
        self._age = torch.zeros_like(self.seeds)
        self._over: Tensor = self._age.bool()

    def _make(self, scenario: type, arguments: dict[str, Any]) -> Any:
        from vmas.simulator.environment import Environment

        self.made_of = (scenario, arguments)
        env = Environment.__new__(Environment)
        with self._draws.lent():
            try:
                _bare(Environment.__init__)(
                    env, scenario(), self.num_worlds, self.device, clamp_actions=True, **arguments
                )
            except Exception as error:  # a scenario says in its own way what it does not like
                said = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
                raise UserError(
                    f"environment.env_config does not fit {self.name}: {type(error).__name__}: {said}"
                ) from error
        return env

    def _seat(self) -> list[int]:
        """Make the species; returns for every seat its agent's place among VMAS's."""
        env, start = self._env, 0
        spaces_of = {a.name: (env.observation_space[i], env.action_space[i]) for i, a in enumerate(env.agents)}
        places = {agent.name: i for i, agent in enumerate(env.agents)}
        self.species, seats = {}, []
        self._bounds: dict[str, tuple[Tensor, Tensor]] = {}
        for name, group in group_by_spaces(spaces_of).items():
            observed, acts = spaces_of[group[0]]
            stop, action, seen = start + len(group), _as_gymnasium(acts), _as_gymnasium(observed)
            plain = isinstance(seen, spaces.Box) and len(seen.shape) == 1
            size, structure = spaces.flatdim(seen), None if plain else seen
            self.species[name] = Species(name, start, stop, size, action, tuple(group), structure=structure)
            if isinstance(action, spaces.Box):
                low, high = (torch.from_numpy(bound).to(self.device) for bound in (action.low, action.high))
                self._bounds[name] = low, high
            seats += [places[agent] for agent in group]
            start = stop
        return seats

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is None:
            self._time += 1
        else:
            self._seed, self._time = seed, 0
            self._draws = LentDraws(seed % LARGEST_SEED, self.device)
        everywhere = ~self._nobody[:, 0]
        observations = self._open(everywhere, [])
        self._age, self._over = torch.zeros_like(self._age), ~everywhere
        return self._look(observations, self._nobody.float(), self._nobody, self._nobody, everywhere)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        if self._last is None:
            raise UserError(f"{self.name} was stepped before it was reset; call reset first")
        opening, acted = self._over, self._last.alive
        self._time += 1
        with self._draws.lent():
            observations, rewards, done, infos = _bare(type(self._env).step)(self._env, self._choices(actions, opening))
        acting = acted[:, 0]
        self._infos.count([infos[i] for i in self._seats], acting)
        self._age = (self._age + 1).masked_fill(opening, 0)
        ended = done.reshape(self.num_worlds) & acting
        late = acting & ~ended & (self._age >= self.max_steps) if self.max_steps else torch.zeros_like(ended)
        self._over = ended | late
        if opening.any():
            observations = self._open(opening, observations)
        paid = torch.stack([rewards[i].reshape(self.num_worlds) for i in self._seats], 1).float()
        terminated, truncated = (flag.unsqueeze(1).expand_as(acted).contiguous() for flag in (ended, late))
        return self._look(observations, paid.masked_fill(~acted, 0.0), terminated, truncated, opening)

    def _choices(self, actions: dict[str, Tensor], opening: Tensor) -> list[Tensor]:
        """For every agent of VMAS [B, k]; zeros in worlds that open, whose actions must not matter."""
        choices: list[Tensor] = [self.seeds] * self.num_agents
        for name, species in self.species.items():
            chosen, shape = actions[name], species.action_space.shape or ()
            expected = (self.num_worlds, species.num_seats, *shape)
            if chosen.shape != expected:
                raise UserError(f"actions of '{name}' have shape {tuple(chosen.shape)}, and must have {expected}")
            if name in self._bounds:
                chosen = chosen.clamp(*self._bounds[name])
            chosen = chosen.masked_fill(opening.view(-1, *[1] * (chosen.dim() - 1)), 0)
            for seat in range(species.num_seats):
                choices[self._seats[species.start + seat]] = chosen[:, seat].reshape(self.num_worlds, -1)
        return choices

    def _open(self, worlds: Tensor, observations: list[Any]) -> list[Any]:
        """Begin an episode in `worlds` [B] bool; returns the observations, those of the other worlds as they were."""
        everywhere = bool(worlds.all())
        running = {} if everywhere else self._memory.take()
        self._memory.put(self._birth)
        if self._time == 0:
            seed, draws = self._seed % LARGEST_SEED, self._draws  # which go on after it, as in VMAS
        else:
            # Of the time alone: how often other worlds opened before must not matter.
            seed = int(np.random.SeedSequence((self._seed, self._time)).generate_state(1)[0])
            draws = LentDraws(seed, self.device)
        with draws.lent():
            opened = _bare(type(self._env).reset)(self._env)
        self.seeds = self.seeds.masked_fill(worlds, seed)
        if everywhere:
            return opened
        self._tell(self._memory.put_worlds(running, ~worlds))
        return [_where(worlds, new, old) for new, old in zip(opened, observations, strict=True)]

    def _tell(self, shared: list[str]) -> None:
        """Say once what a scenario keeps for all worlds together: it stays as it was where others go on."""
        shared = [path for path in shared if not path.endswith("color")]
        if shared and not self._told:
            logger.info("%s keeps for all worlds together: %s", self.name, ", ".join(shared))
            self._told = True

    def _look(
        self, observations: list[Any], rewards: Tensor, terminated: Tensor, truncated: Tensor, opened: Tensor
    ) -> WorldStep:
        alive = ~self._over.unsqueeze(1) | self._nobody
        told = [flat(observations[i]) for i in self._seats]
        seen = {name: torch.stack(told[s.start : s.stop], 1) for name, s in self.species.items()}
        self._check_numbers(seen, rewards)
        agents = self._env.agents
        self._last = WorldStep(
            observations=seen,
            rewards=rewards,
            terminated=terminated.clone(),
            truncated=truncated.clone(),
            alive=alive,
            first=opened.unsqueeze(1) & alive,
            positions=torch.stack([agents[i].state.pos for i in self._seats], 1),
            state=self._state() if self.tells_state else None,
        )
        return self._last

    def _state(self) -> Tensor:
        states = [entity.state for entity in (*self._env.world.agents, *self._env.world.landmarks)]
        return torch.cat([part for s in states for part in (s.pos, s.vel, s.rot, s.ang_vel)], 1)

    def _check_numbers(self, seen: dict[str, Tensor], rewards: Tensor) -> None:
        """Raises UserError for what is not finite. One question for all worlds: it waits for the device."""
        told = {**seen, "": rewards}
        if all(torch.stack([part.isfinite().all() for part in told.values()]).tolist()):
            return
        for name, part in told.items():
            wrong = (~part.isfinite()).flatten(2).any(-1) if name else ~part.isfinite()
            if wrong.any():
                world, seat = wrong.nonzero()[0].tolist()
                start, what = (self.species[name].start, "an observation") if name else (0, "the reward")
                agent = self._env.agents[self._seats[start + seat]].name
                raise UserError(
                    f"{self.name}, world {world}, step {int(self._age[world])} of the episode with seed "
                    f"{int(self.seeds[world])}: {what} of agent '{agent}' is not finite"
                )

    def metrics(self) -> dict[str, float]:
        """Means of what the scenario told in its infos."""
        return self._infos.take()

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One world as an RGB picture [480, 480, 3] uint8, drawn without VMAS's own renderer, which needs a display;
        links [M, 2] int64 are (sender, receiver) pairs."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.vmas_picture import body_of, draw_bodies

        if self._last is None or self._last.positions is None:
            raise UserError(f"{self.name} has no picture before it was reset; call reset first")
        entities = (*self._env.world.landmarks, *self._env.world.agents)
        return draw_bodies(
            [body_of(entity, world) for entity in entities if bool(entity.is_rendering[world])],
            seats=self._last.positions[world].cpu().numpy(),
            links=None if links is None else links.cpu().numpy(),
            title=f"{self.name}: step {int(self._age[world])}" + (f" of {self.max_steps}" if self.max_steps else ""),
        )

    def get_state(self) -> dict[str, Any] | None:
        """The tensors of VMAS's objects by path, the lent generators, the clocks and the last row.

        Raises:
            UserError: it was not reset yet.
        """
        if self._last is None:
            raise UserError(f"{self.name} has no state before it was reset; call reset first")
        return {
            "scenario": self._memory.take(),
            "draws": self._draws.get_state(),
            "clock": (self._seed, self._time),
            "worlds": {"age": self._age.clone(), "over": self._over.clone(), "seeds": self.seeds.clone()},
            "infos": self._infos.get_state(),
            "last": self._last._asdict(),
        }

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        """Raises UserError: the state is of another number of worlds."""
        worlds = state["worlds"]
        if len(worlds["age"]) != self.num_worlds:
            raise UserError(f"the state is of {len(worlds['age'])} worlds, and there are {self.num_worlds}")
        self._memory.put(state["scenario"])
        self._draws.set_state(state["draws"])
        self._seed, self._time = state["clock"]
        self._age, self._over, self.seeds = (worlds[key].clone() for key in ("age", "over", "seeds"))
        self._infos.set_state(state["infos"])
        self._last = WorldStep(**state["last"])
        return self._last


def _bare(method: Any) -> Any:
    """VMAS's method without its own lending of generators, which one process has one of."""
    return inspect.unwrap(method)


def _as_gymnasium(space: Any) -> spaces.Space:
    """VMAS's spaces are those of gym, which came before Gymnasium."""
    kind = type(space).__name__
    if kind == "Discrete":
        return spaces.Discrete(int(space.n))
    if kind == "Dict":  # in the order of its keys, as `flat` has them
        return spaces.Dict({key: _as_gymnasium(space.spaces[key]) for key in sorted(space.spaces)})
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.asarray(space.nvec))
    return spaces.Box(space.low, space.high, dtype=np.float32)


def flat(observation: Any) -> Tensor:
    """[B, O] float32 of a tensor, or of a dict of them in the order of its keys."""
    if isinstance(observation, dict):
        return torch.cat([flat(observation[key]) for key in sorted(observation)], 1)
    return observation.flatten(1).float()


def _where(worlds: Tensor, new: Any, old: Any) -> Any:
    """An observation, `new` in those worlds."""
    return torch.where(worlds.unsqueeze(1), flat(new), flat(old))
