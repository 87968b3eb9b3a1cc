"""Counterfactual messages: what listeners make of a step had one message of their inbox been another one, or missing.

Every slot of every inbox is asked about at once: of each seat there are as many copies as questions, and what is posted
is read once for all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from popcomm.agents.contract import AgentSpec
from popcomm.agents.inbox import inbox_of
from popcomm.agents.seating import Seating
from popcomm.agents.step import agent_step
from popcomm.channels.mail import LogOf, Mail
from popcomm.channels.mailbox import Inbox, gather_seats
from popcomm.channels.messages import MessageKind, Symbols

ALTERNATIVES = 8  # messages that a sender might have said: all that there are, or so many drawn ones
ROWS = 1 << 16  # rows of a network at once


class Asked(Protocol):
    """Networks that are asked."""

    spec: AgentSpec
    agent: Any  # a `popcomm.agents.contract.Agent`, told that spec


class Scene(NamedTuple):
    """What a species meets in a step of B worlds, before it acts."""

    network: Asked
    seats: slice  # its own of the world's
    obs: Tensor  # [B, N_s, O], as it is kept
    memory: dict[str, Tensor]  # {name: [B, N_s, ...]}, at its start where a life begins
    members: Tensor  # [B, N_s] int64
    mail: Mail | None  # what is under way; None in silence
    open_symbols: int | None = None  # how many may be said; None: all


class Alternatives(NamedTuple):
    """What each seat might have said, and how likely: M messages."""

    messages: Tensor  # [B, N, M, *message shape]
    weights: Tensor  # [B, N, M], sums of 1


class Answer(NamedTuple):
    """What a species makes of its step, [B, N_s, ...]; of several copies of every seat [B, N_s, V, ...]."""

    logits: Tensor  # [..., A]
    value: Tensor  # [...], in the units of normalised returns
    message: Tensor | None  # [..., *params shape]
    said: Tensor | None  # [..., *message shape], of networks that speak symbol by symbol
    manner: Tensor | None  # [..., 3], where it decides how it speaks

    def unflattened(self, count: int) -> Answer:
        """Copies k M as [k, M], M = count."""
        return self.each(lambda values: values.unflatten(2, (-1, count)))

    def each(self, change: Callable[[Tensor], Tensor]) -> Answer:
        """What is there, changed."""
        spoken = (None if values is None else change(values) for values in self[2:])
        return Answer(change(self.logits), change(self.value), *spoken)


class _Posts(NamedTuple):
    """What may stand in an inbox: Q messages in a world."""

    messages: Tensor  # [B, Q, *message shape]
    sources: Tensor  # [B, Q] int64, seats
    direct: Tensor | None  # [B, Q] bool, of a log


def alternatives(
    kind: MessageKind, params: Tensor, generator: torch.Generator | None = None, count: int = ALTERNATIVES
) -> Alternatives:
    """What senders might have said, by their own distributions.

    Of symbols that have no more than `count` messages all of them, with their probabilities; of others `count`
    independent draws, which weigh the same.

    Args:
        params: [B, N, *params shape], what networks put out for a message.
    """
    if isinstance(kind, Symbols) and not kind.ends and kind.count <= count:
        symbols = itertools.product(range(kind.vocab_size), repeat=kind.length)
        every = torch.tensor(list(symbols), device=params.device)
        said = every.expand(*params.shape[:2], -1, -1)
        return Alternatives(said, kind.log_prob(_copied(params, len(every)), said).exp())
    return drawn(kind.sample(_copied(params, count), generator))


def drawn(messages: Tensor) -> Alternatives:
    """Messages [B, N, M, *message shape] that were drawn from what senders might have said."""
    return Alternatives(messages, torch.full(messages.shape[:3], 1 / messages.shape[2], device=messages.device))


def together(parts: Sequence[Alternatives | None], seats: Sequence[int]) -> Alternatives:
    """Those of all species as those of a world's seats; who never speaks (None) has nothing that weighs anything.

    Args:
        parts: of each species [B, N_s, M_s, ...]; some have less to say than others.
        seats: N_s of each.
    """
    known = [part for part in parts if part is not None]
    count, some = max(part.weights.shape[2] for part in known), known[0]
    worlds, rest = some.weights.shape[0], some.messages.shape[3:]
    messages = some.messages.new_zeros(worlds, sum(seats), count, *rest)
    weights = some.weights.new_zeros(worlds, sum(seats), count)
    start = 0
    for part, size in zip(parts, seats, strict=True):
        if part is not None:
            own = part.weights.shape[2]
            messages[:, start : start + size, :own] = part.messages
            weights[:, start : start + size, :own] = part.weights
        start += size
    return Alternatives(messages, weights)


def said_again(scene: Scene, generator: torch.Generator, count: int = ALTERNATIVES) -> Tensor:
    """What networks that speak symbol by symbol say when they are asked again: [B, N_s, count, *message shape]."""
    said = _asked(scene, _as_it_is(scene, count), count, None, generator)[0].said
    assert said is not None
    return said


def lived(scene: Scene, said: Tensor | None = None) -> tuple[Answer, dict[str, Tensor]]:
    """What a species makes of a step as it is, and the memory {name: [B, N_s, ...]} with which it leaves it.

    Args:
        said: [B, N_s, *message shape], what it said, for networks that speak symbol by symbol; None: the likeliest.
    """
    given, memory = _asked(scene, _as_it_is(scene, 1), 1, said)
    return given.each(lambda values: values.squeeze(2)), memory


def _as_it_is(scene: Scene, copies: int) -> tuple[_Posts, Tensor, Tensor] | None:
    if scene.mail is None or not scene.network.spec.hears:
        return None
    slots, mask = (_copied(values[:, scene.seats], copies) for values in (scene.mail.slots, scene.mail.mask))
    return _posts(scene.mail), slots, mask


def without(scene: Scene, said: Tensor | None = None, rows: int = ROWS) -> Iterator[tuple[slice, Answer]]:
    """What listeners would make of it without the message of a slot: (slots, Answer [B, N_s, k, ...]), some at once.

    Args:
        said: as for `lived`.
        rows: of the network at once.
    """
    mail = _heard(scene)
    slots, mask = mail.slots[:, scene.seats], mail.mask[:, scene.seats]
    for part, here in _slots_at_once(slots, 1, rows):
        masked = mask.unsqueeze(2) & ~here
        yield part, _asked(scene, (_posts(mail), _copied(slots, len(here)), masked), len(here), said)[0]


def instead(
    scene: Scene, other: Alternatives, kind: MessageKind, said: Tensor | None = None, rows: int = ROWS
) -> Iterator[tuple[slice, Answer]]:
    """What they would make of it had the sender of a slot said something else: (slots, Answer [B, N_s, k, M, ...]).

    Args:
        other: what each seat of the world might have said.
        kind: of message; silence is heard by nobody.
        said: as for `lived`.
        rows: of the network at once.
    """
    mail, count = _heard(scene), other.messages.shape[2]
    posts = _with(_posts(mail), other)
    slots, mask = mail.slots[:, scene.seats], mail.mask[:, scene.seats]
    senders = mail.senders[:, scene.seats].clamp(max=other.messages.shape[1] - 1)
    audible = kind.spoken(other.messages)
    for part, here in _slots_at_once(slots, count, rows):
        asked = senders[..., part]
        places = mail.messages.shape[1] + asked.unsqueeze(-1) * count + torch.arange(count, device=slots.device)
        heard = gather_seats(audible, asked)
        here = here.unsqueeze(1)
        replaced = torch.where(here, places.unsqueeze(-1), slots[:, :, None, None]).flatten(2, 3)
        there = (mask[:, :, None, None] & (~here | heard.unsqueeze(-1))).flatten(2, 3)
        yield part, _asked(scene, (posts, replaced, there), replaced.shape[2], said)[0].unflattened(count)


def _heard(scene: Scene) -> Mail:
    assert scene.mail is not None
    assert scene.mail.hears is None, "who has no inbox cannot be asked about its slots"
    return scene.mail


def _slots_at_once(slots: Tensor, each: int, rows: int) -> Iterator[tuple[slice, Tensor]]:
    """(slots, [k, K] bool which slot each of them is) for no more rows than may be; slots: [B, N_s, K]."""
    size = slots.shape[-1]
    at_once = max(1, rows // max(1, slots.shape[0] * slots.shape[1] * each))
    every = torch.eye(size, dtype=torch.bool, device=slots.device)
    for start in range(0, size, at_once):
        part = slice(start, min(start + at_once, size))
        yield part, every[part]


def _posts(mail: Mail) -> _Posts:
    if mail.log is not None:
        return _Posts(mail.messages, mail.log.sources, mail.log.direct)
    worlds, seats = mail.messages.shape[:2]
    return _Posts(mail.messages, torch.arange(seats, device=mail.slots.device).expand(worlds, -1), None)


def _with(posts: _Posts, other: Alternatives) -> _Posts:
    """The same, and behind it what seats might have said: that of seat n from Q + n M on."""
    worlds, seats, count = other.messages.shape[:3]
    sources = torch.arange(seats, device=posts.sources.device).repeat_interleave(count).expand(worlds, -1)
    messages = torch.cat([posts.messages, other.messages.flatten(1, 2).to(posts.messages.dtype)], 1)
    direct = None if posts.direct is None else torch.cat([posts.direct, torch.ones_like(sources, dtype=torch.bool)], 1)
    return _Posts(messages, torch.cat([posts.sources, sources], 1), direct)


def _copied(values: Tensor, copies: int) -> Tensor:
    """[B, N, ...] -> [B, N, copies, ...]."""
    return values.unsqueeze(2).expand(-1, -1, copies, *values.shape[2:])


def _asked(
    scene: Scene,
    heard: tuple[_Posts, Tensor, Tensor] | None,
    copies: int,
    said: Tensor | None,
    generator: torch.Generator | None = None,
) -> tuple[Answer, dict[str, Tensor]]:
    """One pass of the networks; and where there is one copy, the memory that it leaves with, {name: [B, N_s, ...]}.

    Args:
        heard: what is posted, and slots and mask [B, N_s, V, K] of the inboxes.
    """
    spec = scene.network.spec

    def spread(values: Tensor) -> Tensor:
        return _copied(values, copies).flatten(1, 2)

    seating = Seating(spread(scene.members), spec.members)
    obs = seating.to_members(spread(scene.obs))
    memory = {name: seating.to_members(spread(values)) for name, values in scene.memory.items()}
    gate = None if scene.mail is None or scene.mail.gate is None else scene.mail.gate[:, scene.seats]
    strengths = None if gate is None else _copied(gate, copies)
    inbox = None if heard is None else _inbox(*heard, strengths, seating)
    told = None if said is None else seating.to_members(spread(said))
    greedy, many = told is None and generator is None, scene.open_symbols
    output = agent_step(
        scene.network.agent, spec, obs, inbox, memory, told, generator, greedy=greedy, open_symbols=many
    )
    answer = Answer(output.action_logits, output.value, output.message, output.said, output.manner)
    found = answer.each(lambda values: seating.to_worlds(values).unflatten(1, (-1, copies)))
    return found, {name: seating.to_worlds(values) for name, values in output.state.items()} if copies == 1 else {}


def _inbox(posts: _Posts, slots: Tensor, mask: Tensor, strengths: Tensor | None, seating: Seating) -> Inbox:
    """Inboxes of all copies; slots, mask and strengths of links: [B, N_s, V, K]."""
    direct = torch.ones_like(posts.sources, dtype=torch.bool) if posts.direct is None else posts.direct
    log = LogOf(posts.sources, direct)
    gate = None if strengths is None else strengths.flatten(1, 2)
    mail = Mail(posts.messages, slots.flatten(1, 2), mask.flatten(1, 2), log=log, gate=gate)
    inbox = inbox_of(mail, seating, slice(None))
    if posts.direct is not None:
        return inbox
    if isinstance(inbox, Inbox):
        return inbox._replace(direct=None)
    inbox.direct = None
    return inbox
