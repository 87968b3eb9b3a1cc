"""Which criterion finds the edges that are needed: planted edges, by criterion and pace of growth.

`python -m popcomm.analysis.experiments.bottom_up` prints the table of docs/bottom_up.md; `--help` tells what can be
varied. Runner and learner are in this process, without Ray.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
from popcomm.analysis.experiments.planted_edges import PlantedWorld, planted_pairs, planted_sources

from popcomm.agents.growth_criteria import CRITERIA
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.learner import PopulationPPOLearner

COMPARED = (*CRITERIA, "random")


class Found(NamedTuple):
    """What a training came to."""

    precision: float  # the share of the actor's pairs that are planted
    recall: float  # the share of the planted pairs that the actor has
    reward: float  # of the last iteration, the mean of a step
    seconds: float


def config_of(seed: int, growth: dict[str, Any], args: argparse.Namespace) -> PopulationPPOConfig:
    world = {"seats": args.seats, "edges": args.edges, "layout_seed": seed, "team": not args.own}
    return (
        PopulationPPOConfig()
        .environment(PlantedWorld, env_config=world)
        .communication(messages=None)
        .population(agent="bottom_up", agent_config={"hidden": args.hidden, "growth": growth})
        .env_runners(num_worlds_per_env_runner=64, rollout_fragment_length=16)
        .training(gamma=0.0, lr=args.lr, num_epochs=2)
        .debugging(seed=seed)
    )


def trained(config: PopulationPPOConfig, iterations: int) -> tuple[Any, float]:
    """The network after so many iterations, and the mean reward of the last one."""
    config.validate()
    runner = PopulationEnvRunner(config=config, worker_index=0)
    learner = PopulationPPOLearner(config=config, module_spec=config.get_multi_rl_module_spec())
    learner.build()
    reward = 0.0
    for iteration in range(iterations):
        runner.module.set_state(learner.module.get_state())
        batch: Any = runner.sample()
        reward = float(np.asarray(batch.policy_batches["cell"]["rewards"]).mean())
        learner.update_from_fragments([batch], [runner.num_worlds], iteration, {})
    return learner.networks["cell"].agent, reward


def found(criterion: str, seed: int, args: argparse.Namespace) -> Found:
    """Grow as many edges as are planted, and look whether they are those."""
    began = time.perf_counter()
    growth = {
        "criterion": criterion,
        "edges": args.edges,
        "every": args.every,
        "at_once": args.at_once,
        "warm_up": args.warm_up,
    }
    growths = -(-args.edges // args.at_once)
    agent, reward = trained(config_of(seed, growth, args), args.warm_up + args.every * growths + args.after)
    grown = {tuple(p) for name in agent.layers if name.startswith("actor.") for p in agent.edges(name).tolist()}
    planted = planted_pairs(planted_sources(args.seats, args.edges, seed))
    hits = len(grown & planted)
    return Found(hits / max(1, len(grown)), hits / len(planted), reward, time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--criteria", nargs="+", default=list(COMPARED), choices=COMPARED)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="of trainings and planted edges")
    parser.add_argument("--seats", type=int, default=16)
    parser.add_argument("--edges", type=int, default=8, help="planted, and grown in the actor and in the critic")
    parser.add_argument("--every", type=int, default=2, help="iterations between growths")
    parser.add_argument("--at-once", type=int, default=2, help="edges of a growth")
    parser.add_argument("--warm-up", type=int, default=0, help="iterations before anything is looked at")
    parser.add_argument("--after", type=int, default=2, help="iterations after the last growth")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--own", action="store_true", help="every seat is paid for itself, instead of the team")
    args = parser.parse_args()
    print("| criterion | seed | precision | recall | reward of a step | seconds |\n| --- |" + " --- |" * 5)
    for criterion in args.criteria:
        for seed in args.seeds:
            told = found(criterion, seed, args)
            numbers = f"{told.precision:.2f} | {told.recall:.2f} | {told.reward:.2f} | {told.seconds:.0f}"
            print(f"| {criterion} | {seed} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
