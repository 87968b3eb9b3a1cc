"""Seating: which member of the population sits on which seat of which world, and the way between the two orders.

Worlds keep tensors in world order, [B, N, ...]; networks see them member-major, [P, R, ...], so that each member's
weights meet R rows in one batched product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from popcomm.errors import UserError

SEATINGS = ("shuffled", "fixed", "communities")


@dataclass(frozen=True)
class SeatingRule:
    """How members come to their seats.

    "shuffled" draws them anew when episodes start. "fixed" puts member (b N + n) mod P on seat n of world b: with
    P = N, agent n is member n. "communities" draws too, but keeps G groups apart: world b belongs to community b mod G,
    member p to community p G // P, and a member sits in a world of its own community, except on a share of the seats.
    """

    how: str = "shuffled"  # one of SEATINGS
    communities: int = 1  # G; 1 unless `how` is "communities"
    mixing: float = 0.0  # the share of seats, 0 to 1, that are filled without regard to community


SHUFFLED = SeatingRule()


def block_of_worlds(members: int, num_seats: int, communities: int = 1) -> int:
    """The fewest worlds whose seats hold every member equally often, in every community: lcm(P / G, N) / N times G."""
    each = members // communities
    return each // math.gcd(each, num_seats) * communities


def check_balance(key: str, num_worlds: int, num_seats: int, members: int, communities: int = 1) -> None:
    """Raises UserError unless B worlds of N seats can hold each of P members equally often, in every community."""
    block = block_of_worlds(members, num_seats, communities)
    if num_worlds % block:
        below, above = num_worlds // block * block, -(-num_worlds // block) * block
        near = f"{below} or {above}" if below else f"{above}"
        groups = f" in {communities} communities" if communities > 1 else ""
        raise UserError(
            f"{key} is {num_worlds}: {num_worlds} worlds of {num_seats} seats cannot seat {members} members evenly"
            f"{groups}; the nearest that can: {near}"
        )


def draw(rng: Generator, num_worlds: int, num_seats: int, members: int, rule: SeatingRule = SHUFFLED) -> np.ndarray:
    """Seat all worlds anew: [B, N] int64 members, each equally often.

    Seats are filled with one random permutation of the members (of the world's community) after another, so that a
    world has distinct members where there are enough, and consecutive blocks of worlds are balanced by themselves.
    Where communities mix, every seat is chosen with probability `mixing`, and the chosen seats of all worlds exchange
    their members by a random permutation: the whole stays exactly balanced, a block only nearly. At mixing 1 a seat is
    as likely to hold any member as any other, as if shuffled.

    Args:
        num_worlds: B, as `check_balance` wants it.
        num_seats: N.
        members: P, a multiple of the communities.
    """
    if rule.how == "fixed" or members == 1:
        return (np.arange(num_worlds * num_seats) % members).reshape(num_worlds, num_seats)
    groups = rule.communities
    size, worlds = members // groups, num_worlds // groups
    rounds = -(-worlds * num_seats // size)
    permutations = rng.random((groups, rounds, size)).argsort(axis=2) + np.arange(groups)[:, None, None] * size
    by_group = permutations.reshape(groups, -1)[:, : worlds * num_seats].reshape(groups, worlds, num_seats)
    seats: np.ndarray = by_group.swapaxes(0, 1).reshape(-1).astype(np.int64)
    if rule.mixing:
        chosen = np.flatnonzero(rng.random(seats.size) < rule.mixing)
        seats[chosen] = seats[rng.permutation(chosen)]
    return seats.reshape(num_worlds, num_seats)


def redraw(
    rng: Generator, seats: np.ndarray, members: int, worlds: np.ndarray, rule: SeatingRule = SHUFFLED
) -> np.ndarray:
    """Seat those worlds anew that start an episode.

    When all start at once the seating is exactly balanced. When only some do, a member may hold one seat more than its
    share: with no slack at all, the worlds that start would get back just the members that they gave up, and members
    would never meet others. A seat that is chosen for mixing (with probability `mixing`) takes any member with room.

    Args:
        seats: [B, N] int64, the present seating.
        members: P.
        worlds: [B] bool, which worlds start.
    """
    if rule.how == "fixed" or members == 1 or not worlds.any():
        return seats
    num_worlds, num_seats = seats.shape
    if worlds.all():
        return draw(rng, num_worlds, num_seats, members, rule)
    kept = np.bincount(seats[~worlds].reshape(-1), minlength=members)
    capacity = -(-num_worlds * num_seats // members) + 1
    tickets = rng.permutation(np.repeat(np.arange(members), np.maximum(capacity - kept, 0)))
    seats = seats.copy()
    opened = int(worlds.sum()) * num_seats
    if rule.communities > 1:
        tickets = _by_community(rng, tickets, members, np.flatnonzero(worlds).repeat(num_seats), rule)
    seats[worlds] = tickets[:opened].reshape(-1, num_seats)
    return seats


def _by_community(
    rng: Generator, tickets: np.ndarray, members: int, world: np.ndarray, rule: SeatingRule
) -> np.ndarray:
    """Tickets (members in random order) dealt to free seats: each takes the next of its community, or any if it mixes.

    Where earlier exchanges have left a community no more tickets, its seat takes any, too.

    Args:
        tickets: [K] int64, at least as many as seats.
        world: [F] int64, the world of each free seat.

    Returns:
        [F] int64, the member on each free seat.
    """
    groups = rule.communities
    # Seats that mix queue apart, where no ticket is.
    home = np.where(rng.random(len(world)) < rule.mixing, groups, world % groups)
    community = tickets * groups // members
    sorted_tickets = tickets[community.argsort(kind="stable")]
    there = np.append(np.bincount(community, minlength=groups), 0)
    first = there.cumsum() - there
    order = home.argsort(kind="stable")
    wanted = np.bincount(home, minlength=groups + 1)
    turn = np.arange(len(home)) - np.repeat(wanted.cumsum() - wanted, wanted)
    served = turn < there[home[order]]
    taken = first[home[order]][served] + turn[served]
    dealt = np.empty(len(home), np.int64)
    dealt[order[served]] = sorted_tickets[taken]
    rest = rng.permutation(np.delete(sorted_tickets, taken))
    dealt[order[~served]] = rest[: int((~served).sum())]
    return dealt


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
