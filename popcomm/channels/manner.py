"""Decisions beside a message: whether it goes out, and with which priority; drawn, and how likely they were."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Drawn(NamedTuple):
    """What was decided; each [...]."""

    opens: Tensor  # bool, whether the message goes out
    haste: Tensor  # float32, the logit of its priority


def draw(manner: Tensor, gated: bool, explore: bool, generator: torch.Generator | None = None) -> Drawn:
    """Decide, or take the likeliest where there is nothing to `explore`.

    Args:
        manner: [..., 3], see `popcomm.agents.gates.Manner`.
        gated: whether there is a gate; else all messages go out.
    """
    door, haste, spread = manner.float().unbind(-1)
    if not explore:
        return Drawn(door > 0 if gated else torch.ones_like(door, dtype=torch.bool), haste)
    opens = torch.ones_like(door, dtype=torch.bool)
    if gated:
        opens = torch.rand(door.shape, generator=generator, device=door.device) < door.sigmoid()
    noise = torch.randn(haste.shape, generator=generator, device=haste.device) if bool(spread.any()) else 0.0
    return Drawn(opens, haste + spread * noise)


def log_prob(manner: Tensor, drawn: Drawn, gated: bool) -> Tensor:
    """[...] nats. The priority of a message that does not go out is no decision, and neither is a constant one."""
    door, haste, spread = manner.float().unbind(-1)
    total = torch.where(drawn.opens, F.logsigmoid(door), F.logsigmoid(-door)) if gated else torch.zeros_like(door)
    safe = torch.where(spread > 0, spread, 1.0)
    normal = -0.5 * ((drawn.haste - haste) / safe).square() - safe.log() - 0.5 * math.log(2 * math.pi)
    return total + torch.where(drawn.opens & (spread > 0), normal, 0.0)
