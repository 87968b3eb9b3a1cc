"""The inboxes that a species gets of what is under way in the channel."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from popcomm.agents.seating import Seating
from popcomm.channels.mail import LogOf, Mail
from popcomm.channels.mailbox import Inbox, PostedInbox, RoutedInbox, gather_seats


def inbox_of(mail: Mail, seating: Seating, seats: slice) -> Inbox:
    """The inboxes of one species in member-major order [P, R, K, ...]: one gather from world order.

    The receivers' permutation is applied to the small indices, not to the messages.
    """
    if mail.hears is not None:
        return cast(Inbox, RoutedInbox(mail.messages, mail.mask[..., 0], mail.hears, seats, kept_finite(mail.soft)))
    worlds, posts = mail.messages.shape[:2]
    chosen, mask = mail.slots[:, seats], seating.to_members(mail.mask[:, seats])
    offsets = torch.arange(worlds, device=mask.device).view(-1, 1, 1) * posts
    index = seating.to_members(chosen + offsets)
    soft, direct = mail.soft, None
    if mail.log is None:
        senders = seating.to_members(chosen)
    else:
        senders, direct = mail.log.sources.flatten()[index], mail.log.direct.flatten()[index]
        soft = None if soft is None else _soft_of_log(soft, mail.log)
    soft = None if soft is None else soft.flatten(0, 1)
    if seating.members == 1:
        soft = kept_finite(soft)
    gate = None if mail.gate is None else kept_finite(seating.to_members(mail.gate[:, seats]), seating.members)
    inbox = PostedInbox(mail.messages.flatten(0, 1), index, senders, mask, soft, direct, gate)
    return _as_inbox(inbox, seating.members)


def _soft_of_log(soft: Tensor, log: LogOf) -> Tensor:
    """What seats said, [B, N, ...], at the entries that are theirs: [B, L, ...]; zeros, without gradient, elsewhere.

    Nobody chose to repeat a word, or to publish it.
    """
    seats = log.sources.clamp(max=soft.shape[1] - 1)
    found = gather_seats(soft, seats.unsqueeze(-1)).squeeze(2)
    return found * log.direct.view(*seats.shape, *[1] * (soft.dim() - 2))


def _as_inbox(posted: PostedInbox, members: int) -> Inbox:
    """What is posted is read once for all by networks that share their weights, unless less is heard than posted."""
    if members == 1 and posted.index.numel() >= len(posted.posted):
        return cast(Inbox, posted)  # it has all that an Inbox has
    soft = posted.soft if members == 1 else kept_finite(posted.soft, members)
    return Inbox(posted.messages, posted.senders, posted.mask, soft, posted.direct, posted.gate)


def kept_finite(soft: Tensor | None, members: int = 1) -> Tensor | None:
    """What a species hears, such that a listener whose loss is not finite teaches its speakers nothing.

    Its own update is left out (`MemberGuard`); through the channel it would take everybody's with it.

    Args:
        soft: [P, ...] of several members, each listening for itself; of one: any shape. Or the strengths of links.
    """
    if soft is None or not soft.requires_grad:
        return soft

    def guard(gradient: Tensor) -> Tensor:
        # A sum finds what is not finite in a single pass; one for each listener says whose it is.
        if gradient.device.type == "cpu" and math.isfinite(gradient.sum().item()):
            return gradient
        finite = gradient.reshape(members, -1).sum(1).isfinite()
        shape = (members, *[1] * (gradient.ndim - 1)) if members > 1 else ()
        return torch.where(finite.view(shape), gradient, 0.0)

    soft = soft.view_as(soft)  # a place of its own in the graph: others hear the same
    soft.register_hook(guard)
    return soft
