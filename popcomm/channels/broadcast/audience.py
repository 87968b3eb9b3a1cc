"""Who hears a transmission: rows of listeners, and rare events among all (transmission, listener) trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popcomm.channels.broadcast.log import Log

# -log(1 - p) of a listener that repeats surely; it fails once in 1e13 trials.
SURE = 30.0


@dataclass(frozen=True)
class Audience:
    """Lists of listeners, and which list belongs to a transmission.

    `indptr` [R + 1] and `listeners` [E] int32 are compressed rows. With one row all transmissions have the same
    listeners (a full graph); with N + 1 rows, seat i's is row i, and the last is that of published words, which all
    hear; with B (N + 1) rows every world has its own N + 1. A source is in its own row: whether it hears itself is said
    by `Log.echo`.
    """

    indptr: np.ndarray
    listeners: np.ndarray
    num_agents: int

    @classmethod
    def everybody(cls, num_agents: int) -> Audience:
        """All hear all."""
        return cls(np.array([0, num_agents]), np.arange(num_agents, dtype=np.int32), num_agents)

    @classmethod
    def of_links(cls, senders: np.ndarray, mask: np.ndarray) -> Audience:
        """From whom every receiver hears: senders [B, N, K], mask [B, N, K] bool; B may be 1 for all worlds."""
        worlds, n, _ = senders.shape
        world, receiver, slot = np.nonzero(mask)
        rows = world * (n + 1) + senders[world, receiver, slot]
        everyone = np.tile(np.arange(n), worlds)
        of_world = np.repeat(np.arange(worlds) * (n + 1), n)
        rows = np.concatenate([rows, of_world + everyone, of_world + n])
        listeners = np.concatenate([receiver, everyone, everyone])
        # One sort by row and listener; a receiver that lists a sender twice hears it once.
        keys = np.unique(rows * n + listeners)
        rows, listeners = np.divmod(keys, n)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=worlds * (n + 1)))])
        return cls(indptr, listeners.astype(np.int32), n)

    @property
    def _shared(self) -> bool:
        """Whether worlds share their rows."""
        return len(self.indptr) <= self.num_agents + 2

    def rows(self, log: Log) -> np.ndarray | int:
        """The row of each entry: [M]."""
        if len(self.indptr) == 2:
            return 0
        row = np.where(log.source < 0, self.num_agents, log.source)
        return row if self._shared else row + log.world.astype(np.int64) * (self.num_agents + 1)

    def pairs(self, log: Log) -> tuple[np.ndarray, np.ndarray]:
        """Every (entry, listener) pair, by entry: [D] and [D], D = all deliveries."""
        rows = self.rows(log)
        degree = np.broadcast_to(np.diff(self.indptr)[rows], (len(log),))
        entry = np.repeat(np.arange(len(log)), degree)
        before = np.cumsum(degree) - degree - np.broadcast_to(self.indptr[rows], degree.shape)
        return entry, self.listeners[np.arange(len(entry)) - before[entry]]

    def holds(self, log: Log, entry: np.ndarray, listener: np.ndarray) -> np.ndarray:
        """Whether the listeners are in the rows of those entries: [C] bool."""
        if len(self.indptr) == 2:
            return np.ones(len(entry), bool)
        n = self.num_agents
        edges = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr)) * n + self.listeners
        wanted = np.asarray(self.rows(log))[entry].astype(np.int64) * n + listener
        place = np.searchsorted(edges, wanted).clip(max=len(edges) - 1)
        return edges[place] == wanted

    def indegree(self, present: np.ndarray) -> np.ndarray:
        """How many others each seat hears: [N] where all are present and worlds share their rows, else [B, N].

        Args:
            present: [B, N] bool, seats that can be heard; rows that change with the world hold no others anyway.
        """
        worlds, n = present.shape
        if self._shared and not present.all():
            return self._indegree_of(present)
        if len(self.indptr) == 2:
            return np.full(n, n - 1.0)
        row = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        source = row % (n + 1)
        counted = (source != n) & (source != self.listeners)
        seat = self.listeners if self._shared else row // (n + 1) * n + self.listeners
        degree = np.bincount(seat[counted], minlength=n if self._shared else worlds * n).astype(float)
        return degree if self._shared else degree.reshape(worlds, n)

    def _indegree_of(self, present: np.ndarray) -> np.ndarray:
        """[B, N], in worlds that share their rows but not who is there."""
        there = present.astype(float)
        if len(self.indptr) == 2:
            return there.sum(1, keepdims=True) - there
        from scipy.sparse import csr_array  # trainings begin without it

        shape = (self.num_agents + 1, self.num_agents)
        hears = csr_array((np.ones(len(self.listeners)), self.listeners, self.indptr), shape=shape)[:-1]
        return np.asarray((hears.T @ there.T).T) - there * hears.diagonal()

    def hits(self, log: Log, chance: float | np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (entry, listener) that come up when listener j's coin shows heads with probability `chance`.

        Coins are not tossed one by one: the time to the next head is drawn (geometric skipping), so the work grows with
        the heads. Where chances differ, a Poisson process of rate 1 runs along the trials, trial j being
        -log(1 - p_j) long: it is hit with probability p_j exactly.

        Args:
            chance: one for all, [N] or [B, N], each in [0, 1].
        """
        if not len(log):
            return np.zeros(0, np.int64), np.zeros(0, np.int32)
        if np.ndim(chance) == 0 or np.ptp(chance) == 0:
            return self._equal_hits(log, float(np.ravel(chance)[0]), rng)
        return self._unequal_hits(log, np.asarray(chance, float), rng)

    def _equal_hits(self, log: Log, chance: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if chance <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int32)
        if chance >= 1:
            return self.pairs(log)
        if len(self.indptr) == 2:
            n = self.num_agents
            place = skip(len(log) * n, chance, rng)
            entry = place // n
            return entry, (place - entry * n).astype(np.int32)
        rows = np.asarray(self.rows(log))
        ends = np.cumsum(np.diff(self.indptr)[rows])
        place = skip(int(ends[-1]), chance, rng)
        entry = np.searchsorted(ends, place, side="right")
        return entry, self.listeners[self.indptr[rows[entry] + 1] - (ends[entry] - place)]

    def _unequal_hits(self, log: Log, chance: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(divide="ignore"):
            length = np.minimum(-np.log1p(-chance), SURE)
        indptr, listeners, rows = self.indptr, self.listeners, np.broadcast_to(self.rows(log), (len(log),))
        if chance.ndim == 2 and self._shared:  # chances of worlds' own on rows that they share: rows of their own
            count, worlds = len(indptr) - 1, len(chance)
            rows = rows + log.world.astype(np.int64) * count
            edges = len(listeners)
            indptr = np.concatenate([(np.arange(worlds)[:, None] * edges + indptr[:-1]).ravel(), [worlds * edges]])
            along = length[:, listeners].ravel()
            listeners = np.tile(listeners, worlds)
        elif chance.ndim == 2:
            of_world = np.repeat(np.arange(len(indptr) - 1) // (self.num_agents + 1), np.diff(indptr))
            along = length[of_world, listeners]
        else:
            along = length[listeners]
        reach = np.concatenate([[0.0], np.cumsum(along)])
        row_length = (reach[indptr[1:]] - reach[indptr[:-1]])[rows]
        ends = np.cumsum(row_length)
        place = arrivals(float(ends[-1]), rng)
        entry = np.searchsorted(ends, place, side="right").clip(max=len(log) - 1)
        within = place - (ends[entry] - row_length[entry]) + reach[indptr[rows[entry]]]
        # Rounding must not lead out of the row.
        low, high = indptr[rows[entry]], indptr[rows[entry] + 1] - 1
        edge = np.clip(np.searchsorted(reach, within, side="right") - 1, low, high)
        keep = np.ones(len(entry), bool)
        keep[1:] = (entry[1:] != entry[:-1]) | (edge[1:] != edge[:-1])
        keep &= along[edge] > 0
        return entry[keep], listeners[edge[keep]]


def skip(trials: int, chance: float, rng: np.random.Generator) -> np.ndarray:
    """Which of so many independent trials succeed, in order: the gaps are geometric (Devroye 1986, section X.2)."""
    scale = -1.0 / np.log1p(-chance)
    found, last = [], -1
    while True:
        left = (trials - 1 - last) * chance
        draws = rng.standard_exponential(int(left + 6 * np.sqrt(left) + 16))
        draws *= scale
        # A gap beyond the end is cut, lest it overflow.
        gaps = np.minimum(draws, float(trials)).astype(np.int64)
        gaps += 1
        places = np.cumsum(gaps, out=gaps)
        places += last
        if places[-1] >= trials:
            found.append(places[: np.searchsorted(places, trials)])
            return found[0] if len(found) == 1 else np.concatenate(found)
        found.append(places)
        last = int(places[-1])


def arrivals(length: float, rng: np.random.Generator) -> np.ndarray:
    """Where a Poisson process of rate 1 on [0, length) arrives, in order."""
    return np.sort(rng.random(rng.poisson(length))) * length
