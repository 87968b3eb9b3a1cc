"""Articulation: do messages fall into parts, as speech does into words? (Harris 1955; Ueda et al. 2023)"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcomm.errors import UserError
from popcomm.language.arrays import NOT_SENT, Messages, as_classes, as_messages, lengths
from popcomm.language.compositionality import topographic_similarity
from popcomm.language.distributions import entropy

Array = NDArray[Any]


class Articulation(NamedTuple):
    """Where M messages of at most L symbols fall into segments."""

    boundaries: Array  # [M, L] bool, whether a segment begins at this symbol and not with the message
    boundaries_per_message: float  # mean, 0 ... L - 1
    segments: Array  # [M, W] int64, each message as its segments, equal ones with equal numbers; -1 behind
    vocabulary: int  # different segments
    random_vocabulary: int  # the same where as many boundaries stand at random
    conditional_entropies: Array  # [L] bits of the next symbol after n that went before, n = 0 ... L - 1
    w_topsim: float  # topographic similarity of messages as strings of segments; nan: no meanings were given
    c_topsim: float  # as strings of symbols; nan likewise
    random_topsim: float  # as strings of the random segments; nan likewise


def harris_articulation(
    messages: Messages,
    meanings: ArrayLike | None = None,
    threshold: float = 0.0,
    end_symbol: int | None = None,
    seed: int = 0,
) -> Articulation:
    """Segments by branching entropy: a boundary is where what comes next becomes less certain (Ueda et al. 2023,
    algorithm 1, after Tanaka-Ishii 2005).

    The branching entropy h(s) is that of the symbol after an occurrence of s, of all that go on. For all parts s of a
    message of two symbols or more, a boundary stands behind s if h(s) - h(s without its last symbol) > threshold. There
    is none at the ends. Segments that carry meaning have w_topsim > c_topsim; the random boundaries, as many in each
    message and drawn without replacement, are the control. Messages of one symbol have no inside: they are one segment.

    Args:
        messages: [M, L].
        meanings: [M, A] or [M]; None: no topographic similarity (nan).
        threshold: bits.
        seed: of the random boundaries.

    Raises:
        UserError: as `arrays.pairs`, or a threshold that is no number.
    """
    if not np.isfinite(threshold):
        raise UserError(f"threshold is {threshold}, and must be a number of bits")
    said = as_messages(messages, end_symbol)
    boundaries, uncertainty = _articulated(said, threshold)
    by_chance = _at_random(boundaries, lengths(said), np.random.default_rng(seed))
    segments, random_segments = _segments(said, boundaries), _segments(said, by_chance)
    similar = [np.nan] * 3
    if meanings is not None:
        similar = [topographic_similarity(meanings, units) for units in (segments, said, random_segments)]
    return Articulation(
        boundaries,
        float(boundaries.sum(1).mean()),
        segments,
        int(segments.max()) + 1,
        int(random_segments.max()) + 1,
        uncertainty,
        *similar,
    )


def _articulated(said: Array, threshold: float) -> tuple[Array, Array]:
    """Boundaries [M, L] and conditional entropies [L]."""
    rows, length = said.shape
    boundaries, uncertainty = np.zeros(said.shape, bool), np.zeros(length)
    part: Array = np.zeros(said.shape, np.int64)  # the part of `width` symbols that begins here, as a class
    shorter = np.zeros(said.shape)  # branching entropy of the part that is one symbol shorter
    for width in range(length):
        # Parts of `width` symbols that begin at 0 ... L - width - 1, and what stands behind them.
        starts = length - width
        if width:
            part = as_classes(np.stack([part[:, :starts].ravel(), said[:, width - 1 : length - 1].ravel()], 1))
            part = part.reshape(rows, starts)
        behind = said[:, width:]
        h, uncertainty[width] = _branching(part, behind)
        if width >= 2:
            boundaries[:, width:] |= (h - shorter[:, :starts] > threshold + 1e-12) & (behind >= 0)
        shorter = h
    return boundaries, uncertainty


def _branching(part: Array, behind: Array) -> tuple[Array, float]:
    """Entropy of what stands behind each part, [M, S] classes, [M, S] -> bits [M, S], and its mean over occurrences."""
    real = behind >= 0
    if not real.any():
        return np.zeros(part.shape), 0.0
    context = part[real]
    pairs = as_classes(np.stack([context, behind[real]], 1))
    pair_count, occurrences = np.bincount(pairs), np.bincount(context, minlength=int(part.max()) + 1)
    of = np.zeros(len(pair_count), np.int64)
    of[pairs] = context
    p = pair_count / occurrences[of]
    h = np.bincount(of, -p * np.log2(p), minlength=len(occurrences))
    return h[part], float(entropy(pair_count) - entropy(occurrences))


def _at_random(boundaries: Array, size: Array, rng: np.random.Generator) -> Array:
    """As many boundaries in each message, at other places within it: [M, L], [M] -> [M, L]."""
    place = np.arange(boundaries.shape[1])
    inside = (place >= 1) & (place < size[:, None])
    rank = np.where(inside, rng.random(boundaries.shape), 2.0).argsort(1).argsort(1)
    return inside & (rank < boundaries.sum(1)[:, None])


def _segments(said: Array, boundaries: Array) -> Array:
    """Messages as strings of segments, [M, L], [M, L] bool -> [M, W]."""
    rows, length = said.shape
    number = boundaries.cumsum(1)  # of the segment that a symbol belongs to
    width = int(number.max()) + 1
    first = np.concatenate([np.ones((rows, 1), bool), boundaries[:, 1:]], 1)
    start = np.maximum.accumulate(np.where(first, np.arange(length), 0), 1)
    symbols = np.full((rows, width, length), NOT_SENT)
    row, place = np.nonzero(said >= 0)
    symbols[row, number[row, place], place - start[row, place]] = said[row, place]
    there = symbols[:, :, 0] >= 0
    found = np.full((rows, width), NOT_SENT)
    if there.any():
        found[there] = as_classes(symbols[there])
    return found
