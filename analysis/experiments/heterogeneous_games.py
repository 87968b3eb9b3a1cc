"""Worlds of the experiment on heterogeneous agents: all types as one species, and many callers before one clerk."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.making import make_world
from popcomm.envs.world import Species, WorldStep
from popcomm.envs.wrapped_world import WrappedWorld

ONE = "one"  # species of all types together


class PaddedWorld(WrappedWorld):
    """Another world whose species are one: what is often done to let one network act for agents of different types.

    Observations [N, longest + S]: those of the own type, zeros up to the longest, and which of the S types it is,
    one-hot. Actions are Discrete(most), and what a type does not have is masked. Seats stay in their order.

    Args:
        of: a world of Discrete actions, as `environment.env` has it; the other arguments are that world's.
    """

    def __init__(self, num_worlds: int = 1, device: Any = "cpu", of: Any = None, **env_config: Any) -> None:
        super().__init__(make_world(of, env_config, num_worlds, device))
        kinds = list(self.world.species.values())
        self._choices = [int(getattr(kind.action_space, "n", 0)) for kind in kinds]
        self._size, most = max(kind.obs_size for kind in kinds), max(self._choices)
        agents = tuple(agent for kind in kinds for agent in kind.agents)
        obs_size = self._size + len(kinds)
        self.species = {ONE: Species(ONE, 0, len(agents), obs_size, spaces.Discrete(most), agents, True)}
        allowed = [
            torch.arange(most).lt(n).expand(kind.num_seats, -1) for kind, n in zip(kinds, self._choices, strict=True)
        ]
        self._mask = torch.cat(allowed).to(self.device).expand(num_worlds, -1, -1)

    @property
    def env_spaces(self) -> dict[str, tuple[spaces.Space, spaces.Space]]:
        return {ONE: (self.species[ONE].observation_space, self.species[ONE].action_space)}

    def reset(self, seed: int | None = None) -> WorldStep:
        return self._seen(self.world.reset(seed))

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        own = {name: actions[ONE][:, kind.seats] for name, kind in self.world.species.items()}
        return self._seen(self.world.step(own, spoken))

    def _seen(self, told: WorldStep) -> WorldStep:
        parts = []
        for kind, which in zip(self.world.species.values(), torch.eye(len(self._choices)), strict=True):
            seen = told.observations[kind.name]
            padded = F.pad(seen, (0, self._size - kind.obs_size))
            parts.append(torch.cat((padded, which.to(seen).expand(*seen.shape[:2], -1)), -1))
        return told._replace(observations={ONE: torch.cat(parts, 1)}, action_masks={ONE: self._mask.clone()})

    def get_state(self) -> dict[str, Any] | None:
        return self.world.get_state()

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        return self._seen(self.world.set_state(state))


class CallWorld(EpisodicWorld):
    """Many call, and only one of them has something to say: N callers see a kind each, a clerk must name one of these.

    One caller, another one in every episode, sees that it is its kind that counts; the clerk, who sees nothing, names
    a kind a step later, and all get 1 if it is right. Observations: a caller's [K + 2], its kind (one-hot, zeros in the
    second step), whether it counts, and a constant 1; the clerk's [1], a constant 1.
    """

    name, kept = "call", (*EpisodicWorld.kept, "kinds", "counts")

    def __init__(self, num_worlds: int = 1, device: Any = "cpu", callers: int = 8, kinds: int = 4) -> None:
        super().__init__(num_worlds, device, 2)
        self.choices = kinds
        caller = Species("caller", 0, callers, kinds + 2, spaces.Discrete(1), hears=False)
        clerk = Species("clerk", callers, callers + 1, 1, spaces.Discrete(kinds), speaks=False)
        self.species = {"caller": caller, "clerk": clerk}
        self._kinds: Tensor | None = None  # [B, N] int64
        self._counts: Tensor | None = None  # [B] int64, who counts

    def _begin(self, worlds: Tensor) -> None:
        callers = self.species["caller"].num_seats
        kinds = torch.randint(self.choices, (self.num_worlds, callers), generator=self._generator)
        counts = torch.randint(callers, (self.num_worlds,), generator=self._generator)
        self._kinds = self._renewed(self._kinds, kinds, worlds)
        self._counts = self._renewed(self._counts, counts, worlds)

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        assert self._kinds is not None
        assert self._counts is not None
        answering = self._age == 1
        asked = self._kinds.gather(1, self._counts.unsqueeze(1))
        right = (actions["clerk"] == asked) & answering.unsqueeze(1)
        return right.float().expand(-1, self.num_agents).contiguous(), answering

    def _observe(self) -> dict[str, Tensor]:
        assert self._kinds is not None
        assert self._counts is not None
        seen = F.one_hot(self._kinds, self.choices) * (self._age == 0).view(-1, 1, 1)
        counts = F.one_hot(self._counts, self._kinds.shape[1]).unsqueeze(-1)
        ones = torch.ones_like(counts)
        return {"caller": torch.cat([seen, counts, ones], -1).float(), "clerk": ones[:, :1].float()}
