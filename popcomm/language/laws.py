"""Statistical laws of words: how often they are used, how long they are, how well they are told by what went before.

A word is a whole message, [M, L] integers, see `arrays` (Chaabouni et al. 2019).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcomm.language.arrays import Messages, as_classes, as_messages, lengths
from popcomm.language.distributions import entropy
from popcomm.language.measured import Measured
from popcomm.language.nulls import share_as_large

Array = NDArray[Any]

STEEPEST = 50.0  # exponent that is looked for
UNIFORM_DRAWS = 20


class Exponent(Measured):
    """An exponent of a rank-frequency distribution; chance: of as many words that all are as common."""

    r2: float = 0.0  # share of the variance of log frequencies that the fitted line explains
    words: int = 0  # different ones


def message_entropy(messages: Messages, end_symbol: int | None = None) -> float:
    """Entropy of whole messages, plug-in: [M, L] -> 0 ... log2 M bits (Shannon 1948).

    It is at most log2 M, whatever the language: compare at the same M. Of single symbols: `basics.symbol_entropy`.

    >>> message_entropy([[1, 2], [1, 2], [3, 4], [3, 4]])
    1.0
    """
    return float(entropy(np.bincount(as_classes(as_messages(messages, end_symbol)))))


def ngram_entropies(messages: Messages, most: int = 4, end_symbol: int | None = None) -> Array:
    """Entropy of a symbol given the n - 1 before it in its message, n = 1 ... most: bits [most] (Shannon 1951).

    It falls with n where order matters, and also, by bias, where there are few messages: V ** n must be well below the
    number of symbols. All is counted within messages. What no message is long enough for is 0.
    """
    said = as_messages(messages, end_symbol)
    return np.array([_given(said, n) for n in range(most)])


def zipf_exponent(messages: Messages, end_symbol: int | None = None, seed: int = 0) -> Exponent:
    """Exponent a of frequency ~ rank ** -a, by maximum likelihood over the ranks 1 ... K of the K words that occur.

    (Clauset et al. 2009, of a bounded power law; Zipf's law is a = 1.) Ranks are those of the sample: words that are
    equally common seem to differ, so `chance` says what a sample of such words gives.

    Returns:
        0 or more; 0 where there is one word, or all are as common.
    """
    counts = np.sort(np.bincount(as_classes(as_messages(messages, end_symbol))))[::-1]
    rng, words = np.random.default_rng(seed), len(counts)
    if words < 2:
        return Exponent(0.0, words=words, chance=0.0, note="there is one word only, and so no rank but the first")
    uniform = np.full(words, 1.0 / words)
    draws = [np.sort(rng.multinomial(counts.sum(), uniform))[::-1] for _ in range(UNIFORM_DRAWS)]
    found = _exponent(counts)
    chance = float(np.mean([_exponent(drawn[drawn > 0]) for drawn in draws]))
    return Exponent(found, r2=_fit(counts, found), words=words, chance=chance)


def law_of_abbreviation(
    messages: Messages, end_symbol: int | None = None, shuffles: int = 999, seed: int = 0
) -> Measured:
    """Spearman's correlation of a word's frequency and its length, over the words that occur: below 0 where frequent
    words are short (Zipf 1949; Ferrer-i-Cancho et al. 2013).

    Controls deal the lengths among the words at random. p_value: how often they are as negative; chance: their mean.

    Returns:
        -1 ... 1; 0 with a `note` where all words are as long, or as common.
    """
    said = as_messages(messages, end_symbol)
    first, counts = np.unique(as_classes(said), return_index=True, return_counts=True)[1:]
    x, y = _ranks(counts), _ranks(lengths(said[first]))
    if not x.any() or not y.any():
        same = "common" if not x.any() else "long"
        return Measured(0.0, p_value=1.0, chance=0.0, note=f"all words are as {same}, so nothing can go with it")
    scale, rng = np.linalg.norm(x) * np.linalg.norm(y), np.random.default_rng(seed)
    found = float(np.clip(x @ y / scale, -1.0, 1.0))
    controls = np.array([x @ rng.permutation(y) for _ in range(shuffles)]) / scale
    return Measured(found, p_value=share_as_large(-found, -controls), chance=float(controls.mean()))


def _given(messages: Array, before: int) -> float:
    """Entropy of a symbol given those before it: [M, L] -> bits."""
    width = messages.shape[1] - before
    if width < 1:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(messages, before + 1, 1).reshape(-1, before + 1)
    windows = windows[windows[:, -1] >= 0]
    if not len(windows):
        return 0.0
    whole, context = as_classes(windows), as_classes(windows[:, :-1])
    return max(0.0, float(entropy(np.bincount(whole)) - entropy(np.bincount(context))))


def _exponent(counts: Array) -> float:
    """Counts by rank [K] -> the exponent whose mean log rank is that of the sample."""
    from scipy.optimize import brentq

    ranks = np.log(np.arange(1, len(counts) + 1))
    mean = float(counts @ ranks / counts.sum())

    def excess(a: float) -> float:
        weights = np.exp(-a * ranks)
        return float(weights @ ranks / weights.sum()) - mean

    if excess(0.0) <= 1e-12:
        return 0.0
    return float(brentq(excess, 0.0, STEEPEST)) if excess(STEEPEST) < 0 else STEEPEST


def _fit(counts: Array, exponent: float) -> float:
    """R2 of log frequencies, 0 ... 1; of frequencies that do not vary 1 if that is what was fitted."""
    ranks = np.arange(1, len(counts) + 1.0)
    fitted = -exponent * np.log(ranks) - np.log((ranks**-exponent).sum())
    seen = np.log(counts / counts.sum())
    spread = float(((seen - seen.mean()) ** 2).sum())
    left = float(((seen - fitted) ** 2).sum())
    return max(0.0, 1.0 - left / spread) if spread > 1e-12 else float(left < 1e-9)


def _ranks(values: Array) -> Array:
    """Mean ranks about their mean, [K]: all 0 where the values are the same."""
    from scipy.stats import rankdata

    found = rankdata(values)
    return found - found.mean()
