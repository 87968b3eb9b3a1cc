"""Session: a channel in use. What is said in a step of B worlds is heard in the next."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from popcomm.channels.broadcast.reflexes import Reflex
from popcomm.channels.gates import MIDDLE, serve
from popcomm.channels.links import Links
from popcomm.channels.mail import LogOf, Mail
from popcomm.channels.mailbox import Channel
from popcomm.channels.topology import Learned
from popcomm.channels.trips import fetched, placed
from popcomm.errors import UserError
from popcomm.schedules import Clock, Schedule

# Attributes of a session without a log that change while it is in use.
UNDER_WAY = ("mail", "transmitted", "_sent", "_priority", "_waited", "_served")


class Perceive(Protocol):
    """What the deprived perceive instead of observations [..., O] with bounds low and high [O]."""

    def __call__(self, values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray: ...


class Deprivation(NamedTuple):
    """What a reflex takes from agents in a step."""

    mask: np.ndarray  # [B, N] bool, from whom
    perceive: Perceive


class Session:
    """A channel in use by B worlds.

    In every step: `forget` the worlds whose episode begins, `deliver` what was said one step before to those who hear
    now, ask who is `deprived`, and `send` what agents say. In rounds (`Channel.rounds`) `converse` takes the place of
    that `deliver`, and what is sent is delivered in the same step, over and over. Messages go from seats to inboxes, or
    through a log (`Channel.open`); whoever has a session need not know which.

    Args:
        channel: what it is a session of.
        num_worlds: B.
        seed: of all that is random in the log and its reflexes.
        generator: of noise and dropout where there is no log; its owner keeps its state. None: torch's own.
        device: where messages and inboxes live.

    Attributes:
        mail: what is heard in this step; None before the first `deliver`.
        transmitted: [B, N, *message shape], what seats sent one step before, noise included; zeros at first.
        air: the shared log and its reflexes; None where every message simply goes to its receivers' inboxes.
        open_symbols: how many symbols of a growing vocabulary may be said, as the clock stood last; None: all, always.
    """

    def __init__(
        self,
        channel: Channel,
        num_worlds: int,
        seed: int,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.channel, self.num_worlds = channel, num_worlds
        self._generator, self._device = generator, device
        self.air = channel.open(num_worlds, seed)
        # Its own, for schedules remember, and others may use the same channel elsewhere.
        self._schedule = copy.deepcopy(channel.topology.schedule)
        self._strength = 1.0  # of the topology's schedule, as the clock stood last
        self._growth = None if channel.vocabulary is None else copy.deepcopy(channel.vocabulary.schedule)
        self.open_symbols = None if channel.vocabulary is None else channel.vocabulary.size(1.0)
        self.mail: Mail | None = None
        self.clear()

    def clear(self) -> None:
        """Nobody has said anything yet. What is in a log stays there until its world is forgotten."""
        kind, seats = self.channel.messages, (self.num_worlds, self.channel.num_agents)
        self.transmitted = torch.zeros(*seats, *kind.shape, dtype=kind.dtype, device=self._device)
        self._sent = torch.zeros(seats, dtype=torch.bool, device=self._device)
        self._priority = torch.full(seats, MIDDLE, device=self._device)
        self._waited = torch.zeros(seats, dtype=torch.int64, device=self._device)
        self._served = torch.zeros(4, dtype=torch.float64, device=self._device)  # see _read_served

    def seed(self, seed: int) -> None:
        """Start all over: the future is a function of the seed, and only what schedules observed is kept."""
        if self.air is not None:
            self.air.seed(seed)

    # ---- a step ----

    def forget(self, worlds: Tensor) -> None:
        """New episodes begin in worlds [B] bool: what was said before is not heard there."""
        if self.air is not None:
            self.air.forget(*fetched(worlds))
        self._sent = self._sent & ~worlds.unsqueeze(1)
        self._waited = self._waited.masked_fill(worlds.unsqueeze(1), 0)

    def deliver(self, present: Tensor, hears: Tensor, positions: Tensor | None = None) -> Mail:
        """What was said one step before reaches those who hear now.

        Args:
            present: [B, N] bool, seats whose occupant can be heard: it lived one step before, and has not died since.
            hears: [B, N] bool, who hears; False for the deaf, the dead, and those whose life has just begun.
            positions: [B, N, D] float32 now, or None.
        """
        if self.air is not None:
            # Near ones are looked for where the positions are.
            links = () if self.air.stands else self.channel.topology.connect(present, positions, self.channel.torus)
            there, hearing, *of = fetched(present, hears, *links)
            self.mail = self.air.deliver(there, hearing, (of[0], of[1]) if of else None).to(self._device)
            return self.mail
        self._waited = self._waited.masked_fill(~present, 0)  # whoever sits there next did not wait
        links = self.channel.connect(self._sent & present, hears, positions, self._generator)
        self.mail = self._posted(*self._admitted(self.channel.topology.thinned(links, self._strength)), hears)
        return self.mail

    def _admitted(self, links: Links) -> Links:
        """The links that the budget leaves."""
        if self.channel.budget.messages is None:
            return links
        served = serve(links, self._priority, self._waited, self._sent, self.channel.budget)
        self._waited = served.waited
        taken, refused, steps, longest = self._served
        counts = taken + served.links.mask.sum(), refused + served.refused.sum(), steps + 1
        self._served = torch.stack([*counts, torch.maximum(longest, served.waited.max().double())])
        return served.links

    def converse(self, hears: Tensor, positions: Tensor | None = None, begun: Tensor | None = None) -> Mail:
        """The rounds of a step begin: nobody has said anything yet.

        Args:
            hears, positions: as `deliver` has them.
            begun: [B, N] bool, seats on which a life begins, whose predecessors' waiting is over; None: nobody's does.
        """
        self._sent, served = torch.zeros_like(self._sent), self._served
        mail = self.deliver(torch.ones_like(hears) if begun is None else ~begun, hears, positions)
        self._served = served  # there was nothing to be served
        return mail

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Nothing that is said and heard within is left afterwards, nor counted; not with a log."""
        assert self.air is None
        kept = {key: getattr(self, key) for key in UNDER_WAY}
        yield
        for key, values in kept.items():
            setattr(self, key, values)

    def _posted(self, slots: Tensor, mask: Tensor, hears: Tensor) -> Mail:
        """Mail without a log."""
        topology = self.channel.topology
        gate = topology.gate(slots) if isinstance(topology, Learned) else None
        return Mail(self.transmitted, slots, mask, hears=hears if topology.latents else None, gate=gate)

    def relink(self, strengths: Tensor, pruned: bool) -> None:
        """Take a learned graph as it is now (`Learned.follow`), also for what is heard in this step."""
        topology = self.channel.topology
        assert isinstance(topology, Learned)
        topology.follow(strengths, pruned)
        self.channel.narrow()
        if self.mail is not None:
            slots, mask = topology.narrowed(Links(self.mail.slots, self.mail.mask))
            self.mail = self.mail._replace(slots=slots, mask=mask, gate=topology.gate(slots))

    @property
    def deprives(self) -> bool:
        """Whether some reflex may take observations away."""
        return self.air is not None and self.air.deprives

    def notice(self, labels: Tensor | None) -> None:
        """What seats perceive now, labels [B, N] (negative: nothing) or None, for reflexes that look at it."""
        if self.air is not None and labels is not None and any(reflex.needs_labels for reflex in self.air.reflexes):
            self.air.notice((labels >= 0).any(1).cpu().numpy())

    def deprived(self) -> list[Deprivation]:
        """What reflexes take away in this step."""
        if self.air is None:
            return []
        return [Deprivation(mask, perceiving(reflex, self.air.rng)) for reflex, mask in self.air.deprived()]

    def send(self, messages: Tensor, able: Tensor, lively: Tensor, priority: Tensor | None = None) -> Tensor:
        """Agents say their messages.

        Args:
            messages: [B, N, *message shape].
            able: [B, N] bool, who may: it lives, its kind speaks, and it is its turn.
            lively: [B] bool, worlds in which somebody lives.
            priority: [B, N] in [0, 1], where there is a budget.

        Returns:
            [B, N] bool, who could: `able`, but for those whose turn a reflex took.
        """
        if priority is not None:
            self._priority = priority
        if self.air is None:
            self.transmitted = self.channel.transmit(messages, self._generator, self.open_symbols)
            self._sent = able & self.channel.messages.spoken(self.transmitted)
            return able
        self.transmitted = messages
        voiced = self.air.transmit(*fetched(messages, able, lively))
        return placed([torch.from_numpy(voiced)], self._device)[0]

    def deafen(self, seats: Tensor) -> None:
        """Some do not hear what is heard in this step. seats: [B, N] bool."""
        if self.mail is None:
            return
        hears = None if self.mail.hears is None else self.mail.hears & ~seats
        self.mail = self.mail._replace(mask=self.mail.mask & ~seats.unsqueeze(-1), hears=hears)

    # ---- fades and measures ----

    @property
    def _schedules(self) -> list[Schedule]:
        """Of reflexes, in their order, of the topology and of the vocabulary."""
        own = [schedule for schedule in (self._schedule, self._growth) if schedule is not None]
        return own if self.air is None else [*(reflex.schedule for reflex in self.air.reflexes), *own]

    def observe(self, clock: Clock) -> None:
        """How far training is, and how well it goes; fades follow."""
        if self.air is not None:
            self.air.observe(clock)
        if self._schedule is not None:
            self._schedule.observe(clock)
            self._strength = self._schedule.strength(clock)
        if self._growth is not None and self.channel.vocabulary is not None:
            self._growth.observe(clock)
            self.open_symbols = self.channel.vocabulary.size(self._growth.strength(clock))

    def fades(self) -> list[dict[str, Any]]:
        """What the schedules of reflexes, topology and vocabulary remember; nothing where none act."""
        return [schedule.get_state() for schedule in self._schedules]

    def set_fades(self, fades: Sequence[Mapping[str, Any]]) -> None:
        """Let schedules remember what others do; nothing happens where none act.

        Raises:
            UserError: they are the fades of other reflexes.
        """
        schedules = self._schedules
        if not schedules:
            return
        if len(fades) != len(schedules):
            raise UserError(
                f"the training that is gone on with has {len(fades)} schedules of communication.reflexes, topology and "
                f"vocabulary, and this configuration has {len(schedules)}; restore it with those that it was saved with"
            )
        for schedule, memory in zip(schedules, fades, strict=True):
            schedule.set_state(memory)

    def measures(self) -> dict[str, float]:
        """What was measured of the log since this was last called (`Traffic.read`), and {"<reflex>_strength": what is
        left of it}; {"topology_strength": that of its schedule, if it has one}; {"open_symbols": how many symbols of a
        growing vocabulary may be said}; else empty."""
        own: dict[str, float] = {} if self._schedule is None else {"topology_strength": self._strength}
        if self.open_symbols is not None:
            own["open_symbols"] = self.open_symbols
        own |= self._read_served()
        if self.air is None:
            return own
        strengths = {f"{name}_strength": strength for name, strength in self.air.strengths().items()}
        return {**self.air.traffic.read(), **strengths, **own}

    def _read_served(self) -> dict[str, float]:
        """Of a budget: {"served", "refused": messages and listeners in a step of a world, in the mean; "longest_wait":
        the most messages of a sender in a row that nobody took}."""
        taken, refused, steps, longest = self._served.tolist()
        if not steps:
            return {}
        self._served = torch.zeros_like(self._served)
        worlds = steps * self.num_worlds
        return {"served": taken / worlds, "refused": refused / worlds, "longest_wait": longest}

    # ---- checkpoints ----

    def get_state(self) -> dict[str, Any]:
        """What is under way, and all that decides the future but the generator; empty before the first `deliver`."""
        if self.mail is None:
            return {}
        links = tuple(values.cpu() for values in self.mail.links)
        state: dict[str, Any] = {"transmitted": self.transmitted.cpu(), "links": links}
        if self.mail.hears is not None:
            state["hears"] = self.mail.hears.cpu()
        if self.channel.budget.messages is not None:
            state["waited"] = self._waited.cpu()
        if self.air is not None and self.mail.log is not None:
            words, slots, mask = self.mail[:3]
            heard = tuple(values.cpu() for values in (words, *self.mail.log, slots, mask))
            state |= {"air": self.air.get_state(), "heard": heard}
        return state

    def set_state(self, state: Mapping[str, Any], hears: Tensor) -> None:
        """Go on from a `get_state` that is not empty. hears: [B, N] bool, as `deliver` was told."""
        self.transmitted = state["transmitted"].to(self._device)
        if "waited" in state:
            self._waited = state["waited"].to(self._device)
        if self.air is None:
            slots, mask = (values.to(self._device) for values in state["links"])
            # Checkpoints of before there was selection do not say who was deafened.
            self.mail = self._posted(slots, mask, state["hears"].to(self._device) if "hears" in state else hears)
            return
        self.air.set_state(state["air"])
        words, sources, direct, slots, mask = state["heard"]
        self.mail = Mail(words, slots, mask, log=LogOf(sources, direct)).to(self._device)


def perceiving(reflex: Reflex, rng: np.random.Generator) -> Perceive:
    """What a reflex makes of observations, with the random numbers of its channel."""

    def perceive(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return reflex.perceive(values, low, high, rng)

    return perceive
