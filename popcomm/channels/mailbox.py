"""Delivery: senders' indices become inboxes by one gather, with or without gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from popcomm.channels.broadcast.air import Air
from popcomm.channels.broadcast.checks import check_log
from popcomm.channels.broadcast.dimensions import dimensions
from popcomm.channels.broadcast.reflexes import Reflex, make_reflex
from popcomm.channels.gates import make_budget, make_gates
from popcomm.channels.links import Links
from popcomm.channels.messages import MessageKind, Symbols
from popcomm.channels.topology import Learned, Topology
from popcomm.channels.vocabulary import make_vocabulary, narrowed, points, widened
from popcomm.checks import number, whole
from popcomm.errors import UserError

if TYPE_CHECKING:
    from popcomm.channels.words import Words

Reading = Callable[[Tensor, Tensor | None], Tensor]


class Inbox(NamedTuple):
    """What receivers hear in a step: the messages that were sent one step before.

    Leading axes are [B, N] in worlds and [P, R] (members, rows) inside a network.
    """

    messages: Tensor  # [..., K, *message shape]: int64 symbols or float32 vectors, as they were transmitted
    senders: Tensor  # [..., K] int64, seats
    mask: Tensor  # [..., K] bool, which messages are real
    soft: Tensor | None = None  # [..., K, *features shape], the senders' differentiable form; None without gradients
    # [..., K] bool, what the sender itself said one step before; None: all. Repeated and published words are not.
    direct: Tensor | None = None
    # [..., K] float, by how much what is read is multiplied: strengths of links that are learned; None: 1.
    gate: Tensor | None = None

    def read(self, function: Reading) -> Tensor:
        """A function of single messages on all of them: (messages, soft) -> [..., K, features]."""
        return gated(function(self.messages, self.soft), self.gate)


def gated(read: Tensor, gate: Tensor | None) -> Tensor:
    """What was read of messages [..., K, features], as much of it as links are strong."""
    return read if gate is None else read * gate.unsqueeze(-1).to(read.dtype)


class PostedInbox:
    """An Inbox whose readers all share their weights, so that what was posted is read once and not by every receiver.

    It has all that an Inbox has; `messages` and `soft` are gathered when they are asked for, `read` does without them:
    its cost is that of M messages instead of R K.

    Args:
        posted: [M, *message shape].
        index: [1, R, K] int64, which of them stands in every slot.
        senders: [1, R, K] int64, seats.
        mask: [1, R, K] bool.
        posted_soft: [M, *features shape], differentiable, or None.
        direct: [1, R, K] bool, or None.
        gate: [1, R, K], or None.
    """

    def __init__(
        self,
        posted: Tensor,
        index: Tensor,
        senders: Tensor,
        mask: Tensor,
        posted_soft: Tensor | None = None,
        direct: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> None:
        self.posted, self.index, self.posted_soft = posted, index, posted_soft
        self.senders, self.mask, self.direct, self.gate = senders, mask, direct, gate

    def _gather(self, values: Tensor) -> Tensor:
        return values.index_select(0, self.index.flatten()).view(*self.index.shape, *values.shape[1:])

    @property
    def messages(self) -> Tensor:
        return self._gather(self.posted)

    @property
    def soft(self) -> Tensor | None:
        return None if self.posted_soft is None else self._gather(self.posted_soft)

    def read(self, function: Reading) -> Tensor:
        soft = None if self.posted_soft is None else self.posted_soft.unsqueeze(0)
        return gated(self._gather(function(self.posted.unsqueeze(0), soft).squeeze(0)), self.gate)


class RoutedInbox:
    """What all agents of B worlds say, for listeners that hear all others at once (`Routed`) and share their weights.

    Args:
        posted: [B, N, *message shape].
        present: [B, N] bool, who is on the air.
        hears: [B, N] bool, who listens: not those whose life has just begun.
        seats: those of the listeners.
        posted_soft: [B, N, *features shape], differentiable, or None.
    """

    def __init__(
        self, posted: Tensor, present: Tensor, hears: Tensor, seats: slice, posted_soft: Tensor | None = None
    ) -> None:
        self.posted, self.present, self.hears, self.seats = posted, present, hears, seats
        self.posted_soft = posted_soft

    def hear(self, hearing: Callable[[Tensor, Tensor, Tensor], Tensor], hidden: Tensor, encode: Reading) -> Tensor:
        """What listeners hear of all others: [1, R, C].

        Args:
            hearing: (states [1, B, N, C], messages [1, B, N, C], present [B, N]) -> [1, B, N, C], such as a
                RoutedHearing.
            hidden: [1, R, C], the listeners' states.
            encode: a function of single messages, (messages, soft) -> [1, B, N, C].
        """
        worlds, agents = self.present.shape
        states = hidden.view(worlds, -1, hidden.shape[-1])
        if states.shape[1] < agents:  # other species speak too; what their seats would hear is not looked at
            padded = states.new_zeros(worlds, agents, states.shape[-1])
            padded[:, self.seats] = states
            states = padded
        soft = None if self.posted_soft is None else self.posted_soft.unsqueeze(0)
        said = encode(self.posted.unsqueeze(0), soft)
        heard = hearing(states.unsqueeze(0), said, self.present)[:, :, self.seats]
        return (heard * self.hears[:, self.seats].unsqueeze(-1)).flatten(1, 2)


def deliver(messages: Tensor, senders: Tensor, mask: Tensor, soft: Tensor | None = None) -> Inbox:
    """Gather every receiver's K messages.

    Args:
        messages: [B, N, *message shape].
        senders: [B, N, K] int64.
        mask: [B, N, K] bool.
        soft: [B, N, *features shape], differentiable; gathered the same way.

    >>> inbox = deliver(torch.tensor([[[7], [8]]]), torch.tensor([[[1], [0]]]), torch.ones(1, 2, 1, dtype=torch.bool))
    >>> inbox.messages.flatten().tolist()
    [8, 7]
    """
    return Inbox(gather_seats(messages, senders), senders, mask, None if soft is None else gather_seats(soft, senders))


def gather_seats(values: Tensor, senders: Tensor) -> Tensor:
    """values [B, N, ...], senders [B, M, K] -> [B, M, K, ...]: one index_select, whose backward is one index_add."""
    worlds, n = values.shape[:2]
    offsets = torch.arange(worlds, device=values.device).view(-1, 1, 1) * n
    flat = values.reshape(worlds * n, *values.shape[2:]).index_select(0, (senders + offsets).flatten())
    return flat.view(*senders.shape, *values.shape[2:])


class Channel:
    """A kind of message, a topology, and what goes wrong on the way.

    A message is heard one step after it was sent. `dropout` is the probability that a receiver misses a message;
    `noise` corrupts what is transmitted, the same for all who hear it (`MessageKind.corrupt`). Dead seats neither send
    nor hear, and nothing crosses the start of an episode.

    With `rounds` R above 0 nothing crosses a step either: agents exchange R messages on the same observation before
    they act, each heard in the next round, and the last one by those who act (`Session.converse`).

    Where reflexes act, or a capacity or inbox is given, messages are words and go through the air of every world
    (`popcomm.channels.broadcast.air`, made by `open`): a shared log of at most `capacity` transmissions a step, of
    which a receiver hears `inbox` at most. Otherwise `connect` says whose message is in whose inbox.

    With a `vocabulary`, {"first": n, "schedule": ...}, only a part of the symbols may be said at first
    (`popcomm.channels.vocabulary`).

    Raises:
        UserError: a topology that needs positions in an environment without any, or one that does not fit its agents;
            reflexes, a capacity or an inbox with messages that are no words, or in rounds; rounds below 0; gates or a
            budget that do not fit the rest (`popcomm.channels.gates`); a vocabulary that does not fit.
    """

    def __init__(
        self,
        messages: MessageKind,
        topology: Topology,
        num_agents: int,
        torus: tuple[float, ...] | None = None,
        has_positions: bool = False,
        dropout: float = 0.0,
        noise: float = 0.0,
        reflexes: Sequence[Reflex | dict[str, Any] | str] = (),
        capacity: int | None = None,
        inbox: int | None = None,
        rounds: int = 0,
        gate: Any = None,
        budget: Any = None,
        vocabulary: Any = None,
    ) -> None:
        if topology.needs_positions and not has_positions:
            name = type(topology).__name__
            raise UserError(
                f"communication.topology {name} needs positions, and this environment has none; use full or ring"
            )
        for key, value in (("dropout", dropout), ("noise", noise)):
            most = math.inf if key == "noise" and messages.kind == "vectors" else 1.0
            number(f"communication.{key}", value)
            number(f"communication.{key}", value, "lie in [0, 1]", least=0, most=most)
        self.messages, self.topology, self.torus = messages, topology, torus
        self.dropout, self.noise = dropout, noise
        self.vocabulary = make_vocabulary(vocabulary, messages)
        self.num_agents, self.rounds = num_agents, whole("communication.rounds", rounds, 0)
        self.inbox_size = topology.inbox_size(num_agents)
        self.gates, self.budget = make_gates(gate), make_budget(budget)
        self.reflexes = _reflexes(reflexes)
        self.size = None
        asked = {"capacity": capacity, "inbox": inbox}
        given = [key for key, value in asked.items() if value is not None]
        for key in given:
            whole(f"communication.{key}", asked[key], 1)
        if self.reflexes or given:
            cause = "reflexes" if self.reflexes else given[0]
            refused = {"gate": gate, "budget": budget}
            check_log(cause, messages, topology, rounds, self.reflexes, refused)
            self.size = dimensions(topology, self.reflexes, num_agents, capacity, inbox)
            self.inbox_size = self.size.inbox
            self.open(1, 0)  # what does not fit says so now
        self.narrow()

    def narrow(self) -> None:
        """Inboxes as small as the links that are there now, and as the budget."""
        if self.size is None:
            self.inbox_size = self.topology.inbox_size(self.num_agents)
        served = self.budget.messages
        if self.topology.latents and (self.gates.receiver or served is not None):
            key = "budget" if served is not None else "gate"
            raise UserError(f"communication.{key} is of single messages, and topology routed has none; use another")
        if served is None:
            return
        # Of a learned graph links go, and a budget that there was before may stay.
        graph = self.topology.of if isinstance(self.topology, Learned) else self.topology
        most = graph.inbox_size(self.num_agents)
        if served >= most:
            raise UserError(
                f"communication.budget is {served}, and an agent hears at most {most} others, so that "
                f"nobody is ever refused; use less than {most}, or leave it out"
            )
        self.inbox_size = min(served, self.inbox_size)

    @property
    def takes_turns(self) -> bool:
        """Whether who may speak does not always: a reflex takes its turn, or its gate is shut."""
        return self.gates.sender or any(reflex.takes_turn for reflex in self.reflexes)

    def open(self, num_worlds: int, seed: int) -> Air | None:
        """The air of B worlds; None where every message simply goes to its receivers' inboxes."""
        if self.size is None:
            return None
        return Air(
            cast("Words", self.messages),
            self.topology,
            copy.deepcopy(self.reflexes),
            self.num_agents,
            num_worlds,
            self.size,
            self.torus,
            self.dropout,
            self.noise,
            seed,
        )

    def transmit(
        self, messages: Tensor, generator: torch.Generator | None = None, open_symbols: int | None = None
    ) -> Tensor:
        """What goes out on the channel when `messages` [B, N, ...] are sent; nothing of what follows an end.

        open_symbols: how many may be said, and come of noise; None: all.
        """
        kind = self.messages
        if isinstance(kind, Symbols):
            messages = kind.cut(messages)
        if not self.noise:
            return messages
        if open_symbols is None:
            return kind.corrupt(messages, self.noise, generator)
        fewer = points(kind, messages, open_symbols)
        return widened(kind, narrowed(kind, open_symbols).corrupt(fewer, self.noise, generator))

    def connect(
        self,
        sent: Tensor,
        hears: Tensor,
        positions: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Links:
        """The links of one step.

        Args:
            sent: [B, N] bool, seats that sent a message one step before, in the episode that still runs.
            hears: [B, N] bool, seats that act now.
            positions: [B, N, D] float32 now, or None.
        """
        links = self.topology.connect(sent, positions, self.torus)
        # Without inboxes the mask says who is on the air, and not who hears; what is dropped is then lost for all.
        mask = links.mask if self.topology.latents else links.mask & hears.unsqueeze(-1)
        if self.dropout:
            kept = torch.rand(mask.shape, generator=generator, device=mask.device) >= self.dropout
            mask = mask & kept
        return Links(links.senders, mask)


def _reflexes(values: Any) -> list[Reflex]:
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
        raise UserError(f"communication.reflexes is {values!r}, and must be a list of reflexes")
    made = []
    for place, value in enumerate(values):
        try:
            made.append(make_reflex(value))
        except UserError as error:
            key, told = "communication.reflexes", str(error)
            rest = told.removeprefix(key) if told.startswith(key) else f": {told}"
            raise UserError(f"{key}[{place}]{rest}") from error
    return made
