"""What fixed programmes and well-known rules come to in traffic_v0: the lines that learned lights are held against.

A script is a function of the world that returns actions {species: [B, N] int64}; `python -m
popcomm.envs.traffic_references NET ...` plays an hour with each, over several seeds (docs/environments.md has numbers).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from popcomm.envs.traffic_v0 import NAME, TrafficWorld

Script = Callable[[TrafficWorld], dict[str, Tensor]]


class Randomly:
    """Even chances for the phases of each light."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, world: TrafficWorld) -> dict[str, Tensor]:
        drawn = torch.rand(world.num_worlds, world.num_agents, generator=self._generator)
        return {NAME: (drawn * torch.tensor(world.plan.num_phases)).long().to(world.device)}


class FixedTime:
    """All phases in turn, as the network's own programme has them, to whole steps; offsets between lights are not kept.

    Args:
        green: seconds for every phase, yellow before it included; None: those of the programme.
    """

    def __init__(self, green: float | None = None) -> None:
        self.green = green

    def __call__(self, world: TrafficWorld) -> dict[str, Tensor]:
        age = world.here().seconds // world.delta_time
        chosen = np.zeros((world.num_worlds, world.num_agents), dtype=np.int64)
        for seat, durations in enumerate(world.plan.durations):
            given = durations if self.green is None else [self.green] * len(durations)
            ends = np.cumsum([max(1, round(seconds / world.delta_time)) for seconds in given])
            chosen[:, seat] = np.searchsorted(ends, age % ends[-1], side="right")
        return {NAME: torch.from_numpy(chosen).to(world.device)}


class MaxPressure:
    """The phase with the greatest pressure: vehicles before its green ways less those after them (Varaiya 2013).

    Ties go to the phase that is shown, or else to the first.
    """

    def __init__(self, world: TrafficWorld) -> None:
        seats, lanes = world.num_agents, len(world.plan.lanes)
        most = max(world.plan.num_phases)
        self._weights = np.zeros((seats, most, lanes))
        self._forbidden = np.arange(most) >= np.array(world.plan.num_phases)[:, None]
        for seat, states in enumerate(world.plan.greens):
            for phase, state in enumerate(states):
                for before, after, letter in world.plan.links[seat]:
                    if state[letter] in "Gg":
                        self._weights[seat, phase, before] += 1.0
                        self._weights[seat, phase, after] -= 1.0

    def __call__(self, world: TrafficWorld) -> dict[str, Tensor]:
        traffic = world.here()
        pressure = np.einsum("npl,bl->bnp", self._weights, traffic.vehicles)
        pressure[:, self._forbidden] = -np.inf
        now = np.take_along_axis(pressure, traffic.phases[..., None], -1)[..., 0]
        chosen = np.where(now == pressure.max(-1), traffic.phases, pressure.argmax(-1))
        return {NAME: torch.from_numpy(chosen).to(world.device)}


def hour(world: TrafficWorld, script: Script, seed: int) -> dict[str, float]:
    """Metrics of one episode in all worlds, and "return": of a light, mean over lights and worlds."""
    step, earned = world.reset(seed), 0.0
    world.metrics()
    while step.alive.any():
        step = world.step(script(world))
        earned += float(step.rewards.mean())
    return {**world.metrics(), "return": earned}


def main(nets: list[str], seeds: int = 2) -> None:
    """Print a row for each network and script: means over seeds, an hour each."""
    for net in nets:
        size = {"net": "grid", "size": int(net[4:])} if net[4:].isdigit() and net.startswith("grid") else {"net": net}
        world = TrafficWorld(**size)
        scripts: dict[str, Script] = {
            "random": Randomly(), "fixed time": FixedTime(), "max-pressure": MaxPressure(world)
        }  # fmt: skip
        for name, script in scripts.items():
            rows = [hour(world, script, seed) for seed in range(seeds)]
            means = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
            print(f"| {net} | {name} | " + " | ".join(f"{key} {value:.2f}" for key, value in means.items()), flush=True)
        world.close()


if __name__ == "__main__":
    main(sys.argv[1:])
