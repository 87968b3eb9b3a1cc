"""Recipes: what worlds and channels are made from again, as values that JSON has where they can be written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import torch

from popcomm.channels import Channel, MessageKind, make_topology
from popcomm.envs.layout import WorldLayout
from popcomm.envs.making import make_world, makes_worlds, resolve
from popcomm.envs.process_worlds import TIMEOUT
from popcomm.envs.species import SpeciesLike
from popcomm.envs.world import World
from popcomm.errors import UserError
from popcomm.references import reference_to


@dataclass(frozen=True)
class ChannelRecipe:
    """A channel, whatever the number of seats; see `Channel`."""

    messages: MessageKind
    topology: Any
    dropout: float = 0.0
    noise: float = 0.0
    reflexes: Sequence[Any] = ()
    capacity: int | None = None
    inbox: int | None = None
    rounds: int = 0
    gate: Any = None
    budget: Any = None
    vocabulary: Any = None

    def make(self, layout: WorldLayout) -> Channel:
        """Raises UserError: a topology or reflexes that do not fit the seats."""
        return Channel(
            self.messages,
            make_topology(self.topology),
            layout.num_agents,
            layout.torus,
            layout.position_size > 0,
            self.dropout,
            self.noise,
            self.reflexes,
            self.capacity,
            self.inbox,
            self.rounds,
            self.gate,
            self.budget,
            self.vocabulary,
        )

    def to_json(self) -> dict[str, Any]:
        """All but the messages.

        Raises:
            UserError: objects that cannot be written down.
        """
        rest = {"dropout": self.dropout, "noise": self.noise, "capacity": self.capacity, "inbox": self.inbox}
        later = {"rounds": self.rounds or None, "gate": self.gate, "budget": self.budget}
        rest |= {key: as_json(f"communication.{key}", value) for key, value in later.items() if value is not None}
        named = {"topology": self.topology, "reflexes": list(self.reflexes)}
        if self.vocabulary is not None:
            named["vocabulary"] = self.vocabulary
        return rest | {key: as_json(f"communication.{key}", value) for key, value in named.items()}


@dataclass(frozen=True)
class EnvRecipe:
    """Worlds: a popcomm name, a World class, a "module:attribute" or a creator, and the keys of its env_config.

    species, agent_id: as `popcomm.envs.species.with_species` takes them; processes, process_timeout: as
    `popcomm.envs.ProcessWorlds` does, None: the worlds are in this process.
    """

    env: str | type[World] | Callable[..., object]
    env_config: Mapping[str, Any] = field(default_factory=dict)
    species: SpeciesLike | None = None
    agent_id: bool = False
    processes: int | None = None
    process_timeout: float = TIMEOUT

    def make(self, num_worlds: int, env_config: Mapping[str, Any] | None = None) -> World:
        """B worlds. env_config: keys that differ. Raises UserError: they do not fit the environment."""
        return make_world(
            self.env, self.merged(env_config), num_worlds, "cpu", self.species, self.agent_id, self.processes,
            self.process_timeout,
        )  # fmt: skip

    def merged(self, env_config: Mapping[str, Any] | None) -> dict[str, Any]:
        """The keys, those that differ put in."""
        return {**self.env_config, **(env_config or {})}

    def whole_episodes(self) -> dict[str, Any]:
        """What must differ for all worlds to begin at the beginning: for training they may `stagger`."""
        return {"stagger": False} if makes_worlds(resolve(self.env)) and self.env_config.get("stagger") else {}

    def to_json(self) -> dict[str, Any]:
        """Raises UserError: a creator that no module:attribute names, or keys that JSON does not have."""
        env = self.env if isinstance(self.env, str) else reference_to(self.env)
        if env is None:
            raise UserError(
                f"environment.env is {self.env!r}, which no module:attribute names; give it a name in a module"
            )
        apart: dict[str, Any] = {}
        if self.processes is not None:
            apart = {"processes": self.processes, "process_timeout": self.process_timeout}
        config = as_json("environment.env_config", dict(self.env_config))
        return {"env": env, "env_config": config, **self.seats(), **apart}

    def seats(self) -> dict[str, Any]:
        """What of `species` and `agent_id` was chosen, as JSON has it; a function by its module:attribute.

        Raises:
            UserError: a function that has none.
        """
        chosen: dict[str, Any] = {"agent_id": True} if self.agent_id else {}
        if self.species is None:
            return chosen
        if isinstance(self.species, Mapping):
            return {"species": {name: list(map(str, agents)) for name, agents in self.species.items()}, **chosen}
        reference = self.species if isinstance(self.species, str) else reference_to(self.species)
        if reference is None:
            raise UserError(
                f"environment.species is {self.species!r}, which no module:attribute names; name the agents instead"
            )
        return {"species": reference, **chosen}


def as_json(key: str, value: Any) -> Any:
    """A value as JSON has it; an object becomes {"kind": "module:Class", **what it is made from}.

    Raises:
        UserError: it cannot be.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): as_json(f"{key}.{name}", part) for name, part in value.items()}
    if isinstance(value, list | tuple | range):
        return [as_json(f"{key}[{place}]", part) for place, part in enumerate(value)]
    reference = None if callable(value) else reference_to(type(value))
    takes = [] if reference is None else list(signature(type(value)).parameters)
    if reference is None or not all(hasattr(value, name) for name in takes):
        raise UserError(f"{key} is {value!r}, which cannot be written down; give it as a mapping with its 'kind'")
    return {"kind": reference, **{name: as_json(f"{key}.{name}", getattr(value, name)) for name in takes}}
