"""Distributions of symbols or messages, as counts: how uncertain they are, and how far apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def entropy(counts: Array) -> Array:
    """Entropy of relative frequencies: counts or probabilities [..., V] -> bits [...] (Shannon 1948); nan: all zero."""
    total = counts.sum(-1, keepdims=True)
    p = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    return np.where(total[..., 0] > 0, np.abs((p * np.log(np.where(p > 0, p, 1.0))).sum(-1)) / np.log(2), np.nan)


def perplexity(counts: Array) -> Array:
    """2 ** entropy, the number of equally used symbols with the same entropy: [..., V] -> [...]; nan: all zero."""
    return np.exp2(entropy(counts))


def jensen_shannon(p: Array, q: Array) -> Array:
    """H((p + q) / 2) - (H(p) + H(q)) / 2: counts [..., V] that broadcast -> bits, 0 ... 1 (Lin 1991); nan: all zero."""
    p, q = (np.divide(c, t := c.sum(-1, keepdims=True), out=np.zeros(c.shape), where=t > 0) for c in (p, q))
    divergence = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return np.clip(divergence, 0.0, 1.0)
