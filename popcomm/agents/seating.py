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

from popcomm.agents.dealing import balanced_rows, deal, exchange, quota
from popcomm.errors import UserError

SEATINGS = ("shuffled", "fixed", "communities", "worlds")


@dataclass(frozen=True)
class SeatingRule:
    """How members come to their seats.

    "shuffled" draws them anew when episodes start, never twice in one world where there are enough. "fixed" puts
    member (b N + n) mod P on seat n of world b: with P = N, agent n is member n. "communities" draws too, but keeps G
    groups apart: world b belongs to community b mod G, member p to community p G // P, and a member sits in a world of
    its own community, except on a share of the seats. "worlds" draws one member for all seats of a world.
    """

    how: str = "shuffled"  # one of SEATINGS
    communities: int = 1  # G; 1 unless `how` is "communities"
    mixing: float = 0.0  # the share of seats, 0 to 1, that are filled without regard to community

    def block(self, members: int, num_seats: int) -> int:
        """The fewest worlds whose seats hold every member equally often, in every community."""
        return block_of_worlds(members, 1 if self.how == "worlds" else num_seats, self.communities)


SHUFFLED = SeatingRule()


def block_of_worlds(members: int, num_seats: int, communities: int = 1) -> int:
    """The fewest worlds whose seats hold every member equally often, in every community: lcm(P / G, N) / N times G."""
    each = members // communities
    return each // math.gcd(each, num_seats) * communities


def check_balance(
    key: str, num_worlds: int, num_seats: int, members: int, communities: int = 1, how: str = "shuffled"
) -> None:
    """Raises UserError unless B worlds of N seats can hold each of P members equally often, in every community."""
    block = SeatingRule(how, communities).block(members, num_seats)
    if num_worlds % block:
        below, above = num_worlds // block * block, -(-num_worlds // block) * block
        near = f"{below} or {above}" if below else f"{above}"
        groups = f" in {communities} communities" if communities > 1 else ""
        worlds = (
            f"{num_worlds} worlds, each of one member,"
            if how == "worlds"
            else f"{num_worlds} worlds of {num_seats} seats"
        )
        raise UserError(
            f"{key} is {num_worlds}: {worlds} cannot seat {members} members evenly{groups}; the nearest that can: "
            f"{near}"
        )


def draw(rng: Generator, num_worlds: int, num_seats: int, members: int, rule: SeatingRule = SHUFFLED) -> np.ndarray:
    """Seat all worlds anew: [B, N] int64 members, each equally often.

    No member sits twice in a world where its community has N members or more; where it has fewer, each sits there
    floor or ceil of N / (P / G) times. Consecutive blocks of worlds (`block_of_worlds`) are balanced by themselves. Any
    two members meet as often as any other two of a community, in the long run.

    Where communities mix, every seat is chosen with probability `mixing`, and the chosen seats of all worlds exchange
    their members at random, but not so that one comes into a world where it sits already: the whole stays exactly
    balanced, a block only nearly. At mixing 1 all members are as one community.

    Args:
        num_worlds: B, as `check_balance` wants it; else members have equally many seats but for what B lacks.
        num_seats: N.
        members: P, a multiple of the communities.
    """
    if rule.how == "fixed" or members == 1:
        return (np.arange(num_worlds * num_seats) % members).reshape(num_worlds, num_seats)
    if rule.how == "worlds":  # as if each had one seat
        return np.tile(draw(rng, num_worlds, 1, members), num_seats)
    groups = _groups(rule)
    size = members // groups
    rows = balanced_rows(rng, groups, -(-num_worlds // groups), num_seats, size)
    rows += np.arange(groups)[:, None, None] * size
    seats = np.ascontiguousarray(rows.swapaxes(0, 1)).reshape(-1, num_seats)[:num_worlds]
    if groups > 1 and rule.mixing:
        seats = exchange(rng, seats, rng.random(seats.shape) < rule.mixing)
    return seats


def _groups(rule: SeatingRule) -> int:
    """The communities that are kept apart at all."""
    return 1 if rule.mixing == 1 else rule.communities


def redraw(
    rng: Generator, seats: np.ndarray, members: int, worlds: np.ndarray, rule: SeatingRule = SHUFFLED
) -> np.ndarray:
    """Seat those worlds anew that start an episode.

    In the worlds that start no member sits twice, just as in `draw`. When all start at once the seating is exactly
    balanced. When only some do, a member may hold one seat more or less than its share: with no slack at all, the
    worlds that start would get back just the members that they gave up, and members would never meet others. Who would
    hold still fewer gets a seat first; else the more room a member has, the likelier it is to get one.

    A seat that is chosen for mixing (with probability `mixing`) takes any member with room; so does one whose community
    has none left, after earlier exchanges. Members who sit elsewhere may then leave a community with fewer.

    Args:
        seats: [B, N] int64, the present seating.
        members: P.
        worlds: [B] bool, which worlds start.
    """
    if rule.how == "fixed" or members == 1 or not worlds.any():
        return seats
    num_worlds, num_seats = seats.shape
    if rule.how == "worlds":
        return np.tile(redraw(rng, seats[:, :1], members, worlds), num_seats)
    if worlds.all():
        return draw(rng, num_worlds, num_seats, members, rule)
    groups = _groups(rule)
    starts = [np.flatnonzero(worlds[group::groups]) * groups + group for group in range(groups)]
    held = np.bincount(seats[~worlds].reshape(-1), minlength=members)
    share = num_worlds * num_seats // members, -(-num_worlds * num_seats // members)
    opened = np.array([len(some) for some in starts])
    mixed = np.asarray(rng.binomial(opened * num_seats, rule.mixing if groups > 1 else 0.0))
    copies = _copies(rng, held, opened, num_seats, mixed, (share[0] - 1, share[1] + 1))
    seats = seats.copy()
    for some, dealt in zip(starts, copies, strict=True):
        if len(some):
            seats[some] = deal(rng, dealt, len(some))
    return seats


def _copies(
    rng: Generator, held: np.ndarray, opened: np.ndarray, num_seats: int, mixed: np.ndarray, between: tuple[int, int]
) -> np.ndarray:
    """How many seats of the worlds of each community each member gets: [G, P] int64, rows sum to N times the worlds.

    At most one seat in each world, or floor or ceil of N / (P / G) where the community has fewer members than seats.

    Args:
        held: [P] int64, seats in the worlds that go on.
        opened: [G] int64, the worlds that start.
        mixed: [G] int64, how many of their seats take any member.
        between: how many seats a member should hold.
    """
    groups, members = len(opened), len(held)
    size = members // groups
    copies = np.zeros((groups, members), np.int64)
    for group in np.flatnonzero(opened):
        own, worlds = slice(group * size, (group + 1) * size), int(opened[group])
        # Nobody twice in a world where there are enough; as evenly as may be where there are not.
        fewest, most = worlds * (num_seats // size), worlds * -(-num_seats // size)
        room = np.clip(between[1] - held[own], 0, most)
        count = min(worlds * num_seats - int(mixed[group]), int(room.sum()))
        copies[group, own] = quota(rng, held[own], np.minimum(fewest, room), room, count, between)
    held = held + copies.sum(0)
    for group in rng.permutation(np.flatnonzero(opened * num_seats > copies.sum(1))):
        limit = np.full(members, opened[group] * -(-num_seats // members))
        limit[group * size : (group + 1) * size] = opened[group] * -(-num_seats // size)
        count = int(opened[group] * num_seats - copies[group].sum())
        added = quota(rng, held, np.zeros_like(held), limit - copies[group], count, between)
        copies[group] += added
        held = held + added
    return copies


class Seating:
    """The permutation between world order and member-major order for one seating.

    Args:
        seats: [B, N] int64, the member on each seat.
        members: P.

    Attributes:
        seats: [B, N] int64, as given.
        index: [P, R] int64, flat seat b N + n of every row; padding rows point at seat 0.
        valid: [P, R] bool, False on padding rows; None when the seating is balanced and there are none.
    """

    def __init__(self, seats: Tensor, members: int) -> None:
        self.num_worlds, self.num_seats = seats.shape
        self.seats, self.members = seats, members
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
