"""What an agent perceives of any observation space while a reflex takes its senses away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from popcomm.channels.broadcast.reflexes import Reflex
from popcomm.envs.flat_spaces import MASK
from popcomm.errors import UserError

NUMBERS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_spaces(observed: Mapping[Any, spaces.Space]) -> None:
    """Raises UserError for an agent whose observations cannot be taken away: a space without numbers."""
    for agent, space in observed.items():
        for part in _parts(space):
            if not isinstance(part, NUMBERS):
                raise UserError(
                    f"agent '{agent}' observes a {type(part).__name__} space, and reflexes can take away numbers only "
                    f"({', '.join(kind.__name__ for kind in NUMBERS)}, and Dict or Tuple of them)"
                )


def _parts(space: spaces.Space) -> list[spaces.Space]:
    """The spaces within Dict and Tuple, but for action masks."""
    if isinstance(space, spaces.Dict):
        return [part for key, inner in space.spaces.items() if key != MASK for part in _parts(inner)]
    if isinstance(space, spaces.Tuple):
        return [part for inner in space.spaces for part in _parts(inner)]
    return [space]


def perceived(value: Any, space: spaces.Space, reflex: Reflex, rng: np.random.Generator) -> Any:
    """The observation `value` as a deprived agent has it: of the same space, its action mask as it was.

    Numbers without a bound stay within 1 of zero, or of the other bound.

    Args:
        space: one that `check_spaces` accepts.
    """
    if isinstance(space, spaces.Dict):
        return {
            key: value[key] if key == MASK else perceived(value[key], part, reflex, rng)
            for key, part in space.spaces.items()
        }
    if isinstance(space, spaces.Tuple):
        return tuple(perceived(v, part, reflex, rng) for v, part in zip(value, space.spaces, strict=True))
    if isinstance(space, spaces.Box):
        low, high = space.low.ravel().astype(float), space.high.ravel().astype(float)
        if np.issubdtype(space.dtype, np.integer):
            # Gymnasium puts the dtype's own limits where there is no bound.
            low = np.where(space.bounded_below.ravel(), low, np.minimum(-1.0, high - 1.0))
            high = np.where(space.bounded_above.ravel(), high, np.maximum(1.0, low + 1.0))
            return _whole(value, low, high, reflex, rng).reshape(space.shape).astype(space.dtype)
        values = np.asarray(value, float).ravel()
        # Rounding to a narrower type must not lead out of the space.
        seen = reflex.perceive(values, low, high, rng).reshape(space.shape).astype(space.dtype)
        return np.clip(seen, space.low, space.high)
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return int(_whole(value, np.array([start]), np.array([start + int(space.n) - 1]), reflex, rng)[0])
    if isinstance(space, spaces.MultiDiscrete):
        low = np.asarray(space.start).ravel()
        seen = _whole(value, low, low + space.nvec.ravel() - 1, reflex, rng)
        return seen.reshape(space.shape).astype(space.dtype)
    assert isinstance(space, spaces.MultiBinary), f"check_spaces lets no {space} pass"
    size = int(np.prod(space.shape))
    return _whole(value, np.zeros(size), np.ones(size), reflex, rng).reshape(space.shape).astype(space.dtype)


def _whole(value: Any, low: np.ndarray, high: np.ndarray, reflex: Reflex, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers [O] between bounds [O], each as likely as the others where the reflex makes uniform noise."""
    values = np.asarray(value, float).ravel()
    seen = np.floor(reflex.perceive(values, low.astype(float), high + 1.0 - 1e-9, rng))
    return np.clip(seen, low, high).astype(np.int64)
