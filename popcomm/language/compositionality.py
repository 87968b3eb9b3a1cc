"""Compositionality: are the parts of a message about the parts of its meaning?

Functions of (meanings, messages), see `arrays`. What is the same in all rows has no parts to compare, and each function
says which value it then gives. All of them are higher for small samples than for large ones: compare runs at the same
number of meanings, and with `chance`, which gives the same messages other meanings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcomm.errors import UserError
from popcomm.language.arrays import Messages, as_classes, as_meanings, edit_distances, lengths, pairs, sample
from popcomm.language.distributions import entropy
from popcomm.language.nulls import share_as_large

Array = NDArray[Any]
Metric = Callable[[Array, Array], float]

MOST_SAMPLES = 2_000
ROUNDS = 100  # of expectation maximisation
CELLS_AT_ONCE = 1 << 22


class Chance(NamedTuple):
    """What a metric gives when the same messages have other meanings."""

    mean: float
    low: float  # 2.5 % quantile
    high: float  # 97.5 % quantile, the noise floor: a value below it shows nothing
    p_value: float  # share of the controls, and of the data themselves, that are as systematic


def topographic_similarity(
    meanings: ArrayLike,
    messages: Messages,
    end_symbol: int | None = None,
    distance: Literal["hamming", "cosine"] = "hamming",
    cap: int = MOST_SAMPLES,
    seed: int = 0,
) -> float:
    """Spearman's correlation of distances: do similar meanings have similar messages? (Brighton & Kirby 2006)

    Over all pairs i < j of at most `cap` rows, of the distance of meanings and the Levenshtein distance of messages
    divided by their mean length (as EGG has it). Ties have their mean rank.

    Args:
        meanings: [M, A] classes; with "cosine", [M, D] numbers.
        messages: [M, L].
        distance: of meanings: "hamming", the share of attributes that differ, or "cosine" of vectors as they are. Of
            classes as one-hots, the two give the same ranks.
        cap, seed: rows that are drawn where there are more.

    Returns:
        -1 ... 1; 1: the order of distances is the same. 0 where all messages are equal, or all meanings.

    Raises:
        UserError: as `arrays.pairs`, or no such distance.

    >>> topographic_similarity([[0, 0], [0, 1], [1, 0], [1, 1]], [[5, 7], [5, 8], [6, 7], [6, 8]])
    1.0
    """
    if distance not in ("hamming", "cosine"):
        raise UserError(f"distance is '{distance}', and must be hamming or cosine")
    meant, said = pairs(meanings, messages, end_symbol)
    rows = sample(len(said), cap, seed)
    first, second = np.triu_indices(len(rows), 1)
    between = message_distances(said[rows], first, second)
    if distance == "hamming":
        return rank_correlation(_hamming(meant[rows], first, second), between)
    from scipy.spatial.distance import pdist

    vectors = np.asarray(meanings, float)[rows]
    # Of vectors in the same direction rounding leaves anything about 0.
    apart = np.nan_to_num(pdist(vectors.reshape(len(rows), -1), "cosine")).round(12)
    return rank_correlation(apart, between)


def message_distances(messages: Array, first: Array, second: Array) -> Array:
    """Levenshtein distance over mean length: [M, L], [P], [P] -> [P], 0 ... 2; 0 of two empty messages."""
    classes = as_classes(messages)
    unlike = np.flatnonzero(classes[first] != classes[second])
    found, size = np.zeros(len(first)), lengths(messages)
    one, other = first[unlike], second[unlike]
    # Equal ratios of integers are equal numbers, so that ties stay ties.
    found[unlike] = 2 * edit_distances(messages, one, other) / (size[one] + size[other])
    return found


def rank_correlation(x: Array, y: Array) -> float:
    """Spearman's rho of two arrays [P], by the table of their different values; 0 where one of them is constant.

    Distances have few values, and their table is counted faster than their ranks are sorted.
    """
    x_class, y_class = _ordered(x), _ordered(y)
    nx, ny = np.bincount(x_class), np.bincount(y_class)
    if np.count_nonzero(nx) < 2 or np.count_nonzero(ny) < 2:
        return 0.0
    rank_x, rank_y = (np.cumsum(n) - (n - 1) / 2 - (len(x) + 1) / 2 for n in (nx, ny))
    if len(nx) * len(ny) <= len(x):
        table = np.bincount(x_class * len(ny) + y_class, minlength=len(nx) * len(ny))
        together = rank_x @ table.reshape(len(nx), len(ny)) @ rank_y
    else:
        together = rank_x[x_class] @ rank_y[y_class]
    spread = np.sqrt((nx * rank_x**2).sum() * (ny * rank_y**2).sum())
    return float(np.clip(together / spread, -1.0, 1.0))


def positional_disentanglement(meanings: ArrayLike, messages: Messages, end_symbol: int | None = None) -> float:
    """posdis: is each position about one attribute? (Chaabouni et al. 2020, eq. 2)

    Mean over the positions j that vary of (I(m_j; first) - I(m_j; second)) / H(m_j), of the two attributes that the
    position tells most of; plug-in. That a message was over is one of the things that can stand at a position. With one
    attribute the second has no information.

    Returns:
        0 ... 1; 1: each position is told by one attribute alone. 0 where no position varies.
    """
    meant, said = pairs(meanings, messages, end_symbol)
    return _mean_gap(np.stack([as_classes(column) for column in said.T]), meant)


def bag_of_symbols_disentanglement(meanings: ArrayLike, messages: Messages, end_symbol: int | None = None) -> float:
    """bosdis: is each symbol about one attribute, wherever it stands? (Chaabouni et al. 2020, section 3)

    As `positional_disentanglement`, with how often a symbol is in the message in place of what stands at a position,
    over the symbols whose number varies. The end symbol is none of them.

    Returns:
        0 ... 1; 0 where no symbol's number varies.
    """
    meant, said = pairs(meanings, messages, end_symbol)
    symbols, symbol = np.unique(said, return_inverse=True)
    sent = said >= 0
    row = np.nonzero(sent)[0]
    counts = np.zeros((len(symbols), len(said)), np.int64)
    np.add.at(counts, (symbol.reshape(said.shape)[sent], row), 1)
    return _mean_gap(counts, meant)


def tree_reconstruction_error(meanings: ArrayLike, messages: Messages, end_symbol: int | None = None) -> float:
    """TRE: how far messages are from sums of what stands for their attributes; lower is more compositional.

    min over embeddings e of mean_i |f(m_i) - sum_a e(a, x_ia)|^2 (Andreas 2019, eq. 2), in the variant whose minimum
    is a least squares problem and so is found exactly: f is the one-hot of what stands at each position, composition
    is addition, the distance the squared Euclidean one. Divided by its value for one embedding for all meanings.

    Returns:
        0 ... 1; 0: every position is the sum of what its attributes contribute; 1: attributes tell nothing. 0 where
        all messages are equal: there is nothing to explain.
    """
    meant, said = pairs(meanings, messages, end_symbol)
    target = _one_hot(said - said.min(0))
    target -= target.mean(0)
    total = float((target**2).sum())
    if total < 1e-12:
        return 0.0
    # One meaning's row for each that occurs, weighted with how often: the design matrix stays small.
    whole = as_classes(meant)
    first, count = np.unique(whole, return_index=True, return_counts=True)[1:]
    mean = np.zeros((len(count), target.shape[1]))
    np.add.at(mean, whole, target)
    mean /= count[:, None]
    within = total - float((count[:, None] * mean**2).sum())
    weight = np.sqrt(count)[:, None]
    design = np.hstack([_one_hot(meant[first]), np.ones((len(count), 1))]) * weight
    fitted = design @ np.linalg.lstsq(design, mean * weight, rcond=None)[0]
    left = within + float(((fitted - mean * weight) ** 2).sum())
    return float(np.clip(left / total, 0.0, 1.0)) if left > 1e-9 * total else 0.0


def context_independence(meanings: ArrayLike, messages: Messages, end_symbol: int | None = None) -> float:
    """Is there a symbol for each attribute value, whatever else is said? (Bogin et al. 2018, section 4)

    Mean over concepts c, the values of all attributes, of p(s given c) p(c given s), s = argmax_s p(c given s). Which
    symbol of a message is for which of its concepts nobody says: both probabilities are those of alignments, by
    expectation maximisation (IBM model 1, Brown et al. 1993), wherever the symbols stand.

    Returns:
        0 ... 1; 1: one symbol for each concept and one concept for each symbol. 1 / concepts where all messages are
        equal; 0 where they are empty.
    """
    meant, said = pairs(meanings, messages, end_symbol)
    if not (said >= 0).any():
        return 0.0
    concepts = _one_hot(meant)
    symbols, symbol = np.unique(said, return_inverse=True)
    tokens = np.zeros((len(said), len(symbols)))
    np.add.at(tokens, (np.arange(len(said))[:, None], symbol.reshape(said.shape)), 1.0)
    tokens = tokens[:, symbols >= 0]
    symbol_given = _aligned(concepts, tokens)  # [C, S]
    concept_given = _aligned(tokens, concepts)  # [S, C]
    best = concept_given.argmax(0)
    each = np.arange(concepts.shape[1])
    return float((symbol_given[each, best] * concept_given[best, each]).mean())


def chance(
    metric: Metric, meanings: ArrayLike, messages: Array, shuffles: int = 99, seed: int = 0, lower: bool = False
) -> Chance:
    """What a metric gives if the meanings change places: every row of a meaning gets another one, the same for all.

    The messages, how often each is used, their order in time and how much they tell of the meaning as a whole stay as
    they are; only that similar meanings are told alike is undone (Mantel 1967).

    Args:
        metric: a function of (meanings [M, A], messages [M, L]).
        shuffles: controls; the smallest p-value is 1 / (shuffles + 1).
        lower: whether lower values are the more systematic ones, as of `tree_reconstruction_error`.
    """
    meant, rng = as_meanings(meanings), np.random.default_rng(seed)
    whole = as_classes(meant)
    kinds = meant[np.unique(whole, return_index=True)[1]]
    controls = np.array([metric(kinds[rng.permutation(len(kinds))][whole], messages) for _ in range(shuffles)])
    sign = -1.0 if lower else 1.0
    p_value = share_as_large(sign * metric(meant, messages), sign * controls)
    low, high = np.quantile(controls, [0.025, 0.975])
    return Chance(float(controls.mean()), float(low), float(high), p_value)


def topographic_chance(
    meanings: ArrayLike, messages: Messages, end_symbol: int | None = None, shuffles: int = 99, seed: int = 0
) -> tuple[float, Chance]:
    """`topographic_similarity` of all rows with the Hamming distance, and its `chance`: messages are compared once."""
    meant, said = pairs(meanings, messages, end_symbol)
    first, second = np.triu_indices(len(said), 1)
    between = _ordered(message_distances(said, first, second))
    found: list[float] = []

    def similarity(meanings: Array, _: Array) -> float:
        found.append(rank_correlation(_hamming(meanings, first, second), between))
        return found[-1]

    by_chance = chance(similarity, meant, said, shuffles, seed)
    return found[-1], by_chance  # the last one asked for is that of the data


def _ordered(values: Array) -> Array:
    """Integers [P] in the order of the values."""
    if np.issubdtype(values.dtype, np.integer) and values.min(initial=0) >= 0 and values.max(initial=0) < 1000:
        return values
    return np.unique(values, return_inverse=True)[1]


def _hamming(meanings: Array, first: Array, second: Array) -> Array:
    """How many attributes differ: [M, A], [P], [P] -> [P]."""
    return sum((column[first] != column[second]).astype(np.int64) for column in meanings.T)


def _mean_gap(signs: Array, meanings: Array) -> float:
    """signs [J, M], meanings [M, A] -> mean over the signs that vary of the gap between their two best attributes."""
    varying = signs[(signs != signs[:, :1]).any(1)]
    if not len(varying):
        return 0.0
    rows = max(1, CELLS_AT_ONCE // meanings.size)
    gaps = [_gaps(varying[i : i + rows], meanings) for i in range(0, len(varying), rows)]
    return float(np.concatenate(gaps).mean())


def _gaps(signs: Array, meanings: Array) -> Array:
    """[J, M], [M, A] -> [J]."""
    values = int(signs.max()) + 1
    each = np.arange(len(signs))[:, None]
    own = _entropies(each * values + signs, len(signs), values)
    told = np.zeros((len(signs), max(2, meanings.shape[1])))
    for a, attribute in enumerate(meanings.T):
        kinds = int(attribute.max()) + 1
        both = (each * values + signs) * kinds + attribute
        told[:, a] = own + entropy(np.bincount(attribute)) - _entropies(both, len(signs), values * kinds)
    told.sort(1)
    return (told[:, -1] - told[:, -2]) / own


def _entropies(codes: Array, rows: int, size: int) -> Array:
    """Codes [J, M], of row j in j * size ... -> bits [J]."""
    if rows * size <= 4 * codes.size:
        return entropy(np.bincount(codes.ravel(), minlength=rows * size).reshape(rows, size))
    found, counts = np.unique(codes, return_counts=True)
    p = counts / codes.shape[1]
    return np.bincount(found // size, -p * np.log2(p), minlength=rows)


def _one_hot(classes: Array) -> Array:
    """[M, k] classes -> [M, sum of their numbers]; all columns side by side."""
    dense = [np.unique(column, return_inverse=True)[1] for column in classes.T]
    return np.hstack([np.eye(int(column.max()) + 1)[column] for column in dense])


def _aligned(given: Array, told: Array) -> Array:
    """p(b given a) of IBM model 1: a in given [M, A] (how often), b in told [M, B] -> [A, B], rows that sum to one."""
    chance = np.full((given.shape[1], told.shape[1]), 1.0 / told.shape[1])
    for _ in range(ROUNDS):
        expected = given @ chance  # [M, B]
        share = np.divide(told, expected, out=np.zeros_like(told), where=expected > 0)
        counts = chance * (given.T @ share)
        total = counts.sum(1, keepdims=True)
        after = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
        if np.abs(after - chance).max() < 1e-9:
            return after
        chance = after
    return chance
