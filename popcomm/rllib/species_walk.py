"""One species on its way through a fragment, and what comes of it: the part of an unroll that is its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput, decides_later
from popcomm.agents.inbox import inbox_of
from popcomm.agents.seating import Seating
from popcomm.agents.step import agent_step, reset_state
from popcomm.channels.mail import Mail
from popcomm.channels.mailbox import Inbox, PostedInbox, RoutedInbox
from popcomm.channels.messages import MessageKind, reparameterised
from popcomm.rllib.fragment import Fragment, Steps, carried, open_symbols
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.round_walk import Spoken, along_rows, joined_expenses, joined_rounds
from popcomm.rllib.sight import seatings_of, seen_of


class SpeciesUnroll(NamedTuple):
    """All steps of a fragment of one species, joined along the rows: step t has rows [t R, (t + 1) R)."""

    outputs: AgentOutput  # [P, T R, ...]; `state` is empty
    inbox: Inbox | None  # [P, T R, K, ...]
    # [P T R] int64 into [B T N], member-major; None: the order of [B, T, N] itself (P = 1, folded).
    places: Tensor | None
    mask: Tensor  # [P, T R] bool, rows that an agent lived
    expense: Tensor | None = None  # [P, T R], of what was said, where gradients go through its softmax anyway
    # What was said in the rounds of each step, first to last, but for the last one, which stands in the outputs.
    earlier: tuple[Spoken, ...] = ()


class Walk:
    """One species on its way through a fragment, step by step. explores: whether those did who acted in it."""

    def __init__(self, module: PopulationRLModule, arrays: Fragment[Tensor], explores: bool = True) -> None:
        self.agent, self.spec, self.members = module.agent, module.spec, module.spec.members
        self.arrays, self.steps, self.explores = arrays, Steps(arrays), explores
        self.open_symbols = open_symbols(arrays)
        self.length, self.rounds = arrays["alive"].shape[1], module.spec.rounds
        # One look at the whole fragment instead of a synchronisation at every step.
        self.opens = arrays["first"][:, : self.length].flatten(2).any(2).any(0).tolist()
        self.decides_later = decides_later(self.agent)
        self.decides_unseen = bool(getattr(self.agent, "decides_unseen", False))
        self.pays = pays_for_messages(self.agent)
        self.seatings = seatings_of(arrays["members"], self.opens, self.members)
        self.looks = seen_of(self.agent, self.spec, self.steps, self.seatings)
        self._seat(0)
        self.state = {name: self.seating.to_members(value) for name, value in carried(arrays).items()}
        self.outputs: list[AgentOutput] = []
        self.spoken: list[AgentOutput] = []  # of all rounds of all steps
        self.inboxes: list[Any] = []  # all PostedInbox, or all Inbox
        self.seen: list[Tensor] = []
        self.indices: list[Tensor] = []
        self.masks: list[Tensor] = []
        self.expenses: list[Tensor | None] = []

    def open(self, t: int) -> None:
        """Step t begins: who sits where, and whose memory starts anew."""
        if self.opens[t] and t:
            self._reseat(t)
        if self.opens[t]:
            first = self.seating.to_members(self.steps.at(t, "first"))
            self.state = reset_state(self.agent, self.state, first)

    def step(self, t: int, mail: Mail | None, seats: slice) -> None:
        """Step t, with what is heard in it; where there are rounds, what follows them."""
        if not self.rounds:
            self.open(t)
        seating = self.seating
        output, inbox, obs = self._think(t, mail, seats, 0)
        if self.rounds:  # and nothing is said any more
            spoken = self.spoken[-1]
            output = output._replace(message=spoken.message, said=spoken.said, manner=spoken.manner)
        self.outputs.append(output._replace(state={}))
        if single(inbox) is not None:
            self.inboxes.append(inbox)
        self.seen.append(obs[..., :0] if self.decides_unseen else obs)
        self.indices.append(self._index + t * seating.num_seats)
        self.masks.append(seating.row_mask(self.steps.at(t, "alive")))

    def speak(self, t: int, before: int, mail: Mail, seats: slice) -> None:
        """Say what was said in a round of step t, so many rounds before the last, with what was heard until then."""
        output, _, _ = self._think(t, mail, seats, before)
        self.spoken.append(output._replace(state={}, aux={}))

    def _think(self, t: int, mail: Mail | None, seats: slice, before: int) -> tuple[AgentOutput, Inbox | None, Tensor]:
        """(output, inbox [P, R, K, ...], obs [P, R, O]); memory goes on."""
        seating = self.seating
        inbox = inbox_of(mail, seating, seats) if mail is not None and self.spec.hears else None
        said = None if self.spec.sends is None else seating.to_members(self.steps.said_at(t, before))
        obs = seating.to_members(self.steps.at(t, "obs"))
        how: dict[str, Any] = {"undecided": self.decides_later, "open_symbols": self.open_symbols}
        how["seen"] = self.looks[t]
        output = agent_step(self.agent, self.spec, obs, inbox, self.state, said, **how)
        self.state = output.state
        return output, inbox, obs

    def soft(self, t: int, kind: MessageKind, before: int = 0) -> Tensor:
        """The differentiable form [B, N_s, *features shape] of what was said last, in a round of step t; zeros of the
        mute."""
        params = (self.spoken or self.outputs)[-1].message
        if params is None:
            return self.arrays["values"].new_zeros(*self.arrays["alive"][:, 0].shape, *kind.features_shape)
        soft, expense = soft_of(
            kind,
            params,
            self.seating,
            lambda key, _: self.steps.of_round(t, key, before),
            "sent" in self.steps,
            self.pays,
            self.explores,
        )
        self.expenses.append(expense)
        return soft

    def _seat(self, t: int) -> None:
        """Take the seats of step t."""
        self.seating = seating = self.seatings[t]
        n, rows = seating.num_seats, seating.rows
        index = torch.arange(rows, device=self.arrays["obs"].device).view(1, -1) if self.members == 1 else seating.index
        # [P, R], the rows' places in [B T N] at step 0.
        self._index = index // n * (self.length * n) + index % n

    def _reseat(self, t: int) -> None:
        if self.members == 1:
            return
        old = self.seating
        self._seat(t)
        self.state = {k: self.seating.to_members(old.to_worlds(v)) for k, v in self.state.items()}

    def joined(self, with_soft: bool) -> SpeciesUnroll:
        first = self.outputs[0]
        message = along_rows([output.message for output in self.outputs])
        said = along_rows([output.said for output in self.outputs])
        aux = {key: torch.cat([o.aux[key] for o in self.outputs], 1) for key in first.aux}
        if self.decides_later:
            seen = torch.cat(self.seen, 1)
            logits, value = self.agent.decide(seen if self.decides_unseen else self.spec.numbers(seen), aux)
        else:
            logits = torch.cat([o.action_logits for o in self.outputs], 1)
            value = torch.cat([o.value for o in self.outputs], 1)
        outputs = AgentOutput(logits, message, value, {}, aux, said, along_rows([o.manner for o in self.outputs]))
        return SpeciesUnroll(
            outputs,
            self._joined_inbox(with_soft),
            torch.cat(self.indices, 1).reshape(-1),
            torch.cat(self.masks, 1),
            joined_expenses(self.expenses, self.length),
            joined_rounds(self.spoken, self.length),
        )

    def _joined_inbox(self, with_soft: bool) -> Inbox | None:
        """All steps' inboxes, joined along the rows; those of shared networks along what is posted, too."""
        if not self.inboxes:
            return None
        senders = torch.cat([i.senders for i in self.inboxes], 1)
        gate = None if self.inboxes[0].gate is None else torch.cat([i.gate for i in self.inboxes], 1)
        mask = torch.cat([i.mask for i in self.inboxes], 1)
        posted = isinstance(self.inboxes[0], PostedInbox)
        softs = [i.posted_soft if posted else i.soft for i in self.inboxes] if with_soft else []
        direct = None if self.inboxes[0].direct is None else torch.cat([i.direct for i in self.inboxes], 1)
        if not posted:
            messages = torch.cat([i.messages for i in self.inboxes], 1)
            return Inbox(messages, senders, mask, _joined(softs, self.inboxes[0].messages, 3, 1), direct, gate)
        count = len(self.inboxes[0].posted)
        index = torch.cat([i.index + t * count for t, i in enumerate(self.inboxes)], 1)
        messages = torch.cat([i.posted for i in self.inboxes])
        posted_softs = _joined(softs, self.inboxes[0].posted, 1, 0)
        return cast(Inbox, PostedInbox(messages, index, senders, mask, posted_softs, direct, gate))


def soft_of(
    kind: Any,
    params: Tensor,
    seating: Seating,
    get: Callable[[str, int], Tensor],
    noisy: bool,
    priced: bool = False,
    explores: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """The differentiable form of what a species said, in world order, and if `priced` what it was expected to cost.

    Of a reparameterised kind it is what the present sender says with the noise that was kept, and what the channel
    did to the message afterwards. Of those who explore nothing it is the likeliest message, which is what they say,
    with the gradient of its soft form.

    Args:
        params: [P, R, *params shape], rows of one step, or of all steps (worlds count B T then).
        get: (key, steps later) -> [B, N_s, ...], what a fragment has for these rows.
        noisy: whether it has what was sent beside what was heard.
        explores: whether messages were drawn.

    Returns:
        [B, N_s, *features shape], or [B T, N_s, *features shape]; [P, R], or None where that is no by-product.
    """
    if not reparameterised(kind):
        both = kind.soft_and_expense(params) if priced and hasattr(kind, "soft_and_expense") else None
        soft, expense = (kind.soft(params), None) if both is None else both
        return seating.to_worlds(soft), expense
    if explores or getattr(kind, "always_drawn", False):
        own = kind.sample_with(params, seating.to_members(get("message_noise", 0)))
    else:
        soft = kind.soft(params)
        own = kind.mode(params) + (soft - soft.detach())
    said = seating.to_worlds(own)
    return kind.transmitted_again(said, get("sent", 0), get("messages", 1)) if noisy else said, None


def single(inbox: Inbox | None) -> Inbox | None:
    """The inbox where it holds single messages, which losses can look at; None of a routed channel."""
    return None if isinstance(inbox, RoutedInbox) else inbox


def pays_for_messages(agent: Any) -> bool:
    """Whether it pays for the symbols that it says."""
    return bool(getattr(agent, "pays_for_messages", False))


def _joined(softs: list[Tensor | None], first: Tensor, leading: int, axis: int) -> Tensor | None:
    """Joined along an axis. The messages of step 0 come from before the fragment and carry no gradient, unless they are
    said in the step itself, in rounds.

    Where a soft form is the message itself they stand for themselves; elsewhere its values are not looked at.

    Args:
        softs: of all steps, None at step 0 and where nobody is heard.
        first: the messages of step 0, [*leading axes, *message shape].
        leading: how many leading axes there are.
    """
    known = [soft for soft in softs if soft is not None]
    if not known:
        return None
    if len(known) == len(softs):
        return torch.cat(known, axis)
    form = known[0].shape[leading:]
    itself = first.shape[leading:] == form
    opening = first.to(known[0].dtype) if itself else known[0].new_zeros(*first.shape[:leading], *form)
    return torch.cat([opening, *known], axis)
