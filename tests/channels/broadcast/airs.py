"""Airs for tests: opened in a line, driven in a line."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from popcomm.channels import Full, Words
from popcomm.channels.broadcast.air import Air, Heard
from popcomm.channels.broadcast.dimensions import Dimensions, dimensions
from popcomm.channels.broadcast.log import Log, entries
from popcomm.channels.broadcast.moment import Moment
from popcomm.channels.broadcast.reflexes import ImmediateFeedback, Reflex, WordRepetition

KIND = Words(32, 7, 9)
# Words of different bits on: none is another's.
A, B, C, D = (0b1111111 << shift for shift in (0, 7, 14, 21))


class Fixed(Reflex):
    """Five words in each world and step that nobody said."""

    name = "fixed"

    def transmissions(self, moment: Moment) -> Log:
        world = np.repeat(np.arange(moment.num_worlds), 5)
        return entries(world, np.full(len(world), D, np.int32), -1)


def opened(
    n: int, reflexes: Any = (), worlds: int = 1, topology: Any = None, capacity: int | None = None,
    inbox: int | None = None, seed: int = 0, **options: Any,
) -> Air:  # fmt: skip
    """The air of some worlds; reflexes are copied, so that a list of them may be used again."""
    topology, reflexes = topology or Full(), copy.deepcopy(list(reflexes))
    size = dimensions(topology, reflexes, n, capacity, inbox)
    return Air(KIND, topology, reflexes, n, worlds, Dimensions(*size), seed=seed, **options)


def step(air: Air, words: Any = 0, present: Any = True, hears: Any = True, able: Any = True) -> Heard:
    """Deliver what was on the air, then transmit `words`; all of them broadcast to [B, N]. What was delivered."""
    shape = air.num_worlds, air.num_agents
    flags = [np.broadcast_to(np.asarray(flag, bool), shape).copy() for flag in (present, hears, able)]
    heard = air.deliver(flags[0], flags[1])
    air.transmit(np.broadcast_to(np.asarray(words, np.int32), shape), flags[2], np.ones(air.num_worlds, bool))
    return heard


def advance(air: Air, words: Any = 0, lives: Any = True) -> None:
    """A step in which nobody looks into its inbox: much faster with many worlds and large logs. lives: [B, N]."""
    shape = air.num_worlds, air.num_agents
    lives = np.broadcast_to(np.asarray(lives, bool), shape)
    air.listen(lives, lives)
    air.transmit(np.broadcast_to(np.asarray(words, np.int32), shape), lives, np.ones(air.num_worlds, bool))


def on_air(air: Air, world: int = 0) -> list[tuple[int, int, int]]:
    """(word, source, generation) of what was transmitted last in a world, sorted."""
    log = air.log.take(air.log.world == world)
    return sorted(zip(log.word.tolist(), log.source.tolist(), log.generation.tolist(), strict=True))


def inboxes(heard: Heard, world: int = 0) -> list[list[tuple[int, int]]]:
    """(word, sender) of what each seat of a world hears, sorted."""
    words = heard.words[world][heard.slots[world]].tolist()
    senders, mask = heard.senders[world].tolist(), heard.mask[world].tolist()
    return [
        sorted((w, s) for w, s, real in zip(*row, strict=True) if real)
        for row in zip(words, senders, mask, strict=True)
    ]


def repeating(decision: Any, feedback: bool = True, **options: Any) -> list[Any]:
    """Word repetition, with or without immediate feedback."""
    repetition = WordRepetition(decision, **options)
    return [ImmediateFeedback(), repetition] if feedback else [repetition]


def progeny(air: Air, sender: int = 0, most_steps: int = 10_000) -> np.ndarray:
    """All transmissions that one word by `sender` makes, in every world: [B]."""
    total = np.zeros(air.num_worlds, np.int64)
    words = np.zeros(air.num_agents, np.int32)
    words[sender] = A
    for _ in range(most_steps):
        advance(air, words)
        words[sender] = 0
        if not len(air.log):
            return total
        total += air.log.counts(air.num_worlds)
    raise AssertionError(f"a word still lives after {most_steps} steps")
