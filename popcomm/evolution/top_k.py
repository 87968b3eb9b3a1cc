"""TopK: the best have children, all others are replaced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popcomm.checks import count
from popcomm.errors import UserError
from popcomm.evolution.generation import Generation, Ints
from popcomm.evolution.strategy import Strategy, Traits, ranked, shared, staying


@dataclass(frozen=True)
class TopK(Strategy):
    """The k fittest live on as they are, and share all places of the others among their children equally.

    ((mu + lambda) selection of evolution strategies, mu = k: Beyer and Schwefel 2002, section 2.) Who has no fitness
    yet lives on and has no children; while no more than k have any, nobody is replaced.

    Args:
        k: members that have children.

    Raises:
        UserError: k below 1, or (`check`) above the members.

    >>> from popcomm.evolution import lived
    >>> generation = lived(Generation.first(4), np.array([0.1, 0.9, 0.3, 0.2]))
    >>> TopK(1).select(generation, {}, np.random.default_rng(0))
    array([1, 1, 1, 1])
    """

    k: int

    def __post_init__(self) -> None:
        count("survival.strategy: k", self.k, 1)

    def check(self, members: int, key: str = "survival.strategy") -> None:
        if self.k > members:
            raise UserError(f"{key}: k is {self.k}, and must be at most the {members} members")

    def most_parents(self, members: int) -> int:
        return self.k

    def most_replaced(self, members: int) -> int:
        return members - self.k

    def select(self, generation: Generation, traits: Traits, rng: np.random.Generator) -> Ints:
        order, sources = ranked(generation.fitness, rng), staying(generation)
        parents, replaced = order[: self.k], order[self.k :]
        if len(replaced):
            sources[replaced] = shared(parents, len(replaced), rng)
        return sources
