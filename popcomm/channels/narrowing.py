"""Inboxes without the links that are gone for good: what a graph leaves out costs nothing where messages are read."""

from __future__ import annotations

import torch
from torch import Tensor

from popcomm.channels.links import Links


def of_slots(values: Tensor, slots: Tensor) -> Tensor:
    """values [N (sender), N (receiver)], slots [B, N, K] -> [B, N, K], of the sender in each slot of each receiver.

    Differentiable in values. A slot that is nobody's has the value of somebody.
    """
    seats = values.shape[0]
    receivers = torch.arange(seats, device=slots.device).view(1, -1, 1)
    places = slots.clamp(max=seats - 1).long() * seats + receivers
    return values.reshape(-1).index_select(0, places.flatten()).view(slots.shape)


def narrowed(links: Links, joined: Tensor, size: int) -> Links:
    """Only links that are joined, in their order, in `size` slots.

    Args:
        links: [B, N, K] each.
        joined: [N (sender), N (receiver)] bool, which links there are.
        size: the most joined senders that stand in any inbox, at least.
    """
    there = of_slots(joined, links.senders)
    if size >= links.senders.shape[-1]:
        return Links(links.senders, links.mask & there)
    # A stable sort keeps those that are left in their order.
    order = (~there).byte().sort(dim=-1, stable=True).indices[..., :size]
    return Links(links.senders.gather(-1, order), (links.mask & there).gather(-1, order))
