"""Criteria of growth: how much an edge that is not there would be worth, from a layer's inputs and slopes alone.

The gradient of the block from seat j to seat i is G_ij = X_j^T D_i, for inputs X_j [R, in] and slopes D_i [R, out] of R
rows. |X_j^T D_i|^2 is the inner product of X_j X_j^T and D_i D_i^T, two [R, R] matrices (the Gram identity), so that
all N^2 norms cost N products of [R, R] and one of [N, R R], and no block is made. With few seats, or few numbers
between them, the blocks themselves take less: they are made and squared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from popcomm.agents.block_sparse import Captured

# Parts of a batch, of different worlds, whose gradients csnr compares, and the most rows of a batch that are looked at.
CHUNKS, ROWS = 8, 512
# Seats above which fewer rows are: the cost of R rows is N R (N R + R (in + out)).
SEATS = 32


class Rows(NamedTuple):
    """Rows of a batch, [G, N, M, c, features]: M chunks of c rows each, of different worlds, or steps of one."""

    inputs: Tensor  # [G, N, M, c, in]
    slopes: Tensor  # [G, N, M, c, out]

    def centred(self) -> Rows:
        """Inputs less their mean over the rows that have a slope: others nobody lived."""
        lived = (self.slopes != 0).any(-1, keepdim=True).any(1, keepdim=True).to(self.inputs.dtype)
        count = lived.sum((2, 3), keepdim=True).clamp(min=1)
        mean = (self.inputs * lived).sum((2, 3), keepdim=True) / count
        return self._replace(inputs=(self.inputs - mean) * lived)


def most_rows(networks: int, nodes: int) -> int:
    """The most rows of a batch that are looked at, with G networks of G N nodes."""
    return min(ROWS, ROWS * SEATS * networks // nodes)


def rows_of(seen: Sequence[Captured], networks: int) -> Rows | None:
    """What a layer was seen doing in the calls of an update, evenly thinned out; None: too little to compare.

    A call has worlds on its rows: one call of all steps (steps of a world side by side), or a call for each step. Of a
    single world chunks are of its steps, whichever it is.
    """
    if len(seen) > 1 and all(call.inputs.shape[1] == 1 for call in seen):
        seen = [Captured(*(torch.cat(values, 1) for values in zip(*seen, strict=True)))]
    fewest = min((len(call.inputs[0]) for call in seen), default=0)
    chunks = min(CHUNKS, fewest)
    if chunks < 2:
        return None
    nodes = len(seen[0].inputs)
    most = most_rows(networks, nodes) // chunks
    counts = [len(call.inputs[0]) // chunks for call in seen]  # rows of a chunk in each call
    kept = min(sum(counts), max(most, 1))
    which = torch.arange(kept) * (sum(counts) - 1) // max(kept - 1, 1)
    parts = []
    for tensors in zip(*seen, strict=True):
        # Thinned out before it is copied: a batch can be a hundred times what is looked at.
        some = [
            values[:, : count * chunks].unflatten(1, (chunks, -1)).index_select(2, here.to(values.device))
            for values, count, here in zip(tensors, counts, _by_call(which, counts), strict=True)
        ]
        parts.append(torch.cat(some, 2).float().unflatten(0, (networks, -1)))
    return Rows(*parts)


def _by_call(which: Tensor, counts: list[int]) -> list[Tensor]:
    """Numbers of rows, counted over all calls, as numbers within each call."""
    starts = [0, *accumulate(counts)]
    return [which[(which >= start) & (which < end)] - start for start, end in pairwise(starts)]


def squared_norms(rows: Rows) -> Tensor:
    """[G, N, N], of the gradient of every block, sender by receiver: |sum over chunks of G|^2."""
    if _blocks_are_less(rows):
        return _squares(_blocks(Rows(*(values.flatten(2, 3).unsqueeze(2) for values in rows))))
    return _inner(*_grams(rows))


def norms_of_chunks(rows: Rows) -> tuple[Tensor, Tensor]:
    """[G, N, N] each: |sum over chunks of G|^2, as `squared_norms` has it, and the sum over chunks of |G|^2."""
    if _blocks_are_less(rows):
        blocks = _blocks(rows)
        return _squares(blocks.sum(1, keepdim=True)), _squares(blocks)
    grams, (chunks, length) = _grams(rows), rows.inputs.shape[2:4]
    # The Grams of chunks are the squares along the diagonal of the whole.
    apart = [
        gram.unflatten(-1, (chunks, length)).unflatten(-3, (chunks, length)).diagonal(dim1=-4, dim2=-2)
        for gram in grams
    ]
    return _inner(*grams), _inner(*apart)


def _blocks_are_less(rows: Rows) -> bool:
    """Whether to make all blocks takes fewer operations than Grams do."""
    (_, seats, chunks, length, inputs), outputs = rows.inputs.shape, rows.slopes.shape[-1]
    return seats * inputs * outputs < chunks * length * (seats + inputs + outputs)


def _blocks(rows: Rows) -> Tensor:
    """[G, M, N, in, N, out], the gradients of all blocks on each chunk."""
    networks, seats, chunks = rows.inputs.shape[:3]
    joined = [values.permute(0, 2, 3, 1, 4).flatten(0, 1).flatten(2) for values in rows]  # [G M, c, N features]
    made = torch.bmm(joined[0].mT, joined[1]).view(networks, chunks, seats, -1, joined[1].shape[-1])
    return made.unflatten(-1, (seats, -1))


def _squares(blocks: Tensor) -> Tensor:
    """[G, M, N, in, N, out] -> [G, N, N]."""
    return blocks.square().sum((1, 3, 5))


def _grams(rows: Rows) -> list[Tensor]:
    """[G, N, R, R] of inputs and of slopes."""
    flat = [values.flatten(2, 3) for values in rows]
    return [values @ values.mT for values in flat]


def _inner(first: Tensor, second: Tensor) -> Tensor:
    """[G, N, ...] twice -> [G, N, N], inner products of each with each."""
    return torch.bmm(first.flatten(2), second.flatten(2).mT)


def raw(rows: Rows) -> Tensor:
    """[1, G, N, N]: the squared norm of the block's gradient, the words of the paper."""
    return squared_norms(rows).unsqueeze(0)


def centred(rows: Rows) -> Tensor:
    """[1, G, N, N]: the same of inputs less their mean, which a receiver's bias could bring as well."""
    return squared_norms(rows.centred()).unsqueeze(0)


def csnr(rows: Rows) -> Tensor:
    """[2, G, N, N]: of inputs less their mean, what chunks' gradients have in common, and their mean size.

    (|sum of G_k|^2 - sum of |G_k|^2) / (M (M - 1)) is an unbiased estimate of the squared norm of their expectation.
    """
    rows, chunks = rows.centred(), rows.inputs.shape[2]
    together, apart = norms_of_chunks(rows)
    return torch.stack([(together - apart) / (chunks * (chunks - 1)), apart / chunks])


def variance(rows: Rows) -> Tensor:
    """[2, G, N, N]: of inputs less their mean, the squared norm, and the variances of sender and receiver."""
    rows = rows.centred()
    sent, wanted = (values.square().sum((2, 3, 4)) for values in rows)  # [G, N]
    return torch.stack([squared_norms(rows), sent.unsqueeze(2) * wanted.unsqueeze(1)])


# Scores are NaN where there was no gradient at all: that is no candidate, whatever else there is.


def the_sum(sums: Tensor) -> Tensor:
    return torch.where(sums[0] > 0, sums[0], torch.nan)


def of_the_receivers_mean(sums: Tensor) -> Tensor:
    """How many times the mean over senders: receivers with large slopes get no more than others."""
    return the_sum(sums) / sums[0].mean(-2, keepdim=True)


def ratio(sums: Tensor) -> Tensor:
    return sums[0] / sums[1]


class Criterion(NamedTuple):
    """A criterion that looks at gradients."""

    parts: int  # K
    statistics: Callable[[Rows], Tensor]  # rows of one update -> [K, G, N, N], which can be added up
    score: Callable[[Tensor], Tensor]  # sums [K, ...] -> [...], the larger the better
    # Of the score, where growth has neither a budget nor a threshold of its own; a budget is filled by the best.
    threshold: float


CRITERIA = {
    "raw": Criterion(1, raw, the_sum, -math.inf),
    "centred": Criterion(1, centred, of_the_receivers_mean, -math.inf),
    # About 0 for noise and 1 for a gradient that all chunks agree on, in any units.
    "csnr": Criterion(2, csnr, ratio, 0.2),
    "variance": Criterion(2, variance, ratio, -math.inf),
}
