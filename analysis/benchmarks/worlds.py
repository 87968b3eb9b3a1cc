"""The world alone: swarm_v0 with random actions, in agent-steps per CPU second."""

from __future__ import annotations

import torch
from popcomm.analysis.benchmarks.common import Measurement, alternating, median

from popcomm.envs.swarm_v0 import SwarmWorld

SIZES = {(32, 32): 500_000.0, (1024, 3): 3_000_000.0}  # (worlds, agents in each) -> bar
STEPS = 50


def run(quick: bool = False) -> list[Measurement]:
    """Both sizes, in turn."""
    torch.set_num_threads(1)
    works = {size: RandomActions(*size).steps for size in SIZES}
    rates = alternating({str(s): w for s, w in works.items()}, 1 if quick else 7, 0.1 if quick else 0.5)
    return [
        Measurement(
            "worlds",
            f"swarm_v0, {worlds} worlds x {agents} agents, random actions",
            median(rates[str((worlds, agents))]),
            "agent-steps / CPU s",
            bar,
            samples=tuple(rates[str((worlds, agents))]),
        )
        for (worlds, agents), bar in SIZES.items()
    ]


class RandomActions:
    """Steps a swarm with uniformly drawn actions; drawing them counts."""

    def __init__(self, worlds: int, agents: int) -> None:
        self.world = SwarmWorld(num_worlds=worlds, num_agents=agents)
        self.world.reset(seed=0)
        self.generator = torch.Generator().manual_seed(0)

    def steps(self, count: int = STEPS) -> int:
        """Make that many steps; returns the agent-steps."""
        shape = (self.world.num_worlds, self.world.num_agents)
        for _ in range(count):
            self.world.step({"swarm": torch.randint(5, shape, generator=self.generator)})
        return count * shape[0] * shape[1]
