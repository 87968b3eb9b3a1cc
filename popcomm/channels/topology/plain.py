"""Topologies that follow from seats and places alone: full, ring, chain, k_nearest, custom, routed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from popcomm.channels.links import Links
from popcomm.channels.nearest import nearest
from popcomm.channels.topology.contract import Topology
from popcomm.checks import whole
from popcomm.errors import UserError


def _fixed(senders: Tensor, present: Tensor, mask: Tensor | None = None) -> Links:
    """Links that are the same in every world: senders [N, K] -> [B, N, K], masked where the sender is absent. All on
    one device: what is made on the CPU would be brought to a GPU in every step."""
    senders = senders.expand(present.shape[0], *senders.shape).contiguous()
    real = present.gather(1, senders.flatten(1)).view_as(senders)
    return Links(senders, real if mask is None else real & mask)


class Full(Topology):
    """All hear all others: K = N - 1."""

    static = True

    def inbox_size(self, num_agents: int) -> int:
        """N - 1."""
        return num_agents - 1

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """Those who are absent are masked; positions are not looked at."""
        seats = torch.arange(present.shape[1], device=present.device)
        others = seats[:-1].expand(len(seats), -1)
        return _fixed(others + (others >= seats.unsqueeze(1)), present)


class _OfSoMany(Topology):
    """Each hears `k` others."""

    def __init__(self, k: int) -> None:
        self.k = whole("topology.k", k, 1)

    def inbox_size(self, num_agents: int) -> int:
        """`k`. Raises UserError: an agent has fewer others."""
        return _at_most_others(self.k, num_agents)


class Ring(_OfSoMany):
    """Seats stand in a circle and hear the `k` nearest along it: -1, +1, -2, +2, ...

    Raises:
        UserError: k below one, or (at `inbox_size`) more than there are others.
    """

    static = True

    def __init__(self, k: int = 2) -> None:
        super().__init__(k)

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """The nearest seats of the ring, left before right; positions are not looked at."""
        n = present.shape[1]
        seats = torch.arange(n, device=present.device)
        turn = seats[: self.inbox_size(n)]
        return _fixed((seats.unsqueeze(1) + (turn // 2 + 1) * (2 * (turn % 2) - 1)) % n, present)


class Chain(Topology):
    """Seats stand in a row and each hears the one before it: what the last is to know, all must pass on.

    Seat 0 hears nobody.
    """

    static = True

    def inbox_size(self, num_agents: int) -> int:
        """1, also of the first seat, whose inbox is never real."""
        return 1

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """The seat before; the first one's slot is masked. Positions are not looked at."""
        seats = torch.arange(present.shape[1], device=present.device).unsqueeze(1)
        return _fixed((seats - 1).clamp_(min=0), present, seats > 0)


class Custom(Topology):
    """A fixed graph. adjacency[i, j] (or [b, i, j]) is True where seat j hears seat i.

    Raises:
        UserError: an adjacency that is not square.
    """

    def __init__(self, adjacency: Any) -> None:
        self.adjacency = torch.as_tensor(adjacency).bool()
        if self.adjacency.ndim not in (2, 3) or self.adjacency.shape[-1] != self.adjacency.shape[-2]:
            shape = tuple(self.adjacency.shape)
            raise UserError(f"topology.adjacency has shape {shape}, and must be [N, N] or [B, N, N]")
        self.static = self.adjacency.ndim == 2
        hears = self.adjacency.transpose(-1, -2)
        k = max(1, int(hears.sum(-1).max()))
        # A stable descending sort puts the real senders first, in the order of their seats.
        order = hears.to(torch.int8).sort(dim=-1, descending=True, stable=True)
        self._senders, self._mask = order.indices[..., :k], order.values[..., :k].bool()

    def inbox_size(self, num_agents: int) -> int:
        """The most senders of any agent. Raises UserError: the adjacency is for another number of agents."""
        if self.adjacency.shape[-1] != num_agents:
            raise UserError(
                f"topology.adjacency is for {self.adjacency.shape[-1]} agents, and the environment has {num_agents}"
            )
        return self._senders.shape[-1]

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """Positions are not looked at. Raises UserError: an adjacency [B, N, N] is for another number of worlds."""
        # Sent there in every step, and not kept there, for a topology travels to other machines.
        senders, mask = self._senders.to(present.device), self._mask.to(present.device)
        if senders.ndim == 2:
            return _fixed(senders, present, mask)
        if senders.shape[0] != present.shape[0]:
            raise UserError(f"topology.adjacency is for {senders.shape[0]} worlds, and there are {present.shape[0]}")
        real = present.gather(1, senders.flatten(1)).view_as(senders)
        return Links(senders, real & mask)


class KNearest(_OfSoMany):
    """Each hears the `k` nearest others, across the border where the world is a torus; nearest first.

    Raises:
        UserError: k below one, or (at `inbox_size`) more than there are others.
    """

    needs_positions = True

    def __init__(self, k: int = 4) -> None:
        super().__init__(k)

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """The nearest of those who are present. Raises UserError: there are no positions."""
        if positions is None:
            raise UserError("topology k_nearest needs positions, and this environment has none; use full or ring")
        return nearest(positions, present, self.k, torus)


def _at_most_others(k: int, num_agents: int) -> int:
    if k > num_agents - 1:
        raise UserError(f"topology.k is {k}, and an agent has only {num_agents - 1} others; at most {num_agents - 1}")
    return k


class Routed(Topology):
    """All hear all others through `latents` summaries, learned by the listeners, at a cost linear in their number.

    There are no inboxes: `connect` tells of every seat whether it is on the air (K = 1, its own seat), and the
    listeners' networks do the rest (`popcomm.agents.routing`).

    Raises:
        UserError: latents below one.
    """

    def __init__(self, latents: int = 32) -> None:
        self.latents = whole("topology.latents", latents, 1)

    def inbox_size(self, num_agents: int) -> int:
        """1: of every seat, whether it is on the air."""
        return 1

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """Of every seat itself, [B, N, 1], masked where it is absent: no links, see the class."""
        own = torch.arange(present.shape[1], device=present.device).view(1, -1, 1)
        return Links(own.expand(len(present), -1, 1).contiguous(), present.unsqueeze(-1))


PLAIN: dict[str, type] = {
    "full": Full,
    "ring": Ring,
    "chain": Chain,
    "k_nearest": KNearest,
    "custom": Custom,
    "routed": Routed,
}
