"""Lock step: copies in a `ParallelEnvWorld` beside plain loops, with equal seeds and actions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.foreign import position_source, positions_now
from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.plain_loop import PlainLoop, Row, draw, flattened, mask_in, split_mask
from popcomm.envs.world import WorldStep


class LockStep(NamedTuple):
    """What came of it."""

    difference: str  # the first, in words; "" where there is none
    steps: int  # environment steps, of all worlds
    agent_steps: int
    seconds: float  # in the worlds' own reset and step
    waiting: float  # share of the agent steps in which an agent may do nothing at all
    outside: str  # an observation outside the bounds of its Box, in words; ""


def lock_step(world: ParallelEnvWorld, loops: Sequence[PlainLoop], num_steps: int, seed: int = 0) -> LockStep:
    """Step both with random actions that the masks allow, and compare what they say, exactly.

    Compared are who lives, rewards, flags, observations (final ones too) and masks, of every agent that acts or lives,
    and positions of those who live.

    Args:
        world: B copies.
        loops: B loops of the same environment, made with the same arguments.
        num_steps: of each world; the worlds open new episodes by themselves.
        seed: of worlds and actions.

    Raises:
        UserError, RuntimeError: what the worlds raise.
        Exception: what the environment raises in a plain loop.
    """
    walk = _Walk(world, loops, seed)
    for _ in range(num_steps):
        walk.step()
        if walk.difference:
            break
    acted = max(walk.agent_steps, 1)
    return LockStep(walk.difference, walk.steps, walk.agent_steps, walk.seconds, walk.waiting / acted, walk.outside)


def differing(one: Row, other: Row, spaces_of: Callable[[Any], spaces.Space]) -> str:
    """Where two plain loops with the same seed and actions differ, in words; "" where they do not."""
    if one.there != other.there:
        return f"`agents` is {sorted(map(str, one.there))} in one, {sorted(map(str, other.there))} in the other"
    for agent in sorted(one.acted | one.there, key=str):
        for field in ("rewards", "terminated", "truncated"):
            a, b = (getattr(row, field).get(agent) for row in (one, other))
            if not _same(a, b):
                return f"of agent '{agent}' the {field} are {a} in one, {b} in the other"
        if (agent in one.observations) != (agent in other.observations):
            return f"agent '{agent}' has an observation in one alone"
        if agent in one.observations:
            seen, again = (flattened(spaces_of(agent), row.observations[agent]) for row in (one, other))
            if not _same(seen, again):
                return f"the observations of agent '{agent}' differ"
    return ""


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; what is not a number equals itself, for that it is the same is asked here."""
    a, b = np.asarray(one), np.asarray(other)
    return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")


class _Walk:
    """Worlds and loops on their way."""

    def __init__(self, world: ParallelEnvWorld, loops: Sequence[PlainLoop], seed: int) -> None:
        self.world, self.loops = world, loops
        self.rng = np.random.default_rng(seed)
        self.seats = world.agents
        env = loops[0].env
        self.spaces = {agent: world.face_of(agent).observation.space for agent in self.seats}
        self.actions = {agent: env.action_space(agent) for agent in self.seats}
        self.difference, self.outside, self.steps, self.agent_steps, self.waiting = "", "", 0, 0, 0
        self.seconds = 0.0
        self.now = self._timed(lambda: world.reset(seed))
        self.rows = [loop.reset(s) for loop, s in zip(loops, world.seeds, strict=True)]
        self._compare_all(self.now)

    def _timed(self, call: Any) -> WorldStep:
        started = time.perf_counter()
        step = call()
        self.seconds += time.perf_counter() - started
        return step

    def step(self) -> None:
        before = self.now.alive.cpu().numpy()
        over = [not row.any() for row in before]
        chosen = [{} if over[w] else self._choose(w) for w in range(len(self.loops))]
        actions = self._as_tensors(chosen)
        self.now = self._timed(lambda: self.world.step(actions))
        for w, loop in enumerate(self.loops):
            self.rows[w] = loop.reset(self.world.seeds[w]) if over[w] else loop.step(chosen[w])
        self.steps += len(over) - sum(over)
        self.agent_steps += int(before.sum())
        self._compare_all(self.now, before)

    def _choose(self, w: int) -> dict[Any, Any]:
        """An action for everybody in `agents`; those who are done and stay there get the first of their space."""
        row, actions = self.rows[w], {}
        alive = self.now.alive[w].tolist()
        for seat, agent in enumerate(self.seats):
            if agent not in row.there:
                continue
            if not alive[seat]:
                actions[agent] = self.world.face_of(agent).action.idle
                continue
            mask = mask_in(row, agent)
            self.waiting += mask is not None and not mask.any()
            actions[agent] = draw(self.actions[agent], mask, self.rng)
        return actions

    def _as_tensors(self, chosen: list[dict[Any, Any]]) -> dict[str, Tensor]:
        """{species: [B, N_s, ...]} as networks would have chosen it."""
        batch = {}
        for name, species in self.world.species.items():
            rows = [[self._one(agent, actions.get(agent)) for agent in self.seats[species.seats]] for actions in chosen]
            batch[name] = torch.from_numpy(np.array(rows))
        return batch

    def _one(self, agent: Any, action: Any) -> np.ndarray:
        face = self.world.face_of(agent).action
        flat = face.from_env(face.idle if action is None else action)
        return flat.astype(np.float32 if face.is_box else np.int64)

    def _compare_all(self, step: WorldStep, before: np.ndarray | None = None) -> None:
        rows = {name: seen.cpu().numpy() for name, seen in step.observations.items()}
        masks = {name: mask.cpu().numpy() for name, mask in (step.action_masks or {}).items()}
        for w, row in enumerate(self.rows):
            self._compare_positions(step, w)
            for name, species in self.world.species.items():
                for i, agent in enumerate(self.seats[species.seats]):
                    acted = before is not None and bool(before[w, species.start + i]) and agent in row.acted
                    mask = masks[name][w, i] if name in masks else None
                    wrong = self._compare(step, w, species.start + i, acted, rows[name][w, i], mask)
                    if wrong and not self.difference:
                        self.difference = f"world {w}, episode of seed {self.world.seeds[w]}, agent '{agent}': {wrong}"

    def _compare_positions(self, step: WorldStep, w: int) -> None:
        """Where those who live stand, beside where the plain loop's environment has them."""
        if step.positions is None:
            return
        living = [agent for agent, lives in zip(self.seats, step.alive[w].tolist(), strict=True) if lives]
        source = position_source(self.loops[w].env)
        there = positions_now(source, self.seats, living, self.world.position_size)
        for seat, agent in enumerate(self.seats):
            here = step.positions[w, seat].cpu().numpy()
            if agent in living and not np.array_equal(here, there[agent]) and not self.difference:
                self.difference = (
                    f"world {w}, episode of seed {self.world.seeds[w]}, agent '{agent}': its position is "
                    f"{here.tolist()} here and {there[agent].tolist()} in a plain loop"
                )

    def _compare(
        self, step: WorldStep, w: int, seat: int, acted: bool, seen: np.ndarray, mask: np.ndarray | None
    ) -> str:
        """What differs of one agent, in words; ""."""
        row, agent = self.rows[w], self.seats[seat]
        alive = bool(step.alive[w, seat])
        # One that is done and stays in `agents` may have been put back: both are right.
        stays = agent in row.there and (row.ended(agent) or row.cut(agent))
        if alive != row.lives(agent) and not stays:
            return f"it is {'alive' if alive else 'not alive'} here, and not so in a plain loop"
        if acted:
            flags = (bool(step.terminated[w, seat]), bool(step.truncated[w, seat]))
            gone = row.ended(agent) or (agent not in row.there and not row.cut(agent))
            if flags != (gone or (alive and row.cut(agent)), row.cut(agent) and not gone and not alive):
                return f"terminated and truncated are {flags} here, and not so in a plain loop"
            paid = np.float32(np.ravel(row.rewards.get(agent, 0.0))[0])
            if float(step.rewards[w, seat]) != float(paid):
                return f"the reward is {float(step.rewards[w, seat])} here and {paid} in a plain loop"
        if not (acted or alive) or agent not in row.observations:
            return ""
        flat = flattened(self.spaces[agent], row.observations[agent])
        if flat.size and not np.array_equal(flat, seen):
            return f"number {int(np.argmax(flat != seen))} of the observation differs from that in a plain loop"
        self._look_outside(agent, flat)
        return self._compare_mask(row, agent, mask) if alive and mask is not None else ""

    def _compare_mask(self, row: Row, agent: Any, mask: np.ndarray) -> str:
        told = mask_in(row, agent)
        parts = [] if told is None else split_mask(self.actions[agent], told)
        # A choice that nothing is allowed of is open here.
        expected = [part if part.any() else ~part for part in parts] or [np.ones_like(mask)]
        return "" if np.array_equal(np.concatenate(expected), mask) else "the action masks differ"

    def _look_outside(self, agent: Any, flat: np.ndarray) -> None:
        box = self.world.face_of(agent).observation.box
        if self.outside or flat.size != box.shape[0]:
            return
        wrong = (flat < box.low) | (flat > box.high)
        if wrong.any():
            k = int(np.argmax(wrong))
            self.outside = (
                f"number {k} of the observation of agent '{agent}' was {flat[k]:g}, "
                f"outside its bounds [{box.low[k]:g}, {box.high[k]:g}]"
            )
