"""Information: how much messages tell of something else, without the bias of small samples, and surer than chance.

The estimate is the plug-in one, adjusted for chance: (I - E) / (most - E) of the bits that there can be, where E is the
mean of I over controls in which the pairing is undone and most = min(H(x), H(y)) is the largest value that I can have
(Vinh et al. 2010, the adjusted mutual information); the bits that there can be are the same entropies with the
correction of Miller & Madow (1955). It is right at both ends: controls have 0 on average, and what is fully told has
all of its bits. It was chosen over a grid of sizes (50 to 1,000 rows, 3 to 64 symbols, from no to full dependence,
independent rows and slow series; `tests/language/test_mutual_information.py` has the grid):

- plug-in less E over-corrects what is there: 1.58 bits come out as .43 at 50 rows and .71 at 100;
- Miller & Madow (1955) leaves nearly all the bias where most cells are empty: .69 bits of nothing at 100 rows of 64
  symbols and 3 labels;
- the estimator of Nemenman, Shafee & Bialek (2002) is good for independent rows if all possible symbols are known
  (1.23 of 1.58 bits at 100 rows), and takes slow series for dependence: .49 bits of nothing;
- what a held-out classifier gains is a lower bound, and a low one: .88 of 1.58 bits, and negative where there is none.

The adjusted estimate is at most a tenth off on the grid: too high where noise reaches every cell (2.73 for 2.57 bits),
which the interval allows for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcomm.errors import UserError
from popcomm.language.arrays import Messages, as_classes, as_messages, sample
from popcomm.language.distributions import entropy
from popcomm.language.intervals import Interval
from popcomm.language.measured import Bits
from popcomm.language.nulls import adjusted_share, displaced, share_as_large

Array = NDArray[Any]

MOST_SAMPLES = 20_000
GROUPS = 20  # that are left out in turn
GROUP_CONTROLS = 20
LEAST_ROOM = 0.05  # of the most bits; where chance leaves less, the data cannot tell


def information(
    messages: Messages,
    labels: ArrayLike,
    streams: ArrayLike | None = None,
    shuffles: int = 99,
    seed: int = 0,
    cap: int = MOST_SAMPLES,
    end_symbol: int | None = None,
    seats: ArrayLike | None = None,
) -> Bits:
    """I(whole message; label) in bits, adjusted for chance as the module says, with an interval and a p-value.

    Rows are time series: what is said and what is seen both stay for a while, and slow series that have nothing to do
    with each other share more than single rows would. So controls pair messages with labels of another time
    (`nulls.displaced`): whole streams change places, or few of them are turned round.

    Args:
        messages: [M, L] or [M], see `arrays`; the rows of a stream in the order of time.
        labels: [M] classes, or [M, A] of which all together are one; rows with a negative integer are dropped from [M].
        streams: [M], one number for all that is seen and said together, such as an episode of a world. None: all rows
            are one series. `range(M)`: rows are independent draws.
        seats: [M], who spoke. Of a stream the rows of one seat then stand after those of another, in their order: where
            all speak by turns and some are silent or die, controls would lose what lasts. None: one speaker.
        shuffles: controls; the smallest p-value is 1 / (shuffles + 1).
        cap: at most that many rows, drawn from `seed`, are counted.

    Returns:
        Bits. The value may lie somewhat below 0, so that its mean over independent data is 0. interval: 95 %, by
        leaving out groups of streams in turn (Tukey 1958), and longer below by the corrections that are not sure: that
        of the entropy, and part of the way to plug-in less E, which is right where noise reaches every cell, the more
        of it the nearer to half of what can be told is told; within 0 and the entropy of equally common classes.
        Where nothing can be known (constant messages, one label, hardly two equal rows) it is 0 with a `note`, p-value
        1.

    Raises:
        UserError: no messages, other numbers of labels, streams or seats, or no row with a label.

    >>> labels = np.arange(300) * 7 % 10 // 5
    >>> told = information(labels + 3, labels)
    >>> round(told.bits, 2), told.p_value
    (1.0, 0.01)
    """
    x, y, stream = _rows(messages, labels, streams, seats, cap, seed, end_symbol)
    sizes = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(stream)) + 1, [len(x)]]))
    whole, rng = np.ones((1, len(x)), bool), np.random.default_rng(seed)
    (plug_in,), (room,), (most,) = (v.tolist() for v in _told(x, y, whole))
    if room < 1e-12:
        which = "messages" if not x.any() else "labels"
        return _nothing(f"all {which} are the same, so nothing can be told", plug_in, 0.0, 0.0, len(x))
    others = [y[displaced(sizes, rng)] for _ in range(shuffles)]
    controls = np.array([_told(x, other, whole)[0][0] for other in others])
    chance = float(controls.mean())
    if room - chance < LEAST_ROOM * room:
        told = "hardly two rows are alike: more of them are needed to tell"
        return _nothing(told, plug_in, chance, most, len(x))
    # Where streams end is not where displaced ones do, see `basics.label_information`.
    fair = controls * np.array([_changes(x, other) for other in others]) / _changes(x, y)
    groups = _kept(stream, sizes, rng)
    left_out = [_told(x, other, groups)[0] for other in others[:GROUP_CONTROLS]]
    each, share = _told(x, y, groups), float(adjusted_share(plug_in, chance, room))
    bits = most * share
    lower = 4 * share * (1 - share) * max(0.0, bits - (plug_in - chance)) + max(0.0, share) * (most - room)
    reach = _reach(each[2] * adjusted_share(each[0], np.mean(left_out, axis=0), each[1]))
    limits = np.clip([bits - max(0.0, lower) - reach, bits + reach], 0.0, np.log2(1 + min(x.max(), y.max())))
    return Bits(
        bits,
        interval=Interval(*limits.tolist()),
        p_value=share_as_large(plug_in, fair),
        chance=chance,
        plug_in=plug_in,
        most=most,
        samples=len(x),
    )


def _rows(
    messages: Messages,
    labels: ArrayLike,
    streams: ArrayLike | None,
    seats: ArrayLike | None,
    cap: int,
    seed: int,
    end_symbol: int | None,
) -> tuple[Array, Array, Array]:
    """Classes of messages and labels and streams, [M] each, one stream after another, and in it one seat."""
    said, seen = as_messages(messages, end_symbol), np.asarray(labels)
    stream = np.zeros(len(said), np.int64) if streams is None else as_classes(streams)
    seat = np.zeros(len(said), np.int64) if seats is None else as_classes(seats)
    if not len(said) == len(seen) == len(stream) == len(seat):
        raise UserError(
            f"there are {len(said)} messages, {len(seen)} labels, {len(stream)} streams and {len(seat)} seats, "
            "and each has one"
        )
    integers = seen.ndim == 1 and np.issubdtype(seen.dtype, np.integer)
    rows = np.flatnonzero(seen >= 0) if integers else np.arange(len(seen))
    if not len(rows):
        raise UserError("no message has a label: all labels are negative")
    rows = rows[sample(len(rows), cap, seed)]
    rows = rows[np.lexsort((seat[rows], stream[rows]))]
    return as_classes(said[rows]), as_classes(seen[rows]), stream[rows]


def _told(x: Array, y: Array, kept: Array) -> tuple[Array, Array, Array]:
    """Of the rows that are kept, [M], [M], [G, M] bool -> [G] each: plug-in information, the most that it could be, and
    the bits that there can be."""
    pair = np.unique(x * (int(y.max()) + 1) + y, return_inverse=True)[1]
    by_x, by_y, both = (np.array([_entropies(codes[rows]) for rows in kept]) for codes in (x, y, pair))
    most, bits = np.minimum(by_x, by_y).T
    return np.clip(by_x[:, 0] + by_y[:, 0] - both[:, 0], 0.0, most), most, bits


def _entropies(codes: Array) -> tuple[float, float]:
    """[M] -> bits, plug-in and corrected: more by (classes - 1) / (2 M ln 2) (Miller & Madow 1955), log2 classes at
    most."""
    counts = np.bincount(codes)
    bits, classes = float(entropy(counts)), np.count_nonzero(counts)
    return bits, min(bits + (classes - 1) / (2 * len(codes) * np.log(2)), float(np.log2(classes)))


def _kept(stream: Array, sizes: Array, rng: np.random.Generator) -> Array:
    """Which rows stay when each group is left out, [G, M]: groups of whole streams, of few streams blocks in time."""
    if len(sizes) >= GROUPS:
        group = np.repeat(rng.permutation(len(sizes)) % GROUPS, sizes)
    else:
        group = np.arange(len(stream)) * min(GROUPS, len(stream)) // len(stream)
    return group != np.unique(group)[:, None]


def _reach(without: Array) -> float:
    """Half the length of a 95 % interval, by the estimates without each of G groups, [G]."""
    from scipy.stats import t

    groups = len(without)
    if groups < 2:
        return float("inf")
    return float(t.ppf(0.975, groups - 1) * np.sqrt((groups - 1) * np.var(without)))


def _changes(x: Array, y: Array) -> int:
    """How many runs of equal pairs there are."""
    return 1 + int(((x[1:] != x[:-1]) | (y[1:] != y[:-1])).sum())


def _nothing(note: str, plug_in: float, chance: float, most: float, samples: int) -> Bits:
    limits = Interval(0.0, most)
    return Bits(
        0.0, interval=limits, p_value=1.0, chance=chance, plug_in=plug_in, most=most, samples=samples, note=note
    )
