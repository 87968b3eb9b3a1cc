"""What is measured of a channel of words: load, reproduction, drops, distinct words and how long they live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from popcomm.channels.broadcast.log import Log
from popcomm.channels.broadcast.moment import Measured, Moment
from popcomm.channels.broadcast.sketch import pair_key

# Worlds that are looked at word by word; counts are taken in all.
WATCHED_WORLDS = 32
# What a step adds to the estimate of R fades over about so many steps.
HORIZON = 200.0


class Traffic:
    """Running sums over B worlds since they were last read, and the words alive in the first few of them."""

    def __init__(self, num_worlds: int, num_agents: int) -> None:
        self.num_worlds, self.num_agents = num_worlds, num_agents
        self.watched = min(num_worlds, WATCHED_WORLDS)
        self._children = self._parents = 0.0
        self._alive = np.zeros(0, np.uint64)  # keys of (world, word) on the air in watched worlds, sorted
        self._world = np.zeros(0, np.int32)  # their worlds
        self._since = np.zeros(0, np.int64)  # the step in which they came up
        self._step = 0
        self._clear()

    def _clear(self) -> None:
        names = ("steps", "watched_steps", "load", "dropped", "offered", "overflowed", "distinct", "repeats")
        self._sums = dict.fromkeys((*names, "lives", "deaths"), 0.0)

    def measure(self, moment: Moment, said: Log, made: list[Log]) -> Measured:
        """What became of the words of the last step, before anything is dropped; lively worlds count."""
        parents = float(moment.lively[moment.log.world].sum()) if len(moment.log) else 0.0
        repeats = float(sum((log.generation > 0).sum() for log in made))
        near = moment.log.take(moment.log.world < self.watched)
        echoes = 0.0
        if len(near):
            # What was said again, in the worlds watched, for all worlds.
            own = said.take(said.world < self.watched)
            said_again = float(_from_others(own, near).sum())
            if self.watched > 1:
                # As often the same word is said by chance: as another world's were on the air.
                elsewhere = replace(own, world=(own.world + 1) % self.watched)
                said_again -= float(_from_others(elsewhere, near).sum())
            echoes = said_again * parents / max(float(moment.lively[near.world].sum()), 1.0)
        keep = 1 - 1 / HORIZON
        self._children = keep * self._children + repeats + echoes
        self._parents = keep * self._parents + parents
        self._sums["steps"] += float(moment.lively.sum())
        self._sums["watched_steps"] += float(moment.lively[: self.watched].sum())
        self._sums["repeats"] += repeats
        self._sums["offered"] += len(said) + sum(len(log) for log in made)
        return Measured(parents, repeats, echoes)

    def written(self, log: Log, dropped: int) -> None:
        """The new log, after `dropped` entries were left out."""
        self._sums["load"] += len(log)
        self._sums["dropped"] += dropped
        near = log.take(log.world < self.watched)
        keys, first = np.unique(pair_key(near.world, near.word), return_index=True)
        self._sums["distinct"] += len(keys)
        self._step += 1
        since = np.full(len(keys), self._step)
        if len(self._alive):
            place = np.searchsorted(self._alive, keys).clip(max=len(self._alive) - 1)
            known = self._alive[place] == keys
            since[known] = self._since[place[known]]
            gone = ~np.isin(self._alive, keys)
            if gone.any():
                self._sums["lives"] += float((self._step - self._since[gone]).sum())
                self._sums["deaths"] += float(gone.sum())
        self._alive, self._since, self._world = keys, since, near.world[first]

    def overflowed(self, count: int) -> None:
        """So many deliveries found no room in an inbox."""
        self._sums["overflowed"] += count

    def forget(self, worlds: np.ndarray) -> None:
        """New episodes begin in worlds [B] bool: what was alive there did not die, it was cut off."""
        kept = ~worlds[self._world]
        self._alive, self._since, self._world = self._alive[kept], self._since[kept], self._world[kept]

    def read(self) -> dict[str, float]:
        """What was measured since the last call; nothing where no step was made.

        load: transmissions per world and step. drops: share of transmissions that found no room in the log.
        inbox_drops: deliveries per world and step that found no room in an inbox. reproduction: R, repetitions over the
        transmissions that they came from; learned ones count as far as they are more frequent than chance, which takes
        two worlds to tell. distinct_words: on the air in a world and step. lifetime: steps for which a word stayed on
        the air, of those that left it. reflex_share: share of transmissions that are repetitions by reflex.
        """
        sums = self._sums
        if not sums["steps"]:
            return {}
        result = {
            "load": sums["load"] / sums["steps"],
            "drops": sums["dropped"] / max(sums["offered"], 1.0),
            "inbox_drops": sums["overflowed"] / sums["steps"],
            "reflex_share": sums["repeats"] / max(sums["offered"], 1.0),
        }
        if sums["watched_steps"]:
            result["distinct_words"] = sums["distinct"] / sums["watched_steps"]
        if self._parents:
            result["reproduction"] = max(0.0, self._children / self._parents)
        if sums["deaths"]:
            result["lifetime"] = sums["lives"] / sums["deaths"]
        self._clear()
        return result

    def get_state(self) -> dict[str, Any]:
        return {
            "children": self._children,
            "parents": self._parents,
            "alive": self._alive.copy(),
            "world": self._world.copy(),
            "since": self._since.copy(),
            "step": self._step,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._children, self._parents, self._step = state["children"], state["parents"], state["step"]
        self._alive, self._world, self._since = state["alive"], state["world"], state["since"]
        self._clear()


def _from_others(said: Log, near: Log) -> np.ndarray:
    """Which of the words said [M] were on the air one step before by somebody else: [M] bool."""
    words, copies = np.unique(pair_key(near.world, near.word), return_counts=True)
    wanted = pair_key(said.world, said.word)
    place = np.searchsorted(words, wanted).clip(max=len(words) - 1)
    total = np.where(words[place] == wanted, copies[place], 0)
    # The seat's own copies: the same key once more, mixed with the seat.
    own, copies = np.unique(pair_key(near.source, pair_key(near.world, near.word)), return_counts=True)
    wanted = pair_key(said.source, wanted)
    place = np.searchsorted(own, wanted).clip(max=len(own) - 1)
    return total > np.where(own[place] == wanted, copies[place], 0)
