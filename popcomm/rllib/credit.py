"""What messages that are learned as actions are credited with, where that is what became of those who heard them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from popcomm.agents.graph import LearnedGraph
from popcomm.channels import Learned
from popcomm.rllib.fragment import Fragment, plain
from popcomm.rllib.plan import Plan
from popcomm.rllib.ppo import Reduce, standardise


def add_receivers_credit(
    arrays: Mapping[str, Fragment[Tensor]],
    advantages: Sequence[Tensor],
    plan: Plan,
    reduce: Reduce,
    graph: LearnedGraph | Learned | None = None,
) -> None:
    """What messages are credited with: the advantages of those who hear them, standardised per sender.

    Through a link that is shut nobody hears anything, though its message is in the inbox.

    Args:
        arrays: {species: its fragment}; those who speak get "message_advantages" [B, T, N_s].
        advantages: of each species [B, T, N_s].
        plan: whose seats and members they are.
        reduce: sum over learners.
        graph: by whose links they hear, where these have strengths.
    """
    goes_on = torch.cat([a["alive"] & ~a["terminated"] for a in arrays.values()], 2)
    every, links = torch.cat(list(advantages), 2), senders_of(arrays)
    if graph is not None:
        strengths = graph.gate(links[0].flatten(0, 1))
        links = (links[0], links[1] if strengths is None else links[1] & (strengths > 0).view_as(links[1]))
    at_once = plan.channel is not None and plan.channel.rounds > 0
    if at_once:
        credit = credit_at_once(every, *links, torch.cat([a["alive"] for a in arrays.values()], 2))
    else:
        credit = receivers_credit(every, *links, goes_on)
    for name, a in arrays.items():
        kind, members = plan.species[name].species, plan.species[name].members
        if not kind.speaks:
            continue
        heard = credit.heard[:, :, kind.seats] & a["alive"] & a.get("voiced", a["alive"])
        values = standardise(credit.values[:, :, kind.seats], a["members"], heard, members, reduce)
        a["message_advantages"] = torch.where(heard, values, 0.0)


class Credit(NamedTuple):
    """Result of `receivers_credit`."""

    values: Tensor  # [B, T, N], 0 where nobody heard
    heard: Tensor  # [B, T, N] bool, messages that somebody heard in the fragment whose life goes on


def receivers_credit(advantages: Tensor, senders: Tensor, mask: Tensor, goes_on: Tensor) -> Credit:
    """The mean of the advantages of those who hear a message, in the step in which it is said.

    A message said at step t is heard at t + 1, so its doing is in the value that its receivers then have, and in all
    that follows: both stand in *their* advantage of step t, r_t + gamma V_{t+1} - V_t + ..., whose baseline V_t does
    not know the message yet. Where each is paid for its own doing, the sender's own advantage has none of this. What
    is said in the last row is heard in the next fragment. Inboxes of empty seats, and those in the row after a life's
    end, count for nothing: nobody is there to whom a message could do anything.

    Args:
        advantages: [B, T, N] float32, of all seats, not standardised.
        senders: [B, T, N, K] int64, whose messages stand in each inbox; N or more where they are nobody's.
        mask: [B, T, N, K] bool, which of them are real.
        goes_on: [B, T, N] bool, lives that have a next step, or a value in place of it.
    """
    known = credit_at_once(advantages[:, :-1], senders[:, 1:], mask[:, 1:], goes_on[:, :-1])
    last = advantages.new_zeros(advantages[:, :1].shape)
    return Credit(torch.cat([known.values, last], 1), torch.cat([known.heard, last > 0], 1))


def credit_at_once(advantages: Tensor, senders: Tensor, mask: Tensor, lived: Tensor) -> Credit:
    """The same of messages that are said in rounds: whoever hears one acts in the step in which it is said, and its
    doing is in that step's advantage of theirs; who hears an agent in several rounds counts as often.

    The arguments are those of `receivers_credit`, K the inboxes of all rounds.
    """
    seats, slots = advantages.shape[2], senders.shape[3]
    # One more seat takes what is nobody's.
    target = torch.where(mask & lived.unsqueeze(-1), senders, seats).clamp(max=seats).flatten(2)
    gained = advantages.unsqueeze(-1).expand(-1, -1, -1, slots).flatten(2)
    nothing = advantages.new_zeros(*advantages.shape[:2], seats + 1)
    values = nothing.scatter_add(2, target, gained)[..., :-1]
    counts = nothing.scatter_add(2, target, torch.ones_like(gained))[..., :-1]
    return Credit(values / counts.clamp(min=1), counts > 0)


def senders_of(fragment: Mapping[str, Fragment[Tensor]]) -> tuple[Tensor, Tensor]:
    """Whose messages stand in all inboxes of a fragment, and which are real: [B, T, N, K] each, all seats in order.

    Of a log of transmissions only what the sender itself said one step before counts. K is that of all rounds.
    """
    arrays = list(fragment.values())
    mask = torch.cat([a["inbox_mask"] for a in arrays], 2)
    if "slots" not in arrays[0]:
        senders = torch.cat([a["senders"] for a in arrays], 2)
        if "earlier_senders" in arrays[0]:
            before, real = (torch.cat([plain(a)["earlier_" + k] for a in arrays], 2) for k in ("senders", "inbox_mask"))
            senders, mask = torch.cat([before.flatten(3), senders], 3), torch.cat([real.flatten(3), mask], 3)
        return senders, mask
    slots = torch.cat([a["slots"] for a in arrays], 2).long()
    flat = slots.flatten(2)
    sources, direct = (
        log.gather(2, flat).view_as(slots) for log in (arrays[0]["log_sources"], arrays[0]["log_direct"])
    )
    return sources, mask & direct
