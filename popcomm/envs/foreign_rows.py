"""What copies of a ParallelEnv of others answer, as arrays [B, N, ...], held against what they declared."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np

from popcomm.envs.flat_spaces import FlatAction, FlatObservation, mask_of
from popcomm.envs.foreign_answers import Answer, check_keys, reward_of
from popcomm.envs.world import Species
from popcomm.errors import UserError

logger = logging.getLogger(__name__)


class Face(NamedTuple):
    """How the agents of a species are read and answered."""

    observation: FlatObservation
    action: FlatAction


class _Seat(NamedTuple):
    agent: Any
    face: Face
    observations: np.ndarray  # [B, O], a view
    masks: np.ndarray | None  # [B, A] bool, a view


class ForeignRows:
    """The latest row of B copies.

    Args:
        species: {name: Species}.
        agents: the N agents in the order of seats, as the environment calls them.
        faces: {name of a species: Face}.
        num_worlds: B.
        position_size, state_size: D and S.

    Attributes:
        arrays: terminated, truncated, alive, first, returned [B, N] bool (returned: the life was opened in the row in
            which the one before it ended), rewards [B, N], positions [B, N, D], state [B, S], and of each species
            observations/<name> [B, N_s, O] and masks/<name> [B, N_s, A] bool where it has them.
    """

    def __init__(
        self,
        species: dict[str, Species],
        agents: list[Any],
        faces: dict[str, Face],
        num_worlds: int,
        position_size: int,
        state_size: int,
    ) -> None:
        self.species, self.agents, self.faces = species, agents, faces
        self._known = frozenset(agents)
        worlds, n = num_worlds, len(agents)
        flags = ("terminated", "truncated", "alive", "first", "returned")
        rows = {name: np.zeros((worlds, n), bool) for name in flags}
        rows["rewards"] = np.zeros((worlds, n), np.float32)
        rows["positions"] = np.zeros((worlds, n, position_size), np.float32)
        rows["state"] = np.zeros((worlds, state_size), np.float32)
        for name, s in species.items():
            rows[f"observations/{name}"] = np.zeros((worlds, s.num_seats, s.obs_size), faces[name].observation.dtype)
            if s.has_action_mask:
                rows[f"masks/{name}"] = np.ones((worlds, s.num_seats, faces[name].action.mask_size), bool)
        self.arrays = rows
        self._seats = [
            _Seat(agents[s.start + i], faces[name], rows[f"observations/{name}"][:, i], self._masks_of(name, i))
            for name, s in species.items()
            for i in range(s.num_seats)
        ]
        self._told = False

    def _masks_of(self, name: str, seat: int) -> np.ndarray | None:
        masks = self.arrays.get(f"masks/{name}")
        return None if masks is None else masks[:, seat]

    def clear(self) -> None:
        """Forget what was of one step."""
        for key in ("rewards", "terminated", "truncated", "first"):
            self.arrays[key][...] = 0

    def close(self, world: int) -> None:
        """Nobody lives in that world, until an answer to reset is absorbed."""
        self.arrays["alive"][world] = self.arrays["returned"][world] = False

    def actions_in(self, world: int, env: Any, choices: list[np.ndarray]) -> dict[Any, Any]:
        """An action for everybody who is in `env.agents`. choices: for every seat [B, ...], in the environment's form.

        Those who are done and are kept there all the same get the first action of their space.
        """
        alive, there = self.arrays["alive"][world].tolist(), set(env.agents)
        return {
            seat.agent: choices[i][world] if alive[i] else seat.face.action.idle
            for i, seat in enumerate(self._seats)
            if alive[i] or seat.agent in there
        }

    def absorb(self, world: int, env: Any, answer: Answer) -> None:
        """Write what a copy says into the row of its world.

        Raises:
            UserError: what it says does not fit its agents or spaces.
        """
        living = set(env.agents)
        check_keys(answer, self._known)
        if not living <= self._known:
            raise UserError(f"agent '{min(living - self._known)}' is not in possible_agents")
        ended = [bool(answer.terminated.get(agent, False)) for agent in self.agents]
        cut = [bool(answer.truncated.get(agent, False)) for agent in self.agents]
        there = [agent in living for agent in self.agents]
        goes_on = any(t and not e and not c for t, e, c in zip(there, ended, cut, strict=True))
        acted = self.arrays["alive"][world].tolist()
        for i in range(len(self._seats)):
            if acted[i]:
                self._pay(world, i, answer, there[i])
            alive = self._live(world, i, acted[i], ended[i], cut[i], there[i], goes_on)
            self._observe(world, i, answer, acted[i] or alive, alive)

    def _pay(self, world: int, seat: int, answer: Answer, there: bool) -> None:
        """The reward of a seat that acted. One that vanishes without a word needs none."""
        agent = self.agents[seat]
        if there and agent not in answer.terminated and agent not in answer.truncated:
            raise UserError(f"agent '{agent}' acted and is in `agents`, and no flag says whether it is done")
        if there or agent in answer.rewards or agent in answer.observations:
            self.arrays["rewards"][world, seat] = reward_of(agent, answer)

    def _live(self, world: int, seat: int, acted: bool, ended: bool, cut: bool, there: bool, goes_on: bool) -> bool:
        """Write whose life ended and whose began; returns whether the seat is alive."""
        rows = self.arrays
        back = acted and (ended or cut) and there and goes_on and not rows["returned"][world, seat]
        alive = back or (there and not cut and not ended)
        if acted:
            rows["terminated"][world, seat] = back or (not alive and (ended or not cut))
            rows["truncated"][world, seat] = cut and not ended and not back
        rows["first"][world, seat] = back or (alive and not acted)
        rows["alive"][world, seat], rows["returned"][world, seat] = alive, back
        if back and not self._told:
            logger.warning(
                "agent '%s' is done and stays in `agents`, while others go on: its next life begins at once",
                self.agents[seat],
            )
            self._told = True
        return alive

    def _observe(self, world: int, seat: int, answer: Answer, shown: bool, alive: bool) -> None:
        """One seat's observation and mask. A seat that ends without a final observation keeps the one before it."""
        agent, (flat, action), rows, masks = self._seats[seat]
        told = answer.observations
        if not shown:
            rows[world] = 0.0
        elif agent not in told and alive:
            raise UserError(f"agent '{agent}' lives, and there is no observation for it")
        given = None
        try:
            if shown and agent in told:
                flat.write(rows[world], told[agent])
            if alive and not action.is_box:
                given = mask_of(told[agent], answer.infos.get(agent), flat)
            if masks is not None:
                masks[world] = True if given is None else action.read_mask(given)
        except UserError as error:
            raise UserError(f"agent '{agent}': {error}") from error
        if masks is None and given is not None:
            raise UserError(f"agent '{agent}' got an action_mask in its info, but agents of its kind had none at reset")

    def wrong_number(self) -> tuple[int, str] | None:
        """The world of the first reward or observation that is not finite, or of a whole number out of bounds, and what
        it is, in words; None where all is well. All worlds are looked at together."""
        rewards = self.arrays["rewards"]
        if not np.isfinite(rewards).all():
            world, seat = (int(i) for i in np.argwhere(~np.isfinite(rewards))[0])
            return world, f"the reward of agent '{self.agents[seat]}' is {rewards[world, seat]}, and must be finite"
        for name, species in self.species.items():
            flat = self.faces[name].observation
            place = flat.wrong(self.arrays[f"observations/{name}"])
            if place is not None:
                world, seat, number = place
                value = self.arrays[f"observations/{name}"][place]
                limits = f"between {flat.low[number]:g} and {flat.high[number]:g}" if np.isfinite(value) else "finite"
                who = f"agent '{self.agents[species.start + seat]}'"
                return world, f"number {number} of the observation of {who} is {value:g}, and must be {limits}"
        return None
