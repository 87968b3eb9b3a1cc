"""Foreign Gymnasium spaces as the flat ones that networks know: observations of numbers, actions of three kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from popcomm.errors import UserError

MASK = "action_mask"


class FlatObservation:
    """Observations of one agent as a vector of `size` float32 numbers (`gymnasium.spaces.flatten`).

    With `split_mask`, the entry "action_mask" of a Dict that also has "observation" is left out of the vector: it says
    what may be done, not what is seen. `has_mask` tells whether there is one.

    Raises:
        UserError: a space without a fixed size, such as Graph or Sequence.
    """

    def __init__(self, space: spaces.Space, agent: Any, split_mask: bool = True) -> None:
        keys = set(space.spaces) if isinstance(space, spaces.Dict) else set()
        self.has_mask = split_mask and {"observation", MASK} <= keys
        # A Dict keeps its other entries, such as a communication state, in the vector.
        rest = {key: space[key] for key in sorted(keys - {MASK})} if self.has_mask else {}
        self.space = spaces.Dict(rest) if rest else space
        if not self.space.is_np_flattenable:
            kind = type(space).__name__
            raise UserError(f"agent '{agent}' observes a {kind} space without a fixed size, and it must be flattenable")
        self.box: spaces.Box = spaces.flatten_space(self.space)
        self.size = int(self.box.shape[0])
        self._is_box = isinstance(self.space, spaces.Box)

    def write(self, out: np.ndarray, observation: Any) -> None:
        """Flatten one observation into out [O] float32."""
        if self._is_box:
            out[:] = np.ravel(observation)
        elif self.has_mask:
            out[:] = spaces.flatten(self.space, {key: observation[key] for key in self.space.spaces})
        else:
            out[:] = spaces.flatten(self.space, observation)


class FlatAction:
    """Actions of one agent as Discrete(n), MultiDiscrete([k]) or Box([d]), all starting at zero.

    `space` is what a network acts in; `to_env` gives what the environment wants: MultiBinary is a MultiDiscrete of
    twos, `start` is added, and numbers are clipped to the bounds of their Box.

    Raises:
        UserError: any other space.
    """

    def __init__(self, space: spaces.Space, agent: Any) -> None:
        self.env_space = space
        self.start: np.ndarray | int = 0
        if isinstance(space, spaces.Discrete):
            self.nvec, self.start = np.array([space.n]), int(space.start)
            self.space: spaces.Space = spaces.Discrete(int(space.n))
        elif isinstance(space, spaces.MultiDiscrete):
            self.nvec, self.start = np.ravel(space.nvec).astype(np.int64), np.ravel(space.start)
            self.space = spaces.MultiDiscrete(self.nvec)
        elif isinstance(space, spaces.MultiBinary):
            self.nvec = np.full(int(np.prod(space.shape)), 2)
            self.space = spaces.MultiDiscrete(self.nvec)
        elif isinstance(space, spaces.Box):
            self.nvec = np.zeros(0, np.int64)
            self.low, self.high = (np.ravel(x).astype(np.float64) for x in (space.low, space.high))
            self.space = spaces.Box(self.low.astype(np.float32), self.high.astype(np.float32), dtype=np.float32)
        else:
            kind = type(space).__name__
            raise UserError(
                f"agent '{agent}' has actions of type {kind}; allowed: Discrete, MultiDiscrete, MultiBinary or Box"
            )

    @property
    def is_box(self) -> bool:
        return isinstance(self.space, spaces.Box)

    @property
    def mask_size(self) -> int:
        """A: all the choices of all components; 0 for a Box, which has no mask."""
        return int(self.nvec.sum())

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """actions [...] (Discrete), [..., k] or [..., d] -> the same in the environment's shape and dtype."""
        space = self.env_space
        if isinstance(space, spaces.Discrete):
            return np.asarray(actions + self.start, space.dtype)
        lead = actions.shape[:-1]
        if self.is_box:
            actions = np.clip(actions.astype(np.float64), self.low, self.high)
            actions = actions if np.issubdtype(space.dtype, np.floating) else np.rint(actions)
        return (actions + self.start).astype(space.dtype).reshape(*lead, *space.shape)

    def read_mask(self, mask: Any) -> np.ndarray:
        """A mask as Gymnasium or PettingZoo gives it (one array, or one per component) as [A] bool, True = allowed.

        A component that allows nothing is opened: the environment ignores that choice (an agent that is not on move).

        Raises:
            UserError: a mask of another size.
        """
        parts = mask if isinstance(mask, tuple | list) else [mask]
        flat = np.concatenate([np.ravel(part) for part in parts]).astype(bool)
        if flat.size != self.mask_size:
            raise UserError(
                f"an action mask has {flat.size} entries, and the action space has {self.mask_size} choices"
            )
        some = np.logical_or.reduceat(flat, np.cumsum(self.nvec) - self.nvec)
        return flat if some.all() else flat | ~np.repeat(some, self.nvec)


def mask_of(observation: Any, info: Any, flat: FlatObservation) -> Any | None:
    """The action mask that came with an observation, or in its info; None where there is none."""
    if flat.has_mask:
        return observation[MASK]
    return info.get(MASK) if info else None
