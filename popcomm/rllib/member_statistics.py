"""What members of a species came to and did: sums that add over fragments and runners, and numbers made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcomm.evolution.meetings import Meetings

Array = NDArray[Any]

RETURN = "return"
# {name: what it is}, [P] each, of the time since they were last forgotten.
MEASURES = {
    RETURN: "mean return of its lives, over those whom it met",
    "shared_return": "mean return of all seats of its worlds, over those whom it met",
    "reward": "mean reward of a step",
    "lives": "lives that ended",
    "steps": "steps of its own lives",
    "message_entropy": "entropy of the symbols that it said, nats",
    "agreement": "share of its occasions in which it used the word that the population has for what it perceived",
    "success": "share of right answers, its own to what it heard and those of others to what they heard it say",
    "listening": "how far its actions move when it hears what was said in another world, total variation, 0 to 1",
    "influence": "how far the actions of those who hear it move then",
}
# {measure that is a mean: (sum, number of what is added up)}.
MEANS = {
    "reward": ("reward", "steps"),
    "agreement": ("right", "occasions"),
    "success": ("won", "games"),
    "listening": ("moved", "asked"),
    "influence": ("followed", "followers"),
}
# What members do, as distributions.
TRAITS = ("messages", "actions")


class MemberStatistics:
    """Of one species: P members.

    Args:
        members: P.
        first: the number of the first of them among the members of all species.
        everybody: members of all species; None: these alone.
    """

    def __init__(self, members: int, first: int = 0, everybody: int | None = None) -> None:
        self.members, self.first, self.everybody = members, first, everybody
        self.returns, self.shared = (Meetings(members, first=first, everybody=everybody) for _ in range(2))
        # {name: [P] or [P, D]} sums.
        self.sums: dict[str, Array] = {name: np.zeros(members) for name in ("reward", "lives", "steps")}

    def anew(self) -> MemberStatistics:
        """Of the same species, with nothing counted."""
        return MemberStatistics(self.members, self.first, self.everybody)

    def ended(self, members: Array, returns: Array, shared: Array, counted: Array, met: Array | None = None) -> None:
        """Take in E episodes.

        Args:
            members: [E, N_s] int64.
            returns: [E, N_s].
            shared: [E], the mean over all seats of a world.
            counted: [E, N_s] bool: whose life is all its own, and not begun by who sat there before.
            met: [E, N_s, S] int64, numbers of those whom they met, of all species, NOBODY for an empty seat; None:
                those on the other seats.
        """
        self.returns.add(members, returns, counted, met)
        self.shared.add(members, np.broadcast_to(shared[:, None], members.shape), counted, met)
        self._add("lives", members[counted])

    def earned(self, members: Array, rewards: Array, alive: Array) -> None:
        """Take in a step: [B, N_s] each."""
        who = members[alive]
        self._add("steps", who)
        self._add("reward", who, rewards[alive])

    def acted(self, members: Array, actions: Array, choices: int) -> None:
        """Take in M actions, [M] each, of `choices` that there are."""
        self._use("actions", members, actions, choices)

    def said(self, members: Array, symbols: Array, alphabet: int) -> None:
        """Take in M messages. members: [M] int64, symbols: [M, L] integers below `alphabet`; -1 was not sent."""
        whose, there = np.repeat(members, symbols.shape[1]), symbols.reshape(-1) >= 0
        self._use("messages", whose[there], symbols.reshape(-1)[there], alphabet)

    def agreed(self, members: Array, right: Array) -> None:
        """Take in M occasions to name something. members: [M] int64; right: [M] bool, by the population's word."""
        self._add("occasions", members)
        self._add("right", members[right])

    def played(self, members: Array, games: Array, won: Array) -> None:
        """Take in games of talk: [M] each, members int64, and in how many each took part (`popcomm.rllib.success`)."""
        self._add("games", members, games)
        self._add("won", members, won)

    def listened(self, members: Array, moved: Array) -> None:
        """Take in M actions that heard something else. members: [M] int64; moved: [M], total variation distances."""
        self._add("asked", members)
        self._add("moved", members, moved)

    def influenced(self, members: Array, followers: Array, followed: Array) -> None:
        """Take in M messages. members: [M] int64, who spoke; followers: [M], how many heard it; followed: [M], the sum
        of how far their actions moved."""
        self._add("followers", members, followers)
        self._add("followed", members, followed)

    def _use(self, name: str, members: Array, symbols: Array, size: int) -> None:
        places = members.astype(np.int64) * size + symbols.astype(np.int64)
        self._sum(name, np.bincount(places, minlength=self.members * size).reshape(self.members, size).astype(float))

    def _add(self, name: str, members: Array, weights: Array | None = None) -> None:
        self._sum(name, np.bincount(members, weights, self.members).astype(float))

    def _sum(self, name: str, values: Array) -> None:
        self.sums[name] = self.sums[name] + values if name in self.sums else values

    # ---- what they come to ----

    def measures(self) -> dict[str, Array]:
        """{name of MEASURES: [P] float64}, nan where nothing is known; those alone that are measured here."""
        sums = self.sums
        told = {
            RETURN: self.returns.mean(),
            "shared_return": self.shared.mean(),
            "lives": sums["lives"],
            "steps": sums["steps"],
        }
        if "messages" in sums:
            use = self.traits()["messages"]
            logs = np.log(use, out=np.zeros_like(use), where=use > 0)
            told["message_entropy"] = -(use * logs).sum(1)
        for name, (total, count) in MEANS.items():
            if count in sums:
                told[name] = _over(sums[total], sums[count])
        return told

    def traits(self) -> dict[str, Array]:
        """{name of TRAITS: [P, D] float64}, each member's distribution; nan of those who did nothing."""
        return {
            name: _over(self.sums[name], self.sums[name].sum(1, keepdims=True)) for name in TRAITS if name in self.sums
        }

    # ---- adding up ----

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add another's `get_state`."""
        self.returns.merge(state["returns"])
        self.shared.merge(state["shared"])
        for name, values in state["sums"].items():
            self._sum(name, np.asarray(values))

    def get_state(self) -> dict[str, Any]:
        """Arrays."""
        return {"returns": self.returns.get_state(), "shared": self.shared.get_state(), "sums": dict(self.sums)}


def firsts_of(members: Mapping[str, int]) -> dict[str, int]:
    """{species: the number of its first member among the members of all}. members: {species: P}, in order."""
    return dict(zip(members, np.cumsum([0, *members.values()]).tolist(), strict=False))


def statistics_of(members: Mapping[str, int]) -> dict[str, MemberStatistics]:
    """{species: MemberStatistics}, of those that have several. members: {species: P} of all, in the layout's order."""
    firsts, everybody = firsts_of(members), sum(members.values())
    return {name: MemberStatistics(count, firsts[name], everybody) for name, count in members.items() if count > 1}


def _over(values: Array, counts: Array) -> Array:
    return np.divide(values, counts, out=np.full(np.broadcast(values, counts).shape, np.nan), where=counts > 0)
