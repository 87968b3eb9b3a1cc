"""A body of messages in numbers: entropy, vocabulary, information, order in time, attention, specialisation.

Pure functions on arrays. Symbols are the integers 0 ... V - 1, and the blank (0) counts like any other. Messages are
[M, L]: M messages of L symbols. All estimates are plug-in (relative frequencies), in bits. Nothing here warns: where
a number does not exist the result is nan, for the reason that the docstring gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import dijkstra
from scipy.special import entr

Array = NDArray[Any]
Reduce = Literal["max", "mean"]

# A neighbour with more weight than this is a hub; among few neighbours all of them have as much, so a hub must also
# stand out of the uniform share by HUB_RATIO.
HUB_WEIGHT = 0.2
HUB_RATIO = 1.2
# A symbol is in use if it is said at least this often, relative to chance (1 / V). A sampled policy says every symbol
# now and then, so "seen at least once" would always be all of them.
USED_SHARE = 0.1


class Information(NamedTuple):
    """Mutual information beside what the same data give when their pairing is shuffled (nan: fewer than two pairs)."""

    bits: float  # plug-in estimate, biased upwards when samples are few
    chance: float  # its mean over the shuffles: the bias
    low: float  # 2.5 % quantile of the shuffles
    high: float  # 97.5 % quantile of the shuffles
    position: int  # the position with the most information, -1 where there is none
    samples: int  # pairs that were counted

    @property
    def adjusted(self) -> float:
        """Bits above chance."""
        return self.bits - self.chance

    @property
    def above_chance(self) -> bool:
        return self.bits > self.high


class Specialisation(NamedTuple):
    """How groups of messages (by member, by label) differ in the symbols that they use."""

    probabilities: Array  # [G, V], P(symbol | group); a row of nan for a group without messages
    divergence: Array  # [G] bits in [0, 1], Jensen-Shannon divergence from the population; nan likewise
    chance: Array  # [G] bits, its mean when messages are dealt to groups at random; nan likewise
    counts: Array  # [G], messages


def symbol_counts(messages: Array, vocab_size: int) -> Array:
    """How often each symbol stands at each position: [M, L] -> [L, V] int64.

    Raises:
        ValueError: symbols outside 0 ... V - 1.

    >>> symbol_counts(np.array([[0, 1], [0, 2]]), 3).tolist()
    [[2, 0, 0], [0, 1, 1]]
    """
    length = messages.shape[1]
    if messages.size and (messages.min() < 0 or messages.max() >= vocab_size):
        raise ValueError(f"symbols reach from {messages.min()} to {messages.max()}, and V is {vocab_size}")
    codes = messages + np.arange(length) * vocab_size
    return np.bincount(codes.ravel().astype(np.int64), minlength=length * vocab_size).reshape(length, vocab_size)


def entropy(counts: Array) -> Array:
    """Entropy of relative frequencies: counts or probabilities [..., V] -> bits [...] (Shannon 1948); nan: all zero."""
    total = counts.sum(-1, keepdims=True)
    p = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    return np.where(total[..., 0] > 0, np.abs(entr(p).sum(-1)) / np.log(2), np.nan)


def perplexity(counts: Array) -> Array:
    """2 ** entropy, the number of equally used symbols with the same entropy: [..., V] -> [...]; nan: all zero."""
    return np.exp2(entropy(counts))


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
    return float(_informations(_dense(x[keep])[None], _dense(y[keep])[None])[0]) if keep.any() else float("nan")


def label_information(
    messages: Array,
    labels: Array,
    reduce: Reduce = "max",
    shuffles: int = 30,
    seed: int = 0,
    cap: int = 20_000,
) -> Information:
    """I(m_j; label) per position j, and of these the maximum or the mean, beside the same with shuffled labels.

    By position, since the plug-in I(whole message; label) of V ** L messages is nearly H(label) for any few samples.
    Subtracting the mean over shuffles removes the bias of small samples and that of taking a maximum (Lowe et al. 2019,
    positive signalling).

    Args:
        messages: [M, L] integers.
        labels: [M] integers; messages with a negative label are dropped.
        cap: at most that many messages, drawn from `seed`, are counted.
    """
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(labels >= 0)
    if len(rows) > cap:
        rows = rng.choice(rows, cap, replace=False)
    if len(rows) < 2:
        return _no_information(len(rows))
    m, y = _dense(messages[rows]).T, _dense(labels[rows])[None].repeat(messages.shape[1], 0)

    def shuffled() -> Array:
        # One permutation for all positions keeps their dependence, which the law of the maximum depends on.
        return _informations(m, y[:, rng.permutation(len(rows))])

    return _against_shuffles(_informations(m, y), shuffled, reduce, shuffles, len(rows))


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
) -> Information:
    """I(m_t; m_{t - lag}) of the same sender and position, beside the same with each sender's steps shuffled.

    Steps are shuffled within a stream, so that a sender's own dialect, which has no order, is in the control too.

    Args:
        messages: [M, L] integers.
        streams: [M], one number for each sender's stay in an episode; only rows of one stream are paired.
        steps: [M], the step in the episode; a step that is missing leaves no pair across the gap.
        cap: whole streams, drawn from `seed`, until they hold that many messages.

    Raises:
        ValueError: a lag below one.
    """
    rng = np.random.default_rng(seed)
    if len(messages) > cap:
        names, stream = np.unique(streams, return_inverse=True)
        # A random rank for each stream; rows of the lowest ranks are kept until the cap is reached.
        rank = rng.permutation(len(names))
        full = np.cumsum(np.bincount(rank[stream], minlength=len(names)))
        keep = full[rank[stream]] <= max(cap, full[0])
        messages, streams, steps = messages[keep], streams[keep], steps[keep]
    order, first = _followers(streams, steps, lag)
    if len(first) < 2:
        return _no_information(len(first))
    m, blocks = _dense(messages[order]).T, streams[order]

    def shuffled() -> Array:
        other = m[:, np.lexsort((rng.random(len(blocks)), blocks))]
        return _informations(other[:, first], other[:, first + lag])

    return _against_shuffles(_informations(m[:, first], m[:, first + lag]), shuffled, reduce, shuffles, len(first))


def transitions(messages: Array, streams: Array, steps: Array, vocab_size: int, lag: int = 1) -> Array:
    """How often symbol v follows symbol u at the same position, positions pooled: [M, L] -> counts [V (u), V (v)]."""
    order, first = _followers(streams, steps, lag)
    m = messages[order].astype(np.int64)
    codes = m[first] * vocab_size + m[first + lag]
    return np.bincount(codes.ravel(), minlength=vocab_size**2).reshape(vocab_size, vocab_size)


def specialisation(
    messages: Array, groups: Array, vocab_size: int, num_groups: int, shuffles: int = 30, seed: int = 0
) -> Specialisation:
    """Symbol laws of groups and their divergence from the population's (Lin 1991, eq. 4.1 with equal weights, bits).

    Args:
        messages: [M, L] integers; the positions are pooled, so give [M, 1] for one of them.
        groups: [M] integers 0 ... G - 1; negative ones are dropped, also from the population.
    """
    rng = np.random.default_rng(seed)
    keep = groups >= 0
    messages, groups = messages[keep].astype(np.int64), groups[keep].astype(np.int64)

    def counted(of: Array) -> Array:
        codes = of[:, None] * vocab_size + messages
        return np.bincount(codes.ravel(), minlength=num_groups * vocab_size).reshape(num_groups, vocab_size)

    counts = counted(groups)
    chance = [jensen_shannon(c := counted(rng.permutation(groups)), c.sum(0)) for _ in range(shuffles)]
    total = counts.sum(-1, keepdims=True)
    law = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    each = np.bincount(groups, minlength=num_groups)
    return Specialisation(law, jensen_shannon(counts, counts.sum(0)), np.mean(chance, axis=0), each)


def jensen_shannon(p: Array, q: Array) -> Array:
    """H((p + q) / 2) - (H(p) + H(q)) / 2: counts [..., V] that broadcast -> bits, 0 ... 1 (Lin 1991); nan: all zero."""
    p, q = (np.divide(c, t := c.sum(-1, keepdims=True), out=np.zeros(c.shape), where=t > 0) for c in (p, q))
    divergence = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return np.clip(divergence, 0.0, 1.0)


def top_attention(weights: Array, mask: Array | None = None) -> float:
    """Mean over listeners of their largest neighbour weight: [..., K] -> 0 ... 1, and 1 / K where attention is uniform.

    Args:
        weights: [..., K], one listener's weights in a row.
        mask: [..., K] bool, which messages are real; a listener that hears nobody is left out. nan: all hear nobody.
    """
    real = np.ones(weights.shape, bool) if mask is None else mask
    hears = real.any(-1)
    return float(np.where(real, weights, 0.0).max(-1)[hears].mean()) if hears.any() else float("nan")


def received_weight(senders: Array, weights: Array, num_agents: int) -> Array:
    """Mean weight that each sender gets from those who hear it: links [E], [E] -> [N]; nan: nobody hears it."""
    heard = np.bincount(senders, minlength=num_agents)
    total = np.bincount(senders, weights, minlength=num_agents)
    return np.divide(total, heard, out=np.full(num_agents, np.nan), where=heard > 0)


def hubs(received: Array, inbox_size: float) -> Array:
    """Which senders are hubs: a weight over 0.2, and at least 1.2 times the uniform share 1 / K: [N] -> [N] bool."""
    known = np.nan_to_num(received, nan=0.0)
    return (known > HUB_WEIGHT) & (known * inbox_size >= HUB_RATIO)


def attention_matrix(senders: Array, receivers: Array, weights: Array, num_agents: int) -> Array:
    """Share of each listener's attention that went to each sender: links [E] -> [N (sender), N (listener)].

    Columns sum to one; that of an agent that heard nobody is zero.
    """
    codes = senders.astype(np.int64) * num_agents + receivers
    total = np.bincount(codes, weights, minlength=num_agents**2).reshape(num_agents, num_agents)
    heard = total.sum(0, keepdims=True)
    return np.divide(total, heard, out=np.zeros(total.shape), where=heard > 0)


def betweenness(weights: Array, max_sources: int = 512, seed: int = 0) -> Array:
    """Relays: the share of shortest paths between two others that run through an agent: [N, N] -> [N] in 0 ... 1.

    weights[i, j] > 0 is a link from i to j of length 1 / weight (Newman 2001). Brandes 2001, all sources at once, in
    O(sources N^2); with more than `max_sources` agents that many sources are drawn and the sum is scaled up (Brandes &
    Pich 2007). Fewer than three agents have nobody between them: 0.
    """
    n = len(weights)
    if n < 3:
        return np.zeros(n)
    length = np.divide(1.0, weights, out=np.full((n, n), np.inf), where=weights > 0)
    np.fill_diagonal(length, np.inf)
    source = np.arange(n) if n <= max_sources else np.random.default_rng(seed).choice(n, max_sources, replace=False)
    distance = dijkstra(np.where(np.isfinite(length), length, 0.0), indices=source)
    s = np.arange(len(source))
    order = np.argsort(distance, axis=1)
    incoming = length.T.copy()

    def before(t: Array) -> Array:
        """[S, N]: does a shortest path to t[s] enter it from u? Equal up to rounding of the sums."""
        with np.errstate(invalid="ignore"):
            return np.isclose(distance + incoming[t], distance[s, t][:, None], rtol=1e-9, atol=0) & np.isfinite(
                incoming[t]
            )

    paths = np.zeros((len(source), n))
    paths[s, source] = 1.0
    for rank in range(1, n):
        t = order[:, rank]
        paths[s, t] = (paths * before(t)).sum(1)
    through = np.zeros((len(source), n))
    for rank in range(n - 1, 0, -1):
        t = order[:, rank]
        share = np.divide(1 + through[s, t], paths[s, t], out=np.zeros(len(s)), where=paths[s, t] > 0)
        through += paths * before(t) * share[:, None]
    through[s, source] = 0.0
    return through.sum(0) * (n / len(source)) / ((n - 1) * (n - 2))


def _dense(values: Array) -> Array:
    """The same classes numbered 0, 1, ..., so that codes of pairs stay small."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape)


def _row_entropies(codes: Array, size: int) -> Array:
    """Entropy of each row of codes [J, M] in 0 ... size - 1: bits [J]."""
    found, counts = np.unique(codes + np.arange(len(codes))[:, None] * size, return_counts=True)
    p = counts / codes.shape[1]
    return np.bincount(found // size, -p * np.log2(p), minlength=len(codes))


def _informations(x: Array, y: Array) -> Array:
    """I(x_j; y_j) of each pair of rows: [J, M], [J, M] dense classes -> bits [J]."""
    nx, ny = int(x.max()) + 1, int(y.max()) + 1
    return np.maximum(_row_entropies(x, nx) + _row_entropies(y, ny) - _row_entropies(x * ny + y, nx * ny), 0.0)


def _against_shuffles(
    found: Array, shuffled: Callable[[], Array], reduce: Reduce, shuffles: int, samples: int
) -> Information:
    pick = np.max if reduce == "max" else np.mean
    control = np.array([pick(shuffled()) for _ in range(shuffles)])
    low, high = np.quantile(control, [0.025, 0.975])
    return Information(float(pick(found)), float(control.mean()), float(low), float(high), int(found.argmax()), samples)


def _no_information(samples: int) -> Information:
    return Information(np.nan, np.nan, np.nan, np.nan, -1, samples)


def _followers(streams: Array, steps: Array, lag: int) -> tuple[Array, Array]:
    """(order [M] by stream and step, first [Q]): the rows order[first] and order[first + lag] are lag steps apart."""
    if lag < 1:
        raise ValueError(f"lag is {lag}, and must be at least 1")
    order = np.lexsort((steps, streams))
    s, t = streams[order], steps[order]
    return order, np.flatnonzero((s[:-lag] == s[lag:]) & (t[lag:] - t[:-lag] == lag))
