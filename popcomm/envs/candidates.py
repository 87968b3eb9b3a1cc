"""Candidates: a part of an observation that describes every action, which a network then weighs one by one."""

from __future__ import annotations

from typing import NamedTuple

from gymnasium import spaces
from torch import Tensor

from popcomm.envs.flat_parts import parts_of

ENTRY = "candidates"


class Candidates(NamedTuple):
    """Where a flat observation tells of each of n actions in F numbers."""

    start: int
    actions: int  # n
    size: int  # F

    def rows(self, obs: Tensor) -> Tensor:
        """The candidates out of observations: [..., O] -> [..., n, F], a view."""
        return obs[..., self.start : self.start + self.actions * self.size].unflatten(-1, (self.actions, self.size))


def candidates_of(space: spaces.Space | None, action_space: spaces.Space) -> Candidates | None:
    """The candidates of an observation space: its entry "candidates", a Box of shape (n, ...) beside Discrete(n).

    None where there is no such entry, or it has another number of rows than there are actions: then it is numbers like
    any others.

    >>> space = spaces.Dict(due=spaces.Discrete(2), candidates=spaces.Box(0, 1, (3, 4)))
    >>> candidates_of(space, spaces.Discrete(3)), candidates_of(space, spaces.Discrete(2))
    (Candidates(start=2, actions=3, size=4), None)
    """
    if space is None or not space.is_np_flattenable or not isinstance(action_space, spaces.Discrete):
        return None
    start, actions = 0, int(action_space.n)
    for part in parts_of(space):
        rows = part.space.shape or ()
        if (
            part.path[-1:] == (ENTRY,)
            and isinstance(part.space, spaces.Box)
            and len(rows) > 1
            and rows[:1] == (actions,)
        ):
            return Candidates(start, actions, part.size // actions)
        start += part.size
    return None
