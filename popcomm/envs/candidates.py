"""Candidates: a part of an observation that describes every action, which a network then weighs one by one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.flat_parts import parts_of

ENTRY = "candidates"
# What is said of whoever observes an entry of that name that is none.
LIKE_ANY = (
    f"observes {ENTRY} {{}} that are numbers like any others: a Box with a row for each action of a Discrete space, "
    "and not of bytes, would be weighed row by row"
)


class Candidates(NamedTuple):
    """Where a flat observation tells of each of n actions in F numbers."""

    start: int
    actions: int  # n
    size: int  # F

    def rows(self, obs: Tensor) -> Tensor:
        """The candidates out of observations: [..., O] -> [..., n, F], a view."""
        return obs[..., self.start : self.start + self.actions * self.size].unflatten(-1, (self.actions, self.size))


def _are_rows(space: spaces.Space, actions: int) -> bool:
    return (
        isinstance(space, spaces.Box) and space.dtype != np.uint8 and len(space.shape) > 1 and space.shape[0] == actions
    )


def candidates_of(space: spaces.Space | None, action_space: spaces.Space) -> Candidates | None:
    """The candidates of an observation space: its entry "candidates", a Box of shape (n, ...) beside Discrete(n).

    It may lie within other entries; of several the first counts. None where there is none, or it has another number of
    rows than there are actions, or is of bytes (a picture, or numbers that are far from one in size): then it is
    numbers like any others.

    >>> space = spaces.Dict(due=spaces.Discrete(2), candidates=spaces.Box(0, 1, (3, 4)))
    >>> candidates_of(space, spaces.Discrete(3)), candidates_of(space, spaces.Discrete(2))
    (Candidates(start=2, actions=3, size=4), None)
    """
    if space is None or not space.is_np_flattenable or not isinstance(action_space, spaces.Discrete):
        return None
    start, actions = 0, int(action_space.n)
    for part in parts_of(space):
        if part.path[-1:] == (ENTRY,) and _are_rows(part.space, actions):
            return Candidates(start, actions, part.size // actions)
        start += part.size
    return None


def unlike(space: spaces.Space | None, action_space: spaces.Space) -> spaces.Space | None:
    """The entry of an observation space that is called so and is numbers like any others; None where there is none."""
    if space is None or not space.is_np_flattenable or candidates_of(space, action_space) is not None:
        return None
    return next((part.space for part in parts_of(space) if part.path[-1:] == (ENTRY,)), None)
