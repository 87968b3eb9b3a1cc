"""Mail: what is under way in the channel at a step, and the inboxes that a species gets of it."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from popcomm.agents.seating import Seating
from popcomm.channels.mailbox import Inbox, PostedInbox, RoutedInbox, gather_seats
from popcomm.rllib.gradients import kept_finite


class LogOf(NamedTuple):
    """Where the entries of a log come from (`popcomm.channels.broadcast.air.Heard`)."""

    sources: Tensor  # [B, L] int64, seats; N where nobody said the word
    direct: Tensor  # [B, L] bool, what the source itself said one step before


class Mail(NamedTuple):
    """What is under way in the channel at a step: sent one step before, heard now."""

    messages: Tensor  # [B, N, ...], as transmitted by each seat; [B, L, ...], the entries of a log
    senders: Tensor  # [B, N, K] int64, which of them stand in each inbox
    mask: Tensor  # [B, N, K] bool
    soft: Tensor | None = None  # [B, N, *features shape], of what each seat said
    hears: Tensor | None = None  # [B, N] bool, who listens; only where there are no inboxes (`Routed`)
    log: LogOf | None = None


def inbox_of(mail: Mail, seating: Seating, seats: slice) -> Inbox:
    """The inboxes of one species in member-major order [P, R, K, ...]: one gather from world order.

    The receivers' permutation is applied to the small indices, not to the messages.
    """
    if mail.hears is not None:
        return cast(Inbox, RoutedInbox(mail.messages, mail.mask[..., 0], mail.hears, seats, kept_finite(mail.soft)))
    worlds, posts = mail.messages.shape[:2]
    chosen, mask = mail.senders[:, seats], seating.to_members(mail.mask[:, seats])
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
    inbox = PostedInbox(mail.messages.flatten(0, 1), index, senders, mask, soft, direct)
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
    return Inbox(posted.messages, posted.senders, posted.mask, soft, posted.direct)
