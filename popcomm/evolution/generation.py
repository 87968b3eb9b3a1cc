"""Generation: who lives, of whom they are, and how fit they are. All of selection's state, and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from popcomm.errors import UserError

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

NOBODY = -1  # in place of a member or an individual
SCALARS = ("number", "born")  # of a generation; all else is [P]


@dataclass(frozen=True)
class Generation:
    """P members, each an individual that was born once and has an id that no other had or will have.

    Attributes:
        number: selections so far.
        ids: [P] int64, who is on each place of the member axis.
        parents: [P] int64, ids of those whose weights they began with, or who teach them; NOBODY of founders and of
            those made anew.
        mates: [P] int64, ids of those of whom some tensors are; NOBODY without crossover.
        births: [P] int64, the generation in which they were born; founders 0.
        founders: [P] int64, id of the first of each one's line.
        fitness: [P] float64, smoothed; nan where nothing is known yet.
        born: individuals so far, and the next id.
    """

    number: int
    ids: Ints
    parents: Ints
    mates: Ints
    births: Ints
    founders: Ints
    fitness: Floats
    born: int

    @classmethod
    def first(cls, members: int) -> Generation:
        """The founders.

        >>> Generation.first(3).ids
        array([0, 1, 2])
        """
        ids = np.arange(members)
        nobody = np.full(members, NOBODY)
        return cls(0, ids, nobody, nobody, np.zeros(members, int), ids, np.full(members, np.nan), members)

    @property
    def members(self) -> int:
        """P."""
        return len(self.ids)

    @property
    def ages(self) -> Ints:
        """[P] int64, in generations."""
        return self.number - self.births

    @property
    def known(self) -> NDArray[np.bool_]:
        """[P] bool, whose fitness is known."""
        return ~np.isnan(self.fitness)

    def part(self, places: Ints) -> Generation:
        """Those on some places of the member axis, as a generation of their own. places: [M] int64."""
        arrays = {f.name: getattr(self, f.name)[places] for f in fields(self) if f.name not in SCALARS}
        return replace(self, **arrays)

    def get_state(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Generation:
        """From `get_state`.

        Raises:
            UserError: the state lacks something.
        """
        lacking = [f.name for f in fields(cls) if f.name not in state]
        if lacking:
            raise UserError(f"the state of a generation lacks {', '.join(lacking)}")
        arrays: dict[str, Any] = {
            f.name: np.array(state[f.name], float if f.name == "fitness" else int)
            for f in fields(cls)
            if f.name not in SCALARS
        }
        return cls(**arrays | {name: int(state[name]) for name in SCALARS})


def lived(generation: Generation, fitness: Floats, smoothing: float = 0.0) -> Generation:
    """The same members, and what they came to since the last selection.

    All learn while they live, so that what was measured in an earlier generation is too low for this one, and who has
    lived long would be held back by it. What is smoothed is therefore by how much a member is above others, and these
    are the same ones then and now: those whose fitness m was known before, and who were measured again. With m' and x'
    the means of these, their fitness is x' + s (m - m') + (1 - s) (x - x'). Who is measured for the first time counts
    as it is, x, neither above nor below its equals who have lived long. Who was not measured stays as far above the
    others, x' + m - m'; and where nobody was both, nothing tells how much all have learned, and it keeps its m.

    Args:
        fitness: [P] float64, x; nan or infinite where nothing is known, for one infinity would be everybody's mean.
        smoothing: s, in [0, 1).

    >>> first = lived(Generation.first(3), np.array([1.0, 3.0, np.nan]))
    >>> lived(first, np.array([14.0, 12.0, np.nan]), 0.5).fitness
    array([13., 13., nan])
    """
    now = np.asarray(fitness, float)
    now = np.where(np.isfinite(now), now, np.nan)
    if np.isnan(now).all():
        return generation
    again = generation.known & ~np.isnan(now)
    before = generation.fitness
    if again.any():
        before = before - before[again].mean() + now[again].mean()
    measured = np.where(again, now + smoothing * (before - now), now)
    return replace(generation, fitness=np.where(np.isnan(now), before, measured))


def succeeded(generation: Generation, sources: Ints, mates: Ints | None = None, anew: bool = False) -> Generation:
    """The next generation.

    Args:
        generation: the one before.
        sources: [P] int64, the place from which each place is filled: its own, who is there lives on; another, a child
            of who is there is born; NOBODY, one is made anew.
        mates: [P] int64, places of second parents; NOBODY or None without.
        anew: children begin with weights made anew also where they have a parent, who teaches them: the line begins
            with them, and the parent is theirs all the same.

    Raises:
        UserError: see `check_sources`.

    >>> after = succeeded(Generation.first(3), np.array([0, 0, -1]))
    >>> after.ids, after.parents, after.founders
    (array([0, 3, 4]), array([-1,  0, -1]), array([0, 0, 4]))
    """
    check_sources(sources, generation.members)
    places = np.arange(generation.members)
    born = sources != places
    number = generation.number + 1
    given = np.maximum(sources, 0)  # any place, where there is no source
    ids = np.where(born, generation.born + np.cumsum(born) - 1, generation.ids)
    parents = np.where(sources == NOBODY, NOBODY, generation.ids[given])
    no_mate = np.full(generation.members, NOBODY)
    seconds = no_mate if mates is None else np.where(mates == NOBODY, NOBODY, generation.ids[np.maximum(mates, 0)])
    begins = born & ((sources == NOBODY) | anew)
    return Generation(
        number=number,
        ids=ids,
        parents=np.where(born, parents, generation.parents),
        mates=np.where(born, seconds, generation.mates),
        births=np.where(born, number, generation.births),
        founders=np.where(begins, ids, generation.founders[given]),
        fitness=np.where(born, np.nan, generation.fitness),
        born=generation.born + int(born.sum()),
    )


def check_sources(sources: Any, members: int, who: str = "the strategy") -> Ints:
    """What a strategy answered, as [P] int64.

    Raises:
        UserError: it is not one place for each member, or there is no such place.
    """
    found = np.asarray(sources)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise UserError(f"{who} must return whole numbers [members], and returned {found.dtype} {list(found.shape)}")
    if len(found) != members:
        raise UserError(f"{who} returned {len(found)} members, and must return {members}, one for each place")
    beyond = found[(found < NOBODY) | (found >= members)]
    if len(beyond):
        raise UserError(
            f"{who} returned the place {beyond[0]}, and must return places of 0 to {members - 1}, or {NOBODY} for one "
            "that is made anew"
        )
    return found.astype(np.int64)
