"""What a reflex sees of a step, and what is measured of it afterwards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from popcomm.channels.broadcast.audience import Audience
from popcomm.channels.broadcast.log import Log
from popcomm.schedules import Clock


def among(seats: np.ndarray, world: np.ndarray, seat: np.ndarray) -> np.ndarray:
    """seats [B, N] bool at (world, seat) [C]: [C] bool. Mostly all of them are, which is seen faster than looked up."""
    if seats.all():
        return np.ones(len(seat), bool)
    return seats.reshape(-1)[world * np.int64(seats.shape[1]) + seat]


def delivered(log: Log, hears: np.ndarray, missed: np.ndarray, entry: np.ndarray, listener: np.ndarray) -> np.ndarray:
    """Which pairs (entry, listener) [C] of an audience really are deliveries: [C] bool.

    The listener is not deaf, nor the source where that does not hear itself, nor did it miss the transmission. hears
    and missed are those of `Moment`.
    """
    heard = among(hears, log.world[entry], listener)
    if not log.echo.all():
        heard = heard & ((log.source[entry] != listener) | log.echo[entry])
    if len(missed):
        pair = entry * np.int64(hears.shape[1]) + listener
        place = np.searchsorted(missed, pair).clip(max=len(missed) - 1)
        heard = heard & (missed[place] != pair)
    return heard


class Moment(NamedTuple):
    """A step of B worlds as reflexes find it: what was transmitted one step before, and who hears it now."""

    log: Log  # what was transmitted one step before, by whoever is still there
    audience: Audience
    hears: np.ndarray  # [B, N] bool, who hears now
    able: np.ndarray  # [B, N] bool, who may transmit now
    lively: np.ndarray  # [B] bool, worlds in which somebody lives
    indegree: np.ndarray  # [N] or [B, N], whom a seat hears of those present, itself included if it hears itself
    capacity: int  # L, entries of a world's log
    missed: np.ndarray  # [C] int64, deliveries that fail, as entry * N + listener, ascending
    clock: Clock
    rng: np.random.Generator
    noticed: np.ndarray  # [B] bool, worlds in which some seat perceives now what the world has a label for

    @property
    def num_worlds(self) -> int:
        return self.hears.shape[0]

    @property
    def load(self) -> np.ndarray:
        """[B], transmissions of each world one step before."""
        return self.log.counts(self.num_worlds)

    def heard(self, entry: np.ndarray, listener: np.ndarray) -> np.ndarray:
        """Which pairs [C] of an audience really are deliveries: see `delivered`."""
        return delivered(self.log, self.hears, self.missed, entry, listener)

    def copies(self, chance: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Deliveries, each with probability `chance` ([N] or [B, N]: the listener's), to agents that may transmit."""
        entry, listener = self.audience.hits(self.log, chance, self.rng)
        kept = self.heard(entry, listener) & among(self.able, self.log.world[entry], listener)
        return entry[kept], listener[kept]


class Measured(NamedTuple):
    """What became of the words of one step in the next, in all worlds."""

    parents: float  # transmissions
    repeats: float  # of them, that a reflex made in the next step
    echoes: float  # words that agents said by themselves in the next step, having heard them
    strength: float = 1.0  # what was left of the reflex that looks at this


def first_of_word(moment: Moment, entry: np.ndarray, listener: np.ndarray) -> np.ndarray:
    """Which (entry, listener) pairs [C] are the first copy of their word that the listener received: bool [C]."""
    log = moment.log
    order = np.lexsort((np.arange(len(log)), log.word, log.world))
    place = np.arange(len(log))
    new = np.ones(len(log), bool)
    new[1:] = (log.world[order[1:]] != log.world[order[:-1]]) | (log.word[order[1:]] != log.word[order[:-1]])
    start = np.maximum.accumulate(np.where(new, place, 0))
    where = np.empty(len(log), np.int64)
    where[order] = place
    before = where[entry] - start[where[entry]]
    # Each pair once for every copy that stands before its own.
    pair = np.repeat(np.arange(len(entry)), before)
    nth = np.arange(len(pair)) - np.repeat(np.cumsum(before) - before, before)
    copy = order[start[where[entry[pair]]] + nth]
    received = moment.audience.holds(log, copy, listener[pair]) & moment.heard(copy, listener[pair])
    earlier = np.bincount(pair[received], minlength=len(entry))
    return earlier == 0
