"""Who hears whom: a topology names the K senders of every receiver, for a batch of worlds at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from popcomm.channels.links import Links
from popcomm.channels.narrowing import narrowed, of_slots
from popcomm.channels.nearest import nearest
from popcomm.checks import not_negative, number, one_of, whole
from popcomm.errors import UserError
from popcomm.references import made
from popcomm.schedules import Schedule, make_schedule

KEEP = ("first", "nearest", "drawn")  # which links a curriculum leaves longest


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


class Curriculum(Topology):
    """Everybody hears as in `of` at first, and in the end only `least` of these: links go one after another.

    With strength s of the schedule and K links of a receiver at first, round(least + s (K - least)) are left; a
    schedule that ends above 0 ends with more. A link that is gone does not come back while the strength falls, as long
    as who is near does not change. (Learning to talk on dense graphs and being left with sparse ones: the way round of
    curricula by which graphs grow, e.g. Agarwal et al. 2020.)

    Args:
        schedule: of the strength; see `popcomm.schedules`.
        least: links that each keeps in the end, 0 or more.
        of: the topology of the beginning; None: "full".
        keep: which are left longest: "first", those that come first in that topology ("ring" and "k_nearest" begin with
            the nearest, "full" with the lowest seats); "nearest", in space; "drawn", in an order that is drawn once for
            every receiver.
        seed: of that order.

    Raises:
        UserError: a `least` that is more than there are links, or a choice that does not exist.
    """

    def __init__(self, schedule: Any, least: int = 1, of: Any = None, keep: str = "first", seed: int = 0) -> None:
        self.schedule: Schedule = make_schedule(schedule, "communication.topology.schedule")
        self.least = whole("communication.topology.least", least, 0)
        self.of = Full() if of is None else make_topology(of)
        self.keep = one_of("communication.topology.keep", keep, KEEP)
        self.seed = whole("communication.topology.seed", seed, 0)
        if self.of.latents or self.of.schedule is not None or isinstance(self.of, Learned):
            name = type(self.of).__name__
            raise UserError(f"communication.topology.of is {name}, and must have inboxes, and nothing that changes it")
        if keep == "nearest" and not isinstance(self.of, Full):
            raise UserError("communication.topology.keep is 'nearest', and `of` must be full; k_nearest keeps 'first'")
        self.needs_positions = self.of.needs_positions or keep == "nearest"

    def inbox_size(self, num_agents: int) -> int:
        """That of the beginning. Raises UserError: it is smaller than `least`."""
        size = self.of.inbox_size(num_agents)
        if self.least > size:
            raise UserError(f"communication.topology.least is {self.least}, and an agent has at most {size} links")
        return size

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """The links of the beginning, those that are left longest first."""
        size = self.inbox_size(present.shape[1])
        if self.keep == "nearest":
            return KNearest(size).connect(present, positions, torus)
        links = self.of.connect(present, positions, torus)
        if self.keep == "first":
            return links
        order = self._drawn(present.shape[1], size).to(present.device).expand_as(links.senders)
        return Links(links.senders.gather(2, order), links.mask.gather(2, order))

    def thinned(self, links: Links, strength: float) -> Links:
        """What is left of the links of a step; see the class. strength: in [0, 1]."""
        size = links.mask.shape[-1]
        left = round(self.least + strength * (size - self.least))
        return links if left >= size else Links(links.senders, links.mask & (torch.arange(size) < left).to(links.mask))

    def _drawn(self, num_agents: int, size: int) -> Tensor:
        """[N, K] int64, the order of each receiver's links."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(num_agents, size, generator=generator).argsort(1)


class Learned(Topology):
    """Who hears whom is learned: each link has a strength p in (0, 1) by which what is heard is multiplied.

    p is the sigmoid of a number that is trained with the receivers' networks. Up to `threshold` a link is shut and its
    messages are heard as zeros; the gradient goes through the threshold as if it were not there (straight-through,
    Bengio 2013), so that a shut link that would help opens again. Each link costs `price` times its strength (an
    L0 penalty by its expectation, Louizos et al. 2018), as long as more than `budget` are open. From `prune_at`
    environment steps on the graph stays: what is shut is gone for good and costs nothing any more, what is open keeps a
    strength that goes on being trained, at no price. (Graphs of who talks to whom: Niu et al. 2021, MAGIC.)

    Until then a shut link's message is in the inbox, for its gradient: networks that take the mean of what they hear
    count it, and those that attend may attend to it. Where it is pruned it is not in the inbox.

    Args:
        of: the topology whose links there may be; None: "full".
        between: whose links have a strength of their own: "species" (all of a species are heard alike), or "seats".
        threshold: of p; in (0, 1).
        start: p of all links at first; in (0, 1). Near 1 there is time to learn what links are good for before the
            price shuts them.
        price: of a link, 0 or more, in the unit of the policy's loss.
        budget: open links that cost nothing.
        prune_at: environment steps; None: never, and the price acts to the end.
        strengths: [N (sender), N (receiver)], of a graph that was learned; 0: no link. Such a graph stays.

    Raises:
        UserError: a value out of its range, an `of` without inboxes or with a schedule, or a budget without a price.
    """

    def __init__(
        self,
        of: Any = None,
        between: str = "species",
        threshold: float = 0.5,
        start: float = 0.9,
        price: float = 0.01,
        budget: int = 0,
        prune_at: int | None = None,
        strengths: Any = None,
    ) -> None:
        key = "communication.topology"
        self.of = Full() if of is None else make_topology(of)
        if self.of.latents or self.of.schedule is not None or isinstance(self.of, Learned):
            name = type(self.of).__name__
            raise UserError(f"{key}.of is {name}, and must have inboxes, no schedule, and no strengths of its own")
        self.between = one_of(f"{key}.between", between, BETWEEN)
        for name, value in (("threshold", threshold), ("start", start)):
            number(f"{key}.{name}", value, "lie between 0 and 1, and be neither", above=0.0, below=1.0)
        self.threshold, self.start = float(threshold), float(start)
        self.price = not_negative(f"{key}.price", price)
        self.budget = whole(f"{key}.budget", budget, 0)
        if budget and not price:
            raise UserError(f"{key}.budget is {budget}, and price is 0, so links cost nothing anyway; leave budget out")
        self.prune_at = None if prune_at is None else whole(f"{key}.prune_at", prune_at, 1)
        self.needs_positions = self.of.needs_positions
        self.strengths: Tensor | None = None
        self.pruned = False
        self._size: int | None = None  # K of what is left
        self.is_given = strengths is not None  # learned elsewhere: there is nothing to learn
        if strengths is not None:
            self.follow(_square(f"{key}.strengths", strengths), pruned=True)

    def follow(self, strengths: Tensor, pruned: bool) -> None:
        """Take the graph as it is now.

        Args:
            strengths: [N (sender), N (receiver)], 0 where a link is shut.
            pruned: whether what is shut is gone for good.
        """
        self.strengths, self.pruned, self._size = strengths.float(), pruned, None
        if pruned:
            seats = len(strengths)
            everybody = torch.ones(1, seats, dtype=torch.bool)
            left = strengths.cpu() > 0
            if not self.of.needs_positions:
                links = self.of.connect(everybody)
                left = left & torch.zeros_like(left).index_put(_ends(links), torch.tensor(True))
            self._size = max(1, int(left.sum(0).max()))

    def inbox_size(self, num_agents: int) -> int:
        """That of `of`, or as many as are left. Raises UserError: strengths of another number of agents."""
        if self.strengths is not None and len(self.strengths) != num_agents:
            raise UserError(
                f"communication.topology.strengths is for {len(self.strengths)} agents, and the environment has "
                f"{num_agents}"
            )
        size = self.of.inbox_size(num_agents)
        return size if self._size is None else min(size, self._size)

    def connect(
        self, present: Tensor, positions: Tensor | None = None, torus: tuple[float, ...] | None = None
    ) -> Links:
        """The links of `of`, without those that are gone for good."""
        return self.narrowed(self.of.connect(present, positions, torus))

    def narrowed(self, links: Links) -> Links:
        """Links of `of` without those that are gone for good; others as they are."""
        if self.strengths is None or not self.pruned or self._size is None:
            return links
        return narrowed(links, self.strengths.to(links.senders.device) > 0, self._size)

    def gate(self, slots: Tensor) -> Tensor | None:
        """[B, N, K], by how much what stands in each slot is multiplied; slots: [B, N, K] seats."""
        return None if self.strengths is None else of_slots(self.strengths.to(slots.device), slots)


BETWEEN = ("species", "seats")  # whose links have strengths of their own


def _ends(links: Links) -> tuple[Tensor, Tensor]:
    """(senders, receivers) [E] of the links of the first world."""
    receivers, place = links.mask[0].nonzero(as_tuple=True)
    return links.senders[0, receivers, place], receivers


def _square(key: str, values: Any) -> Tensor:
    found = torch.as_tensor(values, dtype=torch.float32)
    if found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise UserError(f"{key} has shape {tuple(found.shape)}, and must be [N (sender), N (receiver)]")
    if not bool(((found >= 0) & (found <= 1)).all()):
        raise UserError(f"{key} must be numbers between 0 and 1")
    return found


TOPOLOGIES: dict[str, type] = {
    "full": Full,
    "ring": Ring,
    "chain": Chain,
    "k_nearest": KNearest,
    "custom": Custom,
    "routed": Routed,
    "curriculum": Curriculum,
    "learned": Learned,
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
