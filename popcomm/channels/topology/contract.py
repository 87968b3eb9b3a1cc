"""What every topology gives: whom each receiver hears, for a batch of worlds at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from popcomm.channels.links import Links
from popcomm.errors import UserError
from popcomm.references import made
from popcomm.schedules import Schedule


class Topology:
    """Base of topologies; one of your own needs `inbox_size` and `connect`."""

    needs_positions = False
    static = False  # True: who hears whom is the same in every step and world, but for who is absent
    latents = 0  # above 0: nobody has an inbox, all hear all others through so many summaries (`Routed`)
    schedule: Schedule | None = None  # of its links, while training goes on; None: they stay

    def inbox_size(self, num_agents: int) -> int:
        """K, the most messages that a receiver can get in a step."""
        raise NotImplementedError

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """The senders of every receiver.

        Args:
            present: [B, N] bool, seats whose occupant can be heard.
            positions: [B, N, D] float32 in the world's unit of length, or None.
            torus: the world's extent along each of the D axes where it wraps round, or None.
        """
        raise NotImplementedError

    def thinned(self, links: Links, strength: float) -> Links:
        """What is left of the links of a step at a strength of the `schedule`, in [0, 1]; all where there is none."""
        return links


def topology_of(key: str, value: Any, kinds: Mapping[str, type]) -> Topology:
    """A topology from its config mapping, of one of these kinds or of a class of the user's own.

    Raises:
        UserError: no such topology, or arguments that do not fit it.
    """
    topology = made(key, value, kinds, "connect")
    if not isinstance(topology, Topology):
        raise UserError(f"{key} is {topology!r}, and must be an object of a subclass of Topology")
    return topology
