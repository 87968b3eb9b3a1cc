"""Meetings: what members came to, and beside whom; so that luck of seating is not fitness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcomm.errors import UserError
from popcomm.evolution.generation import NOBODY, Floats, Ints

PARTNERS = 64  # seats of a world whose members a seat meets; in larger worlds the ones that follow it


class Meetings:
    """Sums of what members came to, for each other member that they met; they add over worlds and runners.

    A member's `mean` is the mean over those whom it met of its mean beside each of them: who sat beside a good partner
    more often than others is not better for it. (Cross-play scores of population play, e.g. Lupu et al. 2021, average
    over partners in the same way.) Where every member sits in every world, that is the plain mean. Members of other
    species are met, too: a speaker whose listener understands is not better for it.

    Args:
        members: P.
        partners: seats of a world whose members a seat meets; 0: it is alone, and the mean is the plain one.
        first: the number of the first of them among those who can be met, from which the others' follow.
        everybody: how many can be met, members of other species among them; None: these alone.

    >>> met = Meetings(3)
    >>> met.add(np.array([[0, 1], [0, 1], [0, 2]]), np.array([[4.0, 0.0], [4.0, 0.0], [1.0, 0.0]]))
    >>> met.mean()
    array([2.5, 0. , 0. ])
    """

    def __init__(self, members: int, partners: int = PARTNERS, first: int = 0, everybody: int | None = None) -> None:
        self.members, self.partners, self.first = members, partners, first
        self.everybody = members if everybody is None else everybody
        # One row for each pair (member, met) that came about, by everybody * member + number of who was met; who is
        # alone meets itself.
        self._pairs: Ints = np.zeros(0, int)
        self._sums: Floats = np.zeros(0)
        self._counts: Floats = np.zeros(0)

    def add(
        self, members: Ints, values: Floats, counted: NDArray[np.bool_] | None = None, met: Ints | None = None
    ) -> None:
        """Take in E worlds.

        Args:
            members: [E, N] int64, who sat where.
            values: [E, N], what they came to.
            counted: [E, N] bool, whose value counts; None: all.
            met: [E, N, S] int64, numbers of those whom each met, NOBODY for a seat that was empty; None: those on the
                other seats. Who met nobody at all was alone.
        """
        if not members.size:
            return
        if met is None:
            seats = np.arange(members.shape[1])
            met = self.first + members[:, neighbours(seats, seats, self.partners)]
        there = met != NOBODY
        alone = ~there.any(-1, keepdims=True)
        met, there = np.where(alone, self.first + members[..., None], met), there | alone
        pairs = members[..., None] * self.everybody + met
        weights = np.ones(members.shape) if counted is None else counted.astype(float)
        # Where a world has several seats of a pair, each counts as its share: a world is one meeting with everyone.
        each = np.broadcast_to((weights / there.sum(-1))[..., None], pairs.shape)
        told = np.where(weights > 0, values, 0.0)
        self._gather(pairs[there], (each * told[..., None])[there], each[there])

    def _gather(self, pairs: Ints, sums: Floats, counts: Floats) -> None:
        whole = np.concatenate([self._pairs, pairs])
        self._pairs, place = np.unique(whole, return_inverse=True)
        self._sums = np.bincount(place, np.concatenate([self._sums, sums]), len(self._pairs)).astype(float)
        self._counts = np.bincount(place, np.concatenate([self._counts, counts]), len(self._pairs)).astype(float)

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add another's `get_state`."""
        pairs, sums, counts = (np.asarray(state[key]) for key in ("pairs", "sums", "counts"))
        pairs, everybody = pairs.astype(int), int(state.get("everybody", 0))
        if not everybody:  # checkpoints of before other species counted: members had met their own
            pairs = pairs // self.members * self.everybody + self.first + pairs % self.members
        elif everybody != self.everybody:
            raise UserError(
                f"the checkpoint's members met {everybody} members of all species, and here there are "
                f"{self.everybody}; restore it with the population that it was saved with"
            )
        self._gather(pairs, sums.astype(float), counts.astype(float))

    def mean(self) -> Floats:
        """[P] float64; nan of those who met nobody."""
        known = self._counts > 0
        whose = self._pairs[known] // self.everybody
        beside = self._sums[known] / self._counts[known]
        total, met = np.bincount(whose, beside, self.members), np.bincount(whose, minlength=self.members)
        return np.where(met > 0, total / np.maximum(met, 1), np.nan)

    def get_state(self) -> dict[str, Any]:
        """Arrays [M], of the M pairs that came about, and how many could be met."""
        return {"pairs": self._pairs, "sums": self._sums, "counts": self._counts, "everybody": self.everybody}


def neighbours(own: Ints, changing: Ints, most: int = PARTNERS) -> Ints:
    """The seats of a world whose members those on some seats meet: [N_s, S] int64.

    They are those that follow a seat among the ones on which members change, in a circle, `most` of them at most. Whom
    every world has there is no luck, and is nobody to be told from others. Where nothing is left, a seat meets itself.

    Args:
        own: [N_s] int64, seats.
        changing: [C] int64, those on which members change, in order: all of `own`, or none.

    >>> neighbours(np.array([0, 1]), np.array([0, 1, 4])).tolist()
    [[1, 4], [4, 0]]
    """
    if not len(np.setdiff1d(changing, own[:1])) or not most:
        return own[:, None]
    circles = [np.concatenate([changing[changing > seat], changing[changing < seat]]) for seat in own]
    return np.stack(circles)[:, :most]
