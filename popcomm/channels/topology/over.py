"""Topologies over another one, whose links they take away."""

from __future__ import annotations

from typing import Any

from popcomm.channels.topology.contract import Topology, topology_of
from popcomm.channels.topology.plain import PLAIN, Full
from popcomm.errors import UserError

KEY = "communication.topology"


class Over(Topology):
    """Base of topologies that leave some links of another one.

    Args:
        of: that one, plain or of the user's own; None: "full".

    Raises:
        UserError: an `of` without inboxes, or one that changes by itself.
    """

    def __init__(self, of: Any = None) -> None:
        self.of = Full() if of is None else topology_of(f"{KEY}.of", of, PLAIN)
        if self.of.latents or self.of.schedule is not None or isinstance(self.of, Over):
            name = type(self.of).__name__
            raise UserError(f"{KEY}.of is {name}, and must have inboxes, no schedule, and no strengths of its own")
        self.needs_positions = self.of.needs_positions
