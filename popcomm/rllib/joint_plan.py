"""What a config says of a joint critic, checked; see `PopulationPPOConfig.training` and `rllib/joint_learning.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from popcomm.checks import count, mapping, number

KEY = "training.joint_critic"
KEYS = ("weight", "temperature", "lr", "epochs", "hidden")


@dataclass(frozen=True)
class JointCriticWays:
    """How a joint critic is learned, and followed.

    Args:
        weight: at least 0, of the divergence (nats) of policies from what it recommends.
        temperature: above 0, in deviations of the returns: it recommends softmax(Q / temperature).
        lr: its learning rate, above 0.
        epochs: passes over a fragment in which it learns, at least 1.
        hidden: width of its layers.

    Raises:
        UserError: values beyond these.
    """

    weight: float = 1.0
    temperature: float = 0.3
    lr: float = 4e-3
    epochs: int = 4
    hidden: int = 64

    def __post_init__(self) -> None:
        number(f"{KEY}.weight", self.weight, "be a finite number above 0", above=0, below=np.inf)
        for key in ("temperature", "lr"):
            number(f"{KEY}.{key}", getattr(self, key), "be a finite number above 0", above=0, below=np.inf)
        count(f"{KEY}.epochs", self.epochs, 1)
        count(f"{KEY}.hidden", self.hidden, 1)


def joint_critic_of(value: Any) -> JointCriticWays | None:
    """From true, false, or a mapping in a config such as {"weight": 1, "temperature": 0.3}.

    Raises:
        UserError: something else, a key that does not exist, or a value that JointCriticWays refuses.
    """
    if value is None or value is False:
        return None
    if value is True:
        return JointCriticWays()
    if isinstance(value, JointCriticWays):
        return value
    mapping(KEY, value, KEYS)
    return JointCriticWays(**value)
