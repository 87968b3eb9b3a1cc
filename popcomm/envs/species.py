"""Who is of which species, where a user says so: the seats of any world, named and parted anew."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from inspect import signature
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import Species, World, WorldStep
from popcomm.envs.wrapped_world import WrappedWorld
from popcomm.errors import UserError, unknown
from popcomm.references import attribute

KEY = "environment.species"
# What mappings by species call all those that they do not name.
DEFAULT = "default"

SpeciesLike = Mapping[str, Sequence[Any]] | Callable[..., str] | str


def with_species(world: World, species: SpeciesLike | None = None, agent_id: bool = False) -> World:
    """The world with species of the user's choice.

    Args:
        world: B of them.
        species: {name: its agents}, or a function from an agent to the name of its species, such as RLlib's
            policy_mapping_fn, or its "module:attribute"; None: as the world has them. Agents of a species must have
            the same spaces.
        agent_id: whether observations end with a one-hot of the agent's seat among those of its species.

    Raises:
        UserError: an agent that is not there, is missing or named twice; a species of unlike agents; no name.
    """
    if species is None and not agent_id:
        return world
    return SeatedWorld(world, _groups(world, species), agent_id)


def _groups(world: World, species: SpeciesLike | None) -> dict[str, list[int]]:
    """{name: its agents' seats in the world}."""
    if isinstance(species, str):
        species = attribute(KEY, species)
    if species is None:
        return {name: list(range(s.start, s.stop)) for name, s in world.species.items()}
    names = WorldLayout.of(world).agents
    # Environments of others may call their agents by numbers.
    agents = list(getattr(world, "agents", names))
    if callable(species):
        groups: dict[str, list[int]] = {}
        for seat, agent in enumerate(agents):
            name = _asked(species, agent)
            groups.setdefault(_checked(name, f"{KEY} says {name!r} of agent '{agent}'"), []).append(seat)
        return groups
    if not isinstance(species, Mapping):
        raise UserError(
            f"{KEY} is {species!r}, and must be a mapping such as {{scout: [{names[0]}]}}, or a function from an agent "
            "to the name of its species"
        )
    return _listed(species, {name: seat for seat, name in enumerate(names)})


def _listed(species: Mapping[Any, Any], seats: Mapping[str, int]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    whose: dict[str, str] = {}
    for name, agents in species.items():
        _checked(name, f"{KEY} names {name!r}")
        if isinstance(agents, str) or not isinstance(agents, Sequence) or not agents:
            raise UserError(f"{KEY}.{name} is {agents!r}, and must be a list of agents")
        for agent in map(str, agents):
            if agent not in seats:
                raise unknown(f"{KEY}.{name}: the agent", agent, seats)
            if agent in whose:
                raise UserError(f"{KEY}: agent '{agent}' is in '{whose[agent]}' and in '{name}'")
            whose[agent] = name
        groups[name] = [seats[str(agent)] for agent in agents]
    missing = [agent for agent in seats if agent not in whose]
    if missing:
        raise UserError(
            f"{KEY} does not say of which species {', '.join(missing)} {_are(missing)}; all agents are of one"
        )
    return groups


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _asked(function: Callable[..., str], agent: Any) -> Any:
    """What the function says of an agent; RLlib's take the episode, too, of which there is none yet."""
    try:
        signature(function).bind(agent)
    except TypeError:
        return function(agent, None)
    return function(agent)


def _checked(name: Any, said: str) -> str:
    """A name that can be a module of RLlib and a folder of a checkpoint."""
    if not isinstance(name, str) or not name or "/" in name or name.startswith((".", "__")) or name == DEFAULT:
        raise UserError(f"{said}, and a species has a text for a name, without '/', and not '{DEFAULT}'")
    return name


class _Picks:
    """Parts of a world's seats from others: {target: tensors [B, N_t, ...]} of {source: tensors [B, N_s, ...]}.

    Args:
        sources, targets: {name: its seats in the world}, each seat in one source.
    """

    def __init__(self, sources: Mapping[str, Sequence[int]], targets: Mapping[str, Sequence[int]], device: Any) -> None:
        home = {seat: name for name, seats in sources.items() for seat in seats}
        self.parts: dict[str, tuple[list[str], Tensor]] = {}
        for target, seats in targets.items():
            names = list(dict.fromkeys(home[seat] for seat in seats))
            joined = [seat for name in names for seat in sources[name]]
            index = torch.tensor([joined.index(seat) for seat in seats], device=device)
            self.parts[target] = names, index

    def of(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of those targets whose sources are all there."""
        found = {}
        for target, (names, index) in self.parts.items():
            if all(name in values for name in names):
                joined = values[names[0]] if len(names) == 1 else torch.cat([values[name] for name in names], 1)
                found[target] = joined.index_select(1, index)
        return found


class SeatedWorld(WrappedWorld):
    """Another world whose seats are in another order and of other species. Made by `with_species`.

    Args:
        world: the world.
        groups: {name of a species: the world's seats that are of it}, every seat once.
        agent_id: whether observations end with a one-hot of the seat among those of its species, [N_s].

    Raises:
        UserError: a species of agents whose spaces, or what they may say and hear, differ.
    """

    def __init__(self, world: World, groups: Mapping[str, Sequence[int]], agent_id: bool = False) -> None:
        super().__init__(world)
        self.agent_id, layout = agent_id, WorldLayout.of(world)
        self.species, start = {}, 0
        kinds = {seat: name for name, s in world.species.items() for seat in range(s.start, s.stop)}
        self._kinds = {name: kinds[seats[0]] for name, seats in groups.items()}
        for name, seats in groups.items():
            self.species[name] = self._species(name, seats, layout.agents, start)
            start += len(seats)
        order = [seat for seats in groups.values() for seat in seats]
        self._order = torch.tensor(order, device=self.device)  # [N], the world's seat on each seat here
        self._place = self._order.argsort()  # [N], and back
        self._moved = order != list(range(len(order)))
        before = {name: range(s.start, s.stop) for name, s in world.species.items()}
        self._in, self._out = _Picks(before, groups, self.device), _Picks(groups, before, self.device)
        self._ids = {name: torch.eye(len(seats), device=self.device) for name, seats in groups.items()}

    def _species(self, name: str, seats: Sequence[int], agents: Sequence[str], start: int) -> Species:
        kinds = [next(s for s in self.world.species.values() if s.start <= seat < s.stop) for seat in seats]
        for seat, kind in zip(seats, kinds, strict=True):
            different = _difference(kinds[0], kind)
            if different:
                raise UserError(
                    f"{KEY}: '{name}' has {agents[seats[0]]} and {agents[seat]}, which differ in {different}; agents "
                    "of a species share a network"
                )
        kind, count = kinds[0], len(seats)
        own = tuple(agents[seat] for seat in seats)
        size, structure = kind.obs_size, kind.structure
        if self.agent_id:
            size, structure = size + count, _with_id(kind, count)
        places: dict[str, Any] = {"name": name, "start": start, "stop": start + count, "agents": own}
        return replace(kind, **places, obs_size=size, structure=structure, has_id=self.agent_id or kind.has_id)

    @property
    def env_spaces(self) -> dict[str, tuple[spaces.Space, spaces.Space]]:
        """{species: what one agent observes and does, as the environment says it}: it knows nothing of ids."""
        told = self.world.env_spaces
        return {name: told[kind] for name, kind in self._kinds.items()}

    def reset(self, seed: int | None = None) -> WorldStep:
        return self._seen(self.world.reset(seed))

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        if spoken is not None and self._moved:
            spoken = spoken.index_select(1, self._place)
        return self._seen(self.world.step(self._out.of(actions), spoken))

    def _seen(self, told: WorldStep) -> WorldStep:
        """What the world says, in the order of the seats here."""
        observations = self._in.of(told.observations)
        if self.agent_id:
            for name, ids in self._ids.items():
                seen = observations[name]
                observations[name] = torch.cat([seen, ids.to(seen.dtype).expand(len(seen), -1, -1)], -1)
        rest = {}
        for key in ("rewards", "terminated", "truncated", "alive", "first", "positions", "labels", "speaks"):
            values = getattr(told, key)
            rest[key] = values.index_select(1, self._order) if values is not None and self._moved else values
        for key in ("action_masks", "answers"):
            values = getattr(told, key)
            rest[key] = None if values is None else self._in.of(values)
        return told._replace(observations=observations, **rest)

    def get_state(self) -> dict[str, Any] | None:
        return self.world.get_state()

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        return self._seen(self.world.set_state(state))

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        return self.world.render(world, links if links is None else self._order.cpu()[links.cpu()])


def _difference(one: Species, other: Species) -> str:
    """In what two species differ that agents of one must share, in words; empty where in nothing."""
    if one.obs_size != other.obs_size or one.structure != other.structure:
        return "what they observe"
    if one.action_space != other.action_space or one.has_action_mask != other.has_action_mask:
        return "what they can do"
    own = {"name", "start", "stop", "agents"}
    same = all(getattr(one, f.name) == getattr(other, f.name) for f in fields(Species) if f.name not in own)
    return "" if same else "whether they speak, hear or are told answers"


def _with_id(kind: Species, seats: int) -> spaces.Dict:
    """The structure of an observation that ends with a one-hot of the seat."""
    structure = kind.structure or kind.observation_space
    entries = structure.spaces if isinstance(structure, spaces.Dict) else {}
    if not entries or "agent_id" in entries:
        entries = {"observation": structure}
    return spaces.Dict(OrderedDict([*entries.items(), ("agent_id", spaces.Discrete(seats))]))
