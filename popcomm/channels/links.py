"""Links: who hears whom in a step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Links(NamedTuple):
    """Whom every receiver hears: indices of seats, and which of them are real."""

    senders: Tensor  # [B, N, K] int64
    mask: Tensor  # [B, N, K] bool
