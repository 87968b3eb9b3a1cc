"""A topology that loses links one after another while training goes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from popcomm.channels.links import Links
from popcomm.channels.topology.over import KEY, Over
from popcomm.channels.topology.plain import Full, KNearest
from popcomm.checks import one_of, whole
from popcomm.errors import UserError
from popcomm.schedules import Schedule, make_schedule, refuse_load

KEEP = ("first", "nearest", "drawn")  # which links a curriculum leaves longest


class Curriculum(Over):
    """Everybody hears as in `of` at first, and in the end only `least` of these: links go one after another.

    With strength s of the schedule and inboxes of K links at first, round(least + s (K - least)) are left, of those who
    are there; a schedule that ends above 0 ends with more. A link that is gone does not come back while the strength
    falls, as long as who is there and who is near does not change. (Learning to talk on dense graphs and being left
    with sparse ones: the way round of curricula by which graphs grow, e.g. Agarwal et al. 2020.)

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
        super().__init__(of)
        self.schedule: Schedule = refuse_load(make_schedule(schedule, f"{KEY}.schedule"), KEY)
        self.least = whole(f"{KEY}.least", least, 0)
        self.keep = one_of(f"{KEY}.keep", keep, KEEP)
        self.seed = whole(f"{KEY}.seed", seed, 0)
        if keep == "nearest" and not isinstance(self.of, Full):
            raise UserError(f"{KEY}.keep is 'nearest', and `of` must be full; k_nearest keeps 'first'")
        self.needs_positions |= keep == "nearest"

    def inbox_size(self, num_agents: int) -> int:
        """That of the beginning. Raises UserError: it is smaller than `least`."""
        size = self.of.inbox_size(num_agents)
        if self.least > size:
            raise UserError(f"{KEY}.least is {self.least}, and an agent has at most {size} links")
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
        # Of those who are there: an empty slot is no link that could be kept.
        return links if left >= size else Links(links.senders, links.mask & (links.mask.cumsum(-1) <= left))

    def _drawn(self, num_agents: int, size: int) -> Tensor:
        """[N, K] int64, the order of each receiver's links."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(num_agents, size, generator=generator).argsort(1)
