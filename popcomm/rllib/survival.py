"""Survival: what members came to is gathered, and the next generation decided; learners and runners carry it out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from popcomm.errors import UserError
from popcomm.evolution import Generation, chosen, inherited, lineage, lived, mates_of, succeeded, taught_by_the_living
from popcomm.evolution.diversity import of_messages
from popcomm.evolution.generation import NOBODY
from popcomm.evolution.strategy import COPY, FRESH, IMITATE
from popcomm.rllib.member_statistics import MemberStatistics, statistics_of
from popcomm.rllib.plan import Plan
from popcomm.rllib.succession import Succession
from popcomm.rllib.survival_plan import SurvivalPlan, first_scales, worth
from popcomm.rollout import seed_of

logger = logging.getLogger(__name__)

Array = NDArray[Any]
SURVIVAL_BRANCH = 10
# Share of the members of whom nothing is known from which on that is told: selection passes them by.
MANY = 0.25
QUARTILES = ("fitness_min", "fitness_q25", "fitness_median", "fitness_q75", "fitness_max")


class Selected(NamedTuple):
    """What a selection decided, and what is told of it."""

    successions: dict[str, Succession]  # {species: ...}
    told: dict[str, dict[str, float]]  # {species: {name: number}}


class Survival:
    """The selection of a training, kept by its driver.

    Args:
        plan: of the training, with a `survival`.
        seed: of all that is random; None: fresh entropy.

    Attributes:
        generations: {species that is selected: who lives}.
        ended: {species: {column of `lineage.COLUMNS`: [M]}}, of the generations that ended.
        scales: {species: {hyper-parameter: [P]}}, each member's, as a multiple of the setting.
    """

    def __init__(self, plan: Plan, seed: int | None) -> None:
        assert plan.survival is not None
        self.plan: SurvivalPlan = plan.survival
        self.seed = seed
        species = {name: plan.species[name] for name in self.plan.strategies}
        self._order = {name: index for index, name in enumerate(plan.species)}
        self._members = {name: s.members for name, s in plan.species.items()}
        self.generations = {name: Generation.first(s.members) for name, s in species.items()}
        self._met = self._nothing_met()
        # The iteration up to which no generation ends any more; None: not known, of a checkpoint of before it was kept.
        self._last: int | None = 0
        self._warned: set[tuple[str, bool]] = set()  # of which species, and whether of all its members
        self._infinite: set[str] = set()  # species of which somebody's fitness was, of which was told
        self.ended: dict[str, dict[str, Array]] = {name: {} for name in species}
        self.scales = {name: first_scales(self.plan, s.members, seed, self._order[name]) for name, s in species.items()}

    def _nothing_met(self) -> dict[str, MemberStatistics]:
        return {name: met for name, met in statistics_of(self._members).items() if name in self.plan.strategies}

    # ---- fitness ----

    def take(self, counted: Iterable[Mapping[str, Mapping[str, Any]]]) -> None:
        """What members came to since the last time, in all runners. counted: of each, {species: state of its sums}."""
        for told in counted:
            for name, met in self._met.items():
                if name in told:
                    met.merge(told[name])

    def due(self, iteration: int) -> bool:
        """Whether a generation ends with an iteration, from 1.

        Once in `every` iterations: RLlib may train several times in one, of which one ends the generation; and where
        nothing was learned in the iteration that was to end it, because runners were lost, the next does.
        """
        last = iteration - 1 if self._last is None else self._last
        return iteration // self.plan.every > last // self.plan.every

    def begin_at(self, iteration: int) -> None:
        """Of a training that went on so far without selection: the first generation is a whole one."""
        every = self.plan.every
        self._last = -(-iteration // every) * every

    def fitness(self, name: str) -> Array:
        """[P], of the present generation alone; nan where nothing is known, or where it is infinite.

        Raises:
            UserError: the user's function does not give a number for each member.
        """
        measures, asked = self._met[name].measures(), self.plan.fitness
        nothing = np.full(self.generations[name].members, np.nan)
        # Where nobody spoke, or saw anything that has a label, it is not there yet.
        told = {measure: measures.get(measure, nothing.copy()) for measure in self.plan.measured[name]}
        found = told[asked] if isinstance(asked, str) else worth(asked, told, name, len(nothing))
        infinite = np.isinf(found)
        if infinite.any() and name not in self._infinite:
            self._infinite.add(name)
            logger.warning(
                "survival.fitness is infinite of members %s of species '%s' at the end of generation %d; that counts "
                "as not known",
                ", ".join(map(str, np.flatnonzero(infinite))), name, self.generations[name].number,
            )  # fmt: skip
        return np.where(infinite, np.nan, found)

    # ---- a generation ends ----

    def select(self, iteration: int, mutation: float = 1.0, pressure: float = 1.0) -> Selected:
        """Decide who lives on and who has children, in all species; what was gathered is forgotten.

        Args:
            iteration: that ends with it, from 1.
            mutation: by how much its deviation is multiplied.
            pressure: probability with which a member that the strategy replaces is replaced indeed.
        """
        successions, told = {}, {}
        for name in self.generations:
            successions[name], told[name] = self._select(name, mutation, pressure, iteration)
        self._met, self._last = self._nothing_met(), iteration
        return Selected(successions, told)

    def _select(
        self, name: str, mutation: float, pressure: float, iteration: int
    ) -> tuple[Succession, dict[str, float]]:
        plan, fitness = self.plan, self.fitness(name)
        before = lived(self.generations[name], fitness, plan.smoothing)
        self._tell_of_the_unknown(name, before, nobody=bool(np.isnan(fitness).all()))
        strategy, traits = plan.strategies[name], self._traits(name)
        seed = seed_of(self.seed, SURVIVAL_BRANCH, self._order[name], before.number)
        rng = np.random.default_rng(seed)
        sources = chosen(strategy, before, traits, rng, plan.groups)
        if pressure < 1:
            sources = np.where(rng.random(before.members) < pressure, sources, np.arange(before.members))
        begin = plan.begin_with(name)
        if begin == IMITATE:  # on the place of a parent that is replaced sits a newborn, who knows nothing yet
            sources = taught_by_the_living(sources, before.fitness, rng, plan.groups)
        crosses = plan.crossover > 0 and begin == COPY
        mates = mates_of(sources, rng, plan.groups) if crosses else np.full(before.members, -1)
        # Of those who begin anew and are not taught nothing is anybody's but hyper-parameters: no descent.
        alone = (begin == FRESH) & (sources != np.arange(before.members))
        after = succeeded(before, np.where(alone, NOBODY, sources), mates, anew=begin != COPY)
        for key, bounds in plan.hyperparameters.items():
            now = self.scales[name][key]
            self.scales[name][key] = inherited(now, sources, plan.perturbation, bounds, rng, plan.groups)
        rows, ended = lineage.rows(before, sources, iteration), self.ended[name]
        self.ended[name] = {key: np.concatenate([ended[key], new]) if ended else new for key, new in rows.items()}
        self.generations[name] = after
        succession = Succession(
            sources=sources,
            mates=mates,
            fresh=begin != COPY,
            lessons=plan.lessons if begin == IMITATE else 0,
            mutation_std=plan.mutation_std * mutation,
            crossover=plan.crossover,
            scales=dict(self.scales[name]),
            seed=seed,
        )
        return succession, self._told(name, before, after, traits)

    def _tell_of_the_unknown(self, name: str, ended: Generation, nobody: bool) -> None:
        """Warn, once, of a species that is hardly selected. nobody: whether nothing was measured in this generation."""
        unknown, members = int((~ended.known).sum()), ended.members
        few = unknown < MANY * members and not nobody
        if few or (name, nobody) in self._warned or not self.plan.strategies[name].goes_by_fitness:
            return
        self._warned.add((name, nobody))
        fitness = f" '{self.plan.fitness}'" if isinstance(self.plan.fitness, str) else ""
        told = f"was measured of any of the {members}" if nobody else f"is known of {unknown} of the {members}"
        logger.warning(
            "survival.fitness%s: at the end of generation %d nothing %s members of species '%s'; they live on and have "
            "no children. What counts are lives of their own, and returns once such a life has ended: "
            "survival.every iterations should be more steps than two episodes",
            fitness, ended.number, told, name,
        )  # fmt: skip

    def _traits(self, name: str) -> dict[str, Array]:
        """What members did; of those that a strategy reads and nobody did, nothing is known."""
        traits, members = self._met[name].traits(), self.generations[name].members
        wanted = self.plan.strategies[name].traits
        return traits | {trait: np.full((members, 1), np.nan) for trait in wanted if trait not in traits}

    def _told(self, name: str, before: Generation, after: Generation, traits: Mapping[str, Array]) -> dict[str, float]:
        told = lineage.measures(before, after)
        numbers: dict[str, float] = {
            "generation": after.number,
            "births": told.births,
            "deaths": told.deaths,
            "founders": told.founders,
            "effective_founders": told.effective_founders,
            "age_mean": told.age_mean,
            "age_max": told.age_max,
            **dict(zip(QUARTILES, told.fitness.tolist(), strict=True)),
        }
        if "messages" in traits:
            numbers["message_diversity"] = of_messages(traits["messages"])
        for key, scales in self.scales[name].items():
            numbers[f"{key}_scale"] = float(np.exp(np.log(scales).mean()))
        return numbers

    def table(self) -> dict[str, Array]:
        """The lineage of all species: {"species" and the columns of `lineage.COLUMNS`: [M]}, the living last."""
        parts = []
        for name, generation in self.generations.items():
            living = lineage.rows(generation, np.arange(generation.members))
            ended = self.ended[name]
            rows = {key: np.concatenate([ended[key], new]) if ended else new for key, new in living.items()}
            parts.append({"species": np.full(len(rows["id"]), name, object), **rows})
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def generations_before(self, iterations: Array) -> Array:
        """How many generations had ended when iterations began: [M] int64, from 1 -> [M] int64."""
        ended = next(iter(self.ended.values()))  # those of all species end together
        return np.searchsorted(np.unique(ended.get("iteration", ())), iterations)

    # ---- checkpoints ----

    def get_state(self) -> dict[str, Any]:
        """All that decides the future, and the family tree."""
        return {
            "generations": {name: generation.get_state() for name, generation in self.generations.items()},
            "met": {name: met.get_state() for name, met in self._met.items()},
            "ended": {name: dict(columns) for name, columns in self.ended.items()},
            "scales": {name: dict(scales) for name, scales in self.scales.items()},
            "last": self._last,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `get_state`.

        Raises:
            UserError: it is of other species, or of other numbers of members.
        """
        found = {name: Generation.of_state(told) for name, told in state["generations"].items()}
        there, here = ({n: g.members for n, g in gs.items()} for gs in (found, self.generations))
        if there != here:
            raise UserError(
                f"the checkpoint selects among members {there}, and this configuration among {here}; restore it with "
                "the population that it was saved with"
            )
        self.generations, self._last = found, state.get("last")
        self._met = self._nothing_met()
        self.take([state["met"]])
        self.ended = {name: dict(columns) for name, columns in state["ended"].items()}
        for columns in self.ended.values():
            if columns and "iteration" not in columns:  # of an older checkpoint: as `every` has it
                columns["iteration"] = self.plan.every * (np.asarray(columns["generation"]) + 1)
        # Hyper-parameters that were not inherited then begin as those of founders.
        for name, scales in state["scales"].items():
            self.scales[name] |= {key: np.asarray(scales[key]) for key in scales.keys() & self.scales[name].keys()}
