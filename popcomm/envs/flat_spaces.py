"""Foreign Gymnasium spaces as the flat ones that networks know: observations of numbers, actions of three kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from popcomm.envs.flat_parts import parts_of
from popcomm.envs.sight import WHITE, sight_of
from popcomm.errors import UserError

MASK = "action_mask"
LARGEST = np.finfo(np.float32).max


class FlatObservation:
    """Observations of one agent as a vector of `size` float32 numbers, those of `gymnasium.spaces.flatten`.

    With `split_mask`, the entry "action_mask" of a Dict is left out of the vector: it says what may be done, not what
    is seen. `has_mask` tells whether there is one. All other entries are in the vector, whatever their names.

    An observation of no numbers (a Box of shape (0,)) is one zero, for a network needs something to stand on.

    Attributes:
        dtype: of the vector: uint8 where it is of pictures (`popcomm.envs.sight`), else float32.
        low, high: [O] float64, between which every number must lie: the bounds of whole numbers, else all that is
            finite.

    Raises:
        UserError: a space without a fixed size, such as Graph or Sequence, or one that is none of Gymnasium's.
    """

    def __init__(self, space: spaces.Space, agent: Any, split_mask: bool = True) -> None:
        _check_kind(space, agent, "observation")
        keys = set(space.spaces) if isinstance(space, spaces.Dict) else set()
        self.has_mask = split_mask and MASK in keys
        # A Dict keeps its other entries, such as a communication state, in the vector.
        self.space = spaces.Dict({key: space[key] for key in sorted(keys - {MASK})}) if self.has_mask else space
        if not self.space.is_np_flattenable:
            kind = type(space).__name__
            raise UserError(f"agent '{agent}' observes a {kind} space without a fixed size, and it must be flattenable")
        self._parts = list(parts_of(self.space))
        self._numbers = sum(part.size for part in self._parts)
        sight = sight_of(self.space)
        self.dtype = np.uint8 if sight is not None and sight.in_bytes else np.float32
        self.size = max(self._numbers, 1)
        nothing = spaces.Box(0, 0, (1,), np.float32)
        self.box: spaces.Box = spaces.flatten_space(self.space) if self._numbers else nothing
        self.low, self.high = np.full(self.size, -LARGEST), np.full(self.size, LARGEST)
        for part, start in zip(self._parts, self._starts(), strict=True):
            if part.limits is not None:
                self.low[start : start + part.size], self.high[start : start + part.size] = part.limits

    @property
    def structure(self) -> spaces.Space | None:
        """The space that the vector is flattened from; None where it has no numbers."""
        return self.space if self._numbers else None

    def _starts(self) -> list[int]:
        """Where each part begins in the vector."""
        ends = np.cumsum([0, *(part.size for part in self._parts)])
        return ends[:-1].tolist()

    def write(self, out: np.ndarray, observation: Any) -> None:
        """Flatten one observation into out [O], of this `dtype`.

        Raises:
            UserError: entries are missing, or have another shape, or are not among the choices of their space.
        """
        if not self._numbers:
            out[:] = 0.0
        start = 0
        for part in self._parts:
            part.write(out[start : start + part.size], part.find(observation))
            start += part.size

    def wrong(self, rows: np.ndarray) -> tuple[int, ...] | None:
        """Where the first number is that is not finite, or outside the bounds of whole numbers; None if all is well.

        Args:
            rows: [..., O], as `write` made them.
        """
        if rows.dtype == np.uint8 and not self.low.any() and (self.high >= WHITE).all():
            return None
        # NaN is in no interval.
        fits = (rows >= self.low) & (rows <= self.high)
        return None if fits.all() else tuple(int(i) for i in np.argwhere(~fits)[0])


class FlatAction:
    """Actions of one agent as Discrete(n), MultiDiscrete([k]) or Box([d]), all starting at zero.

    `space` is what a World is stepped with; `to_env` gives what the environment wants: MultiBinary is a MultiDiscrete
    of twos, `start` is added, and numbers are clipped to the bounds of their Box. `idle` is the first action, or the
    Box's number nearest to zero, in the environment's form.

    Raises:
        UserError: any other space, or one of no choices and no numbers.
    """

    def __init__(self, space: spaces.Space, agent: Any) -> None:
        _check_kind(space, agent, "action")
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
            self.space = _bounded(space)
        else:
            kind = type(space).__name__
            raise UserError(
                f"agent '{agent}' has actions of type {kind}; allowed: Discrete, MultiDiscrete, MultiBinary or Box"
            )
        if not (self.nvec.size or (self.is_box and self.low.size)):
            raise UserError(
                f"agent '{agent}' has the action space {space}, in which there is nothing to choose; an agent that "
                "only speaks has Discrete(1)"
            )
        self.idle = self.to_env(np.zeros(self.space.shape, np.float64 if self.is_box else np.int64))

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
        return np.asarray(actions + self.start).astype(space.dtype).reshape((*lead, *space.shape))

    def from_env(self, action: Any) -> np.ndarray:
        """One action as the environment has it -> [], [k] or [d], as networks have it: the inverse of `to_env`."""
        flat = np.ravel(np.asarray(action))
        return np.asarray(flat[0] if isinstance(self.env_space, spaces.Discrete) else flat) - self.start

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
    """The action mask that came with an observation, or in its info; None where there is none.

    Raises:
        UserError: the space has one, and the observation has not.
    """
    if not flat.has_mask:
        return info.get(MASK) if info else None
    try:
        return observation[MASK]
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"its observation has no '{MASK}', and its space has one") from error


def _check_kind(space: Any, agent: Any, what: str) -> None:
    if isinstance(space, spaces.Space):
        return
    kind = f"{type(space).__module__}.{type(space).__name__}"
    raise UserError(f"the {what} space of agent '{agent}' is of type {kind}, and must be one of gymnasium.spaces")


def _bounded(space: spaces.Box) -> spaces.Box:
    """The Box as [d] float32; infinite where Gymnasium puts the dtype's limits for want of a bound."""
    low = np.where(space.bounded_below, space.low.astype(np.float64), -np.inf)
    high = np.where(space.bounded_above, space.high.astype(np.float64), np.inf)
    return spaces.Box(low.ravel().astype(np.float32), high.ravel().astype(np.float32), dtype=np.float32)
