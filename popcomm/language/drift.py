"""How a language changes over training: divergence between checkpoints, beside chance, and when it has settled.

Pure functions on arrays. A checkpoint is the messages of one time, as counts [..., V] of V symbols (or of V whole
messages, see `whole_messages`). The measure is the Jensen-Shannon divergence (`basics.jensen_shannon`, Lin 1991) in
bits, 0 ... 1, and nan where one of the two has no messages.

Two samples of one and the same distribution diverge, too: by (K - 1) / (8 ln 2) * (1 / n + 1 / m) bits for samples of n
and m messages over K classes, when n and m are much larger than K (Grosse et al. 2002: 2 N ln 2 times the divergence is
chi-square). With few messages for each class the bias can be most of what is seen, so each divergence comes with the
one that chance alone gives.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from popcomm.language.distributions import jensen_shannon

Array = NDArray[Any]

# Bits above chance from one checkpoint to the next under which a language counts as settled. A convention: it is what
# one message in ten makes that moves from one symbol to another that was never said before.
SETTLED = 0.05


class Drift(NamedTuple):
    """Divergences (bits) of C checkpoints; entry i is about what came after checkpoint i. [C - 1, ...] each."""

    consecutive: Array  # of checkpoint i from the next one
    consecutive_chance: Array  # its mean if both were samples of one distribution
    to_last: Array  # of checkpoint i from the last one
    to_last_chance: Array

    @property
    def consecutive_above_chance(self) -> Array:
        return self.consecutive - self.consecutive_chance

    @property
    def to_last_above_chance(self) -> Array:
        return self.to_last - self.to_last_chance


class Change(NamedTuple):
    """Shares 0 ... 1 of meanings that are named differently; entry i is about what came after checkpoint i."""

    consecutive: Array  # [C - 1, ...], at the next checkpoint
    to_last: Array  # [C - 1, ...], at the last one


def drift(counts: Array, labelled: bool = False, shuffles: int = 20, seed: int = 0) -> Drift:
    """Divergence between checkpoints of messages that were drawn one by one, and what chance gives.

    The control deals the messages of the two checkpoints together anew, at random, to two samples of the same sizes.
    (Two halves of one checkpoint would be a control too, but one with half the messages, and so twice the bias.)

    Args:
        counts: [C, ..., V] integers, or with `labelled` [C, ..., G, V]: messages on each of G labels, dealt anew only
            among the same label. The result is then `given_label`.
        shuffles: how often the control is drawn.

    Returns:
        Drift of arrays [C - 1, ...]; without rows if there are fewer than two checkpoints.
    """
    measure = given_label if labelled else jensen_shannon
    now, after, last = counts[:-1], counts[1:], np.broadcast_to(counts[-1:], counts[:-1].shape)
    rng = np.random.default_rng(seed)

    def chance(p: Array, q: Array) -> Array:
        return np.mean([measure(*_dealt(p, q, rng)) for _ in range(shuffles)], axis=0)

    return Drift(measure(now, after), chance(now, after), measure(now, last), chance(now, last))


def drift_of_streams(
    symbols: Array,
    vocab_size: int,
    checkpoints: Array,
    streams: Array,
    labels: Array | None = None,
    shuffles: int = 20,
    seed: int = 0,
) -> Drift:
    """Drift between checkpoints of messages that are time series, such as those of worlds.

    The control deals whole streams to the two checkpoints, not single messages: what is said stays for a while, so
    messages of the same episode are alike, and two checkpoints with other episodes differ by more than if each message
    were a draw of its own. Where messages vary in length, that one was over by a position counts there as a symbol of
    its own, so that messages which grow shorter or longer are drift, too.

    Args:
        symbols: [M, L] integers 0 ... V - 1, or -1 for what was not sent.
        vocab_size: V.
        checkpoints: [M] integers 0 ... C - 1, in the order of time.
        streams: [M], one number for all that is said together, an episode of a world for instance.
        labels: [M] integers, for the drift of what is said on the same label; negative ones are dropped.
        shuffles: how often the control is drawn.

    Returns:
        Drift of arrays [C - 1, L].
    """
    over = symbols < 0
    if over.any():
        symbols, vocab_size = np.where(over, vocab_size, symbols), vocab_size + 1
    last = int(checkpoints.max(initial=0))
    groups = None if labels is None else int(labels.max(initial=0)) + 1
    measure = jensen_shannon if labels is None else given_label
    rng = np.random.default_rng(seed)

    def between(rows: Array, later: Array) -> Array:
        """rows of two checkpoints, and which of them are the later one's, [R] bool -> [L] bits."""
        of = None if labels is None else labels[rows]
        counts = symbol_counts(symbols[rows], vocab_size, later.astype(int), of, groups, 2)
        return measure(counts[0], counts[1])

    def pair(first: int, second: int) -> tuple[Array, Array]:
        rows = np.flatnonzero((checkpoints == first) | (checkpoints == second))
        later = checkpoints[rows] == second
        _, start, unit = np.unique(streams[rows] * 2 + later, return_index=True, return_inverse=True)
        dealt = [rng.permutation(later[start])[unit] for _ in range(shuffles)]
        return between(rows, later), np.mean([between(rows, other) for other in dealt], axis=0)

    pairs = [pair(now, now + 1) + pair(now, last) for now in range(last)]
    shape = (len(pairs), symbols.shape[1])
    return Drift(*(np.array([found[i] for found in pairs]).reshape(shape) for i in range(4)))


def given_label(p: Array, q: Array) -> Array:
    """Divergence of what is said on the same label: counts [..., G, V] -> bits [...].

    The mean over the G labels of the divergence of p(message | label), weighted with the mean share of the label in p
    and q. A language that does not change has none of it, however often its labels occur, while the messages as a
    whole shift with what there is to be talked about. Labels that one of the two has no message on are left out; nan:
    they have no label in common.

    >>> p, q = np.array([[9, 0], [0, 1]]), np.array([[1, 0], [0, 9]])
    >>> float(given_label(p, q)), round(float(jensen_shannon(p.sum(0), q.sum(0))), 2)
    (0.0, 0.53)
    """
    each = jensen_shannon(p, q)
    n, m = p.sum(-1), q.sum(-1)
    share = n / np.maximum(n.sum(-1, keepdims=True), 1) + m / np.maximum(m.sum(-1, keepdims=True), 1)
    share = np.where((n > 0) & (m > 0), share, 0.0)
    total = share.sum(-1)
    mean = (share * np.nan_to_num(each)).sum(-1)
    return np.divide(mean, total, out=np.full(total.shape, np.nan), where=total > 0)


def changed_names(said: Array) -> Change:
    """How many meanings have another message than before, where each has one (greedy speakers).

    Args:
        said: [C, ..., M, L] integers, the message of L symbols on each of M meanings at each checkpoint.
    """
    now, after = said[:-1], said[1:]
    return Change((now != after).any(-1).mean(-1), (now != said[-1:]).any(-1).mean(-1))


def stable_from(values: Array, bound: float, episodes: Array) -> Any | None:
    """The first episode after which a measure of change stays under a bound; None if it never does.

    Args:
        values: [C], what changed after each checkpoint (the rows of a Drift or a Change). nan is not under the bound.
        episodes: [C], when each of those checkpoints was, in their order.

    Raises:
        ValueError: arrays that are not both [C].

    >>> stable_from(np.array([0.5, 0.01, 0.2, 0.03, 0.0]), 0.1, np.array([1, 2, 4, 8, 16]))
    8
    """
    values, episodes = np.asarray(values), np.asarray(episodes)
    if values.ndim != 1 or values.shape != episodes.shape:
        raise ValueError(f"values of shape {values.shape} and episodes of {episodes.shape}; both must be [C]")
    restless = np.flatnonzero(~(values < bound))
    first = int(restless[-1]) + 1 if len(restless) else 0
    return episodes[first].item() if first < len(episodes) else None


def symbol_counts(
    symbols: Array,
    vocab_size: int,
    checkpoints: Array,
    labels: Array | None = None,
    num_labels: int | None = None,
    num_checkpoints: int | None = None,
) -> Array:
    """Counts for `drift`: how often each symbol stands at each position, at each checkpoint (and on each label).

    Args:
        symbols: [M, L] integers 0 ... V - 1, or -1 for what was not sent, which does not count.
        vocab_size: V.
        checkpoints: [M] integers 0 ... C - 1, in the order of time.
        labels: [M] integers; messages with a negative one are dropped. None: not by label.
        num_labels: G; None: the largest label and one.
        num_checkpoints: C; None: the last checkpoint and one.

    Returns:
        [C, L, V] int64, or with labels [C, L, G, V].

    Raises:
        ValueError: symbols outside 0 ... V - 1, but for -1.
    """
    length, times = symbols.shape[1], num_checkpoints or int(checkpoints.max(initial=-1)) + 1
    if symbols.size and (symbols.min() < -1 or symbols.max() >= vocab_size):
        raise ValueError(f"symbols reach from {symbols.min()} to {symbols.max()}, and V is {vocab_size}")
    shape: tuple[int, ...] = (times, length, vocab_size)
    place = checkpoints[:, None] * length + np.arange(length)
    if labels is not None:
        groups = num_labels or int(labels.max(initial=0)) + 1
        keep = labels >= 0
        symbols, place = symbols[keep], place[keep] * groups + labels[keep, None]
        shape = (times, length, groups, vocab_size)
    codes = (place * vocab_size + symbols)[symbols >= 0].astype(np.int64)
    return np.bincount(codes, minlength=int(np.prod(shape))).reshape(shape)


def whole_messages(messages: Array) -> tuple[Array, int]:
    """Messages as single symbols: [M, L] -> ([M, 1], number of different ones), numbered in their order."""
    code = np.zeros(len(messages), np.int64)
    # Position by position, which is several times faster than to sort whole rows.
    for symbol in np.unique(messages, return_inverse=True)[1].reshape(messages.shape).T:
        code = np.unique(code * (symbol.max(initial=0) + 1) + symbol, return_inverse=True)[1]
    return code.reshape(-1, 1), int(code.max(initial=-1)) + 1


def _dealt(p: Array, q: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Both samples [..., V] put together, row by row, and dealt anew to samples of the same sizes."""
    pooled, size = (p + q).reshape(-1, p.shape[-1]), p.sum(-1).ravel()
    rows, classes = np.nonzero(pooled)
    times = pooled[rows, classes]
    row, code = np.repeat(rows, times), np.repeat(rows * pooled.shape[1] + classes, times)
    # Rows stay where they are, and each is shuffled: its first ones are the first sample.
    order = np.lexsort((rng.random(len(row)), row))
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    first = np.bincount(code[order[rank < size[row]]], minlength=pooled.size).reshape(p.shape)
    return first, p + q - first
