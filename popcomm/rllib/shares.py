"""Which worlds a learner has, and the minibatches that it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import ray
import torch
from ray.exceptions import ObjectLostError
from ray.rllib.policy.sample_batch import MultiAgentBatch
from torch import Tensor

from popcomm.rllib.fragment import Fragment, mapped, plain, take_rows, widened

Arrays = dict[str, Fragment[Tensor]]


class LostFragments(NamedTuple):
    """Batches that cannot be had any more: a fragment lies with the runner that sampled it, and is lost with it.

    places: of them in the list of all batches, in order.
    """

    places: list[int]


class FragmentsLostError(RuntimeError):
    """Some batches of a share are lost. places: see `LostFragments`."""

    def __init__(self, places: list[int]) -> None:
        super().__init__(f"the batches {places} are lost with the runners that sampled them")
        self.places = places


def agreed_share(
    batches: Sequence[MultiAgentBatch | ray.ObjectRef],
    rows: Sequence[int],
    rank: int,
    workers: int,
    block: int,
    device: torch.device | str,
    reduce: Callable[[Tensor], Tensor],
) -> Arrays | LostFragments:
    """`load_share`; where any learner misses a batch, all say so, and none goes on without the others.

    Args:
        batches, rows, rank, workers, block, device: those of `load_share`.
        reduce: sums over the learners.
    """
    share: Arrays = {}
    lost = torch.zeros(len(batches), dtype=torch.int64, device=device)
    try:
        share = load_share(batches, rows, rank, workers, block, device)
    except FragmentsLostError as error:
        lost[error.places] = 1
    places = reduce(lost).nonzero().flatten().tolist()
    return LostFragments(places) if places else share


def load_share(
    batches: Sequence[MultiAgentBatch | ray.ObjectRef],
    rows: Sequence[int],
    rank: int,
    workers: int,
    block: int,
    device: torch.device | str,
) -> Arrays:
    """A learner's worlds as tensors on its device; batches that it has no share in are not fetched.

    Args:
        batches: the env runners' batches, or references to them; all learners get the same list.
        rows: worlds in each batch.
        rank, workers: this learner, and how many there are.
        block: worlds that stay together; the last learner takes what is left.

    Raises:
        FragmentsLostError: some of its batches were lost with their runners.
    """
    total = sum(rows)
    edges = [round(total / block * i / workers) * block for i in range(workers)] + [total]
    start, stop = edges[rank], edges[rank + 1]
    mine: list[MultiAgentBatch] = []
    lost: list[int] = []
    offset, first = 0, None
    for place, (batch, count) in enumerate(zip(batches, rows, strict=True)):
        if offset < stop and offset + count > start:
            first = offset if first is None else first
            try:
                mine.append(ray.get(batch) if isinstance(batch, ray.ObjectRef) else batch)
            except ObjectLostError:
                lost.append(place)
        offset += count
    if lost:
        raise FragmentsLostError(lost)
    base = first or 0
    share = take_rows(mine, start - base, stop - base)
    # What species share is one tensor here, too.
    distinct = {id(array): (key, array) for arrays in share.values() for key, array in plain(arrays).items()}
    tensors = {place: widened(key, _tensor(array).to(device)) for place, (key, array) in distinct.items()}
    return {name: mapped(arrays, lambda array: tensors[id(array)]) for name, arrays in share.items()}


def minibatches(
    worlds: int, count: int, size: int, block: int, order: np.random.Generator, device: torch.device | str
) -> Iterator[Tensor | None]:
    """Rows of each of the `count` minibatches of one epoch, in random order; None for all at once.

    Args:
        size: worlds wanted in each.
        block: worlds that are balanced over the members; they stay together where that fits.
    """
    if count == 0:
        return
    if count == 1:
        yield None
        return
    # Whole blocks keep every minibatch balanced over the members, with no padding.
    block = block if size % block == 0 and worlds % block == 0 else 1
    blocks = order.permutation(worlds // block)
    rows = (blocks[:, None] * block + np.arange(block)).reshape(-1)
    for part in np.array_split(rows.reshape(-1, block), count):
        yield torch.from_numpy(part.reshape(-1)).to(device)


def select(arrays: Arrays, rows: Tensor | None) -> Arrays:
    """Those worlds alone; None: all of them. rows: [M] int64."""
    if rows is None:
        return arrays
    return {name: mapped(a, lambda values: values.index_select(0, rows)) for name, a in arrays.items()}


def _tensor(array: np.ndarray) -> Tensor:
    """The array's memory as a tensor; arrays out of the object store are read-only, and are only read here."""
    if not array.flags.writeable:
        array = array.copy()
    return torch.from_numpy(array)
