"""Meanings of referential games: attribute vectors, how often each is drawn, and which are kept out of training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from popcomm.checks import count, not_negative, number
from popcomm.errors import UserError, unknown

MOST = 1_000_000  # meanings that are listed one by one
SPLITS = ("train", "held_out", "all")
# Branches of the seed: a larger held-out share must not change which meanings there are.
SAMPLE, HOLD_OUT, RANK = range(3)


def all_meanings(attributes: int = 2, values: int = 10, num_meanings: int | None = None, seed: int = 0) -> Tensor:
    """[M, attributes] int64 distinct meanings in lexicographic order: the full grid, or a sample of it.

    Args:
        attributes: A.
        values: V, of every attribute: 0 ... V - 1.
        num_meanings: M; None for all V**A.
        seed: of the sample; the world's `meaning_seed`.

    Raises:
        UserError: a count out of its range, or a full grid of more than a million meanings.

    >>> all_meanings(attributes=2, values=2).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    for key, value, least in (("attributes", attributes, 1), ("values", values, 2), ("meaning_seed", seed, 0)):
        count(f"referential_v0: {key}", value, least)
    _check_size(attributes, values, num_meanings)
    size = values**attributes
    rng = np.random.default_rng([seed, SAMPLE])
    if num_meanings is None or num_meanings == size:
        return torch.from_numpy(_digits(np.arange(size), attributes, values))
    if size <= 2**62:
        codes = np.sort(rng.choice(size, num_meanings, replace=False))
        return torch.from_numpy(_digits(codes, attributes, values))
    while True:  # nearly always once: two of a million draws out of 2**62 are equal once in ten million times
        rows = np.unique(rng.integers(values, size=(num_meanings, attributes)), axis=0)
        if len(rows) == num_meanings:
            return torch.from_numpy(rows)


class Meanings:
    """The meanings of a game, those kept out of training, and the odds of each.

    The held-out meanings are chosen evenly by the seed among those that training can spare: every value of every
    attribute still occurs in `train` if it has enough meanings left for that.

    Attributes:
        all: [M, A] int64, lexicographic.
        train: [M - H, A] int64, lexicographic.
        held_out: [H, A] int64, lexicographic; H is M * share, rounded, and at least 1 if the share is above 0.

    Args:
        attributes, values, num_meanings: see `all_meanings`.
        held_out: the share of meanings kept out of training.
        power_law: exponent k; the meaning of rank r = 1 ... M has a weight of r**-k. Ranks are drawn by the seed.
        seed: of the sample, the split and the ranks.

    Raises:
        UserError: a value out of its range.

    >>> meanings = Meanings(attributes=2, values=3, held_out=0.34)
    >>> len(meanings.train), len(meanings.held_out), sorted(meanings.train[:, 0].unique().tolist())
    (6, 3, [0, 1, 2])
    """

    def __init__(
        self,
        attributes: int = 2,
        values: int = 10,
        num_meanings: int | None = None,
        held_out: float = 0.0,
        power_law: float = 0.0,
        seed: int = 0,
    ) -> None:
        number("referential_v0: held_out", held_out, "lie in [0, 1)", least=0, below=1)
        not_negative("referential_v0: power_law", power_law)
        self.all = all_meanings(attributes, values, num_meanings, seed)
        size = len(self.all)
        count = min(max(1, round(held_out * size)), size - 1) if held_out else 0
        kept_out = np.zeros(size, dtype=bool)
        kept_out[_spared(self.all.numpy(), values, count, np.random.default_rng([seed, HOLD_OUT]))] = True
        members = {"train": ~kept_out, "held_out": kept_out, "all": np.ones(size, dtype=bool)}
        self._members = {name: torch.from_numpy(where) for name, where in members.items()}
        self.train, self.held_out = self.split("train"), self.split("held_out")
        ranks = np.random.default_rng([seed, RANK]).permutation(size) + 1
        self._log_weights = torch.from_numpy(-power_law * np.log(ranks))

    def split(self, name: str) -> Tensor:
        """[m, A] int64: the meanings of "train", "held_out" or "all".

        Raises:
            UserError: no such split.
        """
        return self.all[self._in(name)]

    def probabilities(self, name: str = "all") -> Tensor:
        """[m] float64: how often each meaning of a split is drawn; their sum is 1.

        Raises:
            UserError: no such split.
        """
        return self._log_weights[self._in(name)].softmax(0)

    def _in(self, name: str) -> Tensor:
        if name not in self._members:
            raise unknown("referential_v0: split", name, SPLITS)
        return self._members[name]


def _digits(codes: np.ndarray, attributes: int, values: int) -> np.ndarray:
    """Numbers [M] in base V -> their digits [M, A], the first the most significant."""
    powers = np.array([values**a for a in reversed(range(attributes))], dtype=np.int64)
    return codes[:, None] // powers % values


def _spared(meanings: np.ndarray, values: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count] indices of meanings [M, A] to hold out: those in the cover come last, and last found first."""
    order = rng.permutation(len(meanings))
    cover = order[_cover(meanings[order], values)] if count else order[:0]
    # Shuffled again: the cover takes its meanings where they come first, so what it leaves is no even order.
    others = rng.permutation(np.setdiff1d(order, cover))
    return np.concatenate((others, cover[::-1]))[:count]


def _cover(meanings: np.ndarray, values: int) -> np.ndarray:
    """Indices of a few meanings [M, A] in which every value occurs that occurs at all; V of them on a full grid.

    Greedy: for each value not yet covered, the first meaning with it that covers most others.
    """
    attributes = np.arange(meanings.shape[1])
    seen = np.zeros((len(attributes), values), dtype=bool)
    kept = []
    for a in attributes:
        by_value = np.argsort(meanings[:, a], kind="stable")
        bounds = np.searchsorted(meanings[by_value, a], np.arange(values + 1))
        for v in range(values):
            having = by_value[bounds[v] : bounds[v + 1]]
            if len(having) and not seen[a, v]:
                gains = (~seen[attributes, meanings[having]]).sum(1)
                kept.append(having[gains.argmax()])
                seen[attributes, meanings[kept[-1]]] = True
    return np.array(kept, dtype=np.int64)


def _check_size(attributes: int, values: int, num_meanings: int | None) -> None:
    size = values**attributes
    if num_meanings is None:
        if size > MOST:
            raise UserError(
                f"referential_v0: {attributes} attributes of {values} values have more than {MOST} meanings; set "
                "num_meanings to work with a sample of them"
            )
    elif not isinstance(num_meanings, int) or not 2 <= num_meanings <= min(size, MOST):
        raise UserError(
            f"referential_v0: num_meanings is {num_meanings}, and must be a whole number from 2 to {min(size, MOST)}"
        )
