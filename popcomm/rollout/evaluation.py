"""Evaluation: what a population earns in episodes that it was not trained in, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from popcomm.envs.layout import WorldLayout
from popcomm.errors import UserError
from popcomm.language.intervals import Interval, mean_interval
from popcomm.language.progress import plain
from popcomm.rollout.players import Turn
from popcomm.rollout.rollout import Rollout

# A world's own scores come as means over all worlds; so many of them make an interval.
ROUNDS = 10
# Steps of all worlds in which no episode ends, after which none is waited for.
PATIENCE = 100_000


class Estimate(NamedTuple):
    """A mean, and Student's 95 % interval of it; nan where there are too few values."""

    mean: float
    low: float
    high: float
    values: int  # how many it is of

    @classmethod
    def of(cls, values: ArrayLike) -> Estimate:
        """Of values [E]; nan of none."""
        found = np.asarray(values, float).ravel()
        return cls(float(found.mean()) if len(found) else math.nan, *mean_interval(found), len(found))


@dataclass(frozen=True)
class Evaluation:
    """Returns of E whole episodes of N seats.

    A return is the sum of the rewards of an episode: of a seat its own, of a world those of all its seats.
    """

    returns: np.ndarray  # [E, N] float64
    lengths: np.ndarray  # [E] int64, steps
    members: Mapping[str, np.ndarray]  # {species: [E, N_s] int64}, who sat where
    scores_of_rounds: Mapping[str, np.ndarray]  # {name: [rounds] float64}, the world's own measures (`World.metrics`)
    num_members: Mapping[str, int]  # {species: P}
    layout: WorldLayout

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.returns)

    @cached_property
    def per_world(self) -> Estimate:
        """The return of a world."""
        return Estimate.of(self.returns.sum(1))

    @property
    def return_mean(self) -> float:
        """Of the return of a world, over episodes: RLlib's episode_return_mean."""
        return self.per_world.mean

    @property
    def return_interval(self) -> Interval:
        """Student's 95 % interval of `return_mean`."""
        return Interval(self.per_world.low, self.per_world.high)

    @property
    def length_mean(self) -> float:
        """Steps of an episode."""
        return float(self.lengths.mean())

    @cached_property
    def per_agent(self) -> dict[str, Estimate]:
        """{agent: the return of its seat}."""
        return {name: Estimate.of(column) for name, column in zip(self.layout.agents, self.returns.T, strict=True)}

    @cached_property
    def per_species(self) -> dict[str, Estimate]:
        """{species: the return of a seat, in the mean over its seats}."""
        return {
            name: Estimate.of(self.returns[:, species.seats].mean(1)) for name, species in self.layout.species.items()
        }

    @cached_property
    def per_member(self) -> dict[str, list[Estimate]]:
        """{species: of each of its P members the return of a seat, in the mean over its seats of an episode}.

        Seats of one episode share their world, so it is the episodes in which it sat anywhere that are counted.
        """
        told = {}
        for name, seats in self.members.items():
            returns = self.returns[:, self.layout.species[name].seats]
            own = [seats == member for member in range(self.num_members[name])]
            told[name] = [Estimate.of(_means(returns, its)) for its in own]
        return told

    @cached_property
    def scores(self) -> dict[str, Estimate]:
        """{name: the world's own measure}, over rounds in which every world ended an episode."""
        return {name: Estimate.of(values) for name, values in self.scores_of_rounds.items()}

    def to_json(self) -> dict[str, Any]:
        """Means and intervals as types that JSON has; what is not known is None."""
        told = {
            "episodes": self.episodes,
            "return_mean": self.return_mean,
            "return_interval": list(self.return_interval),
            "length_mean": self.length_mean,
            "per_agent": {name: one._asdict() for name, one in self.per_agent.items()},
            "per_species": {name: one._asdict() for name, one in self.per_species.items()},
            "per_member": {name: [one._asdict() for one in every] for name, every in self.per_member.items()},
            "scores": {name: one._asdict() for name, one in self.scores.items()},
        }
        return plain(told)


def _means(returns: np.ndarray, there: np.ndarray) -> np.ndarray:
    """[E, N_s], [E, N_s] bool -> the means of the episodes that have a seat there, [E']."""
    seats = there.sum(1)
    return (returns * there).sum(1)[seats > 0] / seats[seats > 0]


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """The episodes of several evaluations of one population as one."""
    first, names = parts[0], dict.fromkeys(name for part in parts for name in part.scores_of_rounds)
    return Evaluation(
        np.concatenate([part.returns for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        {name: np.concatenate([part.members[name] for part in parts]) for name in first.members},
        {
            name: np.concatenate([p.scores_of_rounds[name] for p in parts if name in p.scores_of_rounds])
            for name in names
        },
        first.num_members,
        first.layout,
    )


def worlds_for(episodes: int, block: int) -> tuple[int, int]:
    """(worlds, episodes of each) for so many episodes or, where members would not sit evenly, a few more.

    Args:
        episodes: 1 or more.
        block: the fewest worlds whose seats hold every member equally often.

    >>> worlds_for(100, 1), worlds_for(3, 1), worlds_for(100, 4)
    ((10, 10), (1, 3), (12, 9))
    """
    rounds = max(1, min(ROUNDS, episodes // block))
    worlds = -(-episodes // rounds)
    worlds = -(-worlds // block) * block
    return worlds, -(-episodes // worlds)


def evaluate(rollout: Rollout, rounds: int) -> Evaluation:
    """Play until every world has ended so many episodes, which are the ones that count: each world's first.

    Those that end first are no more likely to count than those that take long.

    Args:
        rollout: not yet begun.
        rounds: 1 or more.

    Raises:
        UserError: no episode ends.
    """
    world, layout, players = rollout.world, rollout.players.layout, rollout.players
    ended = np.zeros(world.num_worlds, int)
    found: list[tuple[np.ndarray, int, dict[str, np.ndarray]]] = []
    scores: dict[str, list[float]] = {}
    world.metrics()  # of nobody
    for row, returns, length, turn in episodes_of(rollout):
        if ended[row] < rounds:
            found.append((returns, length, {name: seats[row] for name, seats in turn.members.items()}))
        before = ended.min()
        ended[row] += 1
        if ended.min() > before:
            for name, value in world.metrics().items():
                scores.setdefault(name, []).append(value)
        if ended.min() == rounds:
            break
    columns = list(zip(*found, strict=True))
    return Evaluation(
        np.stack(columns[0]),
        np.array(columns[1], np.int64),
        {name: np.stack([seats[name] for seats in columns[2]]) for name in layout.species},
        {name: np.array(values) for name, values in scores.items()},
        {name: actor.members for name, actor in players.actors.items()},
        layout,
    )


def episodes_of(rollout: Rollout) -> Iterator[tuple[int, np.ndarray, int, Turn]]:
    """(world, returns [N] float64, steps, the last turn) of one episode after another, as they end.

    Raises:
        UserError: none ends within PATIENCE steps.
    """
    rollout.begin()
    returns = torch.zeros(rollout.world.num_worlds, rollout.world.num_agents, dtype=torch.float64)
    lengths = torch.zeros(len(returns), dtype=torch.int64)
    waited = 0
    while waited < PATIENCE:
        turn, after = rollout.step()
        acted = turn.seen.alive.any(1).cpu()
        returns += after.rewards.cpu()
        lengths += acted
        over = (acted & ~after.alive.any(1).cpu()).nonzero().flatten().tolist()
        for row in over:
            yield row, returns[row].numpy().copy(), int(lengths[row]), turn
            returns[row], lengths[row] = 0.0, 0
        waited = 0 if over else waited + 1
    raise UserError(f"no episode ended within {PATIENCE:,} steps, and an evaluation is of whole episodes")
