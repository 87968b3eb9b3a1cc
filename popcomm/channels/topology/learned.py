"""A topology whose links have strengths that are learned, and are pruned where they are weak."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from popcomm.channels.links import Links
from popcomm.channels.narrowing import narrowed, of_slots
from popcomm.channels.topology.over import KEY, Over
from popcomm.checks import not_negative, number, one_of, true_or_false, whole
from popcomm.errors import UserError

BETWEEN = ("species", "seats")  # whose links have strengths of their own


class Learned(Over):
    """Who hears whom is learned: each link has a strength p in (0, 1) by which what is heard is multiplied.

    p is the sigmoid of a number that is trained with the receivers' networks. Up to `threshold` a link is shut and its
    messages are heard as zeros; the gradient goes through the threshold as if it were not there (straight-through,
    Bengio 2013), so that a shut link that would help opens again. Each link costs `price` times its strength (an
    L0 penalty by its expectation, Louizos et al. 2018), as long as more than `budget` are open (of those that there may
    ever be, see `possible`). From `prune_at`
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
        strengths: [N (sender), N (receiver)], of a graph that was learned; 0: a link that is shut. Such a graph stays.
        pruned: of `strengths`, whether what is shut is out of the inbox, or in it as zeros, as networks met it that
            were trained before `prune_at`. None: it is out.

    Raises:
        UserError: a value out of its range, an `of` without inboxes or with a schedule, a budget without a price, or
            `pruned` without strengths.
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
        pruned: bool | None = None,
    ) -> None:
        super().__init__(of)
        self.between = one_of(f"{KEY}.between", between, BETWEEN)
        for name, value in (("threshold", threshold), ("start", start)):
            number(f"{KEY}.{name}", value, "lie between 0 and 1, and be neither", above=0.0, below=1.0)
        self.threshold, self.start = float(threshold), float(start)
        self.price = not_negative(f"{KEY}.price", price)
        self.budget = whole(f"{KEY}.budget", budget, 0)
        if budget and not price:
            raise UserError(f"{KEY}.budget is {budget}, and price is 0, so links cost nothing anyway; leave budget out")
        self.prune_at = None if prune_at is None else whole(f"{KEY}.prune_at", prune_at, 1)
        self.strengths: Tensor | None = None
        self.pruned = False
        self._size: int | None = None  # K of what is left
        self.is_given = strengths is not None  # learned elsewhere: there is nothing to learn
        if strengths is not None:
            gone = True if pruned is None else true_or_false(f"{KEY}.pruned", pruned)
            self.follow(_square(f"{KEY}.strengths", strengths), gone)
        elif pruned is not None:
            raise UserError(f"{KEY}.pruned is {pruned!r}, and is of strengths, which are not given; leave it out")

    def follow(self, strengths: Tensor, pruned: bool) -> None:
        """Take the graph as it is now.

        Args:
            strengths: [N (sender), N (receiver)], 0 where a link is shut.
            pruned: whether what is shut is gone for good.
        """
        self.strengths, self.pruned, self._size = strengths.float(), pruned, None
        if pruned:
            left = (strengths.cpu() > 0) & self.possible(len(strengths))
            self._size = max(1, int(left.sum(0).max()))

    def possible(self, num_agents: int) -> Tensor:
        """[N (sender), N (receiver)] bool, between whom there may ever be a link.

        The links of an `of` that stays the same (`Topology.static`). Where links follow positions, or change otherwise,
        any two seats may be linked at one time or another, and so are all of them here; none is linked to itself.
        """
        others = ~torch.eye(num_agents, dtype=torch.bool)
        if not self.of.static:
            return others
        links = self.of.connect(torch.ones(1, num_agents, dtype=torch.bool))
        return others & torch.zeros_like(others).index_put(_ends(links), torch.tensor(True))

    def inbox_size(self, num_agents: int) -> int:
        """That of `of`, or as many as are left. Raises UserError: strengths of another number of agents."""
        if self.strengths is not None and len(self.strengths) != num_agents:
            raise UserError(
                f"{KEY}.strengths is for {len(self.strengths)} agents, and the environment has {num_agents}"
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
