"""Binary words as packed integers: counting bits, the gate, bits in and out, and numbering all words of a gate.

A bit string of n <= 64 bits is one integer: int32 for n <= 32, else int64. Bit i is worth 2**i and is element i of the
unpacked form; bit 31 of an int32 (63 of an int64) makes it negative. What takes arrays takes numpy's and torch's.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from popcomm.errors import UserError
from popcomm.theory.gate import word_count

Array = NDArray[Any]
Packed = TypeVar("Packed", Array, Tensor)

# Words made at once: what they need stays in the cache of most machines.
CHUNK = 2**15
# `uniform_words` draws r1 & r2 where at least this share of them is kept; below it, unranking is faster.
LEAST_KEPT = 0.05


def words_dtype(bits: int) -> torch.dtype:
    """Of packed words of so many bits."""
    return torch.int32 if bits <= 32 else torch.int64


def popcount(words: Packed) -> Packed:
    """How many bits are on: [...] int32 or int64 -> [...] uint8 (numpy) or the same dtype (torch, which has none)."""
    if isinstance(words, Tensor):
        return _swar(words)
    return np.bitwise_count(words.view(f"u{words.dtype.itemsize}"))


def _swar(words: Tensor) -> Tensor:
    """SIMD within a register (Warren, Hacker's Delight, 2nd ed., fig. 5-2); the masks undo the shifts' sign bits."""
    width = 8 * words.element_size()
    twos, fours, eights, ones = (int(digits * (width // 8), 16) for digits in ("55", "33", "0f", "01"))
    count = words - ((words >> 1) & twos)
    count = (count & fours) + ((count >> 2) & fours)
    count = (count + (count >> 4)) & eights
    return (count * ones >> (width - 8)) & 0x7F


def passes(words: Packed, min_on: int, max_on: int) -> Packed:
    """The gate: which bit strings are words. [...] -> [...] bool."""
    count = popcount(words)
    return (count >= min_on) & (count <= max_on)


def pack(bits: Packed) -> Packed:
    """Bits [..., n], 0 or 1 (or bool), n <= 64 -> packed words [...].

    >>> pack(np.array([[1, 0, 1, 1]]))
    array([13], dtype=int32)
    """
    n = bits.shape[-1]
    if isinstance(bits, Tensor):
        if bits.device.type == "cpu":  # 15 times faster than torch
            return torch.from_numpy(pack(bits.numpy()))
        worth = 1 << torch.arange(n, dtype=words_dtype(n), device=bits.device)
        return (bits * worth).sum(-1, dtype=worth.dtype)
    octets: Array = np.packbits(bits.astype(bool), axis=-1, bitorder="little")
    size = 4 if n <= 32 else 8
    room = np.zeros((*octets.shape[:-1], size), np.uint8)
    room[..., : octets.shape[-1]] = octets
    return room.view(f"<i{size}")[..., 0]


def unpack(words: Packed, n: int) -> Packed:
    """Packed words [...] -> bits [..., n] uint8, 0 or 1.

    >>> unpack(np.array([13], np.int32), 5)
    array([[1, 0, 1, 1, 0]], dtype=uint8)
    """
    if isinstance(words, Tensor):
        if words.device.type == "cpu":  # 20 times faster than torch
            return torch.from_numpy(unpack(words.numpy(), n))
        places = torch.arange(n, dtype=words.dtype, device=words.device)
        return ((words.unsqueeze(-1) >> places) & 1).to(torch.uint8)
    contiguous: Array = np.asarray(words, order="C")
    return np.unpackbits(contiguous[..., None].view(np.uint8), axis=-1, count=n, bitorder="little")


# ---- all words of a gate, numbered ----


def rank(words: Array, bits: int, min_on: int, max_on: int) -> Array:
    """The number of each word among all words of the gate: [...] -> [...] uint64, 0 ... |W| - 1.

    Words are ordered by how many bits are on, and among those with equally many by their value as unsigned numbers,
    which is the combinatorial number system (Lehmer; Knuth, TAOCP 4A, 7.2.1.3, eq. 20): the words with w on bits at
    places c_1 < ... < c_w come in the order of C(c_1, 1) + ... + C(c_w, w).

    Raises:
        UserError: something that is no word of the gate.
    """
    words = np.asarray(words, dtype=np.int32 if bits <= 32 else np.int64)
    unsigned = words.view(np.uint32 if bits <= 32 else np.uint64)
    count = popcount(words)
    wrong = (count < min_on) | (count > max_on) | (unsigned > np.uint64(2**bits - 1))
    if wrong.any():
        raise UserError(f"{int(words[wrong].flat[0])} is no word of {bits} bits with {min_on} to {max_on} of them on")
    worth, on = _octets()
    total, below = _starts(bits, min_on, max_on)[count.astype(np.intp) - min_on], np.zeros(words.shape, np.intp)
    for place in range(-(-bits // 8)):
        octet = ((unsigned >> np.array(8 * place, unsigned.dtype)) & np.array(255, unsigned.dtype)).astype(np.intp)
        total = total + worth[place, below, octet]
        below += on[octet]
    return total


def unrank(ranks: Array, bits: int, min_on: int, max_on: int) -> Array:
    """The words with these numbers (see `rank`): [...] integers below |W| -> [...] packed words.

    Raises:
        UserError: a number that is below 0, or not below |W|.
    """
    given, size = np.asarray(ranks), word_count(bits, min_on, max_on)
    if given.size and (given.min() < 0 or int(given.max()) >= size):
        worst = int(given.min()) if given.min() < 0 else int(given.max())
        raise UserError(f"{worst} is no number of a word; there are {size}, from 0")
    flat = given.astype(np.uint64).ravel()
    words = np.empty(flat.size, np.uint64)
    for start in range(0, flat.size, CHUNK):
        words[start : start + CHUNK] = _unrank(flat[start : start + CHUNK], bits, min_on, max_on)
    return _as_words(words, bits).reshape(given.shape)


def _unrank(ranks: Array, bits: int, min_on: int, max_on: int) -> Array:
    """From the highest bit down: it is on if the rank is at least the number of words without it."""
    starts, table = _starts(bits, min_on, max_on), _binomials()
    at = np.searchsorted(starts, ranks, side="right") - 1
    rest, left, words = ranks - starts[at], at + min_on, np.zeros(ranks.size, np.uint64)
    for place in reversed(range(bits)):
        without = table[place][left]
        on = rest >= without
        rest -= without * on
        left -= on
        words |= on.astype(np.uint64) << np.uint64(place)
    return words


def uniform_words(rng: np.random.Generator, count: int, bits: int, min_on: int, max_on: int) -> Array:
    """Words drawn uniformly from all of the gate: [count] packed.

    r1 & r2 of random bits has each bit on with probability 1/4, so a word with w on bits comes with a probability
    proportional to 3**-w, and is uniform when it is kept with probability 3**(w - max_on). With the defaults (32 bits,
    7 to 9 on) that keeps 0.21 of them, where uniform bit strings pass the gate in one of 102 cases. Where it would keep
    few, uniform numbers are unranked instead. Both are exact.
    """
    size, spread = word_count(bits, min_on, max_on), max_on - min_on
    kept = size * 3 ** (bits - max_on) / 4**bits
    if kept < LEAST_KEPT or 3**spread >= 2**63:
        return unrank(rng.integers(0, size, count, dtype=np.uint64), bits, min_on, max_on)
    found, left = [], count
    while left > 0:
        some = min(CHUNK, int(1.1 * left / kept) + 64)
        words = _sparse(rng, some, bits)
        # `take` of indices is three times faster than a mask whose values nothing predicts.
        words = words.take(np.flatnonzero(passes(words, min_on, max_on)))
        if spread:
            chances = (3 ** np.arange(spread + 1)).take(popcount(words) - min_on)
            words = words.take(np.flatnonzero(rng.integers(0, 3**spread, words.size) < chances))
        found.append(words[:left])
        left -= found[-1].size
    return np.concatenate(found) if found else np.zeros(0, np.int32 if bits <= 32 else np.int64)


def _sparse(rng: np.random.Generator, count: int, bits: int) -> Array:
    """r1 & r2 of random bit strings: [count]."""
    size = 4 if bits <= 32 else 8
    draws = rng.integers(0, 2**64 - 1, (2, -(-count * size // 8)), dtype=np.uint64, endpoint=True)
    words = (draws[0] & draws[1]).view(f"u{size}")[:count] & np.array(2**bits - 1, f"u{size}")
    return words.view(f"i{size}")


def _as_words(words: Array, bits: int) -> Array:
    return words.astype(np.uint32).view(np.int32) if bits <= 32 else words.view(np.int64)


@lru_cache
def _binomials() -> Array:
    """[65, 65] uint64, C(n, k): the largest, C(64, 32) = 1.8e18, is below 2**63."""
    return np.array([[comb(n, k) for k in range(65)] for n in range(65)], dtype=np.uint64)


@lru_cache
def _starts(bits: int, min_on: int, max_on: int) -> Array:
    """[max_on - min_on + 1] uint64, the rank of the first word with min_on, min_on + 1, ... bits on."""
    sizes = _binomials()[bits, min_on : max_on + 1]
    return np.concatenate([np.zeros(1, np.uint64), np.cumsum(sizes)[:-1]])


@lru_cache
def _octets() -> tuple[Array, Array]:
    """What each value of a byte adds to the rank after so many lower on bits [8, 65, 256], and its on bits [256]."""
    values = np.arange(256)
    bit = (values[:, None] >> np.arange(8)) & 1
    index = np.cumsum(bit, 1)  # of each on bit among those of its byte, from 1
    place = 8 * np.arange(8)[:, None, None, None] + np.arange(8)
    nth = np.arange(65)[:, None, None] + index
    # More than 64 on bits are never asked for.
    worth = np.where(bit == 1, _binomials()[place, np.minimum(nth, 64)], 0).astype(np.uint64)
    return worth.sum(-1), bit.sum(1)
