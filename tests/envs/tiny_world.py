"""A small World with all that a World may have: two species, masks, a death, episodes of different length."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.world import Species, World, WorldStep

DEATH = 3  # walker_0 dies in this step


class TinyWorld(World):
    """Walkers and a caller add to a total. A walker may not do the same twice in a row; talk costs 0.5 a symbol."""

    position_size, state_size, num_labels, torus = 1, 1, 3, (4.0,)

    def __init__(self, num_worlds: int = 3) -> None:
        self.num_worlds, self.device = num_worlds, torch.device("cpu")
        self.species = {
            "walker": Species("walker", 0, 2, 2, spaces.Discrete(3), ("walker_0", "walker_1"), has_action_mask=True),
            "caller": Species("caller", 2, 3, 1, spaces.Box(-1.0, 1.0, (2,), np.float32)),
        }
        self.generator = torch.Generator()
        self.data: dict[str, Tensor] = {}
        self.last: WorldStep | None = None

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self.generator.manual_seed(seed)
        b = self.num_worlds
        self.data = {"alive": torch.zeros(b, 3, dtype=torch.bool), "total": torch.zeros(b)}
        self.data |= {"age": torch.zeros(b, dtype=torch.int64), "length": torch.zeros(b, dtype=torch.int64)}
        self.data["previous"] = torch.full((b, 2), -1)
        return self.advance({"walker": torch.zeros(b, 2, dtype=torch.int64), "caller": torch.zeros(b, 1, 2)}, None)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        return self.advance(actions, spoken)

    def advance(self, actions: dict[str, Tensor], spoken: Tensor | None) -> WorldStep:
        d, b = self.data, self.num_worlds
        noise = torch.randn(b, generator=self.generator)
        lengths = torch.randint(5, 8, (b,), generator=self.generator)
        acted = d["alive"]
        over = ~acted.any(-1)
        amounts = torch.cat((actions["walker"].float(), actions["caller"].sum(-1)), -1) * acted
        total = torch.where(over, noise, d["total"] + amounts.sum(-1) + noise)
        age = torch.where(over, 0, d["age"] + 1)
        length = torch.where(over, lengths, d["length"])
        terminated = acted & (torch.arange(3) == 0) & (age == DEATH).unsqueeze(-1)
        truncated = acted & (age == length).unsqueeze(-1)
        alive = torch.where(over.unsqueeze(-1), True, acted & ~terminated & ~truncated)
        previous = torch.where(over.unsqueeze(-1), -1, torch.where(acted[:, :2], actions["walker"], d["previous"]))
        self.data = {"alive": alive, "total": total, "age": age, "length": length, "previous": previous}
        cost = 0.0 if spoken is None else 0.5 * spoken
        rewards = (amounts - cost) * acted
        self.last = self.told(rewards, terminated, truncated, alive & over.unsqueeze(-1))
        return self.last

    def told(self, rewards: Tensor, terminated: Tensor, truncated: Tensor, first: Tensor) -> WorldStep:
        d, b = self.data, self.num_worlds
        own = torch.stack((d["total"], d["age"].float()), -1).unsqueeze(1)
        return WorldStep(
            {"walker": own.expand(b, 2, 2).clone(), "caller": d["total"].view(b, 1, 1).clone()},
            rewards,
            terminated,
            truncated,
            d["alive"],
            first,
            positions=(d["total"].unsqueeze(-1) + torch.arange(3)).remainder(4.0).unsqueeze(-1),
            state=d["total"].unsqueeze(-1).clone(),
            action_masks={"walker": torch.arange(3) != d["previous"].unsqueeze(-1)},
            labels=torch.where(d["alive"], (d["age"] % 3).unsqueeze(-1), -1),
        )

    def get_state(self) -> dict[str, Any] | None:
        return {"data": dict(self.data), "generator": self.generator.get_state(), "last": self.last}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        self.data, self.last = dict(state["data"]), state["last"]
        self.generator.set_state(state["generator"])
        assert self.last is not None
        return self.last

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        return np.full((4, 4, 3), int(self.data["age"][world]), dtype=np.uint8)
