"""Chance: what the same data give when only the pairing in question is undone, and p-values against that."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# What chance alone would bring about this often or less is called more than chance.
LEVEL = 0.05
# With as many streams it is enough to exchange them; of fewer there are too few orders.
MANY_STREAMS = 20


def displaced(sizes: Array, rng: np.random.Generator) -> Array:
    """Rows of another time for each row, so that what depends on the time alone stays as it is: [M] indices.

    Whole streams change places at random; where there are fewer than MANY_STREAMS, all rows are then turned round by a
    random number of them, a tenth at least. (A permutation of single rows would take series for independent draws.)

    Args:
        sizes: [S], the rows of each stream, which stand one after another.
    """
    size, ends = int(sizes.sum()), np.cumsum(sizes)
    order = rng.permutation(len(sizes))
    rows = np.concatenate([np.arange(ends[i] - sizes[i], ends[i]) for i in order])
    if len(sizes) < MANY_STREAMS and size > 1:
        least = max(1, size // 10)
        rows = np.roll(rows, rng.integers(least, size - least + 1))
    return rows


def share_as_large(found: float, controls: Array) -> float:
    """p-value of a permutation test: [K] controls -> the share of them, and of what was found itself, that is as large.

    >>> share_as_large(3.0, np.array([1.0, 2.0, 3.0]))
    0.5
    """
    return float((1 + (controls >= found - 1e-12).sum()) / (1 + len(controls)))


def adjusted_share(plug_in: Any, chance: Any, most: Any) -> Any:
    """Which share of the most bits is told, (plug_in - chance) / (most - chance), elementwise; 0 where chance has all.

    `mutual_information` says why not plug_in less chance.
    """
    room = np.asarray(most - chance, float)
    enough = room > 1e-12
    return np.where(enough, (plug_in - chance) / np.where(enough, room, 1.0), 0.0)
