"""Checks of who lives where: what is said of each species, how many members, and whether seats can hold them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ray.rllib.utils.serialization import NOT_SERIALIZABLE

from popcomm.agents.seating import check_balance
from popcomm.checks import count, number, one_of
from popcomm.errors import UserError, unknown
from popcomm.evolution.strategy import IMITATE
from popcomm.rllib.by_species import check_species, keywords_by_species
from popcomm.rllib.plan import Plan
from popcomm.rllib.settings import Settings

CRITICS = ("independent", "central")
TRAINED = "multi_agent.policies_to_train"


def check_trained(given: Any, species: Collection[str] | None = None) -> None:
    """Whether RLlib's policies_to_train says which species learn; a text would be taken letter by letter.

    Args:
        given: what was said.
        species: those that there are; None: not known yet.

    Raises:
        UserError: it is none of a list of species, a function and None, or names one that does not exist.
    """
    if given is None or callable(given) or given == NOT_SERIALIZABLE:
        return
    if not isinstance(given, list | set | tuple):
        raise UserError(f"{TRAINED} is {given!r}, and must be a list of species, a function or None")
    for name in given:
        if species is not None and name not in species:
            raise unknown(f"{TRAINED}: the species", str(name), species)


def check_by_species(settings: Settings) -> None:
    """Mappings by species must name all of them and no other, and their values be what they would be for all."""
    species = settings.layout.species
    keys = ("agent", "members", "critic") if settings.names_all_species else ("agent", "critic")
    chosen = {f"population.{key}": getattr(settings, key) for key in keys}
    chosen |= {f"training.{key}": values for key, values in settings.learning_by_species.items()}
    if keywords_by_species(settings.agent_config, species):
        chosen["population.agent_config"] = settings.agent_config
    for key, value in chosen.items():
        check_species(key, value, species)
    for members in _each(settings.members):
        count("population.members", members, 1)
    for critic in _each(settings.critic):
        one_of("population.critic", critic, CRITICS)


def _each(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else (value,)


def check_seats(settings: Settings, plan: Plan) -> None:
    """Whether the members of every species can be seated evenly."""
    for name, species in plan.species.items():
        _check_collective(settings, plan, name)
        if species.members % settings.communities:
            raise UserError(
                f"population.communities is {settings.communities}, and {species.members} members of '{name}' cannot "
                f"be split into as many equal groups; {_divisors(species.members)}"
            )
        check_balance(
            "env_runners.num_worlds_per_env_runner",
            settings.num_worlds_per_env_runner,
            species.species.num_seats,
            species.members,
            settings.communities,
            plan.seating_rule.how,
        )


def _check_collective(settings: Settings, plan: Plan, name: str) -> None:
    """One network of all seats of a species must see whole worlds, and there is one network for each species."""
    species, seating = plan.species[name], plan.seating_rule.how
    members, seats, agent = species.members, species.species.num_seats, species.agent_class.__name__
    if not getattr(species.agent_class, "collective", False):
        return
    if len(plan.species) > 1 and not isinstance(settings.agent, Mapping):
        raise UserError(
            f"population.agent {agent} is one network of all seats of a species, and this world has "
            f"{_names(plan.species)}, which no edge would join; pad their observations and actions to the same spaces "
            f"and make them one species (environment.species), or choose an agent for each, as in "
            f"{{'{name}': '{settings.agent if isinstance(settings.agent, str) else agent}', 'default': 'mlp'}}"
        )
    if members == 1 or seating == "worlds" or (seating == "fixed" and members % seats == 0):
        return
    raise UserError(
        f"population.agent {agent} is one network of all {seats} seats of '{name}', and population.members is "
        f"{members} with seating '{seating}'; use seating 'worlds', or 'fixed' with {seats} members or a "
        "multiple of them, or members 1"
    )


def check_heirs(plan: Plan) -> None:
    """Whether networks with rows that are no axis of members can be passed on as selection asks."""
    selection = plan.survival
    if selection is None:
        return
    for name in selection.strategies:
        agent = plan.species[name].agent_class
        if not hasattr(agent, "owners"):
            continue
        who = f"population.agent {agent.__name__} of '{name}'"
        if not hasattr(agent, "inherit"):
            raise UserError(
                f"survival.strategy is given, and {who} has owners() and no inherit(parents), so that nobody knows "
                "which rows a newborn gets; give it one, or null for survival.strategy"
            )
        if selection.begin_with(name) == IMITATE:
            raise UserError(
                f"survival.newborns is 'imitate', and {who} cannot be taught: rows of its weights come and go; "
                "allowed: copy, fresh"
            )
        if selection.crossover:
            raise UserError(
                f"survival.crossover is {selection.crossover}, and {who} has all of its rows from one parent; leave it "
                "out"
            )


def _names(species: Iterable[str]) -> str:
    return "the species " + " and ".join(f"'{name}'" for name in species)


def _divisors(members: int) -> str:
    fitting = [str(n) for n in range(2, members + 1) if members % n == 0]
    return f"allowed: {', '.join(fitting)}" if fitting else "give it more members"


def check_communities(settings: Settings) -> None:
    groups, mixing, apart = settings.communities, settings.mixing, settings.seating == "communities"
    count("population.communities", groups, 1)
    number("population.mixing", mixing, "be a number between 0 and 1", least=0, most=1)
    for key, value, default in (("communities", groups, 1), ("mixing", mixing, 0)):
        if not apart and value != default:
            raise UserError(
                f"population.{key} is {value}, and population.seating is {settings.seating!r}; it needs 'communities'"
            )
    if apart and groups == 1:
        raise UserError("population.seating is 'communities', and population.communities is 1; it needs 2 or more")
