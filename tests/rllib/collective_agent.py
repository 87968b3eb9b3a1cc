"""A tiny collective, one network of all seats, and a world that only one can solve; for tests of seating."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from popcomm.agents.contract import AgentOutput, AgentSpec, member_rows, whole_worlds
from popcomm.envs.world import Species, World, WorldStep


class NeighbourWorld(World):
    """Every seat sees a bit of its own, and is paid for naming that of the next one. Episodes of `length` steps.

    Seats choose among 0 and 1; who sees its own bit alone earns a half of the time.
    """

    def __init__(self, num_worlds: int, device: Any = "cpu", seats: int = 3, length: int = 4) -> None:
        self.num_worlds, self.device, self.length = num_worlds, torch.device(device), length
        self.species = {"cell": Species("cell", 0, seats, 2, spaces.Discrete(2))}
        self.generator, self.time = torch.Generator().manual_seed(0), 0
        self.bits = torch.zeros(num_worlds, seats, dtype=torch.int64)

    def _say(self, rewards: Tensor, first: bool) -> WorldStep:
        shape = self.bits.shape
        self.bits = torch.randint(2, shape, generator=self.generator)
        seen, over = nn.functional.one_hot(self.bits, 2).float(), torch.full(shape, self.time == self.length)
        no = torch.zeros(shape, dtype=torch.bool)
        self.last = WorldStep({"cell": seen}, rewards, no, over, ~over, torch.full(shape, first))
        return self.last

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self.generator.manual_seed(seed)
        self.time = 0
        return self._say(torch.zeros(self.bits.shape), True)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        if self.time == self.length:
            self.time = 0
            return self._say(torch.zeros(self.bits.shape), True)
        self.time += 1
        return self._say((actions["cell"] == self.bits.roll(-1, 1)).float(), False)

    def get_state(self) -> dict[str, Any]:
        return {"time": self.time, "bits": self.bits, "last": self.last, "generator": self.generator.get_state()}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        self.time, self.bits, self.last = state["time"], state["bits"], state["last"]
        self.generator.set_state(state["generator"])
        return self.last


class Cells(nn.Module):
    """What seat i puts out is the sum over seats j of o_j W_ij, in each of G networks; remembers how often it acted."""

    has_auxiliary_losses = False
    collective = True

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__()
        self.spec = spec
        seats = spec.num_seats
        fixed = spec.seating == "fixed" and spec.members > 1
        self.networks = spec.members // seats if fixed else spec.members
        own = spec.members if fixed else spec.members * seats
        # Blocks of a receiver and of all its senders, one for each seat of each network.
        self.weight = nn.Parameter(torch.randn(own, seats, spec.obs_size, spec.action_params_size + 1) / 4)
        self.owner = torch.arange(own) if fixed else torch.arange(spec.members).repeat_interleave(seats)

    def owners(self) -> dict[nn.Parameter, Tensor]:
        return {self.weight: self.owner}

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {"steps": self.weight.new_zeros(self.spec.members, rows, 1)}

    def forward(self, obs: Tensor, inbox: Any, state: Any) -> AgentOutput:
        seen = whole_worlds(obs, self.spec)  # [G, W, N, O]
        weight = self.weight.unflatten(0, (self.networks, -1))  # [G, N, N, O, A]
        out = member_rows(torch.einsum("gwjo,gijoa->gwia", seen, weight), self.spec)
        return AgentOutput(out[..., :-1], None, out[..., -1], {"steps": state["steps"] + 1}, {})

    def auxiliary_losses(self, batch: Any, outputs: AgentOutput) -> dict[str, Tensor]:
        return {}
