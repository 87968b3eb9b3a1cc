"""The latent state of ParallelEnvs of others: `env.state()`, which may do what it likes and must not end a training."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from popcomm.envs.sight import WHITE, Sight, is_picture

logger = logging.getLogger(__name__)


def flat_state(env: Any) -> np.ndarray:
    """env.state() as [S] float32; of a picture a glimpse (`popcomm.envs.sight`): nobody needs half a million numbers.

    Raises:
        Exception: whatever state() raises; TypeError where it is not of numbers, ValueError where one is not finite.
    """
    value = np.asarray(env.state())
    if value.dtype.kind not in "fiub":
        raise TypeError(f"its entries are of type {value.dtype}")
    if value.dtype == np.uint8 and value.ndim in (2, 3) and value.size:
        space = getattr(env, "state_space", None)
        picture: spaces.Space = spaces.Box(0, WHITE, value.shape, np.uint8)
        if space is not None and is_picture(space) and space.shape == value.shape:
            picture = space
        return Sight(picture).glimpse(torch.from_numpy(value.ravel())).numpy()
    flat = value.astype(np.float32).ravel()
    if not np.isfinite(flat).all():
        raise ValueError(f"its entry {int(np.argmin(np.isfinite(flat)))} is not finite")
    return flat


class StateReader:
    """Reads the state of copies of one environment into rows of a fixed size.

    Where state() fails or has another size than at the start, the row before stands for it. That is told once in the
    log; not where a world is over, since many environments have taken themselves apart by then.

    Attributes:
        size: S, 0 where state() gives nothing at the start.
        failure: the first failure while agents lived, or "".
    """

    def __init__(self, env: Any, size: int | None = None) -> None:
        """env: a copy that was reset; size: S, where another copy told it already."""
        self.size, self.failure = size or 0, ""
        if size is not None:
            return
        try:
            self.size = flat_state(env).size
        except NotImplementedError:  # PettingZoo's own, of those that have none
            pass
        except Exception as error:  # a foreign method may fail in any way, and training without a state is possible
            self.failure = f"{type(error).__name__}: {error}"
            logger.info("'%s' is used without a latent state: state() gives none (%s)", env, self.failure)

    def read(self, env: Any, out: np.ndarray, lives: bool) -> None:
        """Write the state into out [S], if there is one.

        Args:
            lives: whether anybody still acts in that world.
        """
        try:
            flat = flat_state(env)
            if flat.size != self.size:
                raise ValueError(f"it had {self.size} numbers at the start, and now has {flat.size}")
        except Exception as error:  # as above
            if lives and not self.failure:
                self.failure = f"{type(error).__name__}: {error}"
                logger.warning(
                    "state() of '%s' failed, and the state before stands for it, as often as that happens: %s",
                    env,
                    self.failure,
                )
            return
        out[:] = flat
