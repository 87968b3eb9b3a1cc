"""Mail: what is under way in a channel at a step, sent one step before and heard now."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from popcomm.channels.links import Links
from popcomm.channels.trips import placed


class LogOf(NamedTuple):
    """Where the entries of a log of transmissions come from."""

    sources: Tensor  # [B, L] int64, seats; N where nobody said the word (published)
    direct: Tensor  # [B, L] bool, said by the source itself one step before, and no repetition of anything


class Mail(NamedTuple):
    """What is under way in B worlds, and whose inbox each of it stands in.

    There are M messages in a world: one of each seat (M = N), or the entries of a log (M = L; 0 where there is none).
    """

    messages: Tensor  # [B, M, *message shape], as they were transmitted
    slots: Tensor  # [B, N, K] int64, which of them stand in each inbox
    mask: Tensor  # [B, N, K] bool
    soft: Tensor | None = None  # [B, N, *features shape], the differentiable form of what each seat said
    hears: Tensor | None = None  # [B, N] bool, who listens; only where there are no inboxes (`Routed`)
    log: LogOf | None = None
    gate: Tensor | None = None  # [B, N, K], by how much what is heard is multiplied, where a graph is learned

    @property
    def senders(self) -> Tensor:
        """[B, N, K] int64, the seat whose message stands in each slot; N where it is nobody's."""
        return self.slots if self.log is None else _of_slots(self.log.sources, self.slots)

    @property
    def said(self) -> Tensor:
        """[B, N, K] bool, slots that hold what their sender itself said."""
        return self.mask if self.log is None else self.mask & _of_slots(self.log.direct, self.slots)

    @property
    def links(self) -> Links:
        """Who hears whom, for transcripts and pictures: repetitions and published words have no speaker."""
        if self.log is None:
            return Links(self.slots, self.mask)
        return Links(self.senders.clamp(max=self.slots.shape[1] - 1), self.said)

    def to(self, device: torch.device | str) -> Mail:
        """The same on a device."""
        log = () if self.log is None else self.log
        there = [values for values in (*self[:5], *log, self.gate) if values is not None]
        moved = dict(zip(map(id, there), placed(there, device), strict=True))

        def of(values: Tensor | None) -> Tensor | None:
            return None if values is None else moved[id(values)]

        messages, slots, mask, *sources = (moved[id(values)] for values in (*self[:3], *log))
        soft, hears, gate = of(self.soft), of(self.hears), of(self.gate)
        return Mail(messages, slots, mask, soft, hears, LogOf(*sources) if sources else None, gate)


def _of_slots(values: Tensor, slots: Tensor) -> Tensor:
    """values [B, L], slots [B, N, K] -> [B, N, K]."""
    return values.gather(1, slots.flatten(1)).view_as(slots)
