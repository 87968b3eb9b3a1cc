"""Novelty: those who do as nobody else does have children."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popcomm.checks import count, number, one_of
from popcomm.checks import share as share_of
from popcomm.errors import UserError
from popcomm.evolution.generation import Floats, Generation, Ints
from popcomm.evolution.strategy import Strategy, Traits, part_of, ranked, shared, staying

DISTANCES = ("messages", "actions")


@dataclass(frozen=True)
class Novelty(Strategy):
    """A member's novelty is its mean distance to the k members that are nearest to it.

    (Novelty search: Lehman and Stanley 2011, eq. 1.) The least novel are replaced by children of the most novel.
    Distance is that of Hellinger between two members' distributions, of the symbols that they said or of the actions
    that they took since the last selection. Who said or did nothing yet lives on and has no children.

    Args:
        distance: "messages" or "actions".
        k: neighbours; where there are fewer, all.
        share: of the members that are replaced in a generation, in (0, 0.5].
        weight: of the novelty, in [0, 1]; the rest is the fitness's. Both are ranks in [0, 1], so that units do not
            count.

    Raises:
        UserError: a value out of its range, or (`check`) fewer than 3 members.
    """

    distance: str = "messages"
    k: int = 5
    share: float = 0.25
    weight: float = 1.0

    def __post_init__(self) -> None:
        one_of("survival.strategy: distance", self.distance, DISTANCES)
        count("survival.strategy: k", self.k, 1)
        number("survival.strategy: share", self.share, "be above 0 and at most 0.5", above=0, most=0.5)
        share_of("survival.strategy: weight", self.weight)

    @property
    def traits(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.distance,)

    @property
    def goes_by_fitness(self) -> bool:  # type: ignore[override]
        return self.weight < 1

    def check(self, members: int, key: str = "survival.strategy") -> None:
        if members < 3:
            raise UserError(f"{key}: novelty needs 3 members or more, and there are {members}")

    def select(self, generation: Generation, traits: Traits, rng: np.random.Generator) -> Ints:
        scores = self.weight * _ranks(novelty(traits[self.distance], self.k))
        if self.weight < 1:
            scores = scores + (1 - self.weight) * _ranks(generation.fitness)
        order, sources = ranked(scores, rng), staying(generation)
        deaths = min(part_of(self.share, generation.members), len(order) // 2)
        if deaths:
            sources[order[-deaths:]] = shared(order[:deaths], deaths, rng)
        return sources


def novelty(traits: Floats, k: int) -> Floats:
    """Mean Hellinger distance to the k nearest. traits: [P, D] distributions, nan where unknown; [P] in [0, 1] or nan.

    >>> novelty(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 1)
    array([0., 0., 1.])
    """
    known = np.flatnonzero(~np.isnan(traits).any(1))
    result = np.full(len(traits), np.nan)
    if len(known) < 2:
        return result
    roots = np.sqrt(traits[known])
    # sqrt(1 - sum sqrt(p q)); rounding must not take it out of [0, 1].
    apart = np.sqrt(np.clip(1.0 - roots @ roots.T, 0.0, 1.0))
    np.fill_diagonal(apart, np.inf)  # nobody is its own neighbour
    nearest = np.sort(apart, 1)[:, : min(k, len(known) - 1)]
    result[known] = nearest.mean(1)
    return result


def _ranks(values: Floats) -> Floats:
    """[P] in [0, 1], 1 for the highest, equal values the mean of their ranks; nan stays."""
    known = ~np.isnan(values)
    result = np.full(len(values), np.nan)
    _, inverse, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    middle = ends - (counts + 1) / 2
    result[known] = middle[inverse] / max(len(inverse) - 1, 1)
    return result
