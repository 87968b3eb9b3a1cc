"""Casting: which networks play a species, how many members it has, and how they come to their seats."""

from __future__ import annotations

from collections.abc import Mapping

from popcomm.agents import AGENTS
from popcomm.envs.species import DEFAULT
from popcomm.envs.world import Species
from popcomm.errors import UserError
from popcomm.references import named
from popcomm.rllib.by_species import keywords_by_species, of_species
from popcomm.rllib.settings import Settings


def members_of(settings: Settings, species: Species) -> int:
    """P of a species; of a collective whose every seat is to be a member, as many as there are seats."""
    given = settings.members
    if isinstance(given, Mapping) and not settings.names_all_species:
        given = {DEFAULT: 1, **given}
    members = of_species("population.members", given, species)
    return species.num_seats if members == 1 and _follows(settings, species) else members


def seating_of(settings: Settings, members: Mapping[str, int]) -> str:
    """How members come to seats: "fixed" where nobody else's would be another one with it. members: {species: P}."""
    every = settings.layout.species
    followed = any(_follows(settings, species) for species in every.values())
    can = all(
        members[name] % species.num_seats == 0 if _follows(settings, species) else members[name] == 1
        for name, species in every.items()
    )
    return "fixed" if followed and can else settings.seating


def _follows(settings: Settings, species: Species) -> bool:
    """Whether "shuffled" stands for what a collective wants: members that are drawn to seats are no whole worlds."""
    agent = agent_class(of_species("population.agent", settings.agent, species))
    return settings.seating == "shuffled" and bool(getattr(agent, "seat_members", False))


def agents_of(settings: Settings) -> list[type]:
    """The classes of the networks of all species."""
    given = settings.agent
    if not isinstance(given, Mapping):
        return [agent_class(given)]
    return [agent_class(of_species("population.agent", given, one)) for one in settings.layout.species.values()]


def agent_config_of(settings: Settings, species: Species) -> Mapping[str, object]:
    """What the networks of a species are constructed with."""
    given = settings.agent_config
    if not keywords_by_species(given, settings.layout.species):
        return given
    return of_species("population.agent_config", given, species)


def agent_class(agent: object) -> type:
    """The class of the networks of a species.

    Raises:
        UserError: no such name, or no class.
    """
    if isinstance(agent, str):
        agent = named("population.agent", agent, AGENTS)
    if not isinstance(agent, type):
        raise UserError(f"population.agent is {agent!r}, and must be {' or '.join(map(repr, AGENTS))} or a class")
    return agent
