"""AgeLimit: a liquid population, in which the oldest make room for newborns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popcomm.checks import count
from popcomm.errors import UserError
from popcomm.evolution.generation import Generation, Ints
from popcomm.evolution.strategy import FRESH, Strategy, Traits, staying


@dataclass(frozen=True)
class AgeLimit(Strategy):
    """In each generation the oldest P / age members are replaced, so that each lives for about `age` generations.

    A language that newborns do not learn from those who live beside them dies out with its speakers: this selects for
    languages that are easy to learn (iterated learning, Kirby 2001; generations within a population, Cogswell et al.
    2019). Founders are all of one age and make room one after another, not all at once; among those of one age the
    first on the member axis goes first. Fitness is not looked at: the parent of a newborn is drawn evenly from those
    who live on. Newborns that are fresh have nothing of it but hyper-parameters, and none in the lineage.

    Args:
        age: generations, 2 or more.

    Raises:
        UserError: age below 2.
    """

    age: int

    newborns = FRESH
    goes_by_fitness = False

    def __post_init__(self) -> None:
        count("survival.strategy: age", self.age, 2)

    def check(self, members: int, key: str = "survival.strategy") -> None:
        if members < 2:
            raise UserError(f"{key}: an age limit needs 2 members or more, and there is {members}")

    def select(self, generation: Generation, traits: Traits, rng: np.random.Generator) -> Ints:
        sources, members = staying(generation), generation.members
        # P / age need not be whole: what is left over from one generation comes in a later one.
        due = (generation.number + 1) * members // self.age - generation.number * members // self.age
        if due:
            eldest = np.lexsort((sources, generation.births))[:due]
            sources[eldest] = rng.choice(np.setdiff1d(staying(generation), eldest), due)
        return sources
