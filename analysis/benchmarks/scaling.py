"""Time per agent-step against the size of a world and of the population, with messages and learning."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from popcomm.analysis.benchmarks.common import Measurement, alternating, median
from popcomm.analysis.benchmarks.training import PLAIN_TALK, PPO, local_ray, trained

from popcomm.rllib import PopulationPPOConfig

AGENTS = (10, 32, 100, 320, 1000, 4096)
MEMBERS = (1, 4, 16, 64, 256, 1024)
TOPOLOGIES = ({"kind": "k_nearest", "k": 4}, {"kind": "ring", "k": 4})
MESSAGES = {"kind": "symbols", "vocab_size": 16, "length": 2}
LENGTH, TOTAL_SEATS, MINIBATCHES = 8, 8192, 2
FLAT_FROM, FLAT, FLAT_IN_MEMBERS = 32, 1.5, 2.0


def run(quick: bool = False) -> list[Measurement]:
    """Microseconds of CPU time per agent-step, for rollout and update together, and how flat they are."""
    torch.set_num_threads(1)
    seats = TOTAL_SEATS // 8 if quick else TOTAL_SEATS
    agents = AGENTS[:3] if quick else AGENTS
    members = MEMBERS[:3] if quick else MEMBERS
    results = []
    with local_ray():
        for topology in TOPOLOGIES:
            cases = {f"{n} agents": scaled_config(n, 1, seats, topology) for n in agents}
            name = f"{topology['kind']}, shared weights"
            results += measure(name, cases, f"{FLAT_FROM} agents", FLAT, 1 if quick else 5)
        cases = {f"{p} members": scaled_config(32, p, seats, TOPOLOGIES[1]) for p in members}
        results += measure("ring, 32 agents a world", cases, "1 members", FLAT_IN_MEMBERS, 1 if quick else 5)
    return results


def measure(
    name: str, configs: dict[str, PopulationPPOConfig], first: str, bar: float, repetitions: int
) -> list[Measurement]:
    """Times of all configs, taken in turn, and the largest over the smallest from the case `first` on."""
    sizes = list(configs)
    rates = _alternating_algorithms(configs, repetitions)
    micros = {size: [1e6 / r for r in rates[size]] for size in sizes}
    results = [
        Measurement("scaling", f"{name}: {size}", median(micros[size]), "us / agent-step", samples=tuple(micros[size]))
        for size in sizes
    ]
    counted = sizes[sizes.index(first) :]
    spreads = [max(row) / min(row) for row in zip(*(micros[size] for size in counted), strict=True)]
    case = f"{name}: slowest / fastest, {counted[0]} to {counted[-1]}"
    return [*results, Measurement("scaling", case, median(spreads), "times", bar, at_most=True)]


def _alternating_algorithms(configs: dict[str, PopulationPPOConfig], repetitions: int) -> dict[str, list[float]]:
    with ExitStack() as stack:
        works = {
            size: stack.enter_context(trained(config, config.layout.num_agents)) for size, config in configs.items()
        }
        return alternating(works, repetitions)


def scaled_config(agents: int, members: int, seats: int, topology: dict[str, Any]) -> PopulationPPOConfig:
    """swarm_v0 with about `seats` seats in all worlds, whatever the size of one; two minibatches of half of them."""
    worlds = max(MINIBATCHES, seats // agents // MINIBATCHES * MINIBATCHES)
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": agents})
        .communication(messages=MESSAGES, topology=topology)
        .population(agent="mlp", members=members)
        .env_runners(num_env_runners=0, num_worlds_per_env_runner=worlds, rollout_fragment_length=LENGTH)
        .learners(num_learners=0)
        .training(**PPO, **PLAIN_TALK, num_epochs=2, minibatch_size=worlds // MINIBATCHES)
        .debugging(seed=0)
    )
