"""Tournament: a few meet, the best of them has a child, the worst of a few others makes room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popcomm.checks import count, number
from popcomm.errors import UserError
from popcomm.evolution.generation import Generation, Ints
from popcomm.evolution.strategy import Strategy, Traits, part_of, ranked, staying


@dataclass(frozen=True)
class Tournament(Strategy):
    """Parents are the best of `size` drawn members each, and the worst of `size` drawn ones are replaced.

    (Steady-state tournament selection: Goldberg and Deb 1991.) The larger the tournaments, the harder the selection.
    The fittest member is never replaced, and nobody twice. Who has no fitness yet lives on and has no children.

    Args:
        size: members that meet, 2 or more.
        share: of the members that are replaced in a generation, in (0, 1].

    Raises:
        UserError: size below 2 or (`check`) above the members, a share out of (0, 1].
    """

    size: int = 3
    share: float = 0.25

    def __post_init__(self) -> None:
        count("survival.strategy: size", self.size, 2)
        number("survival.strategy: share", self.share, "be above 0 and at most 1", above=0, most=1)

    def check(self, members: int, key: str = "survival.strategy") -> None:
        if self.size > members:
            raise UserError(f"{key}: size is {self.size}, and must be at most the {members} members")

    def select(self, generation: Generation, traits: Traits, rng: np.random.Generator) -> Ints:
        order, sources = ranked(generation.fitness, rng), staying(generation)
        size = min(self.size, len(order))
        deaths = min(part_of(self.share, generation.members), len(order) - 1)
        if size < 2 or deaths < 1:
            return sources
        # By rank: the best of a tournament has the lowest. Those who lost are out of the next draw.
        left = np.arange(len(order))
        for _ in range(deaths):
            met = rng.choice(len(left), min(size, len(left)), replace=False)
            loser = met.max()
            winner = rng.choice(len(order), size, replace=False).min()
            sources[order[left[loser]]] = order[winner]
            left = np.delete(left, loser)
        return sources
