"""Box actions from the unit in which networks act to the bounds of their space."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

# A space this wide has no bounds that mean anything: some environments declare the limits of float32.
UNBOUNDED = 1e18


class ActionBounds:
    """What networks choose, in the bounds of an action space.

    A Box number between two finite bounds is counted from -1, the lower one, to 1, the upper one, and clipped (RLlib's
    normalize_actions); so a network that starts around 0 starts in the middle. One with a bound on one side is clipped,
    one without any passes. Actions of other spaces pass, too.
    """

    def __init__(self, space: spaces.Space, device: torch.device | str = "cpu") -> None:
        self._scales = isinstance(space, spaces.Box)
        if not isinstance(space, spaces.Box):
            return
        low, high = np.float64(space.low), np.float64(space.high)
        bounded = (low > -UNBOUNDED) & (high < UNBOUNDED)
        with np.errstate(invalid="ignore"):  # the middle between infinities is not taken
            centre, half = np.where(bounded, (low + high) / 2, 0.0), np.where(bounded, (high - low) / 2, 1.0)
        parts = (torch.from_numpy(x.astype(np.float32)).to(device) for x in (low, high, centre, half))
        self._low, self._high, self._centre, self._half = parts

    def of(self, actions: Tensor) -> Tensor:
        """actions [..., d] float32 of a Box -> the same in its bounds; those of other spaces as they are."""
        if not self._scales:
            return actions
        return torch.addcmul(self._centre, actions, self._half).clamp(self._low, self._high)
