"""Rows that are time series: which follow which, and controls in which messages stay as long as they do.

A stream is what one sender says in an episode. Arrays of rows are [M].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEAST_SWAPS = 8  # that are tried in each block between two controls


def dense(values: Array) -> Array:
    """The same classes numbered 0, 1, ..., so that codes of pairs stay small."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape)


def whole_streams(streams: Array, cap: int, rng: np.random.Generator) -> Array:
    """[M] bool, rows of streams that are drawn until they hold that many rows; one stream at least."""
    names, stream = np.unique(streams, return_inverse=True)
    # A random rank for each stream; rows of the lowest ranks are kept until the cap is reached.
    rank = rng.permutation(len(names))
    full = np.cumsum(np.bincount(rank[stream], minlength=len(names)))
    return full[rank[stream]] <= max(cap, full[0])


def followers(streams: Array, steps: Array, lag: int) -> tuple[Array, Array]:
    """(order [M] by stream and step, first [Q]): the rows order[first] and order[first + lag] are lag steps apart."""
    if lag < 1:
        raise ValueError(f"lag is {lag}, and must be at least 1")
    order = np.lexsort((steps, streams))
    s, t = streams[order], steps[order]
    return order, np.flatnonzero((s[:-lag] == s[lag:]) & (t[lag:] - t[:-lag] == lag))


class Stays(NamedTuple):
    """Steps in which a sender goes on saying the same message on the same label; R of them, in the order of time."""

    of: Array  # [M], the stay that each row is in
    first: Array  # [R], the first row of each
    block: Array  # [R], the label of a stream that it is on
    code: Array  # [R], a number for its message
    tied: Array  # [R] bool, whether the one before it is on the same label right before, so that their messages differ


def joined(blocks: Array, steps: Array) -> Array:
    """[M - 1] bool, whether a row is followed by the next step on the same label of its stream."""
    return (blocks[1:] == blocks[:-1]) & (steps[1:] == steps[:-1] + 1)


def stays(messages: Array, blocks: Array, steps: Array) -> Stays:
    """The stays of rows in the order of stream and step.

    Args:
        messages: [L, M].
        blocks: [M], one number for each label of a stream.
        steps: [M].
    """
    follows = joined(blocks, steps)
    begins = np.concatenate([[True], ~(follows & (messages[:, 1:] == messages[:, :-1]).all(0))])
    first = np.flatnonzero(begins)
    code = np.unique(messages[:, first], axis=1, return_inverse=True)[1].reshape(-1)
    return Stays(np.cumsum(begins) - 1, first, blocks[first], code, np.concatenate([[False], follows])[first])


def rearranged(found: Stays, rng: np.random.Generator, times: int) -> Iterator[Array]:
    """Controls in which the messages of a label's stays change places: rows [M] to take the messages from.

    Stays keep their places and lengths, and of two that follow each other on one label the messages stay different, or
    they would be one. Where there is no order all arrangements like that are as likely as the data, so they are walked
    through at random, two messages swapped at a time where that is allowed (Metropolis). The walk goes both ways from
    the data, which makes a p-value exact (Besag & Clifford 1989, the serial method).
    """
    order = np.argsort(found.block, kind="stable")
    sizes = np.unique(found.block, return_counts=True)[1]
    starts, sizes = (np.cumsum(sizes) - sizes)[sizes > 1], sizes[sizes > 1]
    swaps, ahead = max(LEAST_SWAPS, int(sizes.max(initial=0))), int(rng.integers(times + 1))
    for count in (ahead, times - ahead):
        message = np.arange(len(found.code))
        for _ in range(count):
            for _ in range(swaps if len(sizes) else 0):
                _swap(message, found, order, starts, sizes, rng)
            yield found.first[message[found.of]]


def _swap(message: Array, found: Stays, order: Array, starts: Array, sizes: Array, rng: np.random.Generator) -> None:
    """Let two stays of every block change messages, in place, but where two that follow each other became the same."""
    one = rng.integers(sizes)
    other = (one + rng.integers(1, sizes)) % sizes
    pair = order[starts + np.stack([one, other])]  # [2, blocks]
    message[pair] = message[pair[::-1]]
    code = np.append(found.code[message], -1)
    after = np.append(found.tied, False)[pair + 1] & (code[pair] == code[pair + 1])
    before = found.tied[pair] & (code[pair] == code[pair - 1])
    wrong = pair[:, (after | before).any(0)]
    message[wrong] = message[wrong[::-1]]
