"""Truncation: the best share has children, and but for a few elites all are replaced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popcomm.checks import count, number
from popcomm.errors import UserError
from popcomm.evolution.generation import Generation, Ints
from popcomm.evolution.strategy import Strategy, Traits, part_of, ranked, shared, staying


@dataclass(frozen=True)
class Truncation(Strategy):
    """Parents are the fittest `share` of the members; the `elites` best live on, everybody else is a child.

    (Truncation selection with elitism, as in Such et al. 2017, Deep Neuroevolution, algorithm 1.) Who has no fitness
    yet lives on and has no children. Of the others the same share is replaced as of all, rounded up: if those of whom
    nothing is known lived on beside all elites, nobody would make room while the children of the generation before have
    no fitness. The best lives on in any case, but with no elites.

    Args:
        elites: members that live on where the fitness of all is known.
        share: of the members whose fitness is known, in (0, 1]; at least one is a parent.

    Raises:
        UserError: elites below 0 or (`check`) above the members, a share out of (0, 1].
    """

    elites: int = 1
    share: float = 0.25

    def __post_init__(self) -> None:
        count("survival.strategy: elites", self.elites, 0)
        number("survival.strategy: share", self.share, "be above 0 and at most 1", above=0, most=1)

    def check(self, members: int, key: str = "survival.strategy") -> None:
        if self.elites > members:
            raise UserError(f"{key}: elites is {self.elites}, and must be at most the {members} members")

    def most_parents(self, members: int) -> int:
        return part_of(self.share, members)

    def most_replaced(self, members: int) -> int:
        return members - self.elites

    def select(self, generation: Generation, traits: Traits, rng: np.random.Generator) -> Ints:
        order, sources = ranked(generation.fitness, rng), staying(generation)
        # Of P members P - elites, of those who are known as large a share.
        room = -(-len(order) * (generation.members - self.elites) // generation.members)
        replaced = order[max(len(order) - room, min(self.elites, 1)) :]
        if len(replaced):
            parents = order[: part_of(self.share, len(order))]
            # A child of the member whose place it takes would be that member: such a place keeps it.
            sources[replaced] = shared(parents, len(replaced), rng)
        return sources
