"""What a config says of federated averaging, checked; see `PopulationPPOConfig.training` and `rllib/federated.py`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcomm.channels.privacy import accounting, epsilon_of, sigma_of
from popcomm.checks import count, mapping, number
from popcomm.errors import UserError

KEY = "training.federated"
KEYS = ("every", "clip", "epsilon", "delta", "rounds")
PRIVATE = ("clip", "delta", "rounds")  # what an epsilon needs


@dataclass(frozen=True)
class Federated:
    """When members are averaged, and what may be told of a member by all that it publishes.

    Args:
        every: iterations from one round to the next.
        clip: L2 norm above 0 of a member's update, in the units of the weights; the sensitivity is twice that. None:
            updates are published as long as they are, which no noise would hide.
        epsilon: above 0, of the first `rounds` updates of a member together; None: there is no noise, nor a guarantee.
        delta: between 0 and 1, far below one in the number of those who are to be protected.
        rounds: R, of the training. Later ones spend more than epsilon.

    Raises:
        UserError: values beyond these, one without another that it needs, or dp-accounting is not installed.
    """

    every: int
    clip: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    rounds: int | None = None

    def __post_init__(self) -> None:
        count(f"{KEY}.every", self.every, 1)
        if self.clip is not None:
            number(f"{KEY}.clip", self.clip, "be a finite number above 0", above=0, below=np.inf)
        if self.epsilon is None:
            for key in ("delta", "rounds"):
                if getattr(self, key) is not None:
                    raise UserError(f"{KEY}.{key} is {getattr(self, key)}, of a guarantee that epsilon is missing to")
            return
        number(f"{KEY}.epsilon", self.epsilon, "be a finite number above 0", above=0, below=np.inf)
        for key in PRIVATE:
            if getattr(self, key) is None:
                raise UserError(f"{KEY} has no '{key}', and epsilon {self.epsilon} needs clip, delta and rounds")
        number(f"{KEY}.delta", self.delta, "lie between 0 and 1, both excluded", above=0, below=1)
        count(f"{KEY}.rounds", self.rounds, 1)
        accounting(KEY)

    @cached_property
    def sigma(self) -> float:
        """Standard deviation of the noise on every weight of a published update; 0 without epsilon."""
        if self.epsilon is None or self.delta is None or self.clip is None or self.rounds is None:
            return 0.0
        return sigma_of(self.epsilon, self.delta, 2 * self.clip, self.rounds)

    def spent(self, rounds: NDArray[np.int64]) -> NDArray[np.float64]:
        """The epsilon of so many updates that one member published: any shape -> the same; infinite without noise."""
        if self.clip is None or self.delta is None or not self.sigma:
            return np.where(np.asarray(rounds) > 0, np.inf, 0.0)
        return epsilon_of(self.sigma / (2 * self.clip), self.delta, rounds)

    def due(self, iteration: int) -> bool:
        """Whether a round ends an iteration, the first one of which is 0."""
        return (iteration + 1) % self.every == 0


def federated_of(value: Any) -> Federated | None:
    """From its mapping in a config, such as {"every": 5, "clip": 1, "epsilon": 8, "delta": 1e-5, "rounds": 40}.

    Raises:
        UserError: no mapping, a key that is missing or does not exist, or a value that Federated refuses.
    """
    if value is None or isinstance(value, Federated):
        return value
    mapping(KEY, value, KEYS)
    if "every" not in value:
        raise UserError(f"{KEY} has no 'every', the iterations from one round to the next")
    return Federated(**value)
