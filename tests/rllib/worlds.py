"""Tiny worlds with answers that can be worked out on paper, shared by the tests of the trainer."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.world import Species, World, WorldStep


class ClockWorld(World):
    """Two species; observations tell world, seat and time; world b's episodes last `lengths[b mod len]` steps.

    Seat n's reward is 1 whenever it acts with action 1. The last seat dies at step `death` of every episode.
    """

    def __init__(
        self,
        num_worlds: int,
        device: Any = "cpu",
        lengths: tuple[int, ...] = (3, 5),
        speakers: int = 2,
        listeners: int = 2,
        death: int | None = None,
        terminal: bool = False,
    ) -> None:
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self.species = {
            "speaker": Species("speaker", 0, speakers, 3, spaces.Discrete(3)),
            "listener": Species("listener", speakers, speakers + listeners, 4, spaces.Discrete(2)),
        }
        self.state_size = 2
        self.death, self.terminal = death, terminal
        self.length = torch.tensor([lengths[b % len(lengths)] for b in range(num_worlds)])
        self.time = torch.zeros(num_worlds, dtype=torch.int64)
        self.generator = torch.Generator().manual_seed(0)
        self.noise = torch.zeros(num_worlds, 1)

    def _say(self, rewards: Tensor, terminated: Tensor, truncated: Tensor, alive: Tensor, first: Tensor) -> WorldStep:
        clock = self.time.float().view(-1, 1, 1) / 5
        observations = {}
        for name, s in self.species.items():
            seat = torch.linspace(-1, 1, s.num_seats).view(1, -1, 1).expand(self.num_worlds, -1, -1)
            noise = self.noise.view(-1, 1, 1).expand_as(seat)
            parts = [clock.expand_as(seat), seat, noise, torch.ones_like(seat)][: s.obs_size]
            observations[name] = torch.cat(parts, -1)
        state = torch.cat([clock.view(-1, 1), self.noise], 1)
        self.last = WorldStep(observations, rewards, terminated, truncated, alive, first, None, state)
        return self.last

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self.generator.manual_seed(seed)
        self.time.zero_()
        self.noise = torch.randn(self.num_worlds, 1, generator=self.generator)
        no = torch.zeros(self.num_worlds, self.num_agents, dtype=torch.bool)
        return self._say(no.float(), no, no.clone(), ~no, ~no)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        opening = self.time == self.length
        fresh = torch.randn(self.num_worlds, 1, generator=self.generator)
        self.noise = torch.where(opening.unsqueeze(1), fresh, self.noise)
        self.time = torch.where(opening, 0, self.time + 1)
        n = self.num_agents
        was = self.last.alive
        rewards = torch.cat([(actions[name] == 1).float() for name in self.species], 1) * was
        over = (self.time == self.length).unsqueeze(1).expand(-1, n)
        first = opening.unsqueeze(1).expand(-1, n)
        ended = was & over
        died = torch.zeros_like(was)
        if self.death is not None:
            died[:, -1] = (self.time == self.death) & was[:, -1] & ~ended[:, -1]
        alive = torch.where(first, torch.ones_like(was), was & ~ended & ~died)
        terminated = died | (ended if self.terminal else torch.zeros_like(ended))
        truncated = torch.zeros_like(ended) if self.terminal else ended
        return self._say(rewards, terminated, truncated, alive, first.clone())

    def get_state(self) -> dict[str, Any]:
        return {
            "time": self.time.clone(),
            "noise": self.noise.clone(),
            "last": self.last,
            "generator": self.generator.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        self.time, self.noise, self.last = state["time"].clone(), state["noise"].clone(), state["last"]
        self.generator.set_state(state["generator"])
        return self.last


class BanditWorld(World):
    """One seat, one state, three actions worth 0, 0.2 and 1; episodes of four steps. The best return is 4."""

    def __init__(self, num_worlds: int, device: Any = "cpu", broken_at: int | None = None, nan: bool = False) -> None:
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self.species = {"player": Species("player", 0, 1, 1, spaces.Discrete(3))}
        self.worth = torch.tensor([0.0, 0.2, 1.0])
        self.time, self.broken_at, self.nan, self.steps = 0, broken_at, nan, 0

    def _say(self, rewards: Tensor, over: bool, first: bool) -> WorldStep:
        shape = (self.num_worlds, 1)
        no = torch.zeros(shape, dtype=torch.bool)
        observations = {"player": torch.full((*shape, 1), float("nan") if self.nan and self.steps > 8 else 1.0)}
        self.last = WorldStep(
            observations, rewards, no, torch.full(shape, over), torch.full(shape, not over), torch.full(shape, first)
        )
        return self.last

    def reset(self, seed: int | None = None) -> WorldStep:
        self.time = 0
        return self._say(torch.zeros(self.num_worlds, 1), False, True)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        self.steps += 1
        if self.broken_at is not None and self.steps >= self.broken_at:
            raise ZeroDivisionError("the bandit's arm came off")
        if self.time == 4:
            self.time = 0
            return self._say(torch.zeros(self.num_worlds, 1), False, True)
        self.time += 1
        return self._say(self.worth[actions["player"]], self.time == 4, False)

    def get_state(self) -> dict[str, Any]:
        return {"time": self.time, "steps": self.steps, "last": self.last}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        self.time, self.steps, self.last = state["time"], state["steps"], state["last"]
        return self.last
