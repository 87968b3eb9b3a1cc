"""Dealing members to seats: arrays in, arrays out, everything random from the generator that is given.

No function here prefers one member to another but by the number of seats that it holds, so that over many deals every
member meets every other equally often.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

EXCHANGES = 4  # rounds; after one, a seat may hold what any other held; more make seats independent of one another


def balanced_rows(rng: Generator, tables: int, rows: int, width: int, members: int) -> np.ndarray:
    """Rows that hold every member floor or ceil of width / members times: [tables, rows, width] int64.

    Every member is as often in lcm(members, width) / width consecutive rows from the first as any other.
    """
    whole, rest = divmod(width, members)
    full = np.broadcast_to(np.tile(np.arange(members), whole), (tables, rows, whole * members))
    if not rest:
        return rng.permuted(full, axis=2)
    block = members // math.gcd(members, rest)
    blocks = -(-rows // block)
    some = _chain(rng, tables * blocks, min(rows, block), rest, members)
    some = some.reshape(tables, -1, rest)[:, :rows]
    return rng.permuted(np.concatenate([full, some], 2), axis=2) if whole else some


def _chain(rng: Generator, chains: int, rows: int, width: int, members: int) -> np.ndarray:
    """Random permutations of the members, one after another, cut into rows of width < members: no member twice in any.

    A row that straddles two permutations begins with the tail of one; the other begins with members that are not in
    the tail, and is random otherwise. All chains are made together; the loop is over their permutations.

    Returns:
        [chains, rows, width] int64.
    """
    links = [rng.random((chains, members)).argsort(1)]
    for link in range(1, -(-rows * width // members)):
        tail = link * members % width
        head = -tail % width
        keys = rng.random((chains, members))
        keys[:, members - tail :] += 1
        order = keys.argsort(1)
        order[:, head:] = rng.permuted(order[:, head:], axis=1)
        links.append(np.take_along_axis(links[-1], order, 1))
    return np.concatenate(links, 1)[:, : rows * width].reshape(chains, rows, width)


def quota(
    rng: Generator, held: np.ndarray, least: np.ndarray, most: np.ndarray, count: int, between: tuple[int, int]
) -> np.ndarray:
    """How many of `count` free seats each member gets: [P] int64, as random as what follows allows.

    First comes the least that each must get, then the seats of those who hold too few, the fewest first. For the rest,
    members are drawn as likely as they have room. Only when nobody has room does anyone get too many.

    Args:
        held: [P] int64, the seats that members hold without these.
        least: [P] int64, at most `most`.
        most: [P] int64, together at least `count`.
        between: how many seats a member should hold in the end.
    """
    low, high = between
    depth = int(most.max(initial=0))
    if not count or not depth:
        return np.zeros_like(held)
    # Each member has a ticket for every seat that it may get; those that lead far above `high` are seldom wanted.
    enough = min(depth, max(int(least.max()), high + 1 - int(held.min())))
    if np.minimum(most, enough).sum() >= count:
        depth = enough
    ticket = np.arange(1, depth + 1)
    level = held[:, None] + ticket
    key = np.minimum(level - low - 1, 0) + np.maximum(level - high, 0) + rng.random(level.shape)
    key[ticket <= least[:, None]] -= 1e6  # before all others, and still in random order
    key[ticket > most[:, None]] = np.inf
    chosen = key.ravel().argpartition(count - 1)[:count]
    return np.bincount(chosen // depth, minlength=len(held))


def deal(rng: Generator, copies: np.ndarray, rows: int) -> np.ndarray:
    """Rows of equal width with so many copies of each member, spread evenly: [rows, sum of copies / rows] int64.

    A member of c copies is in a row floor or ceil of c / rows times. The first layout lays the copies of each member on
    consecutive rows; the rows then trade (`_trade`) until it is forgotten.
    """
    members = len(copies)
    order = rng.permutation(members)
    member = np.repeat(order, copies[order])
    first = np.repeat(copies[order].cumsum() - copies[order], copies[order])
    # The second copy of a member in a row counts as somebody else, so that rows can trade second copies, too.
    label = member + (np.arange(len(member)) - first) // rows * members
    table = rng.permutation(label.reshape(-1, rows).T)
    if table.shape[1] > 1 and (copies % rows).any():
        for _ in range(_trades(rows)):
            _trade(rng, table)
    return rng.permuted(table % members, axis=1)


def _trades(rows: int) -> int:
    """Rounds after which pairs of members share rows as after many more; of two rows, one draws exactly."""
    return 1 if rows < 3 else (rows - 1).bit_length() + 2


def _trade(rng: Generator, table: np.ndarray) -> None:
    """Pairs of rows pool what one of them has and the other has not, and share it out anew, in place.

    Rows stay distinct, and every label stays as frequent. Repeated, this draws uniformly from all such tables (the
    curveball algorithm: Strona et al., Nature Communications 5:4114, 2014; Carstens, Physical Review E 91, 2015).

    Args:
        table: [rows, width] int64, distinct in each row.
    """
    rows, width = table.shape
    pairs = rng.permutation(rows)[: rows // 2 * 2].reshape(-1, 2)
    pool = table[pairs].reshape(-1, 2 * width)
    by_label = pool.argsort(1)
    equal = np.diff(np.take_along_axis(pool, by_label, 1), axis=1) == 0
    shared = np.zeros(pool.shape, bool)
    np.put_along_axis(shared, by_label, np.pad(equal, ((0, 0), (1, 0))) | np.pad(equal, ((0, 0), (0, 1))), 1)
    place = np.arange(2 * width) / (2 * width)
    to = (shared + place).argsort(1)
    source = (shared + np.where(shared, place, rng.random(pool.shape))).argsort(1)
    np.put_along_axis(pool, to, np.take_along_axis(pool, source, 1), 1)
    table[pairs] = pool.reshape(-1, 2, width)


def exchange(rng: Generator, rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen places exchange what they hold, so that none comes to hold what another place of its row holds.

    In each round the places are paired at random and swap; swaps that bring a member into a row that has it are undone.
    Without such, a place ends up with what any of the K places held, itself among them, with probability 1 / K.

    Args:
        rows: [R, width] int64.
        chosen: [R, width] bool.

    Returns:
        [R, width] int64.
    """
    places = np.flatnonzero(chosen)
    count = len(places)
    row = np.arange(rows.size) // rows.shape[1] * (int(rows.max(initial=0)) + 1)
    held = rows.reshape(-1).copy()
    for _ in range(EXCHANGES):
        pairs = rng.permutation(places)[: count // 2 * 2].reshape(2, -1)
        if count % 2 == 0:
            pairs = pairs[:, rng.random(count // 2) * count >= 1]
        held[pairs] = held[pairs[::-1]]
        while pairs.size:
            _, kind, often = np.unique(row + held, return_inverse=True, return_counts=True)
            wrong = (often[kind[pairs]] > 1).any(0)
            if not wrong.any():
                break
            undone, pairs = pairs[:, wrong], pairs[:, ~wrong]
            held[undone] = held[undone[::-1]]
    return held.reshape(rows.shape)
