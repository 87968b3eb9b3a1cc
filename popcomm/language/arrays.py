"""Messages and meanings as arrays: the one place that says what they may be, and how far two messages are apart.

Messages are [M, L] integers, 0 and above; -1 stands for what was not sent, where a message is shorter. Symbols may also
come as [M] (messages of one symbol) or as M sequences of different lengths. With `end_symbol`, a message ends before
the first one: neither it nor what stands behind it was said. Without it every symbol counts, 0 like any other.
Meanings are [M, A], A attributes, or [M] for one of them; what their values are does not matter, only which are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcomm.errors import UserError

Array = NDArray[Any]
Messages = ArrayLike | Sequence[Sequence[int]]

NOT_SENT = -1
PAIRS_AT_ONCE = 1 << 18  # whose distances fit into a processor's cache


def as_messages(messages: Messages, end_symbol: int | None = None) -> Array:
    """Messages -> [M, L] int64, cut at the end symbol, -1 behind.

    Raises:
        UserError: no messages, symbols that are no integers of 0 and above, or -1 within a message.

    >>> as_messages([[3, 0, 5], [4]], end_symbol=0).tolist()
    [[3], [4]]
    """
    array = _rectangle(messages)
    if array.size and not _whole(array):
        raise UserError(f"symbols must be integers, and these messages hold {_kind(array)}")
    array = array.astype(np.int64)
    if array.size and array.min() < NOT_SENT:
        raise UserError(f"symbols must be 0 or above (-1 for what was not sent), and one is {array.min()}")
    if end_symbol is not None:
        array = np.where(np.logical_or.accumulate(array == end_symbol, 1), NOT_SENT, array)
    sent = array >= 0
    if (sent[:, 1:] > sent[:, :-1]).any():
        raise UserError("-1 stands for what was not sent, and must not stand before a symbol of a message")
    return array[:, : max(1, int(sent.sum(1).max(initial=0)))]


def as_meanings(meanings: ArrayLike) -> Array:
    """Meanings -> [M, A] int64, the values of each attribute numbered 0, 1, ... in their order.

    Raises:
        UserError: no meanings, none with an attribute, or one that is nan.
    """
    try:
        array = np.asarray(meanings)
    except ValueError as error:
        raise UserError("meanings must have as many attributes each, and these differ in length") from error
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.size:
        raise UserError(f"meanings must be [M] or [M, attributes] with M > 0, and their shape is {array.shape}")
    _check_known(array)
    return np.stack([np.unique(column, return_inverse=True)[1] for column in array.T], 1).astype(np.int64)


def pairs(meanings: ArrayLike, messages: Messages, end_symbol: int | None = None) -> tuple[Array, Array]:
    """Both as arrays [M, A] and [M, L].

    Raises:
        UserError: not as many of one as of the other, or as `as_messages` and `as_meanings` do.
    """
    said, meant = as_messages(messages, end_symbol), as_meanings(meanings)
    if len(said) != len(meant):
        raise UserError(f"there are {len(meant)} meanings and {len(said)} messages, and each message has one meaning")
    return meant, said


def as_classes(values: ArrayLike) -> Array:
    """[M] or [M, k] -> [M] int64: equal rows have equal numbers, 0, 1, ... in their order.

    >>> as_classes([[1, 2], [0, 9], [1, 2]]).tolist()
    [1, 0, 1]

    Raises:
        UserError: one is nan.
    """
    array = np.asarray(values)
    _check_known(array)
    code = np.zeros(len(array), np.int64)
    # Column by column, which is several times faster than to sort whole rows.
    for column in array.reshape(len(array), -1).T:
        dense = np.unique(column, return_inverse=True)[1]
        code = np.unique(code * (dense.max(initial=0) + 1) + dense, return_inverse=True)[1]
    return code


def _check_known(values: Array) -> None:
    """Raises UserError for nan, which numpy would take for one class like any other."""
    unknown = np.isnan(values).sum() if np.issubdtype(values.dtype, np.floating) else 0
    if unknown:
        raise UserError(f"{unknown} of the meanings or labels are nan, which is none; leave out their rows")


def lengths(messages: Array) -> Array:
    """Symbols of each message: [M, L] -> [M]."""
    return (messages >= 0).sum(1)


def sample(size: int, cap: int, seed: int) -> Array:
    """At most `cap` rows of `size`, in their order."""
    if size <= cap:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).choice(size, cap, replace=False))


def edit_distances(messages: Array, first: Array, second: Array) -> Array:
    """Levenshtein distances of pairs: messages [M, L], rows first and second [P] -> [P] int64.

    The dynamic programme of Wagner & Fischer (1974), all pairs of a block at once.

    >>> edit_distances(np.array([[1, 2, 3], [2, 3, -1]]), np.array([0]), np.array([1])).tolist()
    [1]
    """
    size, found = lengths(messages), np.empty(len(first), np.int64)
    columns = np.ascontiguousarray(messages.T)
    if columns.max(initial=0) < np.iinfo(np.int16).max:
        columns = columns.astype(np.int16)
    for start in range(0, len(first), PAIRS_AT_ONCE):
        at = slice(start, start + PAIRS_AT_ONCE)
        one, other = first[at], second[at]
        found[at] = _edits(columns[:, one], columns[:, other], size[one], size[other])
    return found


def _edits(one: Array, other: Array, size: Array, other_size: Array) -> Array:
    """[L, P], [L, P] and their lengths [P] -> [P]."""
    length, number = one.shape
    small = np.int8 if length < 100 else np.int32
    row = np.repeat(np.arange(length + 1, dtype=small)[:, None], number, 1)
    found = other_size.astype(np.int64)  # where the first of the two is empty
    for i in range(length):
        above, row = row, np.empty_like(row)
        row[0] = i + 1
        for j in range(length):
            cheaper = np.minimum(above[j + 1], row[j])
            cheaper += 1
            np.minimum(cheaper, above[j] + (one[i] != other[j]), out=row[j + 1])
        ends = np.flatnonzero(size == i + 1)
        found[ends] = row[other_size[ends], ends]
    return found


def _rectangle(messages: Messages) -> Array:
    """[M, L] of any of the forms, -1 where a sequence is shorter."""
    if not isinstance(messages, np.ndarray):
        rows: list[Any] = list(messages)  # type: ignore[arg-type]
        if rows and all(np.ndim(row) == 1 for row in rows) and len({len(row) for row in rows}) > 1:
            whole = np.full((len(rows), max(map(len, rows))), NOT_SENT)
            for row, filled in zip(rows, whole, strict=True):
                filled[: len(row)] = row
            return whole
        messages = np.asarray(rows)
    if messages.ndim == 1 and len(messages):
        messages = messages[:, None]
    if messages.ndim != 2 or not len(messages):
        raise UserError(f"messages must be [M] or [M, length] with M > 0, and their shape is {messages.shape}")
    return messages if messages.shape[1] else np.full((len(messages), 1), NOT_SENT)


def _whole(array: Array) -> bool:
    if np.issubdtype(array.dtype, np.integer):
        return True
    return np.issubdtype(array.dtype, np.floating) and bool(
        (array == np.floor(array)).all() and np.isfinite(array).all()
    )


def _kind(array: Array) -> str:
    return "numbers with fractions" if np.issubdtype(array.dtype, np.number) else f"{array.dtype.name} values"
