"""What an agent perceives of any observation space while a reflex takes its senses away."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from popcomm.channels.reflexes import Reflex
from popcomm.envs.flat_spaces import MASK
from popcomm.errors import UserError


def perceived(value: Any, space: spaces.Space, reflex: Reflex, rng: np.random.Generator) -> Any:
    """The observation `value` as a deprived agent has it: of the same space, its action mask as it was.

    Raises:
        UserError: a space without numbers (Text, Graph, Sequence).
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
            return _whole(low, high, reflex, rng).reshape(space.shape).astype(space.dtype)
        values = np.asarray(value, float).ravel()
        # Rounding to a narrower type must not lead out of the space.
        seen = reflex.perceive(values, low, high, rng).reshape(space.shape).astype(space.dtype)
        return np.clip(seen, space.low, space.high)
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return int(_whole(np.array([start]), np.array([start + int(space.n) - 1]), reflex, rng)[0])
    if isinstance(space, spaces.MultiDiscrete):
        low = np.asarray(space.start).ravel()
        seen = _whole(low, low + space.nvec.ravel() - 1, reflex, rng)
        return seen.reshape(space.shape).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return _whole(np.zeros(size), np.ones(size), reflex, rng).reshape(space.shape).astype(space.dtype)
    raise UserError(f"reflex {reflex.name} cannot take away observations of {space}: there is no zero in it")


def _whole(low: np.ndarray, high: np.ndarray, reflex: Reflex, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers between bounds, each as likely as the others where the reflex makes uniform noise."""
    seen = np.floor(reflex.perceive(np.asarray(low, float), low - 0.0, high + 1.0 - 1e-9, rng))
    return np.clip(seen, low, high).astype(np.int64)
