"""Seating: which member of the population sits on which seat of which world, and the way between the two orders.

Worlds keep tensors in world order, [B, N, ...]; networks see them member-major, [P, R, ...], so that each member's
weights meet R rows in one batched product.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from popcomm.errors import UserError

SEATINGS = ("shuffled", "fixed")


def block_of_worlds(members: int, num_seats: int) -> int:
    """The fewest worlds whose seats hold every member equally often: lcm(P, N) / N."""
    return members // math.gcd(members, num_seats)


def check_balance(key: str, num_worlds: int, num_seats: int, members: int) -> None:
    """Raises UserError unless B worlds of N seats can hold each of P members equally often."""
    block = block_of_worlds(members, num_seats)
    if num_worlds % block:
        below, above = num_worlds // block * block, -(-num_worlds // block) * block
        near = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"{key} is {num_worlds}: {num_worlds} worlds of {num_seats} seats cannot seat {members} members evenly; "
            f"the nearest that can: {near}"
        )


def draw(rng: Generator, num_worlds: int, num_seats: int, members: int, how: str = "shuffled") -> np.ndarray:
    """Seat all worlds anew: [B, N] int64 members, each equally often.

    "shuffled" fills the seats with one random permutation of the members after another, so that a world has distinct
    members where there are enough, and consecutive blocks of worlds are balanced by themselves. "fixed" puts member
    (b N + n) mod P on seat n of world b: with P = N, agent n is member n.
    """
    total = num_worlds * num_seats
    if how == "fixed" or members == 1:
        return (np.arange(total) % members).reshape(num_worlds, num_seats)
    rounds = -(-total // members)
    permutations = rng.random((rounds, members)).argsort(axis=1)
    return permutations.reshape(-1)[:total].reshape(num_worlds, num_seats).astype(np.int64)


def redraw(rng: Generator, seats: np.ndarray, members: int, worlds: np.ndarray, how: str = "shuffled") -> np.ndarray:
    """Seat those worlds anew that start an episode.

    When all start at once the seating is exactly balanced. When only some do, a member may hold one seat more than its
    share: with no slack at all, the worlds that start would get back just the members that they gave up, and members
    would never meet others.

    Args:
        seats: [B, N] int64, the present seating.
        worlds: [B] bool, which worlds start.
    """
    if how == "fixed" or members == 1 or not worlds.any():
        return seats
    num_worlds, num_seats = seats.shape
    if worlds.all():
        return draw(rng, num_worlds, num_seats, members, how)
    kept = np.bincount(seats[~worlds].reshape(-1), minlength=members)
    capacity = -(-num_worlds * num_seats // members) + 1
    tickets = np.repeat(np.arange(members), np.maximum(capacity - kept, 0))
    seats = seats.copy()
    seats[worlds] = rng.permutation(tickets)[: worlds.sum() * num_seats].reshape(-1, num_seats)
    return seats


class Seating:
    """The permutation between world order and member-major order for one seating.

    Args:
        seats: [B, N] int64, the member on each seat.
        members: P.

    Attributes:
        index: [P, R] int64, flat seat b N + n of every row; padding rows point at seat 0.
        valid: [P, R] bool, False on padding rows; None when the seating is balanced and there are none.
    """

    def __init__(self, seats: Tensor, members: int) -> None:
        self.num_worlds, self.num_seats = seats.shape
        self.members = members
        self.valid: Tensor | None = None
        total = seats.numel()
        if members == 1:
            self.rows = total
            return
        flat = seats.reshape(-1)
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=members)
        self.rows = int(counts.max())
        place = torch.arange(total, device=seats.device)
        if self.rows * members == total:
            self.index = order.view(members, self.rows)
            slots = place
        else:
            ahead = counts.cumsum(0) - counts
            member = flat[order]
            slots = member * self.rows + place - ahead[member]
            self.index = order.new_zeros(members * self.rows).scatter_(0, slots, order).view(members, self.rows)
            valid = torch.zeros(members * self.rows, dtype=torch.bool, device=seats.device)
            self.valid = valid.scatter_(0, slots, True).view(members, self.rows)
        self._slot = torch.empty_like(order).scatter_(0, order, slots)

    def to_members(self, values: Tensor) -> Tensor:
        """[B, N, ...] -> [P, R, ...]; padding rows repeat seat 0."""
        rest = values.shape[2:]
        if self.members == 1:
            return values.reshape(1, self.rows, *rest)
        flat = values.reshape(self.num_worlds * self.num_seats, *rest)
        return flat.index_select(0, self.index.reshape(-1)).view(self.members, self.rows, *rest)

    def to_worlds(self, values: Tensor) -> Tensor:
        """[P, R, ...] -> [B, N, ...]."""
        rest = values.shape[2:]
        if self.members == 1:
            return values.reshape(self.num_worlds, self.num_seats, *rest)
        flat = values.reshape(self.members * self.rows, *rest)
        return flat.index_select(0, self._slot).view(self.num_worlds, self.num_seats, *rest)

    def row_mask(self, mask: Tensor) -> Tensor:
        """mask [B, N] bool -> [P, R] bool, False on padding rows."""
        rows = self.to_members(mask)
        return rows if self.valid is None else rows & self.valid
