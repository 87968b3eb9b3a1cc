"""switch_riddle_v0: one prisoner a day is led into a room, and one must say when all have been there, or all lose.

The riddle of a hundred prisoners and a switch, as a task for agents that learn to talk (Foerster et al. 2016, "Learning
to Communicate with Deep Multi-Agent Reinforcement Learning", section 6.1).
`python -m popcomm.envs.switch_riddle_v0 [FILE.png]` draws the end of an episode.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from pettingzoo import AECEnv
from torch import Tensor

from popcomm.checks import whole
from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.scripted import References
from popcomm.envs.world import Species
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError, unknown

NAME = "prisoner"
TELL = 1
TALK = ("all", "room")


class SwitchRiddleWorld(EpisodicWorld):
    """B prisons with N prisoners each, one of whom is in the room each day; one must tell when all have been there.

    Each day the prisoner in the room is drawn anew, evenly. Actions are Discrete(2): 0 none, 1 tell; only that of the
    prisoner in the room counts. Messages are the trainer's: what is said on a day is heard on the next.

    Observation [1 + N + days]: 1 if I am in the room, who I am (one-hot), the day (one-hot). All else, own visits too,
    must be remembered.

    Reward, for all prisoners alike: +1 when one tells and all have been in the room, that day included; -1 when one
    tells and not all have been; 0 else. The episode ends there, and with the last day: that is an end (terminated), not
    a cut, as all see the day; where it only cuts, and gamma is 1, to wait for ever costs nothing.

    With the defaults, per prisoner and episode: random actions earn -0.81, the best policy without messages 0.53, and
    those who always know who has been there 0.74, which is how often all three are there within six days. Of two
    prisoners the second one knows without a word: both earn 0.5. `references` has the equations.

    Labels: 1 for who has been in the room, that day included, else 0; -1 on the last day, when words come too late.

    Args:
        num_worlds: B.
        num_agents: N.
        days: days of the longest episode; None: 4 N - 6, as in the paper.
        talk: who speaks. "all": everybody, every day. "room": only the prisoner in the room, who leaves word as by the
            switch of the riddle. Who hears whom is up to the topology: with `full` also those who are not in the room.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name, kept = "switch_riddle_v0", (*EpisodicWorld.kept, "inside", "visits", "told")

    def __init__(
        self,
        num_worlds: int = 1,
        num_agents: int = 3,
        device: str | torch.device = "cpu",
        days: int | None = None,
        talk: str = "all",
    ) -> None:
        n = whole(f"{self.name}: num_agents", num_agents, 2)
        days = 4 * n - 6 if days is None else whole(f"{self.name}: days", days, 1)
        if talk not in TALK:
            raise unknown(f"{self.name}: talk", talk, TALK)
        super().__init__(num_worlds, device, days)
        self.talk, self.num_labels = talk, 2
        names = tuple(f"{NAME}_{i}" for i in range(n))
        self.species = {NAME: Species(NAME, 0, n, 1 + n + days, spaces.Discrete(2), names)}
        self._inside = torch.zeros(self.num_worlds, dtype=torch.int64, device=self.device)  # who is in the room
        self._visits = torch.zeros(self.num_worlds, n, dtype=torch.int64, device=self.device)  # days, this one included
        self._told = torch.zeros_like(self._inside, dtype=torch.bool)  # by the latest action

    def _begin(self, worlds: Tensor) -> None:
        inside = self._drawn()
        self._inside = self._renewed(self._inside, inside, worlds)
        self._visits = self._renewed(self._visits, self._one_hot(inside), worlds)
        self._told = self._told & ~worlds

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        told = actions[NAME].gather(1, self._inside.unsqueeze(1)).squeeze(1) == TELL
        earned = torch.where(told, torch.where(self._all_were_there(), 1.0, -1.0), 0.0)
        another_day, inside = ~told & (self._age + 1 < self.max_steps), self._drawn()
        self._inside = torch.where(another_day, inside, self._inside)
        self._visits = self._visits + self._one_hot(inside) * another_day.unsqueeze(-1)
        self._told = told
        return earned.unsqueeze(-1).repeat(1, self.num_agents), told

    def _drawn(self) -> Tensor:
        """Who is led into the room, [B] int64."""
        return torch.randint(self.num_agents, (self.num_worlds,), generator=self._generator, device=self.device)

    def _one_hot(self, seats: Tensor) -> Tensor:
        """[B] -> [B, N] int64."""
        return F.one_hot(seats, self.num_agents)

    def _all_were_there(self) -> Tensor:
        """[B] bool."""
        return (self._visits > 0).all(-1)

    def _observe(self) -> dict[str, Tensor]:
        n = self.num_agents
        inside = self._one_hot(self._inside).unsqueeze(-1)
        who = torch.eye(n, device=self.device).expand(self.num_worlds, n, n)
        # The final observation is still one of the last day.
        day = F.one_hot(self._age.clamp(max=self.max_steps - 1), self.max_steps).unsqueeze(1).expand(-1, n, -1)
        return {NAME: torch.cat((inside, who, day), -1).float()}

    def _labels(self) -> Tensor:
        in_time = ~self._over & (self._age + 1 < self.max_steps)
        return torch.where(in_time.unsqueeze(-1), (self._visits > 0).long(), -1)

    def _speaks(self) -> Tensor | None:
        return self._one_hot(self._inside).bool() if self.talk == "room" else None

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One prison as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.seats_picture import Seat, draw_seats

        if self._last is None:
            raise UserError(f"{self.name} has no picture before it was reset; call reset first")
        visits, inside, over = self._visits[world].tolist(), int(self._inside[world]), bool(self._over[world])
        seats = []
        for seat, days in enumerate(visits):
            note = "never there" if not days else "there on 1 day" if days == 1 else f"there on {days} days"
            seats.append(Seat(int(seat == inside), str(seat), note, None if days else False))
        there, day = sum(days > 0 for days in visits), int(self._age[world]) + (not over)
        verdict = "right, +1" if there == len(visits) else "wrong, -1"
        if self._told[world]:
            told = f"Prisoner {inside} told: {verdict} for each prisoner."
        elif over:
            told = "The last day is over, and nobody told: 0 for each prisoner."
        else:
            told = f"For prisoner {inside} to tell today would be {verdict} for each prisoner."
        return draw_seats(
            seats,
            kinds=("prisoner in a cell", "prisoner in the room"),
            title=f"switch riddle, day {day} of {self.max_steps}" + (", over" if over else ""),
            story=[f"{there} of {len(visits)} prisoners have been in the room.", told],
            links=None if links is None else links.cpu().numpy(),
        )


def all_seen(others: int, days: int) -> float:
    """Probability that `others` >= 1 prisoners are all drawn within `days` even draws among them (coupon collector).

    By inclusion and exclusion: the sum over j of (-1)^j C(m, j) (1 - j / m)^d, in whole numbers until the end.

    >>> all_seen(2, 2), round(all_seen(3, 6), 4)
    (0.5, 0.7407)
    """
    ways = sum((-1) ** j * comb(others, j) * (others - j) ** days for j in range(others + 1))
    return ways / others**days


class _Silence(NamedTuple):
    """A policy without messages."""

    value: float  # expected return
    early: bool  # on the last day but one, who is in the room for the first time tells
    tells: tuple[bool, ...]  # [days + 1], whether who was in the room so often, the last day included, tells on it


def references(world: SwitchRiddleWorld) -> References:
    """The expected returns in such a world, with N prisoners, D days, and c(m, d) = `all_seen`.

    random: the sum over days t of 2^-t (2 c(N, t) - 1). oracle: c(N, D), for who is in the room tells as soon as all
    have been there. silent: the better of two policies in which prisoners go by their own visits alone.

    (1) Nobody tells before the last day. Who is there then for the k-th time has the chance c(N - 1, D - k) to be
    right, and tells if it is above 1/2: the sum over k of P(k) max(0, 2 c(N - 1, D - k) - 1), k - 1 binomial (D - 1,
    1 / N).
    (2) Also who is there for the first time on the day before tells, and the last day's prisoner takes into account
    that nobody did.

    With 3 prisoners and 6 days, (2) earns 130 / 243 = 0.535, and (1) 128 / 243 = 0.527. No silent policy earns more
    than 130 / 243, not even one in which prisoners differ: found by an integer program over all 2^189 of them. With
    other numbers it is a lower bound.
    """
    n, days = world.num_agents, world.max_steps
    random = sum(0.5**day * (2 * all_seen(n, day) - 1) for day in range(1, days + 1))
    return References(random, _best_silence(n, days).value, all_seen(n, days))


def oracle_actions(world: SwitchRiddleWorld) -> dict[str, Tensor]:
    """Tell as soon as all have been in the room: {species: [B, N] int64}."""
    return {NAME: world._all_were_there().long().unsqueeze(-1).repeat(1, world.num_agents)}


def silent_actions(world: SwitchRiddleWorld) -> dict[str, Tensor]:
    """The policy of `references(world).silent`: {species: [B, N] int64}."""
    plan = _best_silence(world.num_agents, world.max_steps)
    last, day_before = world._age == world.max_steps - 1, world._age == world.max_steps - 2
    tells = torch.tensor(plan.tells, device=world.device)[world._visits] & last.unsqueeze(-1)
    first_time = (world._visits == 1) & day_before.unsqueeze(-1)
    return {NAME: (tells | first_time if plan.early else tells).long()}


@lru_cache(maxsize=64)
def _best_silence(n: int, days: int) -> _Silence:
    """The better of the two policies of `references`."""
    policies = [_silence(n, days, early) for early in ((False, True) if days > 1 else (False,))]
    return max(policies, key=lambda policy: policy.value)


def _silence(n: int, days: int, early: bool) -> _Silence:
    """Policy (2) of `references` if `early`, else (1)."""
    chance = (1 - 1 / n) ** (days - 2) if early else 0.0
    value, tells = chance * (2 * all_seen(n - 1, days - 2) - 1) if early else 0.0, [False]
    for visits in range(1, days + 1):
        right, all_in_all = _late_chances(n, days, visits) if early else _last_chances(n, days, visits)
        tells.append(2 * right > all_in_all)
        value += max(0.0, 2 * right - all_in_all)
    return _Silence(value, early, tuple(tells))


def _last_chances(n: int, days: int, visits: int) -> tuple[float, float]:
    """Of the last day's prisoner: P(all were there, so many own visits), P(so many own visits)."""
    chance = _binomial(days - 1, visits - 1, n)
    return chance * all_seen(n - 1, days - visits), chance


def _late_chances(n: int, days: int, visits: int) -> tuple[float, float]:
    """The same, and that the day before saw nobody for the first time."""
    before = days - 2
    # Own visits on the day before; then another one's, who was there in the days that were not one's own.
    mine = _binomial(before, visits - 2, n) / n if visits > 2 else 0.0
    others_days = before - (visits - 1)
    if others_days < 0:
        return mine * all_seen(n - 1, days - visits), mine
    another = _binomial(before, visits - 1, n) * (1 - 1 / n)
    returns = 1 - ((n - 2) / (n - 1)) ** others_days
    right = mine * all_seen(n - 1, days - visits) + another * all_seen(n - 1, others_days)
    return right, mine + another * returns


def _binomial(draws: int, hits: int, n: int) -> float:
    """Probability of so many hits, each of chance 1 / n."""
    return comb(draws, hits) * (n - 1) ** (draws - hits) / n**draws  # whole numbers, which do not overflow


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One prison as a PettingZoo ParallelEnv; keyword arguments are SwitchRiddleWorld's.

    >>> env = parallel_env(num_agents=3)
    >>> observations, infos = env.reset(seed=1)
    >>> observations["prisoner_0"].shape, env.action_space("prisoner_0")
    ((10,), Discrete(2))
    """
    return WorldParallelEnv(SwitchRiddleWorld(num_worlds=1, **kwargs), name="switch_riddle_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One prison as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One prison as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


def main(path: str | None = None, seed: int = 0) -> None:
    """Draw the end of an episode in which prisoners know who has been in the room."""
    from popcomm.envs.seats_picture import save_picture

    world = SwitchRiddleWorld()
    step = world.reset(seed)
    while step.alive.any():
        step = world.step(oracle_actions(world))
    save_picture(world.name, world.render, path)


if __name__ == "__main__":
    main()
