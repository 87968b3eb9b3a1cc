"""Messages that tell little of what their sender saw: the Gaussian mechanism, its noise and what is spent of it.

A message is differentially private if nobody who hears it can tell well which of two observations it was made of
(Dwork & Roth 2014, *The Algorithmic Foundations of Differential Privacy*, definition 2.4 and appendix A). What a
network says is clipped to a ball, so that two messages lie at most its diameter apart (the L2 sensitivity), and normal
noise is added that is large enough for that. Noise without a bound on what it hides is no guarantee, however
large: noise of scale 1 / epsilon on numbers of any size has neither a sensitivity nor a delta.

How large the noise must be, and what is spent, is worked out by Google's dp-accounting: the analytic Gaussian mechanism
(Balle & Wang 2018, theorem 8). Messages of one sender compose: n normal mechanisms with the noise sigma tell exactly as
much as one with sigma / sqrt(n), chosen one after another or at once (Dong, Roth & Su 2022, corollary 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from popcomm.checks import count, mapping, number
from popcomm.errors import UserError

KEY = "messages.privacy"
KEYS = ("epsilon", "delta", "clip", "messages")
# Rounding of float32 may leave a clipped vector longer than it should be by a few parts in ten million.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Privacy:
    """(epsilon, delta) for every stretch of `messages` messages of one sender.

    Args:
        epsilon: above 0. However the sender's observations in the stretch differ, all that is heard of it is at most
            exp(epsilon) times as likely, but for events with the probability delta.
        delta: between 0 and 1, far below one in the number of those who are to be protected.
        clip: L2 norm above 0 that messages are clipped to, in their own units; the sensitivity is twice that.
        messages: n, how many messages are made of what has to stay hidden: of agents with a memory as many as they send
            in an episode (steps times rounds), of agents without one in environments without one, 1.

    Raises:
        UserError: values beyond these, or dp-accounting is not installed.
    """

    epsilon: float
    delta: float
    clip: float
    messages: int = 1

    def __post_init__(self) -> None:
        number(f"{KEY}.epsilon", self.epsilon, "be a finite number above 0", above=0, below=np.inf)
        number(f"{KEY}.delta", self.delta, "lie between 0 and 1, both excluded", above=0, below=1)
        number(f"{KEY}.clip", self.clip, "be a finite number above 0", above=0, below=np.inf)
        count(f"{KEY}.messages", self.messages, 1)
        accounting()

    @property
    def sensitivity(self) -> float:
        """How far two messages can lie apart: the diameter of the ball, 2 clip."""
        return 2 * self.clip

    @cached_property
    def sigma(self) -> float:
        """Standard deviation of the noise on every number of a message, in the messages' units."""
        return sigma_of(self.epsilon, self.delta, self.sensitivity, self.messages)

    def clipped(self, params: Tensor) -> Tensor:
        """[..., size] -> the same, no longer than `clip`; differentiable."""
        radius = self.clip * (1 - ROUNDING)
        length = torch.linalg.vector_norm(params, dim=-1, keepdim=True)
        return params * (radius / length.clamp_min(radius))

    def spent(self, messages: NDArray[np.int64]) -> NDArray[np.float64]:
        """The epsilon, at this delta, of so many messages that one sender sent: any shape -> the same; 0 for none."""
        return epsilon_of(self.sigma / self.sensitivity, self.delta, messages)


def privacy_of(value: Any) -> Privacy | None:
    """From its mapping in a config, such as {"epsilon": 2, "delta": 1e-5, "clip": 1, "messages": 20}.

    Raises:
        UserError: no mapping, a key that is missing or does not exist, or a value that Privacy refuses.
    """
    if value is None or isinstance(value, Privacy):
        return value
    mapping(KEY, value, KEYS)
    for key in KEYS[:3]:
        if key not in value:
            raise UserError(f"{KEY} has no '{key}', and needs epsilon, delta and clip")
    return Privacy(**value)


def sigma_of(epsilon: float, delta: float, sensitivity: float, times: int) -> float:
    """The normal noise's standard deviation, in the units of the sensitivity.

    epsilon, delta: of what is released so many `times`, together.
    """
    return float(sensitivity * np.sqrt(times) * accounting().get_sigma_gaussian(epsilon, delta))


def epsilon_of(ratio: float, delta: float, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """The epsilon, at this delta, of so many releases together: any shape -> the same; 0 for none.

    ratio: the noise's standard deviation as a share of the sensitivity.
    """
    counts, places = np.unique(times, return_inverse=True)
    each = [_epsilon_of(ratio, delta, int(n)) if n else 0.0 for n in counts]
    return np.array(each)[places].reshape(np.shape(times))


@lru_cache(maxsize=8192)  # an iteration asks twice: for what it tells of members, and of all
def _epsilon_of(ratio: float, delta: float, times: int) -> float:
    return float(accounting().get_epsilon_gaussian(ratio / np.sqrt(times), delta))


def accounting(key: str = KEY) -> ModuleType:
    """dp-accounting, loaded where something is private alone. Raises UserError: it is not installed."""
    try:
        import dp_accounting
    except ImportError:
        raise UserError(f"{key} needs dp-accounting, which is not installed: pip install 'popcomm[privacy]'") from None
    module: ModuleType = dp_accounting
    return module
