"""Jargon: do the members of a population call the same thing by the same word?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SILENCE = 0
# A member that says nothing in more than this share of its occasions has no word for a label.
MOST_SILENT = 0.5


class Agreement(NamedTuple):
    """How far a population agrees on its words; E labels."""

    per_label: Array  # [E] float64 in [0, 1], share of the members whose word is the population's; nan: no occasion
    mean: float  # over the labels with occasions; nan: there is none
    converged: bool  # every label has occasions and at least the threshold
    distinct: int  # different words among the population's; one word for everything is agreed on, and says nothing
    words: Array  # [E] int64, the population's word for each label; 0: nobody has one


def jargon_agreement(words: Array, labels: Array, members: Array, num_labels: int, threshold: float = 0.9) -> Agreement:
    """Agreement on words, from M occasions in which a member perceived something and could speak.

    A member's word for a label is the one that it said most often of it; silence is none. It has no word if it was
    silent in more than half of its occasions. The population's word is the one that most members have. Agreement is the
    share of the members with occasions whose word it is: who is mute does not agree, and who was never asked does not
    count. Ties, a member's and the population's, go to the smallest word.

    Args:
        words: [M] integers, 0 is silence.
        labels: [M] integers below E; occasions with a negative one (nothing perceived) are dropped.
        members: [M] integers, who spoke.
        num_labels: E.
        threshold: of agreement, for `converged`.

    Raises:
        ValueError: arrays of different shapes, or a label of E or above.

    >>> told = jargon_agreement(np.array([7, 7, 7, 9, 9, 7]), np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2] * 2), 2)
    >>> told.per_label.round(2).tolist(), told.words.tolist(), told.converged
    ([1.0, 0.67], [7, 9], False)
    """
    words, labels, members = (np.asarray(a, np.int64) for a in (words, labels, members))
    if not (words.shape == labels.shape == members.shape and words.ndim == 1):
        raise ValueError(f"words {words.shape}, labels {labels.shape} and members {members.shape} must all be [M]")
    if labels.size and labels.max() >= num_labels:
        raise ValueError(f"labels reach {labels.max()}, and must be below {num_labels}")
    seen = labels >= 0
    lexicon, word = np.unique(words[seen], return_inverse=True)
    names, member = np.unique(members[seen], return_inverse=True)
    # A group is a member's occasions with a label.
    group, size = labels[seen] * len(names) + member, num_labels * len(names)
    asked = np.bincount(group, minlength=size)
    said = lexicon[word] != SILENCE
    spoken = np.bincount(group[said], minlength=size)
    modes = _modes(group[said], word[said], size)
    has_word = (modes >= 0) & (spoken >= (1 - MOST_SILENT) * asked)

    label = np.arange(size) // max(1, len(names))
    population = _modes(label[has_word], modes[has_word], num_labels)
    agrees = has_word & (modes == population[label])
    asked_members = np.bincount(label[asked > 0], minlength=num_labels)
    agreeing = np.bincount(label[agrees], minlength=num_labels)
    shares = np.full(num_labels, np.nan)
    np.divide(agreeing, asked_members, out=shares, where=asked_members > 0)
    found = np.where(population >= 0, lexicon[population] if len(lexicon) else SILENCE, SILENCE)
    return Agreement(
        per_label=shares,
        mean=float(np.nanmean(shares)) if (asked_members > 0).any() else float("nan"),
        converged=bool((shares >= threshold).all()),
        distinct=len(np.unique(found[found != SILENCE])),
        words=found.astype(np.int64),
    )


def _modes(groups: Array, values: Array, size: int) -> Array:
    """The most frequent value in each of `size` groups, the smallest of several; -1: an empty group.

    Works on pairs that occur, so the number of different values does not matter.
    """
    width = int(values.max(initial=0)) + 1
    pairs, counts = np.unique(groups * width + values, return_counts=True)
    # Within a group the most frequent last, and of several the smallest value: the last assignment stands.
    order = np.lexsort((-pairs, counts, pairs // width))
    modes = np.full(size, -1, np.int64)
    modes[pairs[order] // width] = pairs[order] % width
    return modes
