"""One environment of others in the loop that PettingZoo's pages show: what `ParallelEnvWorld` is held against."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from popcomm.envs.flat_spaces import MASK
from popcomm.envs.foreign_answers import reset_env, step_env


class Row(NamedTuple):
    """What was answered to reset or step, by agent: an `Answer`, and who it is about."""

    observations: Mapping[Any, Any]
    rewards: Mapping[Any, Any]
    terminated: Mapping[Any, Any]
    truncated: Mapping[Any, Any]
    infos: Mapping[Any, Any]
    acted: frozenset[Any]  # who was given an action
    there: frozenset[Any]  # `env.agents` after it, who get the next one

    def ended(self, agent: Any) -> bool:
        return bool(self.terminated.get(agent, False))

    def cut(self, agent: Any) -> bool:
        return bool(self.truncated.get(agent, False))

    def lives(self, agent: Any) -> bool:
        """Whether it goes on: it is in `agents`, and no flag says that it is done."""
        return agent in self.there and not self.ended(agent) and not self.cut(agent)

    @property
    def goes_on(self) -> bool:
        """Whether the episode does: somebody lives."""
        return any(self.lives(agent) for agent in self.there)


class PlainLoop:
    """A ParallelEnv, reset and stepped with nothing between.

    Attributes:
        seconds: in reset and step, and `agent_steps` made in them.
        lengths: of the episodes that ended, in steps.
        seen: how often something happened that is worth a word.
    """

    def __init__(self, env: Any) -> None:
        self.env, self.seconds, self.agent_steps = env, 0.0, 0
        self.lengths: list[int] = []
        self.seen: Counter[str] = Counter()
        self._length = 0

    def reset(self, seed: int) -> Row:
        started = time.perf_counter()
        answer = reset_env(self.env, seed)
        self.seconds += time.perf_counter() - started
        self._length = 0
        return Row(*answer, frozenset(), frozenset(self.env.agents))

    def step(self, actions: Mapping[Any, Any]) -> Row:
        started = time.perf_counter()
        answer = step_env(self.env, dict(actions))
        self.seconds += time.perf_counter() - started
        self.agent_steps += len(actions)
        self._length += 1
        row = Row(*answer, frozenset(actions), frozenset(self.env.agents))
        self._notice(row)
        return row

    def _notice(self, row: Row) -> None:
        """Count what is not wrong, and yet not what one might think."""
        if not row.goes_on:
            self.lengths.append(self._length)
        for agent in row.acted:
            done = row.ended(agent) or row.cut(agent)
            self.seen["rewarded"] += bool(np.any(row.rewards.get(agent, 0.0)))
            self.seen["stays"] += done and agent in row.there and row.goes_on
            self.seen["no final observation"] += not row.lives(agent) and agent not in row.observations
            self.seen["leaves without a word"] += not done and agent not in row.there
        for agent, reward in row.rewards.items():
            self.seen["rewards for the dead"] += agent not in row.acted and bool(np.any(reward))


def flattened(space: spaces.Space, observation: Any) -> np.ndarray:
    """Gymnasium's own flattening [O] float32, without the mask where `space` has been rid of it."""
    if isinstance(space, spaces.Dict):
        if not space.spaces:
            return np.zeros(0, np.float32)  # Gymnasium's own fails on what has no entries
        observation = {key: observation[key] for key in space.spaces}
    return np.asarray(spaces.flatten(space, observation), np.float32)


def mask_in(row: Row, agent: Any) -> np.ndarray | None:
    """An agent's action mask in its observation or info, [A] bool, or None."""
    observation = row.observations[agent]
    found = observation.get(MASK) if isinstance(observation, Mapping) else None
    found = (row.infos.get(agent) or {}).get(MASK) if found is None else found
    if found is None:
        return None
    parts = found if isinstance(found, tuple | list) else [found]
    return np.concatenate([np.ravel(part) for part in parts]).astype(bool)


def draw(space: spaces.Space, mask: np.ndarray | None, rng: np.random.Generator) -> Any:
    """A random action as the environment wants it, that the mask allows; the first where it allows none."""
    if isinstance(space, spaces.Box):
        low = np.where(space.bounded_below, space.low, -1.0).astype(np.float64)
        high = np.where(space.bounded_above, space.high, np.maximum(low, 0) + 1.0).astype(np.float64)
        if np.issubdtype(space.dtype, np.integer):
            whole = rng.integers(low.astype(np.int64), high.astype(np.int64), endpoint=True)
            return np.asarray(whole, space.dtype)
        # Networks act in float32.
        return np.clip(rng.uniform(low, high).astype(np.float32), space.low, space.high).astype(space.dtype)
    allowed = split_mask(space, np.ones(sum(_sizes(space)), bool) if mask is None else mask)
    chosen = [int(rng.choice(np.flatnonzero(part))) if part.any() else 0 for part in allowed]
    if isinstance(space, spaces.Discrete):
        return space.dtype.type(chosen[0] + space.start)
    start = getattr(space, "start", 0)
    return (np.reshape(chosen, space.shape) + start).astype(space.dtype)


def split_mask(space: spaces.Space, mask: np.ndarray) -> list[np.ndarray]:
    """A mask [A] by the components of an action."""
    return np.split(mask, np.cumsum(_sizes(space))[:-1])


def _sizes(space: spaces.Space) -> list[int]:
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return np.ravel(space.nvec).tolist()
    return [2] * int(np.prod(space.shape))
