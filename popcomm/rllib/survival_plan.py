"""What a config says of survival, checked; see `PopulationPPOConfig.survival`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcomm.channels import make_topology, message_kind
from popcomm.channels.kinds import told_apart
from popcomm.checks import count, number, one_of, share
from popcomm.envs.layout import WorldLayout
from popcomm.envs.species import DEFAULT
from popcomm.errors import UserError, nearest, unknown
from popcomm.evolution import NEWBORNS, Strategy, make_strategy
from popcomm.evolution.strategy import COPY, IMITATE
from popcomm.references import attribute
from popcomm.rllib.by_species import of_species
from popcomm.rllib.member_statistics import MEASURES, TRAITS
from popcomm.rllib.settings import Settings
from popcomm.rollout import seed_of

GROUPS = ("species", "communities")
HYPERPARAMETERS = ("lr", "entropy_coeff")
PRIOR_BRANCH = 8
OF_TALK = ("message_entropy", "agreement", "success", "listening", "influence")
WHAT_COUNTS = {"messages": "symbols, words and bits can", "actions": "Discrete ones can"}
Bounds = tuple[float, float]


@dataclass(frozen=True)
class SurvivalPlan:
    """How members of the species that are selected survive."""

    strategies: Mapping[str, Strategy]  # {species that is selected: its strategy}
    every: int  # iterations
    fitness: str | Any  # a name of MEASURES, or a function {name: [P]} -> [P]
    measured: Mapping[str, tuple[str, ...]]  # {species that is selected: names of MEASURES that there can be of it}
    smoothing: float
    mutation_std: float
    crossover: float
    newborns: str | None  # of NEWBORNS; None: as the strategy says
    lessons: int  # iterations in which newborns that imitate are taught
    hyperparameters: Mapping[str, Bounds]  # {name: multiples of the setting within which members' values lie}
    perturbation: float
    groups: int  # within which selection goes on

    def begin_with(self, species: str) -> str:
        """What newborns begin with."""
        return self.newborns or self.strategies[species].newborns


def first_scales(plan: SurvivalPlan, members: int, seed: int | None, order: int) -> dict[str, NDArray[np.float64]]:
    """{hyper-parameter: [P]} of the founders: drawn evenly in their logarithm.

    Args:
        seed: of the config; without one the same are drawn always, for all processes must draw the same.
        order: of the species among all.
    """
    rng = np.random.default_rng(seed_of(seed or 0, PRIOR_BRANCH, order))
    bounds = plan.hyperparameters
    return {key: np.exp(rng.uniform(np.log(low), np.log(high), members)) for key, (low, high) in bounds.items()}


def survival_of(settings: Settings, layout: WorldLayout, members: Mapping[str, int]) -> SurvivalPlan | None:
    """None without a strategy.

    Args:
        members: {species: P}.

    Raises:
        UserError: a value out of its range, a fitness that is not measured, or nobody who could be selected.
    """
    if settings.survival_strategy is None:
        _check_switched_off(settings)
        return None
    learning = [name for name in members if _learns(settings, name)]
    selected = [name for name in learning if members[name] > 1]
    if not selected:
        most = ", ".join(f"{members[name]} of '{name}'" for name in members)
        raise UserError(
            f"survival.strategy: selection needs 2 members or more in a species that learns, and population.members "
            f"is {most}"
        )
    groups = settings.communities if settings.survival_within == "communities" else 1
    _check_numbers(settings)
    if settings.survival_newborns is not None:
        one_of("survival.newborns", settings.survival_newborns, NEWBORNS)
    strategies = {name: _strategy(settings, layout, name, members[name] // groups) for name in selected}
    _check_effect(settings, {settings.survival_newborns or strategy.newborns for strategy in strategies.values()})
    return SurvivalPlan(
        strategies=strategies,
        every=settings.survival_every,
        fitness=_fitness(settings, layout, selected),
        measured={name: _measured(settings, layout, name) for name in selected},
        smoothing=settings.survival_smoothing,
        mutation_std=settings.mutation_std,
        crossover=settings.survival_crossover,
        newborns=settings.survival_newborns,
        lessons=settings.survival_lessons,
        hyperparameters=_hyperparameters(settings.survival_hyperparameters),
        perturbation=settings.survival_perturbation,
        groups=groups,
    )


def _strategy(settings: Settings, layout: WorldLayout, species: str, members: int) -> Strategy:
    """That of a species: one for all, or {species: strategy, "default": strategy}."""
    key, given = "survival.strategy", settings.survival_strategy
    each = strategies_by_species(settings, layout)
    for name in each:
        if name not in layout.species and name != DEFAULT:
            raise unknown(f"{key}: the species", str(name), [*layout.species, DEFAULT])
    given = of_species(key, each, layout.species[species]) if each else given
    whose = f" of species '{species}'" if len(layout.species) > 1 else ""
    strategy = make_strategy(given, members, key, whose)
    who = f"{key} {type(strategy).__name__}"
    one_of(f"{who}: newborns", strategy.newborns, NEWBORNS)
    for trait in strategy.traits:
        if trait not in TRAITS:
            raise UserError(f"{who}: the trait {trait!r} does not exist; {nearest(str(trait), TRAITS)}")
    return strategy


def strategies_by_species(settings: Settings, layout: WorldLayout) -> Mapping[str, Any]:
    """survival.strategy where it is {species: strategy, "default": strategy}; empty where it is one for all."""
    given = settings.survival_strategy
    if not isinstance(given, Mapping) or "kind" in given:
        return {}
    return given if given.keys() & {*layout.species, DEFAULT} else {}


def _learns(settings: Settings, species: str) -> bool:
    trained = settings.policies_to_train
    return trained is None or callable(trained) or species in trained


def _check_switched_off(settings: Settings) -> None:
    """null says that nobody is selected, whatever else is said of it; saying nothing of the strategy does not."""
    said = sorted(settings.survival_given)
    if said and "strategy" not in said:
        raise UserError(
            f"survival.{said[0]} is given, and survival.strategy is missing: nobody is selected without it; null for "
            "it switches selection off"
        )


def _check_effect(settings: Settings, begin: set[str]) -> None:
    """begin: what newborns of the species begin with."""
    given = settings.survival_given
    of_copies = {
        "mutation_std": settings.mutation_std,
        "mutation_schedule": settings.mutation_schedule,
        "crossover": settings.survival_crossover,
    }
    for key, value in of_copies.items():
        if key in given and value and COPY not in begin:
            raise UserError(
                f"survival.{key} is {value!r}, and has no effect: newborns begin with weights of their own; leave it "
                "out, or let them copy (survival.newborns)"
            )
    if "lessons" in given and IMITATE not in begin:
        raise UserError(
            f"survival.lessons is {settings.survival_lessons}, and has no effect: newborns are taught where "
            "survival.newborns is 'imitate'"
        )
    if "perturbation" in given and not settings.survival_hyperparameters:
        raise UserError(
            f"survival.perturbation is {settings.survival_perturbation}, and has no effect without "
            "survival.hyperparameters, which it perturbs"
        )


class Measured(dict[str, NDArray[Any]]):
    """{name: [P]}, what a function that is the fitness is given; what it asks for beside that is told."""

    def __init__(self, measures: Mapping[str, NDArray[Any]], who: str, species: str) -> None:
        super().__init__(measures)
        self.who, self.species = who, species

    def __missing__(self, key: object) -> NDArray[Any]:
        there = ", ".join(self)
        raise UserError(
            f"{self.who} asks for {key!r}, which is not measured of species '{self.species}'; allowed: {there}"
        )


def worth(fitness: Any, measures: Mapping[str, NDArray[Any]], species: str, members: int) -> NDArray[np.float64]:
    """[P], what a function of the user's own says. measures: {name: [P]}.

    Raises:
        UserError: it asks for what is not measured, or it is not a number for each member.
    """
    who = f"survival.fitness {getattr(fitness, '__name__', fitness)}"
    answer = fitness(Measured(measures, who, species))
    must = f"for species '{species}', and must return one number for each of its {members} members"
    try:
        found = np.asarray(answer)
    except (RuntimeError, TypeError, ValueError) as error:  # unequal lists, tensors with a gradient or of a GPU
        raise UserError(f"{who} returned {type(answer).__name__}, which is no array ({error}), {must}") from error
    if found.dtype.kind not in "biuf":
        raise UserError(f"{who} returned {found.dtype} {list(found.shape)} {must}")
    if found.shape != (members,):
        raise UserError(f"{who} returned {list(found.shape)} numbers {must}")
    return found.astype(float)


def _check_numbers(settings: Settings) -> None:
    count("survival.every", settings.survival_every, 1)
    count("survival.lessons", settings.survival_lessons, 1)
    must = "be a number of at least 0"
    number("survival.mutation_std", settings.mutation_std, must, least=0, below=float("inf"))
    share("survival.crossover", settings.survival_crossover)
    number("survival.smoothing", settings.survival_smoothing, "be at least 0 and below 1", least=0, below=1)
    number(
        "survival.perturbation",
        settings.survival_perturbation,
        "be a finite number of at least 1",
        least=1,
        below=float("inf"),
    )
    one_of("survival.within", settings.survival_within, GROUPS)
    if settings.survival_within == "communities" and settings.communities == 1:
        raise UserError("survival.within is 'communities', and population.communities is 1; it needs 2 or more")


def _fitness(settings: Settings, layout: WorldLayout, selected: Sequence[str]) -> Any:
    fitness = settings.survival_fitness
    if callable(fitness):
        return fitness
    if not isinstance(fitness, str):
        raise UserError(
            f"survival.fitness is {fitness!r}, and must be a function, 'module:function', or one of "
            f"{', '.join(MEASURES)}"
        )
    if ":" in fitness:
        found = attribute("survival.fitness", fitness)
        if not callable(found):
            raise UserError(f"survival.fitness '{fitness}' names {found!r}, and must name a function")
        return found
    unmeasured = _unmeasured(settings, layout, selected)
    there = [name for name in MEASURES if name not in unmeasured]
    if fitness in MEASURES and fitness not in there:
        allowed = ", ".join(sorted(there))
        raise UserError(
            f"survival.fitness '{fitness}' is not measured here; allowed: {allowed}; {unmeasured[fitness]}, so that "
            "nobody would be selected"
        )
    if fitness not in there:
        raise unknown("survival.fitness", fitness, there)
    return fitness


def _unmeasured(settings: Settings, layout: WorldLayout, selected: Sequence[str]) -> dict[str, str]:
    """{measure of members that there is not, of all species that are selected: why}."""
    own, kind = [layout.species[name] for name in selected], message_kind(settings.messages)
    if kind is None:
        return dict.fromkeys(OF_TALK, "all are silent")
    mute = next((f"species '{s.name}' never speaks" for s in own if not s.speaks), "")
    deaf = next((f"species '{s.name}' never hears anybody" for s in own if not s.hears), "")
    idle = next((f"species '{s.name}' neither speaks nor answers" for s in own if not (s.speaks or s.has_answers)), "")
    unanswered = "" if any(s.has_answers for s in layout.species.values()) else "the world tells no right answers"
    no_symbols = "" if kind.alphabet is not None else f"messages of the kind '{kind.kind}' are no symbols"
    no_words = "" if told_apart(kind) is not None else "there are more than 2^62 different messages, too many to count"
    unlabelled = "" if layout.num_labels else "the world has no labels for what is perceived"
    # Whose message it was that moved somebody is known where it stands in an inbox, and it is the only one of its step.
    latents = getattr(make_topology(settings.channel_topology), "latents", 0)
    anonymous = "whose message it was is not known" if latents or settings.channel_rounds else ""
    single = settings.num_worlds_per_env_runner < 2  # messages are those of another world of the runner
    no_other = "env_runners.num_worlds_per_env_runner is 1, and it needs another world to hear from" if single else ""
    reasons = {
        "message_entropy": no_symbols or mute,
        "agreement": unlabelled or no_symbols or no_words or mute,
        "success": unanswered or idle,
        "listening": deaf or no_other,
        "influence": mute or anonymous or no_other,
    }
    return {name: why for name, why in reasons.items() if why}


def _measured(settings: Settings, layout: WorldLayout, species: str) -> tuple[str, ...]:
    unmeasured = _unmeasured(settings, layout, [species])
    return tuple(name for name in MEASURES if name not in unmeasured)


def _hyperparameters(given: Mapping[str, Any] | None) -> dict[str, Bounds]:
    found = {}
    if given is not None and not isinstance(given, Mapping):
        raise UserError(
            f"survival.hyperparameters is {given!r}, and must map {' or '.join(HYPERPARAMETERS)} to [lowest, highest]"
        )
    for name, bounds in (given or {}).items():
        key = f"survival.hyperparameters.{name}"
        if name not in HYPERPARAMETERS:
            raise UserError(f"{key} does not exist; {nearest(name, HYPERPARAMETERS)}")
        if not isinstance(bounds, list | tuple) or len(bounds) != 2:
            raise UserError(f"{key} is {bounds!r}, and must be [lowest, highest], multiples of training.{name}")
        low, high = (number(key, value, "be numbers above 0", above=0, below=float("inf")) for value in bounds)
        if low > high:
            raise UserError(f"{key} is {bounds!r}, and its lowest must not be above its highest")
        found[name] = (low, high)
    return found
