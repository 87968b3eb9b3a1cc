"""What a reflex sees of a step, and what is measured of it afterwards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from popcomm.channels.audience import Audience
from popcomm.channels.log import Log
from popcomm.channels.schedules import Clock


def among(seats: np.ndarray, world: np.ndarray, seat: np.ndarray) -> np.ndarray:
    """seats [B, N] bool at (world, seat) [C]: [C] bool. Mostly all of them are, which is seen faster than looked up."""
    if seats.all():
        return np.ones(len(seat), bool)
    return seats.reshape(-1)[world * np.int64(seats.shape[1]) + seat]


class Moment(NamedTuple):
    """A step of B worlds as reflexes find it: what was transmitted one step before, and who hears it now."""

    log: Log  # what was transmitted one step before, by whoever is still there
    audience: Audience
    hears: np.ndarray  # [B, N] bool, who hears now
    able: np.ndarray  # [B, N] bool, who may transmit now
    lively: np.ndarray  # [B] bool, worlds in which somebody lives
    indegree: np.ndarray  # [N] or [B, N], whom a seat hears where all are present, itself included if it hears itself
    capacity: int  # L, entries of a world's log
    dropout: float  # probability that a listener misses a transmission
    clock: Clock
    rng: np.random.Generator

    @property
    def num_worlds(self) -> int:
        return self.hears.shape[0]

    @property
    def load(self) -> np.ndarray:
        """[B], transmissions of each world one step before."""
        return self.log.counts(self.num_worlds)

    def heard(self, entry: np.ndarray, listener: np.ndarray) -> np.ndarray:
        """Which pairs [C] of an audience really are deliveries: the listener is not deaf, nor its own deaf source."""
        heard = among(self.hears, self.log.world[entry], listener)
        if not self.log.echo.all():
            heard = heard & ((self.log.source[entry] != listener) | self.log.echo[entry])
        return heard

    def copies(self, chance: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Deliveries, each with probability `chance` ([N] or [B, N]: the listener's), to agents that may transmit."""
        entry, listener = self.audience.hits(self.log, chance, self.rng)
        kept = self.heard(entry, listener) & among(self.able, self.log.world[entry], listener)
        if self.dropout:
            kept &= self.rng.random(len(entry)) >= self.dropout
        return entry[kept], listener[kept]


class Measured(NamedTuple):
    """What became of the words of one step in the next, in all worlds."""

    parents: float  # transmissions
    repeats: float  # of them, that a reflex made in the next step
    echoes: float  # words that agents said by themselves in the next step, having heard them
