"""How heads start: decisions that differ from the first step on, so that a message can matter to somebody.

A sender's information times its receivers' sensitivity is a saddle: with both near zero neither learns from the other.
The usual start of PPO, a policy of gain 0.01, is right where nobody talks; here it costs the language.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from popcomm.agents.population import orthogonal_layer_

# Standard deviation of the logits of messages at the start: 0.9 to 0.99 of the largest entropy for 2 to 64 symbols.
MESSAGE_SPREAD = 0.4
POLICY_GAIN = 1.0


def start_message_head_(layer: Any, scale: float, generator: torch.Generator | None = None) -> None:
    """Orthogonal weights such that logits spread by MESSAGE_SPREAD, and no bias: no symbol is preferred for all.

    Args:
        layer: a PopulationLinear.
        scale: root mean square of its inputs at the start.
    """
    # Of orthonormal columns w, w x has the deviation |x| / sqrt(in), which is the root mean square of x; where there
    # are more columns than rows it is the rows that are orthonormal, and the deviation is |x| / sqrt(out).
    rows, columns = layer.weight.shape[-2:]
    orthogonal_layer_(layer, MESSAGE_SPREAD / scale * math.sqrt(max(1.0, columns / rows)), generator)
