"""Who hears whom: a topology names the K senders of every receiver, for a batch of worlds at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from popcomm.checks import whole
from popcomm.errors import UserError
from popcomm.references import made
from popcomm.schedules import Schedule

# Above this many agents a k-d tree beats the distance matrix on CPU (measured on one core for k = 4 and 8).
TREE_FROM_AGENTS = 96
# Numbers in one chunk of the distance matrix: 8 MiB of float32 stays in the cache of most machines.
CHUNK_ELEMENTS = 2**21


class Links(NamedTuple):
    """Whom every receiver hears: indices of seats, and which of them are real."""

    senders: Tensor  # [B, N, K] int64
    mask: Tensor  # [B, N, K] bool


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


def _fixed(senders: Tensor, present: Tensor, mask: Tensor | None = None) -> Links:
    """Links that are the same in every world: senders [N, K] -> [B, N, K], masked where the sender is absent."""
    worlds = present.shape[0]
    senders = senders.to(present.device).expand(worlds, *senders.shape).contiguous()
    real = present.gather(1, senders.flatten(1)).view_as(senders)
    return Links(senders, real if mask is None else real & mask.to(present.device))


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
        n = present.shape[1]
        others = torch.arange(n - 1).expand(n, n - 1)
        return _fixed(others + (others >= torch.arange(n).unsqueeze(1)), present)


class Ring(Topology):
    """Seats stand in a circle and hear the `k` nearest along it: -1, +1, -2, +2, ...

    Raises:
        UserError: k below one, or (at `inbox_size`) more than there are others.
    """

    static = True

    def __init__(self, k: int = 2) -> None:
        self.k = whole("topology.k", k, 1)

    def inbox_size(self, num_agents: int) -> int:
        """`k`. Raises UserError: an agent has fewer others."""
        return _at_most_others(self.k, num_agents)

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """The nearest seats of the ring, left before right; positions are not looked at."""
        n = present.shape[1]
        offsets = torch.tensor([(i // 2 + 1) * (-1 if i % 2 == 0 else 1) for i in range(self.inbox_size(n))])
        return _fixed((torch.arange(n).unsqueeze(1) + offsets) % n, present)


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
        seats = torch.arange(present.shape[1]).unsqueeze(1)
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
        if self._senders.ndim == 2:
            return _fixed(self._senders, present, self._mask)
        senders = self._senders.to(present.device)
        if senders.shape[0] != present.shape[0]:
            raise UserError(f"topology.adjacency is for {senders.shape[0]} worlds, and there are {present.shape[0]}")
        real = present.gather(1, senders.flatten(1)).view_as(senders)
        return Links(senders, real & self._mask.to(present.device))


class KNearest(Topology):
    """Each hears the `k` nearest others, across the border where the world is a torus; nearest first.

    Raises:
        UserError: k below one, or (at `inbox_size`) more than there are others.
    """

    needs_positions = True

    def __init__(self, k: int = 4) -> None:
        self.k = whole("topology.k", k, 1)

    def inbox_size(self, num_agents: int) -> int:
        """`k`. Raises UserError: an agent has fewer others."""
        return _at_most_others(self.k, num_agents)

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """The nearest of those who are present. Raises UserError: there are no positions."""
        if positions is None:
            raise UserError("topology k_nearest needs positions, and this environment has none; use full or ring")
        if positions.device.type == "cpu" and positions.shape[1] >= TREE_FROM_AGENTS:
            return nearest_by_tree(positions, present, self.k, torus)
        return nearest_by_matrix(positions, present, self.k, torus)


def nearest_by_matrix(positions: Tensor, present: Tensor, k: int, torus: tuple[float, ...] | None = None) -> Links:
    """K nearest by squared distances, [chunk, N, N] at a time (receivers are chunked too when N is large)."""
    worlds, n, _ = positions.shape
    receivers = max(1, min(n, CHUNK_ELEMENTS // n))
    step = max(1, CHUNK_ELEMENTS // (receivers * n))
    chunks = [
        _nearest_chunk(positions[b : b + step], present[b : b + step], i, min(i + receivers, n), k, torus)
        for b in range(0, worlds, step)
        for i in range(0, n, receivers)
    ]
    per_world = -(-n // receivers)
    rows = [
        Links(*(torch.cat(parts, 1) for parts in zip(*chunks[j : j + per_world], strict=True)))
        for j in range(0, len(chunks), per_world)
    ]
    return Links(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


def _nearest_chunk(
    positions: Tensor, present: Tensor, start: int, stop: int, k: int, torus: tuple[float, ...] | None
) -> Links:
    distance = torch.zeros((), device=positions.device)
    for axis in range(positions.shape[-1]):
        x = positions[..., axis]
        gap = (x[:, start:stop, None] - x[:, None, :]).abs_()
        if torus is not None:
            gap = torch.minimum(gap, torus[axis] - gap)
        distance = distance + gap.square_()
    distance.masked_fill_(~present.unsqueeze(1), torch.inf)
    seats = torch.arange(start, stop, device=positions.device)
    distance[:, seats - start, seats] = torch.inf
    values, senders = distance.topk(k, dim=-1, largest=False)
    return Links(senders, values.isfinite())


def nearest_by_tree(positions: Tensor, present: Tensor, k: int, torus: tuple[float, ...] | None = None) -> Links:
    """K nearest by one k-d tree over all worlds, which a far coordinate of their own keeps apart: O(N log N)."""
    worlds, n, axes = positions.shape
    points = positions.reshape(worlds * n, axes).double()
    span = torch.tensor(torus, dtype=torch.float64) if torus is not None else None
    if span is None:
        points = points - points.amin(0)
    else:
        points = points % span
        # The remainder of a tiny negative number rounds to the extent itself, which the tree refuses.
        points = torch.where(points < span, points, 0.0)
    far = 4.0 * float(axes**0.5) * (max(torus) if torus is not None else float(points.max()) + 1.0)
    world = torch.arange(worlds).repeat_interleave(n)
    apart = torch.cat([points, (far * world).unsqueeze(1).double()], 1).numpy()
    here = present.reshape(-1).nonzero().squeeze(1)
    box = None if torus is None else [*torus, 0.0]
    tree = cKDTree(apart[here.numpy()], boxsize=box, balanced_tree=False, compact_nodes=False)
    # Column k + 1 is what is left when a point finds itself; a missing neighbour has the index len(here).
    found = torch.as_tensor(tree.query(apart, k=k + 1)[1])
    missing = found == len(here)
    seats = torch.cat([here, here.new_zeros(1)])[found]
    own = seats == torch.arange(worlds * n).unsqueeze(1)
    real = ~missing & ~own & (world[seats] == world.unsqueeze(1))
    order = (~real).to(torch.int8).sort(dim=1, stable=True).indices[:, :k]
    senders, mask = seats.gather(1, order), real.gather(1, order)
    senders = torch.where(mask, senders % n, 0)
    return Links(senders.view(worlds, n, k), mask.view(worlds, n, k))


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


TOPOLOGIES: dict[str, type] = {
    "full": Full,
    "ring": Ring,
    "chain": Chain,
    "k_nearest": KNearest,
    "custom": Custom,
    "routed": Routed,
}


def make_topology(value: Topology | dict[str, Any]) -> Topology:
    """A topology from its config mapping, e.g. {"kind": "k_nearest", "k": 4}.

    Raises:
        UserError: no such topology, or arguments that do not fit it.
    """
    topology = made("communication.topology", value, TOPOLOGIES, "connect")
    if not isinstance(topology, Topology):
        raise UserError(f"communication.topology is {topology!r}, and must be an object of a subclass of Topology")
    return topology
