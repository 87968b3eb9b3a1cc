"""The shared log of a step: every transmission of all worlds once, instead of one inbox for every agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

PUBLISHED = -1  # the source of words that no agent said


@dataclass(frozen=True)
class Log:
    """What is on the air in a step. Entries of a world stand together, in the order of worlds."""

    world: np.ndarray  # [M] int32
    word: np.ndarray  # [M] int32 or int64, packed
    source: np.ndarray  # [M] int32, the seat that transmitted it; PUBLISHED if none did
    generation: np.ndarray  # [M] int32, how often the word was repeated since somebody said it; its age in steps
    echo: np.ndarray  # [M] bool, whether its source hears it too

    def __len__(self) -> int:
        return len(self.world)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """All fields, [M] each."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def take(self, index: np.ndarray) -> Log:
        """Some of the entries: an index or a mask."""
        return Log(*(values[index] for values in self.columns))

    def counts(self, num_worlds: int) -> np.ndarray:
        """Entries of each world: [B] int64."""
        return np.bincount(self.world, minlength=num_worlds)

    def slots(self, num_worlds: int) -> np.ndarray:
        """Where each entry stands among those of its world, which stand together: [M] int64."""
        sizes = self.counts(num_worlds)
        return np.arange(len(self)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def entries(
    world: np.ndarray, word: np.ndarray, source: np.ndarray | int, generation: np.ndarray | int = 0, echo: bool = False
) -> Log:
    """A log from its columns, those that are the same everywhere as numbers."""
    shape = world.shape
    return Log(
        world.astype(np.int32, copy=False),
        word,
        np.broadcast_to(np.asarray(source, np.int32), shape),
        np.broadcast_to(np.asarray(generation, np.int32), shape),
        np.broadcast_to(np.asarray(echo), shape),
    )


def empty_log(dtype: np.dtype) -> Log:
    """Silence everywhere."""
    none = np.zeros(0, np.int32)
    return Log(none, none.astype(dtype), none, none, none.astype(bool))


def joined(parts: Sequence[Log]) -> Log:
    """All entries of several logs, in no order."""
    return Log(*(np.concatenate(each) for each in zip(*(part.columns for part in parts), strict=True)))


def shuffled(log: Log, num_worlds: int, capacity: int, rng: np.random.Generator) -> tuple[Log, int]:
    """The entries world by world, in random order within each, at most `capacity` of a world; how many were dropped.

    Whether their sources hear them (`echo`) is left open: no.

    A single sort of 64-bit keys (world, random number, index) brings the worlds together, shuffles them and carries the
    permutation: three times faster than sorting indices. What is dropped is what the shuffle puts last, so no entry is
    favoured: not by its seat, and not for being a repetition.
    """
    count = len(log)
    index_bits, world_bits = max(count - 1, 1).bit_length(), max(num_worlds - 1, 1).bit_length()
    random_bits = 63 - index_bits - world_bits
    # Raw bits of the generator, those of the middle field kept: twice as fast as drawing integers below a bound.
    keys = rng.bit_generator.random_raw(count).view(np.int64)
    keys &= ((1 << random_bits) - 1) << index_bits
    keys |= np.arange(count)
    keys |= log.world.astype(np.int64) << (index_bits + random_bits)
    keys.sort()
    sizes = log.counts(num_worlds)
    if sizes.max(initial=0) > capacity:
        place = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        keys = keys[place < capacity]
    world = (keys >> (index_bits + random_bits)).astype(np.int32)
    keys &= (1 << index_bits) - 1
    kept = entries(world, log.word[keys], log.source[keys], log.generation[keys])
    return kept, count - len(kept)


class Board(NamedTuple):
    """A log laid out by worlds; empty slots hold the word 0, which is silence."""

    word: np.ndarray  # [B, L] int32 or int64
    source: np.ndarray  # [B, L] int32
    generation: np.ndarray  # [B, L] int32
    echo: np.ndarray  # [B, L] bool


def board(log: Log, num_worlds: int, capacity: int) -> Board:
    """Lay out a log whose entries stand world by world, at most `capacity` of each."""
    place = log.world.astype(np.int64) * capacity + log.slots(num_worlds)

    def laid(values: np.ndarray) -> np.ndarray:
        out = np.zeros(num_worlds * capacity, values.dtype)
        out[place] = values
        return out.reshape(num_worlds, capacity)

    return Board(laid(log.word), laid(log.source), laid(log.generation), laid(log.echo))
