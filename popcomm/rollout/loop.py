"""Loop: players in a PettingZoo loop of somebody else's, one world, observations by agent in and actions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popcomm.envs.flat_spaces import MASK, FlatAction, FlatObservation, mask_of
from popcomm.envs.foreign import allowed_to_speak, backing_world, can_be_called, position_source, positions_now
from popcomm.envs.foreign_answers import Answer, check_keys
from popcomm.envs.foreign_rows import Face
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import Species, WorldStep
from popcomm.errors import UserError, nearest
from popcomm.rollout.players import Players
from popcomm.rollout.seeds import Seeds
from popcomm.schedules import Clock


class Loop:
    """What a population remembers from one call of `act` to the next.

    Args:
        players: of one world.
        clock, fades: how faded reflexes are (`Players.follow`).
    """

    def __init__(self, players: Players, clock: Clock, fades: Sequence[Mapping[str, Any]]) -> None:
        self.players, layout = players, players.layout
        players.follow(clock, fades)
        self._training = (clock, fades)
        self.faces = faces_of(layout)
        self.species = {name: species for species in layout.species.values() for name in _names(species)}
        self.seats = {name: seat for seat, name in enumerate(layout.agents)}
        self.env: Any = None  # whom to ask: that which was given, or else that which observations know
        self.begin()

    def begin(self, env: Any = None, seed: int | None = None) -> None:
        """An episode begins with the next `act`.

        Args:
            env: the environment of the loop, which is asked and told what is not in observations; None: nobody is.
            seed: of all that is random from here on; None: it goes on.
        """
        if seed is not None:
            self.players.reseed(Seeds.of(seed, 0))
            self.players.follow(*self._training)
        self._given, self._opening = env, True
        self._there: Tensor = torch.zeros(1, len(self.seats), dtype=torch.bool)  # [1, N], who lived one step before
        self._returned = torch.zeros_like(self._there)  # [1, N], whose life was put back then
        self._rows = {
            name: torch.zeros(1, s.num_seats, s.obs_size, dtype=s.obs_dtype)
            for name, s in self.players.layout.species.items()
        }

    def act(
        self,
        observations: Mapping[Any, Any],
        greedy: bool,
        infos: Mapping[Any, Any] | None = None,
        terminations: Mapping[Any, Any] | None = None,
        truncations: Mapping[Any, Any] | None = None,
    ) -> dict[Any, Any]:
        """See `Population.act`."""
        self.env = getattr(observations, "env", None) if self._given is None else self._given
        here, done = self._present(observations), self._done(terminations or {}, truncations or {})
        if all(str(agent) in done for agent in here):  # nobody goes on: the episode is over
            return {}
        back = self._put_back(here, done)
        here = {a: seen for a, seen in here.items() if str(a) not in done or back[0, self.seats[str(a)]]}
        step = self._step(here, infos, back)
        if self._opening:
            self.players.begin(step)
        else:
            self.players.arrive(step)
        self._opening, self._there, self._returned = False, step.alive, back
        self.players.explore = not greedy
        turn = self.players.act()
        if turn.loads is not None and can_be_called(getattr(self.env, "speak", None), {}):
            self.env.speak({agent: float(turn.loads[0, self.seats[str(agent)]]) for agent in here})
        return {agent: self._action(agent, turn.bounded) for agent in here} | self._kept(here, done)

    def _present(self, observations: Mapping[Any, Any]) -> dict[Any, Any]:
        """The observations of those who act: who is not in `env.agents` any more shows its last one."""
        for agent in observations:
            if str(agent) not in self.seats:
                raise UserError(
                    f"agent '{agent}' is not among the {len(self.seats)} seats of this population "
                    f"({nearest(str(agent), self.seats)}); of other worlds: popcomm.load(path, env_config={{...}})"
                )
        if self.env is None:
            return dict(observations)
        living = set(self.env.agents)
        return {agent: observation for agent, observation in observations.items() if agent in living}

    def _done(self, terminations: Mapping[Any, Any], truncations: Mapping[Any, Any]) -> set[str]:
        """The names of those whom a flag of the step calls done; nobody where the environment tells of lives itself.

        An episode that opens has no flags: those of the one before may still be handed over.
        """
        ended, cut = ({str(agent): flag for agent, flag in told.items()} for told in (terminations, truncations))
        check_keys(Answer({}, {}, ended, cut, {}), frozenset(self.seats))
        if self._opening or self._tells_lives:
            return set()
        return {name for told in (ended, cut) for name, is_done in told.items() if is_done}

    @property
    def _tells_lives(self) -> bool:
        """Whether the environment has popcomm's `lives()`: what is called so in those of others is something else."""
        return self.env is not None and backing_world(self.env) is not None and hasattr(self.env, "lives")

    def _put_back(self, here: Mapping[Any, Any], done: set[str]) -> Tensor:
        """[1, N] bool, whose life ended and begins anew at once, as `popcomm.envs.pettingzoo` has it in training: those
        who are done, stay in `agents`, acted, and were not put back one step before, too.

        Raises:
            UserError: nobody knows whether one who is done stays.
        """
        back = torch.zeros_like(self._there)
        stay = [str(agent) for agent in here if str(agent) in done]
        if stay and self.env is None:
            raise UserError(
                f"agent '{stay[0]}' is done, and whether it stays in `agents` is asked of the environment: call "
                "population.reset(env) before an episode"
            )
        back[0, [self.seats[name] for name in stay]] = True
        return back & self._there & ~self._returned

    def _step(self, here: Mapping[Any, Any], infos: Mapping[Any, Any] | None, back: Tensor) -> WorldStep:
        """What B = 1 worlds would say.

        Args:
            here: the observations of those who live.
            back: [1, N] bool, whose life was put back.
        """
        layout, n = self.players.layout, len(self.seats)
        alive = torch.zeros(1, n, dtype=torch.bool)
        alive[0, [self.seats[str(agent)] for agent in here]] = True
        first = alive & (back | ~self._there)
        if self._tells_lives:
            for agent, (lives, begins) in self.env.lives().items():
                seat = self.seats[str(agent)]
                alive[0, seat] &= lives
                first[0, seat] = alive[0, seat] & (begins or self._opening)
        observations = {name: rows.clone() for name, rows in self._rows.items()}
        masks = {
            name: torch.ones(1, s.num_seats, self.faces[name].action.mask_size, dtype=torch.bool)
            for name, s in layout.species.items()
            if s.has_action_mask
        }
        for agent, observation in here.items():
            info = None if infos is None else infos.get(agent) or {}
            self._read(agent, observation, info, observations, masks)
        self._rows = observations
        no = torch.zeros(1, n, dtype=torch.bool)
        return WorldStep(
            observations, torch.zeros(1, n), no, no, alive, first, self._positions(here), None, masks or None,
            speaks=self._speaks(),
        )  # fmt: skip

    def _read(self, agent: Any, observation: Any, info: Any, rows: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
        """Write one agent's observation and mask into their rows."""
        species = self.species[str(agent)]
        name, place = species.name, self.seats[str(agent)] - species.start
        face = self.faces[name]
        flat = np.zeros(species.obs_size, np.uint8 if species.obs_dtype == torch.uint8 else np.float32)
        try:
            face.observation.write(flat[: face.observation.size], observation)
            mask = mask_of(observation, info, face.observation) if name in masks else None
            allowed = None if mask is None else face.action.read_mask(mask)
        except UserError as error:
            raise UserError(f"agent '{agent}': {error}") from error
        if species.has_id:
            flat[face.observation.size + place] = 1.0
        if name in masks and allowed is None and info is None:
            raise UserError(f"the {MASK} of agent '{agent}' is in its info: act(observations, infos=infos)")
        if allowed is not None:  # else an info without one allows all, as in training
            masks[name][0, place] = torch.from_numpy(allowed)
        rows[name][0, place] = torch.from_numpy(flat)

    def _positions(self, living: Mapping[Any, Any]) -> Tensor | None:
        """Positions [1, N, D] float32, where the channel needs them."""
        channel, size = self.players.channel, self.players.layout.position_size
        if channel is None or not channel.topology.needs_positions:
            return None
        source = None if self.env is None else position_source(self.env)
        if source is None:
            name = type(channel.topology).__name__
            raise UserError(
                f"topology {name} needs to know where agents are: call population.reset(env) before an episode, with "
                "an environment that tells it"
            )
        positions = torch.zeros(1, len(self.seats), size)
        everybody = [agent for agent in self.env.possible_agents if str(agent) in self.seats]
        for agent, place in positions_now(source, everybody, living, size).items():
            positions[0, self.seats[str(agent)]] = torch.from_numpy(place)
        return positions

    def _speaks(self) -> Tensor | None:
        """[1, N] bool, who may speak; None: all."""
        allowed = allowed_to_speak(self.env)
        if not allowed:
            return None
        told = {str(agent): may for agent, may in allowed.items()}
        return torch.tensor([[bool(told.get(name, True)) for name in self.seats]])

    def _action(self, agent: Any, chosen: Mapping[str, Tensor]) -> Any:
        """In the form of the environment's action space."""
        species = self.species[str(agent)]
        values = chosen[species.name][0, self.seats[str(agent)] - species.start].numpy()
        return self.faces[species.name].action.to_env(values)[()]

    def _kept(self, here: Mapping[Any, Any], done: set[str]) -> dict[Any, Any]:
        """Of those who are done and are merely kept in `agents`: the first action of their space."""
        there = () if self.env is None else self.env.agents
        kept = [agent for agent in there if str(agent) in done and agent not in here]
        return {agent: self.faces[self.species[str(agent)].name].action.idle.copy()[()] for agent in kept}


def faces_of(layout: WorldLayout) -> dict[str, Face]:
    """{species: how its observations are read and its actions told}."""
    told = {name: (observed, done) for name, observed, done in layout.spaces}
    faces = {}
    for name, species in layout.species.items():
        observed, done = told.get(name, (species.observation_space, species.action_space))
        action = FlatAction(done, name)
        faces[name] = Face(FlatObservation(observed, name, split_mask=not action.is_box), action)
    return faces


def _names(species: Species) -> tuple[str, ...]:
    return species.agents or tuple(f"{species.name}_{i}" for i in range(species.num_seats))
