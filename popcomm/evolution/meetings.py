"""Meetings: what members came to, and beside whom; so that luck of seating is not fitness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcomm.evolution.generation import Floats, Ints

PARTNERS = 64  # seats of a world whose members a seat meets; in larger worlds the ones that follow it


class Meetings:
    """Sums of what members came to, for each other member that they met; they add over worlds and runners.

    A member's `mean` is the mean over those whom it met of its mean beside each of them: who sat beside a good partner
    more often than others is not better for it. (Cross-play scores of population play, e.g. Lupu et al. 2021, average
    over partners in the same way.) Where every member sits in every world, that is the plain mean.

    Args:
        members: P.
        partners: seats of a world whose members a seat meets; 0: it is alone, and the mean is the plain one.

    >>> met = Meetings(3)
    >>> met.add(np.array([[0, 1], [0, 1], [0, 2]]), np.array([[4.0, 0.0], [4.0, 0.0], [1.0, 0.0]]))
    >>> met.mean()
    array([2.5, 0. , 0. ])
    """

    def __init__(self, members: int, partners: int = PARTNERS) -> None:
        self.members, self.partners = members, partners
        # One row for each pair (member, met) that came about, by P * member + met; who is alone meets itself.
        self._pairs: Ints = np.zeros(0, int)
        self._sums: Floats = np.zeros(0)
        self._counts: Floats = np.zeros(0)

    def add(self, members: Ints, values: Floats, counted: NDArray[np.bool_] | None = None) -> None:
        """Take in E worlds.

        Args:
            members: [E, N] int64, who sat where.
            values: [E, N], what they came to.
            counted: [E, N] bool, whose value counts; None: all.
        """
        seats = members.shape[1]
        if not members.size:
            return
        # [S], how far on the others sit.
        steps = np.arange(1, min(seats, self.partners + 1)) if min(seats - 1, self.partners) else np.zeros(1, int)
        others = members[:, (np.arange(seats)[:, None] + steps) % seats]  # [E, N, S]
        pairs = members[..., None] * self.members + others
        weights = np.ones(members.shape) if counted is None else counted.astype(float)
        # Where a world has several seats of a pair, each counts as its share: a world is one meeting with everyone.
        each = np.broadcast_to((weights / len(steps))[..., None], pairs.shape)
        told = np.where(weights > 0, values, 0.0)
        self._gather(pairs.reshape(-1), (each * told[..., None]).reshape(-1), each.reshape(-1))

    def _gather(self, pairs: Ints, sums: Floats, counts: Floats) -> None:
        whole = np.concatenate([self._pairs, pairs])
        self._pairs, place = np.unique(whole, return_inverse=True)
        self._sums = np.bincount(place, np.concatenate([self._sums, sums]), len(self._pairs)).astype(float)
        self._counts = np.bincount(place, np.concatenate([self._counts, counts]), len(self._pairs)).astype(float)

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add another's `get_state`."""
        pairs, sums, counts = (np.asarray(state[key]) for key in ("pairs", "sums", "counts"))
        self._gather(pairs.astype(int), sums.astype(float), counts.astype(float))

    def mean(self) -> Floats:
        """[P] float64; nan of those who met nobody."""
        known = self._counts > 0
        whose = self._pairs[known] // self.members
        beside = self._sums[known] / self._counts[known]
        total, met = np.bincount(whose, beside, self.members), np.bincount(whose, minlength=self.members)
        return np.where(met > 0, total / np.maximum(met, 1), np.nan)

    def forget(self, members: NDArray[np.bool_]) -> None:
        """Nothing is known any more of some, nor of what others came to beside them. members: [P] bool."""
        whose, beside = self._pairs // self.members, self._pairs % self.members
        kept = ~(members[whose] | members[beside])
        self._pairs, self._sums, self._counts = self._pairs[kept], self._sums[kept], self._counts[kept]

    def get_state(self) -> dict[str, Any]:
        """Arrays [M], of the M pairs that came about."""
        return {"pairs": self._pairs, "sums": self._sums, "counts": self._counts}
