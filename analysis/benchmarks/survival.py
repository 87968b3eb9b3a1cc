"""What a selection costs: newborns among 1,000 members of 10,000 weights each, with their moments and statistics."""

from __future__ import annotations

import time

import numpy as np
import torch
from popcomm.analysis.benchmarks.common import Measurement

from popcomm.evolution.diversity import of_weights
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.learner import PopulationPPOLearner
from popcomm.rllib.succession import Succession, carry_out

MEMBERS, REPEATS, STD = 1000, 7, 0.02
BARS = {200: 60.0, 800: 150.0}  # {newborns: milliseconds with mutation}


def run(quick: bool = False) -> list[Measurement]:
    """CPU milliseconds of one thread; medians."""
    torch.set_num_threads(1)
    learner = _learner(100 if quick else MEMBERS)
    network, optimizers = learner.networks["swarm"], learner._optimizers("swarm")
    size = sum(p[0].numel() for p in network.parameters())
    members = network.spec.members
    case = f"{members:,} members of {size:,} weights"
    found = []
    for newborns, bar in BARS.items():
        born = newborns * members // MEMBERS
        for std in (0.0, STD):
            spent = [_milliseconds(network, optimizers, _succession(members, born, std, k)) for k in range(REPEATS)]
            what = "with mutation" if std else "copied"
            found.append(
                Measurement(
                    "survival", f"{case}: {born} newborns, {what}", float(np.median(spent)), "CPU ms",
                    bar if std and not quick else None, at_most=True, samples=tuple(spent),
                )
            )  # fmt: skip
    start = time.process_time()
    of_weights(list(network.agent.parameters()))
    spent_on_it = 1e3 * (time.process_time() - start)
    found.append(Measurement("survival", f"{case}: how much they differ", spent_on_it, "CPU ms"))
    return found


def _learner(members: int) -> PopulationPPOLearner:
    """With moments of every weight."""
    config = (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 10})
        .communication(messages=None)
        .population(agent="mlp", members=members)
        .env_runners(num_worlds_per_env_runner=members // 10)
        .debugging(seed=1)
    )
    config.validate()
    learner = PopulationPPOLearner(config=config, module_spec=config.get_multi_rl_module_spec())
    learner.build()
    for parameter in learner.networks["swarm"].parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    for optimizer in learner._optimizers("swarm"):
        optimizer.step()
    return learner


def _succession(members: int, newborns: int, std: float, seed: int) -> Succession:
    rng = np.random.default_rng(seed)
    sources, born = np.arange(members), rng.choice(members, newborns, replace=False)
    sources[born] = rng.choice(np.setdiff1d(sources, born), newborns)
    nobody = np.full(members, -1)
    return Succession(sources, nobody, False, 0, std, 0.0, {}, seed)


def _milliseconds(network, optimizers, succession: Succession) -> float:
    start = time.process_time()
    carry_out(succession, network, optimizers)
    return 1e3 * (time.process_time() - start)
