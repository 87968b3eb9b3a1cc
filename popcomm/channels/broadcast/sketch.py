"""Count-min sketch over a batch of worlds: how often was this key seen here, in fixed memory, never too low."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from popcomm.checks import whole
from popcomm.errors import UserError

DTYPES = ("uint8", "uint16", "uint32")
WIDEST = 1 << 31  # the hash below is strongly universal up to 2**33 counters a row


class CountMin:
    """B count-min sketches (Cormode and Muthukrishnan 2005, sections 3 and 4.1), one for each world.

    An estimate is never below the true count, and above it by more than e / width x (all counts added to that world)
    with a probability of at most e**-depth, for any keys chosen without knowledge of the seed. Counters stop at the
    largest value of `dtype` (uint8, uint16 or uint32) instead of starting again at 0; an estimate of that value means
    "at least so many". Adding is three times slower where counters may come near it: always, with uint8.

    `counters: [B, depth, width]` takes B x depth x width x itemsize bytes: 16 MB for 1,000 worlds by default. All
    worlds share the hash functions of `seed`, so the sketch of a world is that of a CountMin(1) with the same seed.

    Rows are hashed by vector multiply-shift on the two 32-bit halves of a key, ((a x_low + b x_high + c) mod 2**64) >>
    (64 - log2 width) with a, b and c uniform (Thorup 2015, High Speed Hashing for Integers and Strings, after
    Dietzfelbinger 1996). The shorter (a x) >> shift of Dietzfelbinger et al. 1997 lets two keys collide with twice the
    probability 1 / width that the bound above needs.

    Raises:
        UserError: fewer than one world, a width that is no power of two from 2 on, a depth below one, another dtype.
    """

    def __init__(
        self, worlds: int, width: int = 1024, depth: int = 4, dtype: DTypeLike = np.uint32, seed: int = 0
    ) -> None:
        self.worlds = whole("sketch.worlds", worlds, 1)
        self.width = _power_of_two(width)
        self.depth = whole("sketch.depth", depth, 1)
        self.counters = np.zeros((self.worlds, self.depth, self.width), _counter_type(dtype))
        generator = np.random.default_rng(whole("sketch.seed", seed, 0))
        self._hashes = generator.integers(0, 1 << 64, (self.depth, 3), dtype=np.uint64)
        self._top = int(np.iinfo(self.counters.dtype).max)
        self._room = self._top  # no counter is nearer to the top than this

    def add(self, world: NDArray[Any], key: NDArray[Any], count: int | NDArray[Any] = 1) -> None:
        """Count keys: world [M] int in 0 ... B - 1, key [M] int64 or uint64 bit patterns, count int or [M].

        The same key may come several times in one call.

        Raises:
            IndexError: a world that does not exist.
            ValueError: shapes that differ, keys that are no integers, a negative count.
        """
        world, low, high = self._checked(world, key)
        amount = self._amount(count, world.size)
        total = int(amount) * world.size if amount.ndim == 0 else int(amount.sum())
        if total > self._room:
            self._room = self._top - int(self.counters.max())
        if total > self._room:
            self._add_up_to_the_top(world, low, high, amount)
            return
        self._room -= total
        flat, amount = self.counters.reshape(-1), amount.astype(self.counters.dtype)
        for row in range(self.depth):
            np.add.at(flat, self._cells(row, world, low, high), amount)

    def estimate(self, world: NDArray[Any], key: NDArray[Any]) -> NDArray[np.int64]:
        """How often each key was counted in its world, or a little more: world [M], key [M] -> [M] int64.

        Raises:
            IndexError: a world that does not exist.
            ValueError: shapes that differ, keys that are no integers.
        """
        world, low, high = self._checked(world, key)
        flat = self.counters.reshape(-1)
        least = flat.take(self._cells(0, world, low, high))
        for row in range(1, self.depth):
            np.minimum(least, flat.take(self._cells(row, world, low, high)), out=least)
        return least.astype(np.int64)

    def decay(self) -> None:
        """Halve all counters, rounding down, so that a count weighs 2**-(the number of decays since).

        Called every D steps, a key that comes r times a step is held between r D (just after) and 2 r D (just before
        a decay): the memory of a window of D to 2 D steps. Rounding takes less than 1 off in all. An estimate is never
        below what the key's own count is after the same halvings.
        """
        self.counters >>= 1
        self._room = self._top - ((self._top - self._room) >> 1)

    def reset(self, worlds: NDArray[np.bool_]) -> None:
        """Forget everything in the worlds that start a new episode. worlds: [B] bool.

        Raises:
            ValueError: another shape or type.
        """
        worlds = np.asarray(worlds)
        if worlds.dtype != np.bool_ or worlds.shape != (self.worlds,):
            raise ValueError(f"worlds is {worlds.dtype} {worlds.shape}, and must be bool ({self.worlds},)")
        self.counters[worlds] = 0

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Counters [B, depth, width] and the numbers of the hash functions [depth, 3] uint64, as copies."""
        return {"counters": self.counters.copy(), "hashes": self._hashes.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over counters and hash functions from `get_state`, whatever the seed was.

        Raises:
            UserError: the state is that of a sketch of another size or dtype.
        """
        counters, hashes = np.asarray(state["counters"]), np.asarray(state["hashes"], np.uint64)
        if counters.shape != self.counters.shape or counters.dtype != self.counters.dtype:
            raise UserError(
                f"the checkpoint's sketch is {counters.dtype} {counters.shape} (worlds, depth, width), "
                f"and this one is {self.counters.dtype} {self.counters.shape}"
            )
        self.counters, self._hashes = counters.copy(), hashes.copy()
        self._room = self._top - int(counters.max())

    def _cells(
        self, row: int, world: NDArray[np.int64], low: NDArray[np.uint64], high: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """Flat indices [M] of the keys' counters in one row. Row by row, the temporaries stay in the cache."""
        a, b, c = self._hashes[row]
        hashed = low * a
        hashed += high * b
        hashed += c
        hashed >>= np.uint64(65 - self.width.bit_length())
        cells = hashed.view(np.int64)
        cells += world
        cells += row * self.width
        return cells

    def _checked(
        self, world: NDArray[Any], key: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64]]:
        """Offsets [M] of the worlds' counters and the two halves of the keys, [M] each."""
        world, bits = np.asarray(world), _bits(key, "key")
        if world.ndim != 1 or world.shape != bits.shape:
            raise ValueError(f"world {world.shape} and key {bits.shape} must both have the shape [M]")
        if world.size and (world.min() < 0 or world.max() >= self.worlds):
            raise IndexError(f"world is in {world.min()} ... {world.max()}, and must be in 0 ... {self.worlds - 1}")
        offsets = world.astype(np.int64) * (self.depth * self.width)
        return offsets, bits & np.uint64(0xFFFFFFFF), bits >> np.uint64(32)

    def _amount(self, count: int | NDArray[Any], size: int) -> NDArray[np.int64]:
        """What to add, [] or [M] int64, none above the top, where more makes no difference."""
        amount = np.asarray(count)
        if not np.issubdtype(amount.dtype, np.integer) or amount.shape not in ((), (size,)):
            raise ValueError(f"count is {amount.dtype} {amount.shape}, and must be an integer or integers [M]")
        if amount.size and amount.min() < 0:
            raise ValueError(f"count is {amount.min()}, and must not be negative")
        return np.minimum(amount, self._top).astype(np.int64)

    def _add_up_to_the_top(
        self,
        world: NDArray[np.int64],
        low: NDArray[np.uint64],
        high: NDArray[np.uint64],
        amount: NDArray[np.int64],
    ) -> None:
        """`add` where counters may come to the top: sums of each cell first, in numbers that do not wrap."""
        flat = self.counters.reshape(-1)
        for row in range(self.depth):
            cells, which = np.unique(self._cells(row, world, low, high), return_inverse=True)
            # Sums in float64 are exact below 2**53, and what is above is far over the top.
            more = np.bincount(which, np.broadcast_to(amount, which.shape))
            flat[cells] = np.minimum(flat[cells] + more, self._top).astype(flat.dtype)
        self._room = 0


def pair_key(agent: NDArray[Any] | int, word: NDArray[Any] | int) -> NDArray[np.uint64]:
    """One key for an agent (0 ... 2**31 - 1, or -1 for the publisher) and a word, broadcast together: [...] uint64.

    Distinct pairs of an agent and a word of up to 32 bits have distinct keys: word and agent fill one half of 64 bits
    each, and the finaliser of splitmix64 (Steele, Lea and Flood 2014) is a bijection. Pairs with 64-bit words do not
    fit in 64 bits; there the upper half of the word is mixed in by the same finaliser (which leaves 0 at 0), and two
    pairs collide as seldom as random numbers do.

    int32 words are bit patterns: a word has the same key as int32, uint32 and zero-extended int64.
    """
    bits, agents = _bits(word, "word"), _bits(agent, "agent")
    low, high = bits & np.uint64(0xFFFFFFFF), bits >> np.uint64(32)
    return _splitmix64(((agents << np.uint64(32)) | low) ^ _splitmix64(high))


def _splitmix64(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: a bijection of 64 bits in which each bit of the input turns half of the output."""
    with np.errstate(over="ignore"):  # numpy warns of the wanted wrap where `bits` is a single number
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _bits(values: NDArray[Any] | int, name: str) -> NDArray[np.uint64]:
    """Integers as 64-bit patterns; 32-bit and smaller ones without their sign."""
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name} is {values.dtype}, and must be integers")
    return values.astype(f"u{values.dtype.itemsize}", copy=False).astype(np.uint64, copy=False)


def _power_of_two(width: Any) -> int:
    width = whole("sketch.width", width, 2)
    if width & (width - 1) or width > WIDEST:
        near = min(1 << width.bit_length(), WIDEST)
        raise UserError(f"sketch.width is {width}, and must be a power of two up to {WIDEST}; the next is {near}")
    return width


def _counter_type(dtype: DTypeLike) -> np.dtype[Any]:
    name = str(dtype) if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
    if name not in DTYPES:
        raise UserError(f"sketch.dtype is {name}, and must be one of {', '.join(DTYPES)}")
    return np.dtype(name)
