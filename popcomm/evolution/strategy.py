"""Strategy: who lives on, and who has children. A strategy of your own is a subclass with the one method `select`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from popcomm.evolution.generation import Floats, Generation, Ints

COPY, FRESH, IMITATE = "copy", "fresh", "imitate"
NEWBORNS = (COPY, FRESH, IMITATE)

# {name: [P, D] float64}, what members do: rows are distributions, of nan where nothing is known.
Traits = Mapping[str, Floats]


class Strategy(ABC):
    """Decides from what is known of the members, and from nothing else; all that is random comes from `rng`.

    Attributes:
        newborns: what children begin with where `survival(newborns=)` leaves it open: "copy", their parent's weights;
            "fresh", new ones; "imitate", new ones, and a parent that lives on teaches them.
        traits: names of the traits that `select` reads.
        goes_by_fitness: whether `select` reads the members' fitness.
    """

    newborns: str = COPY
    traits: tuple[str, ...] = ()
    goes_by_fitness: bool = True

    @abstractmethod
    def select(self, generation: Generation, traits: Traits, rng: np.random.Generator) -> Ints:
        """The place of the member axis from which each place is filled.

        Args:
            generation: P members.
            traits: those that `traits` names.
            rng: of all that is random.

        Returns:
            [P] int64: its own place, the member lives on; another, a child of who is there is born; -1, one is made
            anew, without a parent.
        """

    def check(self, members: int, key: str = "survival.strategy") -> None:
        """Before work starts: whether it can select among P members. By itself: it can.

        Raises:
            UserError: it cannot; the sentence begins with `key`.
        """
        return None

    def most_parents(self, members: int) -> int:
        """How many of P members can have children in one generation, at most. By itself: all."""
        return members

    def most_replaced(self, members: int) -> int:
        """How many of P members can be replaced in one generation, at most. By itself: all."""
        return members


def ranked(fitness: Floats, rng: np.random.Generator) -> Ints:
    """Places from the fittest on, those of equal fitness in random order; whose fitness is nan is left out.

    >>> ranked(np.array([1.0, np.nan, 3.0]), np.random.default_rng(0))
    array([2, 0])
    """
    shuffled = rng.permutation(len(fitness))
    known = shuffled[~np.isnan(fitness[shuffled])]
    return known[np.argsort(-fitness[known], kind="stable")]


def shared(parents: Ints, count: int, rng: np.random.Generator) -> Ints:
    """A parent for each of `count` children, [count] int64: all have equally many, up to one, drawn at random.

    >>> sorted(shared(np.array([4, 7]), 4, np.random.default_rng(0)).tolist())
    [4, 4, 7, 7]
    """
    rounds = -(-count // len(parents))
    order = rng.permuted(np.tile(parents, (rounds, 1)), axis=1).reshape(-1)
    return rng.permutation(order[:count])


def part_of(share: float, members: int) -> int:
    """How many members a share of them is: rounded up, and one at least.

    >>> part_of(0.07, 100), part_of(0.25, 10)
    (7, 3)
    """
    # 0.07 * 100 is above 7 in floating point.
    return max(1, math.ceil(share * members - 1e-9))


def staying(generation: Generation) -> Ints:
    """All live on, [P] int64."""
    return np.arange(generation.members)
