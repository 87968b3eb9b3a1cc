"""Noise on what agents observe: any World with worse sensors. What is done to messages and by adversaries is told in
`popcomm.rollout.noise`.

Each kind has a strength; at 0 nothing changes, to the last bit.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from popcomm.checks import not_negative, share, whole
from popcomm.envs.world import World, WorldStep
from popcomm.envs.wrapped_world import WrappedWorld
from popcomm.errors import UserError
from popcomm.references import build_from_config

# A tree of random numbers beside the world's own.
BRANCH = 11
Memory = dict[str, Tensor]  # what a kind of noise keeps from step to step, tensors [B, N_s, ...] or [K, B, N_s, O]


@dataclass(frozen=True)
class Noise(ABC):
    """A kind of noise.

    Args:
        strength: how much of it; the kinds say in which unit.

    Raises:
        UserError: a strength out of its range.
    """

    strength: float
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        not_negative(f"noise of kind '{self.kind}': strength", self.strength)

    @abstractmethod
    def perceive(self, seen: Tensor, first: Tensor, memory: Memory, generator: torch.Generator) -> Tensor:
        """What is perceived of `seen`, both [B, N_s, O]; `memory` is changed.

        As many numbers are drawn whatever happens, so that worlds know nothing of one another.

        Args:
            first: [B, N_s] bool, whose life begins; all, in the first step.
        """


class Gaussian(Noise):
    """Normal noise on every number in every step; strength is its standard deviation, in units of the observation."""

    kind = "gaussian"

    def perceive(self, seen: Tensor, first: Tensor, memory: Memory, generator: torch.Generator) -> Tensor:
        return seen.add(_normal(seen, generator), alpha=self.strength)


class Bias(Noise):
    """Every sensor is off by a constant of its own for a whole life; strength is the standard deviation of these."""

    kind = "bias"

    def perceive(self, seen: Tensor, first: Tensor, memory: Memory, generator: torch.Generator) -> Tensor:
        drawn = _normal(seen, generator)
        memory["offset"] = torch.where(first.unsqueeze(-1), drawn, memory.get("offset", drawn))
        return seen.add(memory["offset"], alpha=self.strength)


class _Chance(Noise):
    def __post_init__(self) -> None:
        share(f"noise of kind '{self.kind}': strength", self.strength)


class Missing(_Chance):
    """An agent perceives zeros in place of all it would see in a step; strength is the probability."""

    kind = "missing"

    def perceive(self, seen: Tensor, first: Tensor, memory: Memory, generator: torch.Generator) -> Tensor:
        return seen.masked_fill(_uniform(seen[..., :1], generator) < self.strength, 0.0)


class Stuck(_Chance):
    """A sensor (a number of the observation) tells for a whole life what it told first; strength is the probability."""

    kind = "stuck"

    def perceive(self, seen: Tensor, first: Tensor, memory: Memory, generator: torch.Generator) -> Tensor:
        drawn, opens = _uniform(seen, generator) < self.strength, first.unsqueeze(-1)
        memory["stuck"] = torch.where(opens, drawn, memory.get("stuck", drawn))
        memory["told"] = torch.where(opens, seen, memory.get("told", seen))
        return torch.where(memory["stuck"], memory["told"], seen)


class Delay(Noise):
    """All is perceived so many steps late; until then, as in the first step of a life. strength: whole steps."""

    kind = "delay"

    def __post_init__(self) -> None:
        steps = self.strength
        whole(f"noise of kind '{self.kind}': strength", int(steps) if steps in range(10**6) else steps, 0)

    def perceive(self, seen: Tensor, first: Tensor, memory: Memory, generator: torch.Generator) -> Tensor:
        steps = int(self.strength)
        past = memory.get("past", seen.expand(steps + 1, *seen.shape))
        past = torch.cat((past[1:], seen.unsqueeze(0)))  # the oldest first
        memory["past"] = torch.where(first.unsqueeze(-1), seen, past)
        return memory["past"][0].clone()


KINDS: dict[str, type[Noise]] = {kind.kind: kind for kind in (Gaussian, Bias, Missing, Stuck, Delay)}
NoiseLike = Noise | Mapping[str, Any]


def make_noise(noise: NoiseLike) -> Noise:
    """A noise from itself or {"kind": "gaussian", "strength": 0.1}; "module:Class" is one of your own.

    Raises:
        UserError: no such kind, or a strength out of its range.
    """
    if isinstance(noise, Noise):
        return noise
    if not isinstance(noise, Mapping):
        raise UserError(f"noise is {noise!r}, and must be a mapping such as {{kind: gaussian, strength: 0.1}}")
    made = build_from_config("noise", dict(noise), KINDS)
    if not isinstance(made, Noise):
        raise UserError(f"noise.kind '{noise['kind']}' gives {made!r}, which is no popcomm.envs.noise.Noise")
    return made


def noisy(world: World, noise: NoiseLike) -> World:
    """The world with noise on what its agents observe; the world itself at strength 0."""
    made = make_noise(noise)
    return NoisyWorld(world, made) if made.strength else world


class NoisyWorld(WrappedWorld):
    """Another world whose agents observe it through noise; nothing else of it changes.

    Rewards, masks, labels, state and positions are the world's own, and so are the one-hots of seats (`has_id`) at the
    ends of observations: an agent knows who it is. What is kept in bytes, as pictures are, stays so: it is rounded, and
    within its bounds. The noise has random numbers of its own, a function of the world's
    seed.

    Args:
        world: the world.
        noise: its kind and strength.
    """

    def __init__(self, world: World, noise: NoiseLike) -> None:
        super().__init__(world)
        self.noise, self.species = make_noise(noise), world.species
        self._generator = torch.Generator(self.device)
        self._memories: dict[str, Memory] = {name: {} for name in self.species}
        self._last: WorldStep | None = None
        self._seed(0)

    def _seed(self, seed: int) -> None:
        words = np.random.SeedSequence((seed, BRANCH)).generate_state(2, np.uint32).tolist()
        self._generator.manual_seed(words[0] << 32 | words[1])

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self._seed(seed)
        self._memories = {name: {} for name in self.species}
        return self._perceived(self.world.reset(seed))

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        return self._perceived(self.world.step(actions, spoken))

    def _perceived(self, told: WorldStep) -> WorldStep:
        observations = {}
        for name, species in self.species.items():
            seen = told.observations[name]
            kept = species.num_seats if species.has_id else 0
            sensed, ids = seen.split((seen.shape[-1] - kept, kept), -1)
            first = told.first[:, species.seats]
            perceived = self.noise.perceive(sensed, first, self._memories[name], self._generator)
            observations[name] = species.kept(torch.cat((perceived, ids), -1) if kept else perceived)
        self._last = told._replace(observations=observations)
        return self._last

    def get_state(self) -> dict[str, Any] | None:
        """The world's state and the noise's; None where the world has none."""
        state = self.world.get_state()
        if state is None:
            return None
        own = {"memories": self._memories, "last": self._last, "generator": self._generator.get_state()}
        return {"world": state, "noise": copy.deepcopy(own)}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        own = copy.deepcopy(state["noise"])
        self.world.set_state(state["world"])
        self._memories, self._last = own["memories"], own["last"]
        self._generator.set_state(own["generator"])
        assert self._last is not None
        return self._last


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device)
