"""The air: what is transmitted in B worlds, step by step, by agents and by reflexes; who hears it, and what is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from popcomm.channels.broadcast.audience import Audience
from popcomm.channels.broadcast.dimensions import Dimensions
from popcomm.channels.broadcast.log import Log, board, empty_log, entries, joined, shuffled
from popcomm.channels.broadcast.moment import Moment, among, delivered
from popcomm.channels.broadcast.reflexes import Reflex
from popcomm.channels.broadcast.traffic import Traffic
from popcomm.channels.mail import LogOf, Mail
from popcomm.channels.topology import Full, Topology
from popcomm.errors import UserError
from popcomm.schedules import Clock

if TYPE_CHECKING:
    from popcomm.channels.words import Words


class Air:
    """A channel of words in use: B worlds, each with the log of what was transmitted in the last step.

    A step has two halves. `deliver`: those who hear now get what was transmitted one step before (`listen` decides who
    does, `inboxes` lays it out for networks; simulations do without). `transmit`: reflexes act on that same log, agents
    say their words, words are published; all is shuffled within each world, cut to the capacity before it is written,
    and becomes the new log. Latency is one step for everybody, the sender included.

    Args:
        messages: Words.
        topology: who hears whom, apart from oneself.
        reflexes: bound to nothing else.
        num_agents: N.
        num_worlds: B.
        size: capacity L and inbox K.
        torus: the world's extent along each axis where it wraps round, or None.
        dropout: probability that a listener misses a transmission.
        noise: probability that a bit is flipped on the way, in every transmission anew.
        seed: of all that is random here.
    """

    def __init__(
        self,
        messages: Words,
        topology: Topology,
        reflexes: Sequence[Reflex],
        num_agents: int,
        num_worlds: int,
        size: Dimensions,
        torus: tuple[float, ...] | None = None,
        dropout: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        if topology.latents:
            raise UserError("communication.reflexes need inboxes, and topology routed has none; use another topology")
        self.messages, self.topology, self.reflexes = messages, topology, list(reflexes)
        self.num_agents, self.num_worlds, self.size = num_agents, num_worlds, size
        self.torus, self.dropout, self.noise = torus, dropout, noise
        self.clock = Clock(0, {})
        self._dtype = np.dtype(np.int32 if messages.dtype == torch.int32 else np.int64)
        for reflex in self.reflexes:
            reflex.bind(messages, num_agents)
        self._fixed = Audience.everybody(num_agents) if type(topology) is Full else None
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start all over: silence, and the future a function of the seed; only what schedules observed is kept."""
        self.rng = np.random.default_rng(seed)
        for branch, reflex in enumerate(self.reflexes):
            reflex.open(self.num_worlds, seed + branch + 1)
        self.log = empty_log(self._dtype)
        self._audience = Audience.everybody(self.num_agents)
        self._hears = np.zeros((self.num_worlds, self.num_agents), bool)
        self._present = self._hears
        self._missed = np.zeros(0, np.int64)
        self._noticed = np.zeros(self.num_worlds, bool)
        self.traffic = Traffic(self.num_worlds, self.num_agents)

    @property
    def deprives(self) -> bool:
        """Whether some reflex may take observations away."""
        return any(type(reflex).deprived is not Reflex.deprived for reflex in self.reflexes)

    def notice(self, events: np.ndarray) -> None:
        """In which worlds [B] bool some seat perceives now what the world has a label for; reflexes may look at it."""
        self._noticed = events

    def observe(self, clock: Clock) -> None:
        """How far training is, and how well it goes; fades follow."""
        self.clock = clock
        for reflex in self.reflexes:
            reflex.schedule.observe(clock)

    def deprived(self) -> list[tuple[Reflex, np.ndarray]]:
        """Reflexes that take observations away in this step, and from whom: [B, N] bool each."""
        found = []
        for reflex in self.reflexes:
            mask = reflex.deprived(self.clock, self.num_worlds, self.num_agents, self.rng)
            if mask is not None:
                found.append((reflex, mask))
        return found

    # ---- hearing ----

    @property
    def stands(self) -> bool:
        """Whether who hears whom is the same in every step."""
        return self._fixed is not None or self.topology.static

    def deliver(
        self, present: np.ndarray, hears: np.ndarray, links: tuple[np.ndarray, np.ndarray] | None = None
    ) -> Mail:
        """What was transmitted one step before reaches those who hear now.

        Args:
            present: [B, N] bool, seats whose occupant can be heard: it lived one step before, and has not died since.
            hears: [B, N] bool, who hears; False for the deaf, the dead, and those whose life has just begun.
            links: what the topology says now, senders [B, N, K] int64 and mask [B, N, K] bool; None: it is asked,
                without places.
        """
        self.listen(present, hears, links)
        return self.inboxes()

    def listen(
        self, present: np.ndarray, hears: np.ndarray, links: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        """Decide who hears what was transmitted one step before; the arguments are those of `deliver`."""
        log = self.log
        if not (present.all() and hears.all()):
            # A world in which all lives begin has nothing on the air.
            begun = np.any(hears, 1)[log.world]
            self.log = log.take(begun & ((log.source < 0) | among(present, log.world, log.source.clip(0))))
        self._hears, self._present = hears, present
        self._audience = self._links(present) if links is None else Audience.of_links(*links)
        entry, listener = self._audience.hits(self.log, self.dropout, self.rng)
        self._missed = entry * np.int64(self.num_agents) + listener

    def inboxes(self) -> Mail:
        """What those who hear get."""
        log = self.log
        laid = board(log, self.num_worlds, self.size.capacity)
        slots, mask = self._inboxes(laid.source, laid.word != 0, laid.echo)
        direct = (laid.generation == 0) & (laid.source >= 0) & (laid.word != 0)
        sources = np.where(laid.source < 0, self.num_agents, laid.source)
        return Mail(
            torch.from_numpy(laid.word),
            torch.from_numpy(slots),
            torch.from_numpy(mask),
            log=LogOf(torch.from_numpy(sources.astype(np.int64)), torch.from_numpy(direct)),
        )

    def _links(self, present: np.ndarray) -> Audience:
        """Who hears whom where nobody's place matters."""
        if self._fixed is not None:
            return self._fixed
        # Who is absent is not in the log; a graph that stands is the same with everybody there.
        there = np.ones((1, self.num_agents), bool) if self.topology.static else present
        audience = Audience.of_links(
            *(v.numpy() for v in self.topology.connect(torch.from_numpy(there), None, self.torus))
        )
        self._fixed = audience if self.topology.static else None
        return audience

    def _inboxes(self, source: np.ndarray, real: np.ndarray, echo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slots [B, N, K] and mask [B, N, K] of what each hears; what does not fit in an inbox is counted."""
        worlds, n, k = self.num_worlds, self.num_agents, self.size.inbox
        if len(self._audience.indptr) == 2 and k >= self.size.capacity:
            # All hear all: every inbox is the log itself.
            seats = np.arange(n)[None, :, None]
            mask = real[:, None, :] & self._hears[:, :, None]
            mask &= (source[:, None, :] != seats) | echo[:, None, :]
            entry, listener = np.divmod(self._missed, n)
            mask[self.log.world[entry], listener, self.log.slots(worlds)[entry]] = False
            return np.broadcast_to(np.arange(k), (worlds, n, k)).copy(), mask
        entry, listener = self._audience.pairs(self.log)
        heard = delivered(self.log, self._hears, self._missed, entry, listener)
        entry, listener = entry[heard], listener[heard]
        slot = self.log.slots(worlds)[entry]
        inbox = self.log.world[entry].astype(np.int64) * n + listener
        order = np.argsort(inbox, kind="stable")
        inbox, slot = inbox[order], slot[order]
        counts = np.bincount(inbox, minlength=worlds * n)
        place = np.arange(len(inbox)) - np.repeat(np.cumsum(counts) - counts, counts)
        fits = place < k
        self.traffic.overflowed(len(fits) - int(fits.sum()))
        slots, mask = np.zeros((worlds * n, k), np.int64), np.zeros((worlds * n, k), bool)
        slots[inbox[fits], place[fits]] = slot[fits]
        mask[inbox[fits], place[fits]] = True
        return slots.reshape(worlds, n, k), mask.reshape(worlds, n, k)

    # ---- speaking ----

    def transmit(self, words: np.ndarray, able: np.ndarray, lively: np.ndarray | None = None) -> np.ndarray:
        """All that goes on the air in this step.

        Args:
            words: [B, N] packed, what agents say; 0 is silence.
            able: [B, N] bool, who may transmit: it lives, its kind speaks, and it is its turn.
            lively: [B] bool, worlds in which somebody lives; those where somebody may transmit if None.

        Returns:
            [B, N] bool, who could have said its own word: `able`, but for those whose turn a reflex took.
        """
        moment = self._moment(able, np.any(able, axis=1) if lively is None else lively)
        made, voiced = self._by_reflex(moment)
        own = words.astype(self._dtype, copy=False) * able
        own = (own if voiced is able else own * voiced).reshape(-1)
        place = np.flatnonzero(own != 0).astype(np.int32)
        world = place // self.num_agents
        said = entries(world, own[place], place - world * self.num_agents)
        self._write(moment, said, made)
        return voiced

    def _by_reflex(self, moment: Moment) -> tuple[list[Log], np.ndarray]:
        """What reflexes transmit, and who is left to say a word of its own: [B, N] bool."""
        voiced, made = moment.able, []
        for reflex in self.reflexes:
            log = reflex.transmissions(moment)
            if log is None or not len(log):
                continue
            by_agent = log.source >= 0
            if reflex.takes_turn:
                if voiced is moment.able:
                    voiced = voiced.copy()
                else:  # a turn is taken once
                    log = log.take(~by_agent | voiced[log.world, log.source])
                    by_agent = log.source >= 0
                voiced[log.world[by_agent], log.source[by_agent]] = False
            # No agent chose it: a word of generation 0 would be one that its source said.
            age = np.where(by_agent, np.maximum(log.generation, 1), log.generation)
            made.append(replace(log, word=log.word.astype(self._dtype, copy=False), generation=age))
        return made, voiced

    def _moment(self, able: np.ndarray, lively: np.ndarray) -> Moment:
        indegree = self._audience.indegree(self._present | ~self._present.any(1, keepdims=True)) + self._feedback()
        return Moment(
            self.log,
            self._audience,
            self._hears,
            able,
            lively,
            indegree,
            self.size.capacity,
            self._missed,
            self.clock,
            self.rng,
            self._noticed,
        )

    def _feedback(self) -> float:
        """The probability that a transmission is heard by its source: by one feedback or another."""
        return 1.0 - math.prod(1.0 - reflex.feedback(self.clock) for reflex in self.reflexes)

    def _write(self, moment: Moment, said: Log, made: list[Log]) -> None:
        measured = self.traffic.measure(moment, said, made)
        for reflex in self.reflexes:
            reflex.observe(measured)
        log = joined([said, *made])
        if self.noise and len(log):
            generator = torch.Generator().manual_seed(int(self.rng.integers(2**62)))
            noisy = self.messages.corrupt(torch.from_numpy(log.word), self.noise, generator).numpy()
            log = replace(log, word=noisy).take(noisy != 0)
        log, dropped = shuffled(log, self.num_worlds, self.size.capacity, self.rng)
        feedback = self._feedback()
        echo = np.full(len(log), feedback >= 1) if feedback in (0.0, 1.0) else self.rng.random(len(log)) < feedback
        self.log = replace(log, echo=echo)
        self.traffic.written(self.log, dropped)

    # ---- episodes and checkpoints ----

    def forget(self, worlds: np.ndarray) -> None:
        """New episodes begin in worlds [B] bool: nothing is on the air there, and nothing is remembered.

        Before `deliver`, which says who hears what is left.
        """
        if not worlds.any():
            return
        if len(self.log):
            self.log = self.log.take(~worlds[self.log.world])
        self.traffic.forget(worlds)
        for reflex in self.reflexes:
            reflex.forget(worlds)

    def strengths(self) -> dict[str, float]:
        """{name of a reflex: what is left of it}."""
        names = [reflex.name for reflex in self.reflexes]
        return {
            name if names.count(name) == 1 else f"{name}_{i}": reflex.strength(self.clock)
            for i, (name, reflex) in enumerate(zip(names, self.reflexes, strict=True))
        }

    def get_state(self) -> dict[str, Any]:
        """All that decides the future."""
        return {
            "rng": self.rng.bit_generator.state,
            "log": tuple(np.array(column) for column in self.log.columns),
            "clock": (self.clock.step, dict(self.clock.performance)),
            "hears": self._hears.copy(),
            "present": self._present.copy(),
            "missed": self._missed.copy(),
            "noticed": self._noticed.copy(),
            "audience": (self._audience.indptr.copy(), self._audience.listeners.copy()),
            "reflexes": [reflex.get_state() for reflex in self.reflexes],
            "traffic": self.traffic.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `get_state`."""
        self.rng.bit_generator.state = state["rng"]
        self.log = Log(*state["log"])
        self.clock = Clock(*state["clock"])
        self._hears, self._present, self._missed = state["hears"], state["present"], state["missed"]
        # Checkpoints of before there were reflexes that look at it have none.
        self._noticed = state.get("noticed", np.zeros(self.num_worlds, bool))
        indptr, listeners = state["audience"]
        self._audience = Audience(indptr, listeners, self.num_agents)
        for reflex, remembered in zip(self.reflexes, state["reflexes"], strict=True):
            reflex.set_state(remembered)
        self.traffic.set_state(state["traffic"])
