"""Members: the individuals of one species, each with weights of its own, out of any trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from popcomm.agents import AGENTS
from popcomm.agents.contract import AgentSpec
from popcomm.agents.pretrained import as_pretrained, class_named, load, save
from popcomm.envs.world import Species
from popcomm.errors import UserError, unknown
from popcomm.references import named


class Members:
    """P members of a species, as one network.

    Args:
        spec: what the network was told of its place.
        agent: the network (`popcomm.agents.contract.Agent`), of all P members.
        config: the keyword arguments that it was made with.
    """

    def __init__(self, spec: AgentSpec, agent: Any, config: Mapping[str, Any]) -> None:
        self.spec, self.agent, self.config = spec, agent, dict(config)

    def __len__(self) -> int:
        """P."""
        return self.spec.members

    def __iter__(self) -> Iterator[Any]:
        return (self[member] for member in range(len(self)))

    def __getitem__(self, member: int) -> Any:
        """One member as a network of its own, in a copy; it has `save_pretrained` and `from_pretrained`.

        Raises:
            UserError: no such member, or a network whose rows are not its members.
        """
        if not 0 <= member < len(self):
            raise UserError(f"member is {member}, and there are members 0 to {len(self) - 1}")
        if not self.apart:
            raise UserError(
                f"members of {type(self.agent).__name__} cannot be taken apart, for their weights are not one row for "
                "each; save them together, with save_pretrained of the population"
            )
        weights = self.agent.state_dict()
        if len(self) > 1:
            weights = {name: value[member : member + 1] for name, value in weights.items()}
        agent = made(as_pretrained(type(self.agent)), replace(self.spec, members=1), self.config)
        agent.load_state_dict({name: value.detach().cpu() for name, value in weights.items()})
        agent.config = {**self.config, **getattr(agent, "config", {})}
        return agent

    @property
    def apart(self) -> bool:
        """Whether every weight has one row for each member, so that one can be taken out."""
        each = all(value.ndim and len(value) == len(self) for value in self.agent.state_dict().values())
        # Of a collective in fixed seats each member is but a seat.
        seats = getattr(self.agent, "collective", False) and self.spec.seating == "fixed"
        return len(self) == 1 or (each and not seats and not hasattr(self.agent, "owners"))

    # ---- other worlds ----

    def check_fit(self, species: Species, inbox_size: int, num_agents: int, seat_species: tuple[str, ...]) -> None:
        """Whether these members can act on the seats of a species in other worlds.

        Args:
            species: what it is there.
            inbox_size: K there; 0 in silence, and for those who never hear.
            num_agents: N there, whom it must tell apart; one more where words have nobody as sender.
            seat_species: [N], the species of every seat there.

        Raises:
            UserError: other observations or actions, or a network whose sizes depend on the number of seats.
        """
        spec, name = self.spec, species.name
        if (species.obs_size, species.action_space) != (spec.obs_size, spec.action_space):
            raise UserError(
                f"species '{name}' observes {species.obs_size} numbers and does {species.action_space} there, and its "
                f"members learned to observe {spec.obs_size} and to do {spec.action_space}"
            )
        if getattr(self.agent, "collective", False) and species.num_seats != spec.num_seats:
            raise UserError(
                f"species '{name}' has {species.num_seats} seats there, and its {type(self.agent).__name__} is one "
                f"network of {spec.num_seats} seats"
            )
        # A network that tells more seats apart than there are has no trouble.
        wanted = replace(spec, inbox_size=inbox_size)
        if num_agents > spec.num_agents:
            wanted = replace(wanted, num_agents=num_agents, num_seats=species.num_seats, seat_species=seat_species)
        if wanted == spec:
            return
        here, there = self._shapes(spec), self._shapes(wanted)
        for part in here:
            if here[part] != there[part]:
                raise UserError(
                    f"members of species '{name}' cannot act among {num_agents} seats: {part} of their "
                    f"{type(self.agent).__name__} has shape {here[part]} for the {spec.num_agents} that they learned "
                    f"with, and {there[part]} there"
                )

    def _shapes(self, spec: AgentSpec) -> dict[str, tuple[int, ...]]:
        """{what: shape} of the weights and the state of one member."""
        agent = made(type(self.agent), replace(spec, members=1), self.config)
        shapes = {f"weight '{name}'": tuple(value.shape) for name, value in agent.state_dict().items()}
        return shapes | {f"memory '{name}'": tuple(v.shape[2:]) for name, v in agent.initial_state(1).items()}

    # ---- files ----

    def save(self, folder: Path) -> None:
        """Write all members into a folder, as `save_pretrained` does one.

        Raises:
            UserError: a config or messages that cannot be written down.
        """
        save(self.agent, folder, self.config)

    @classmethod
    def load(cls, folder: Path, agent: type | None = None) -> Members:
        """What `save` wrote.

        Args:
            folder: where it lies.
            agent: the class, where it is of the user's own; None: the one that the folder names.

        Raises:
            UserError: no such folder, a damaged one, or a class that cannot be imported.
        """
        found = load(as_pretrained(agent or _class_of(folder)), folder)
        return cls(found.spec, found.eval(), found.config)


def made(cls: Any, spec: AgentSpec, config: Mapping[str, Any]) -> Any:
    """A network whose start does not matter; random numbers of torch stay where they are."""
    with torch.random.fork_rng(devices=[]):
        return cls(spec, **config).eval()


def _class_of(folder: Path) -> Any:
    name, reference = class_named(folder)
    shipped = {cls.__name__: cls for cls in AGENTS.values()}
    if reference is not None:
        return named(f"the agent of {folder}", reference, {})
    if name not in shipped:
        raise unknown(f"the agent of {folder}", name, shipped)
    return shipped[name]
