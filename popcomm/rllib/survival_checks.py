"""Checks of what a config says of survival against all else: whether it has an effect, and networks to act on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from popcomm.channels import message_kind
from popcomm.errors import UserError
from popcomm.evolution import STRATEGIES, rehearse
from popcomm.evolution.strategy import IMITATE
from popcomm.rllib.member_statistics import TRAITS
from popcomm.rllib.settings import Settings
from popcomm.rllib.survival_plan import SurvivalPlan, strategies_by_species, worth
from popcomm.schedules import Constant, make_schedule

WHAT_COUNTS = {"messages": "symbols, words and bits can", "actions": "Discrete ones can"}


def check_selection(settings: Settings, plan: SurvivalPlan, members: Mapping[str, int]) -> None:
    """Raises UserError: what is said of selection has nothing to act on. members: {species: P}."""
    sizes = {name: members[name] // plan.groups for name in plan.strategies}
    if not any(strategy.most_replaced(sizes[name]) for name, strategy in plan.strategies.items()):
        raise UserError(
            f"survival.strategy is {settings.survival_strategy!r}, and has no effect: all of {min(sizes.values())} "
            "members live on in every generation; let fewer do, or null for it"
        )
    for name in strategies_by_species(settings, settings.layout):
        if name in members and name not in plan.strategies:
            why = f"population.members of it is {members[name]}" if members[name] < 2 else "it does not learn"
            raise UserError(f"survival.strategy of species '{name}' has no effect: {why}; leave it out")
    parents = [strategy.most_parents(sizes[name]) for name, strategy in plan.strategies.items()]
    of_each = " of each community" if plan.groups > 1 else ""
    if plan.crossover and max(parents) < 2:
        raise UserError(
            f"survival.crossover is {plan.crossover}, and has no effect: by survival.strategy there is one parent in a "
            f"generation{of_each}, and no second one; leave it out"
        )
    if settings.mutation_schedule is not None and not plan.mutation_std:
        raise UserError(
            f"survival.mutation_schedule is {settings.mutation_schedule!r}, and has no effect: survival.mutation_std, "
            "which it multiplies, is 0"
        )
    _check_pressure(settings)
    _check_scales(settings, plan)
    _check_traits(settings, plan)


def _check_pressure(settings: Settings) -> None:
    """Whether anybody is replaced, and mutates, at any time."""
    schedules = {"pressure": settings.survival_pressure, "mutation_schedule": settings.mutation_schedule}
    effects = {
        "pressure": "nobody whom the strategy replaces is replaced; raise it, or null for survival.strategy",
        "mutation_schedule": "it multiplies survival.mutation_std by 0; say 0 for that instead",
    }
    for name, given in schedules.items():
        schedule = make_schedule(given, f"survival.{name}")
        if isinstance(schedule, Constant) and schedule.value == 0:
            raise UserError(f"survival.{name} is {given!r}, and has no effect: {effects[name]}")


def check_answers(plan: SurvivalPlan, members: Mapping[str, int]) -> None:
    """Ask the user's own strategies and functions once of made-up members.

    Args:
        members: {species: P}.

    Raises:
        UserError: what they answer is no generation, or no fitness.
    """
    for name, strategy in plan.strategies.items():
        if type(strategy) not in STRATEGIES.values():
            rehearse(strategy, members[name], plan.groups)
        if callable(plan.fitness):
            made_up = np.linspace(0.5, 1.0, members[name])  # nothing to be afraid of in a logarithm or a quotient
            measures = {measure: made_up.copy() for measure in plan.measured[name]}
            worth(plan.fitness, measures, name, members[name])


def check_networks(plan: SurvivalPlan, agents: Mapping[str, type]) -> None:
    """Whether networks can be left to children, and teach them. agents: {species: class of its networks}.

    Raises:
        UserError: they cannot.
    """
    for name in plan.strategies:
        agent = agents[name]
        who, is_owned = f"population.agent {agent.__name__} of species '{name}'", hasattr(agent, "owners")
        if is_owned and not hasattr(agent, "inherit"):
            raise UserError(
                f"{who} says in owners() whose its rows are, and survival.strategy needs its inherit(), which says "
                "what a child gets of them"
            )
        if plan.begin_with(name) == IMITATE and (is_owned or getattr(agent, "collective", False)):
            raise UserError(
                f"survival.newborns is 'imitate', and {who} cannot be taught: no teacher can act in another's place "
                "where seats are one network, or rows of weights come and go; use 'copy' or 'fresh'"
            )
        if is_owned and plan.crossover:
            raise UserError(
                f"survival.crossover is {plan.crossover}, and {who} has all of its rows from one parent; leave it out"
            )


def _check_traits(settings: Settings, plan: SurvivalPlan) -> None:
    """Whether what strategies read is measured of one species at least: else nobody is known, and all live on."""
    kind, species = message_kind(settings.messages), settings.layout.species
    symbols = kind is not None and kind.alphabet is not None
    for trait in TRAITS:
        readers = [species[name] for name, strategy in plan.strategies.items() if trait in strategy.traits]
        known = any(symbols and s.speaks if trait == "messages" else hasattr(s.action_space, "n") for s in readers)
        if readers and not known:
            raise UserError(
                f"survival.strategy is {settings.survival_strategy!r}, and has no effect: it goes by {trait}, and "
                f"those who are selected have none that could be counted; {WHAT_COUNTS[trait]}"
            )


def _check_scales(settings: Settings, plan: SurvivalPlan) -> None:
    """Whether hyper-parameters of members are multiples of something, and can be perturbed."""
    for key in plan.hyperparameters:
        if all(settings.own_settings(name).get(key, getattr(settings, key)) == 0 for name in plan.strategies):
            raise UserError(
                f"survival.hyperparameters.{key} has no effect: it is multiples of training.{key}, which is 0"
            )
    species = settings.layout.species
    if "entropy_coeff" in plan.hyperparameters and not any(
        settings.explores(species[name]) for name in plan.strategies
    ):
        raise UserError(
            "survival.hyperparameters.entropy_coeff has no effect: actions of those who are selected get no bonus, for "
            "they are learned from answers, or there is but one"
        )
    flat = plan.hyperparameters and all(low == high for low, high in plan.hyperparameters.values())
    if flat and "perturbation" in settings.survival_given:
        raise UserError(
            f"survival.perturbation is {plan.perturbation}, and has no effect: the bounds of survival.hyperparameters "
            "leave room for one value"
        )
