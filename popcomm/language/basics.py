"""A body of messages in numbers: entropy, vocabulary, information, order in time, attention, specialisation.

Pure functions on arrays. Symbols are the integers 0 ... V - 1, and the blank (0) counts like any other. Messages are
[M, L]: M messages of L symbols; where one is shorter, -1 stands for what was not sent. That is no symbol and is counted
nowhere; only where information is measured, that nothing came is one of the things that can come. All estimates are
plug-in (relative frequencies), in bits. Nothing here warns: where a number does not exist the result is nan, for the
reason that the docstring gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The measures of attention, and those of single distributions, are found here as well.
from popcomm.language.attention import HUB_RATIO as HUB_RATIO
from popcomm.language.attention import HUB_WEIGHT as HUB_WEIGHT
from popcomm.language.attention import attention_matrix as attention_matrix
from popcomm.language.attention import betweenness as betweenness
from popcomm.language.attention import hubs as hubs
from popcomm.language.attention import received_weight as received_weight
from popcomm.language.attention import top_attention as top_attention
from popcomm.language.distributions import entropy as entropy
from popcomm.language.distributions import jensen_shannon as jensen_shannon
from popcomm.language.distributions import perplexity as perplexity
from popcomm.language.nulls import LEVEL, adjusted_share, displaced, share_as_large
from popcomm.language.streams import dense, followers, joined, rearranged, stays, whole_streams

Array = NDArray[Any]
Reduce = Literal["max", "mean"]

# A symbol is in use if it is said at least this often, relative to chance (1 / V). A sampled policy says every symbol
# now and then, so "seen at least once" would always be all of them.
USED_SHARE = 0.1


class Information(NamedTuple):
    """Mutual information beside what the same data give when their pairing is undone (nan: fewer than two pairs)."""

    bits: float  # plug-in estimate, biased upwards when samples are few
    chance: float  # its mean over the controls: the bias
    low: float  # 2.5 % quantile of the controls
    high: float  # 97.5 % quantile of the controls
    position: int  # the position with the most information, -1 where there is none
    samples: int  # pairs that were counted
    p_value: float  # share of the controls, and of the data themselves, that have as many bits
    adjusted: float  # bits above chance, as `mutual_information.py` has them: 0 by chance, all where all is told

    @property
    def above_chance(self) -> bool:
        """At most LEVEL of independent data are called so; that takes 19 controls."""
        return self.p_value <= LEVEL


class Specialisation(NamedTuple):
    """How groups of messages (by member, by label) differ in the symbols that they use."""

    probabilities: Array  # [G, V], P(symbol | group); a row of nan for a group without messages
    divergence: Array  # [G] bits in [0, 1], Jensen-Shannon divergence from the population; nan likewise
    chance: Array  # [G] bits, its mean when messages are dealt to groups at random; nan likewise
    counts: Array  # [G], messages
    p_value: float  # how often chance sets some group as far above its mean as the farthest is; nan: no group


def symbol_counts(messages: Array, vocab_size: int) -> Array:
    """How often each symbol stands at each position: [M, L] -> [L, V] int64.

    Raises:
        ValueError: symbols outside 0 ... V - 1, but for -1.

    >>> symbol_counts(np.array([[0, 1], [0, 2]]), 3).tolist()
    [[2, 0, 0], [0, 1, 1]]
    """
    length = messages.shape[1]
    if messages.size and (messages.min() < -1 or messages.max() >= vocab_size):
        raise ValueError(f"symbols reach from {messages.min()} to {messages.max()}, and V is {vocab_size}")
    codes = (messages + np.arange(length) * vocab_size)[messages >= 0]
    return np.bincount(codes.ravel().astype(np.int64), minlength=length * vocab_size).reshape(length, vocab_size)


def symbol_entropy(messages: Array, vocab_size: int) -> float:
    """Entropy of the symbols of all positions together: [M, L] -> bits per symbol, 0 ... log2 V; nan: no messages.

    >>> symbol_entropy(np.array([[0, 1], [1, 0]]), 64)
    1.0
    """
    return float(entropy(symbol_counts(messages, vocab_size).sum(0)))


def position_entropy(messages: Array, vocab_size: int) -> Array:
    """Entropy of the symbol at each position: [M, L] -> bits [L], each in 0 ... log2 V; nan: no messages."""
    return entropy(symbol_counts(messages, vocab_size))


def vocabulary_used(messages: Array, vocab_size: int, min_share: float = 0.0) -> float:
    """Share of the V symbols that were seen at least once, at any position: [M, L] -> 0 ... 1; nan: no messages.

    With `min_share`, only symbols that make up more than that share of all symbols count: sampled policies hit every
    symbol in the end. The number grows with M: compare runs at the same M.
    """
    counts = symbol_counts(messages, vocab_size).sum(0)
    return float((counts > min_share * counts.sum()).mean()) if counts.any() else float("nan")


def mutual_information(x: Array, y: Array) -> float:
    """I(x; y) = H(x) + H(y) - H(x, y): two arrays [M] of classes -> bits, plug-in (Cover & Thomas, eq. 2.45).

    Pairs with a negative class (no label) are dropped. nan: no pair is left. A constant x or y gives 0.
    """
    keep = (x >= 0) & (y >= 0)
    return float(_informations(dense(x[keep])[None], dense(y[keep])[None])[0]) if keep.any() else float("nan")


def label_information(
    messages: Array,
    labels: Array,
    reduce: Reduce = "max",
    shuffles: int = 30,
    seed: int = 0,
    cap: int = 20_000,
    streams: Array | None = None,
    seats: Array | None = None,
) -> Information:
    """I(m_j; label) per position j, and of these the maximum or the mean, beside the same with labels of other times.

    By position, since the plug-in I(whole message; label) of V ** L messages is nearly H(label) for any few samples.
    The mean over the controls shows the bias of small samples and that of taking a maximum (Lowe et al. 2019, positive
    signalling), and `adjusted` is without it. Rows are time series: what is said and what is seen both stay for a
    while, and two slow series that have nothing to do with each other share more than if single rows were shuffled. So
    the controls keep the order in time of both (`displaced`).

    Args:
        messages: [M, L] integers; the rows of a stream in the order of time.
        labels: [M] integers; messages with a negative label are dropped.
        cap: at most that many messages, drawn from `seed`, are counted.
        streams: [M], one number for all that is seen and said together, an episode of a world for instance; None: all
            rows are one stream.
        seats: [M], who spoke; of a stream the rows of one seat then stand after those of another, as `information`
            of `mutual_information.py` says. None: one speaker, or the rows stand so.
    """
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(labels >= 0)
    if len(rows) > cap:
        rows = np.sort(rng.choice(rows, cap, replace=False))
    if len(rows) < 2:
        return _no_information(len(rows))
    order = [one[rows] for one in (seats, streams) if one is not None]
    rows = rows[np.lexsort(order)] if order else rows
    m, y = dense(messages[rows]).T, dense(labels[rows])[None].repeat(messages.shape[1], 0)
    sizes = np.array([len(rows)]) if streams is None else np.unique(streams[rows], return_counts=True)[1]

    # One displacement for all positions keeps their dependence, which the distribution of the maximum depends on.
    others = [y[:, displaced(sizes, rng)] for _ in range(shuffles)]
    controls = [_informations(m, other) for other in others]
    # Where streams end is not where displaced ones do, so a control has somewhat more independent pairs than the data,
    # and somewhat less bias. How many there are shows in how often one of the two changes; the bias goes with 1 / that.
    runs = _runs(m, y)
    fair = [bits * _runs(m, other) / runs for bits, other in zip(controls, others, strict=True)]
    return _against_controls(_informations(m, y), controls, fair, _limits(m, y), reduce, len(rows))


def adjusted_mutual_information(messages: Array, labels: Array, reduce: Reduce = "max", seed: int = 0) -> float:
    """Bits above chance of `label_information`: [M, L], [M] -> about 0 for independent ones, at most H(label)."""
    return label_information(messages, labels, reduce, seed=seed).adjusted


def sequential_information(
    messages: Array,
    streams: Array,
    steps: Array,
    lag: int = 1,
    reduce: Reduce = "mean",
    shuffles: int = 30,
    seed: int = 0,
    cap: int = 20_000,
    labels: Array | None = None,
    keep_stays: bool = False,
) -> Information:
    """I(m_t; m_{t - lag}) of the same sender and position, beside the same with each sender's steps shuffled.

    Steps are shuffled within a stream, so that a sender's own dialect, which has no order, is in the control too. With
    labels, only among those of its steps in which it saw the same: what stays, or comes in turn, since what is seen
    does, is then in the control, and what is left is order of the language, or that its messages stay. With keep_stays
    messages stay in the control as long as they do in the data (`streams.rearranged`), only pairs on one label count,
    and what is left is order.

    Args:
        messages: [M, L] integers.
        streams: [M], one number for each sender's stay in an episode; only rows of one stream are paired.
        steps: [M], the step in the episode; a step that is missing leaves no pair across the gap.
        cap: whole streams, drawn from `seed`, until they hold that many messages.
        labels: [M] integers, what the sender saw; negative ones (nothing) are a class like any other. None: not known.
        keep_stays: whether a message that is said again in the next step, on the same label, stays in the control, too.

    Raises:
        ValueError: a lag below one.
    """
    rng = np.random.default_rng(seed)
    if len(messages) > cap:
        keep = whole_streams(streams, cap, rng)
        messages, streams, steps = messages[keep], streams[keep], steps[keep]
        labels = None if labels is None else labels[keep]
    order, first = followers(streams, steps, lag)
    if len(first) < 2:
        return _no_information(len(first))
    m, blocks = dense(messages[order]).T, dense(streams[order])
    if labels is not None:
        blocks = dense(blocks * (int(labels.max()) - int(labels.min()) + 1) + labels[order] - labels.min())
    if keep_stays:
        on = np.concatenate([[0], np.cumsum(joined(blocks, steps[order]))])
        first = first[on[first + lag] - on[first] == lag]
        if len(first) < 2:
            return _no_information(len(first))
    dealt = rearranged(stays(m, blocks, steps[order]), rng, shuffles) if keep_stays else _within(blocks, rng, shuffles)
    others = (m[:, rows] for rows in dealt)
    controls = [_informations(other[:, first], other[:, first + lag]) for other in others]
    found = _informations(m[:, first], m[:, first + lag])
    return _against_controls(found, controls, controls, _limits(m[:, first], m[:, first + lag]), reduce, len(first))


def _within(blocks: Array, rng: np.random.Generator, times: int) -> Iterator[Array]:
    """Rows of each block, blocks [M], in random places of it, wherever they stand: indices [M], so many times."""
    places = np.argsort(blocks, kind="stable")
    for _ in range(times):
        rows = np.empty_like(places)
        rows[places] = np.lexsort((rng.random(len(blocks)), blocks))
        yield rows


def transitions(messages: Array, streams: Array, steps: Array, vocab_size: int, lag: int = 1) -> Array:
    """How often symbol v follows symbol u at the same position, positions pooled: [M, L] -> counts [V (u), V (v)]."""
    order, first = followers(streams, steps, lag)
    m = messages[order].astype(np.int64)
    before, after = m[first], m[first + lag]
    codes = (before * vocab_size + after)[(before >= 0) & (after >= 0)]
    return np.bincount(codes.ravel(), minlength=vocab_size**2).reshape(vocab_size, vocab_size)


def specialisation(
    messages: Array,
    groups: Array,
    vocab_size: int,
    num_groups: int,
    shuffles: int = 30,
    seed: int = 0,
    deal: Callable[[np.random.Generator], Array] | None = None,
) -> Specialisation:
    """Symbols of groups, and how far they diverge from the population's (Lin 1991, eq. 4.1 with equal weights, bits).

    Args:
        messages: [M, L] integers; the positions are pooled, so give [M, 1] for one of them.
        groups: [M] integers 0 ... G - 1; negative ones are dropped, also from the population.
        deal: the groups [M] as chance would have them. None deals every message by itself, which is right for messages
            that were drawn one by one, and too narrow for time series.
    """
    rng = np.random.default_rng(seed)
    keep = groups >= 0
    by_chance = deal or (lambda rng: _among(groups, rng))
    messages = messages.astype(np.int64)

    def counted(of: Array) -> Array:
        real = of >= 0
        said = messages[real]
        codes = (of[real].astype(np.int64)[:, None] * vocab_size + said)[said >= 0]
        return np.bincount(codes.ravel(), minlength=num_groups * vocab_size).reshape(num_groups, vocab_size)

    counts = counted(groups)
    divergence = jensen_shannon(counts, counts.sum(0))
    chance = np.array([jensen_shannon(c := counted(by_chance(rng)), c.sum(0)) for _ in range(shuffles)])
    middle = chance.mean(0)
    total = counts.sum(-1, keepdims=True)
    distribution = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    each = np.bincount(groups[keep].astype(np.int64), minlength=num_groups)
    known = np.isfinite(divergence - middle)
    p_value = np.nan
    if known.any():
        p_value = share_as_large((divergence - middle)[known].max(), (chance - middle)[:, known].max(1))
    return Specialisation(distribution, divergence, middle, each, p_value)


def _among(groups: Array, rng: np.random.Generator) -> Array:
    """Groups dealt anew among the rows that have one, -1 staying where it is."""
    dealt = groups.copy()
    dealt[groups >= 0] = rng.permutation(groups[groups >= 0])
    return dealt


def _row_entropies(codes: Array, size: int) -> Array:
    """Entropy of each row of codes [J, M] in 0 ... size - 1: bits [J]."""
    found, counts = np.unique(codes + np.arange(len(codes))[:, None] * size, return_counts=True)
    p = counts / codes.shape[1]
    return np.bincount(found // size, -p * np.log2(p), minlength=len(codes))


def _informations(x: Array, y: Array) -> Array:
    """I(x_j; y_j) of each pair of rows: [J, M], [J, M] dense classes -> bits [J]."""
    nx, ny = int(x.max()) + 1, int(y.max()) + 1
    return np.maximum(_row_entropies(x, nx) + _row_entropies(y, ny) - _row_entropies(x * ny + y, nx * ny), 0.0)


def _runs(x: Array, y: Array) -> Array:
    """How many runs of equal pairs each two rows have: [J, M], [J, M] -> [J]."""
    return 1 + ((x[:, 1:] != x[:, :-1]) | (y[:, 1:] != y[:, :-1])).sum(1)


def _limits(x: Array, y: Array) -> Array:
    """The most that I(x_j; y_j) could be: [J, M], [J, M] dense classes -> bits [J]."""
    return np.minimum(_row_entropies(x, int(x.max()) + 1), _row_entropies(y, int(y.max()) + 1))


def _against_controls(
    found: Array, controls: Sequence[Array], fair: Sequence[Array], most: Array, reduce: Reduce, samples: int
) -> Information:
    """Bits [J] of the data beside those of K controls [J]; `fair` are the controls that the p-value is taken from, and
    `most` the bits that there could be, [J].

    The maximum is taken of what each position has above its own chance: positions that change slowly have more bits by
    chance than others, and would hide them.
    """
    pick = np.max if reduce == "max" else np.mean
    usual = np.mean(controls, axis=0)
    position = int((found - usual).argmax())
    above = np.array([pick(bits - usual) for bits in controls])
    base = float(usual[position] if reduce == "max" else usual.mean())
    low, high = base + np.quantile(above, [0.025, 0.975])
    usual_fair = np.mean(fair, axis=0)
    p_value = share_as_large(float(pick(found - usual_fair)), np.array([pick(bits - usual_fair) for bits in fair]))
    bits = base + float(pick(found - usual))
    chance = base + float(above.mean())
    if reduce == "max":
        adjusted = float(most[position] * adjusted_share(bits, chance, most[position]))
    else:
        adjusted = float((most * adjusted_share(found, usual, most)).mean())
    return Information(bits, chance, float(low), float(high), position, samples, p_value, adjusted)


def _no_information(samples: int) -> Information:
    return Information(np.nan, np.nan, np.nan, np.nan, -1, samples, np.nan, np.nan)
