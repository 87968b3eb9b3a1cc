"""Lives: what the members on a runner's seats came to and did, and whose lives are all their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from popcomm.channels import MessageKind
from popcomm.channels.kinds import counted, voiced
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import Species
from popcomm.evolution import NOBODY
from popcomm.evolution.meetings import neighbours
from popcomm.rllib.fragment import Fragment, parts_of, said_in
from popcomm.rllib.listening import Moved, count_moves
from popcomm.rllib.member_statistics import MemberStatistics, firsts_of, statistics_of
from popcomm.rllib.success import count_games
from popcomm.rollout import Turn

Fragments = Mapping[str, Fragment[np.ndarray]]


class Lives:
    """Counts for the members of the species that have several; nothing where none has.

    Args:
        layout: of the worlds.
        kind: of the messages; None in silence.
        members: {species: P}, of all species.

    Attributes:
        members: {species: what its members came to since `read`}.
        whole: [B, N] bool, lives that were not begun by who sat there before, which alone count; None: all.
        lived: [B, N] bool, seats on which anybody has lived in the episode that goes on; None: not known, all.
    """

    def __init__(self, layout: WorldLayout, kind: MessageKind | None, members: Mapping[str, int]) -> None:
        self.layout, self.kind = layout, kind
        self.members = statistics_of(members)
        seats = {name: np.arange(s.start, s.stop) for name, s in layout.species.items()}
        # Where there are as many seats as members they all sit in every world.
        changing = [seats[name] for name, s in layout.species.items() if members.get(name, 1) > s.num_seats]
        every = np.concatenate([np.zeros(0, int), *changing])
        self._beside = {name: neighbours(seats[name], every) for name in self.members}
        self._firsts = firsts_of(members)
        self.whole: np.ndarray | None = None
        self.lived: np.ndarray | None = None
        self._in_steps: list[np.ndarray | None] = []  # the same, at each step since the last fragment was counted
        self._in_fragment: np.ndarray | None = None  # [B, T, N] bool, in the fragment that was counted last; None: all

    def step(self, turn: Turn, rewards: np.ndarray, alive: np.ndarray) -> None:
        """Take in a step. rewards: [B, N]; alive: [B, N] bool."""
        self.lived = alive.copy() if self.lived is None else self.lived | alive
        self._in_steps.append(None if self.whole is None else self.whole.copy())
        alive = alive if self.whole is None else alive & self.whole
        for name, own in self.members.items():
            seats = self.layout.species[name].seats
            own.earned(turn.members[name], rewards[:, seats], alive[:, seats])
        count_games(self.members, turn, self.layout, self.whole)

    def end(self, members: Mapping[str, np.ndarray], over: np.ndarray, returns: np.ndarray) -> None:
        """Take in episodes that end. A seat that stayed empty was nobody's life, and whom it was drawn for met nobody.

        Args:
            members: {species: [B, N_s] int64}, who sits where.
            over: [B] bool, worlds whose episode ended.
            returns: [E, N] of these.
        """
        if not self.members:
            return
        lived = np.ones(returns.shape, bool) if self.lived is None else self.lived[over]
        whole = lived if self.whole is None else lived & self.whole[over]
        numbers = np.concatenate([members[name][over] + self._firsts[name] for name in self.layout.species], 1)
        for name, own in self.members.items():
            seats, beside = self.layout.species[name].seats, self._beside[name]
            met = np.where(lived[:, beside], numbers[:, beside], NOBODY)
            own.ended(members[name][over], returns[:, seats], returns.mean(1), whole[:, seats], met)
        if self.lived is not None:
            self.lived[over] = False
        if self.whole is not None:
            self.whole[over] = True
            self.whole = None if self.whole.all() else self.whole

    def succeed(
        self, newborn: Mapping[str, np.ndarray], members: Mapping[str, np.ndarray], under_way: np.ndarray
    ) -> None:
        """Lives that go on were begun by those whom newborns replace, and do not count for them.

        Args:
            newborn: {species: [P] bool}.
            members: {species: [B, N_s] int64}, who sits where.
            under_way: [B] bool, worlds in the middle of an episode; in others no life goes on.
        """
        whole = np.ones((len(under_way), self.layout.num_agents), bool) if self.whole is None else self.whole
        for name, born in newborn.items():
            whole[:, self.layout.species[name].seats] &= ~(born[members[name]] & under_way[:, None])
        self.whole = None if whole.all() else whole

    # ---- of whole fragments ----

    def count(self, fragments: Fragments) -> None:
        """What members did and said."""
        worlds, steps = next(iter(fragments.values()))["alive"].shape[:2]
        told, self._in_steps = self._in_steps[-steps:], []
        self._in_fragment = None
        if any(whole is not None for whole in told):
            every = np.ones((worlds, self.layout.num_agents), bool)
            self._in_fragment = np.stack([every if whole is None else whole for whole in told], 1)
        for name, own in self.members.items():
            seats = self.layout.species[name].num_seats
            for part in parts_of(steps, worlds * seats):
                self._count_part(own, self.layout.species[name], fragments[name], part)

    def _count_part(self, own: MemberStatistics, species: Species, a: Fragment[np.ndarray], part: slice) -> None:
        """Of some steps, so that nothing as large as a fragment is copied."""
        kind = self.kind
        alive, members = a["alive"][:, part], a["members"][:, part]
        if self._in_fragment is not None:
            alive = alive & self._in_fragment[:, part, species.seats]
        choices = getattr(species.action_space, "n", 0)
        if choices:
            own.acted(members[alive], a["actions"][:, part][alive], int(choices))
        if kind is None or kind.alphabet is None or not species.speaks:
            return
        said = said_in(a)[:, part]
        spoke = alive & a["voiced"][:, part] if "voiced" in a else alive
        spoke = spoke & voiced(kind, torch.from_numpy(said)).numpy()
        if spoke.any():
            symbols = counted(kind, torch.from_numpy(said[spoke])).numpy()
            own.said(members[spoke], symbols, kind.alphabet)

    def whole_in(self, rows: np.ndarray, seats: np.ndarray) -> np.ndarray:
        """[B', T, S] bool, whose lives count in the fragment that was counted last, in some worlds and on some seats.

        Args:
            rows: [B'] int64, worlds.
            seats: [S] int64.
        """
        if self._in_fragment is None:
            return np.ones((1, 1, 1), bool)
        return self._in_fragment[rows][:, :, seats]

    def follow(self, moved: Moved, fragments: Fragments) -> None:
        """Whose actions followed whose messages, of those who were asked in a fragment."""
        count_moves(self.members, moved, fragments, self.layout, self._in_fragment)

    def read(self) -> dict[str, dict[str, Any]]:
        """{species: state of its MemberStatistics}, of what was counted since this was last called."""
        read = {name: own.get_state() for name, own in self.members.items()}
        self.members = {name: own.anew() for name, own in self.members.items()}
        return read
