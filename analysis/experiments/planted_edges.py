"""Planted edges: a world in which it is known who needs to know what another sees, to tell whether growth finds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.world import Species, World, WorldStep

SYMBOLS = 4


def planted_sources(seats: int, edges: int, seed: int = 0) -> Tensor:
    """[N] int64, whose symbol each seat is to name: that of another for so many seats, its own for the others."""
    rng = np.random.default_rng(seed)
    sources = np.arange(seats)
    for receiver in rng.permutation(seats)[:edges]:
        sources[receiver] = rng.choice([seat for seat in range(seats) if seat != receiver])
    return torch.as_tensor(sources)


def planted_pairs(sources: Tensor) -> set[tuple[int, int]]:
    """{(sender, receiver)} that are planted in `planted_sources`."""
    return {(int(source), seat) for seat, source in enumerate(sources) if int(source) != seat}


class PlantedWorld(World):
    """Every seat sees one of four symbols, and is to name its own or that of one other seat; one step is an episode.

    Args:
        num_worlds: B.
        seats: N.
        edges: seats that are to name what another one sees.
        layout_seed: of who needs whom.
        team: whether all are paid the mean over seats, and not each its own.
    """

    def __init__(
        self,
        num_worlds: int,
        device: Any = "cpu",
        seats: int = 16,
        edges: int = 8,
        layout_seed: int = 0,
        team: bool = True,
    ) -> None:
        self.num_worlds, self.device, self.team = num_worlds, torch.device(device), team
        self.species = {"cell": Species("cell", 0, seats, SYMBOLS, spaces.Discrete(SYMBOLS))}
        self.sources = planted_sources(seats, edges, layout_seed)
        self.generator = torch.Generator().manual_seed(0)
        self.symbols = torch.zeros(num_worlds, seats, dtype=torch.int64)

    def _say(self, rewards: Tensor, terminated: bool, first: bool) -> WorldStep:
        shape = self.symbols.shape
        self.symbols = torch.randint(SYMBOLS, shape, generator=self.generator)
        seen = torch.nn.functional.one_hot(self.symbols, SYMBOLS).float()
        over = torch.full(shape, terminated)
        self.last = WorldStep({"cell": seen}, rewards, over, torch.zeros_like(over), ~over, torch.full(shape, first))
        return self.last

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self.generator.manual_seed(seed)
        return self._say(torch.zeros(self.symbols.shape), False, True)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        rewards = (actions["cell"] == self.symbols[:, self.sources]).float()
        if self.team:
            rewards = rewards.mean(1, keepdim=True).expand_as(rewards).contiguous()
        return self._say(rewards, False, False)

    def get_state(self) -> dict[str, Any]:
        return {"symbols": self.symbols, "last": self.last, "generator": self.generator.get_state()}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        self.symbols, self.last = state["symbols"], state["last"]
        self.generator.set_state(state["generator"])
        return self.last
