"""One GPU in under five minutes: agent-steps a second of swarm and swarm_large, and TinyAgent-100m's tokens a second.

    python -m popcomm.analysis.benchmarks.gpu

Of each YAML file three ways to use the GPU are measured: the learner alone on it; worlds and networks of a remote env
runner on it, too; and both with bfloat16 and TensorFloat-32. Rates are of whole iterations and of time on the wall.
TinyAgent runs forward and backward in bfloat16, compiled, with the share of the device's peak that its products reach.
Where there is no GPU all of it runs at a small size on the CPU, which says that it runs, and nothing of a GPU.
"""

from __future__ import annotations

import os

# Before Ray is imported: no network beyond loopback.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import argparse
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from popcomm.analysis.benchmarks import tiny
from popcomm.analysis.benchmarks.common import Measurement, table
from popcomm.analysis.benchmarks.training import local_ray

from popcomm.cli.documents import load
from popcomm.cli.schema import apply
from popcomm.rllib import PopulationPPOConfig

FILES = ("swarm", "swarm_large")
WARM_UP = 2  # iterations that are not counted: kernels are chosen and memory is taken
SECONDS = 10.0  # of counted iterations, of each case
# Changes to a file, as on the command line.
ON_GPU = {
    "learner on the GPU": ("env_runners.num_env_runners=0", "learners.num_gpus_per_learner=1"),
    "worlds and learner on the GPU": (
        "env_runners.num_env_runners=1",
        "env_runners.num_gpus_per_env_runner=0.5",
        "learners.num_gpus_per_learner=1",
    ),
    "worlds and learner on the GPU, bf16 and tf32": (
        "env_runners.num_env_runners=1",
        "env_runners.num_gpus_per_env_runner=0.5",
        "learners.num_gpus_per_learner=1",
        "acceleration.autocast=bf16",
        "acceleration.tf32=true",
    ),
}
SMALL = ("env_runners.num_env_runners=0", "env_runners.num_worlds_per_env_runner=2", "training.minibatch_size=2")
SMALL_OF_FILES = {"swarm": (), "swarm_large": ("environment.env_config.num_agents=20", "population.members=20")}


class Case(NamedTuple):
    """One training."""

    file: str
    how: str
    changes: tuple[str, ...]

    @property
    def config(self) -> PopulationPPOConfig:
        return apply(load(self.file, list(self.changes)), PopulationPPOConfig())


def cases() -> list[Case]:
    """Those of this machine."""
    if torch.cuda.is_available():
        return [Case(file, how, changes) for file in FILES for how, changes in ON_GPU.items()]
    return [Case(file, "small, on the CPU", SMALL + SMALL_OF_FILES[file]) for file in FILES]


def run(quick: bool = False) -> list[Measurement]:
    """All cases, and TinyAgent. quick: one counted iteration of each."""
    with local_ray():
        results = [measured(case, 0.0 if quick else SECONDS) for case in cases()]
    if torch.cuda.is_available():
        return results + tiny.measure(*tiny.default_case(quick), steps=2 if quick else 20)
    # A kernel of its own takes the compiler longer than all else here.
    return results + tiny.measure(tiny.Case("tiny-1m", 1, 15, "float32", compiled=False), torch.device("cpu"), steps=2)


def measured(case: Case, seconds: float) -> Measurement:
    """Agent-steps a second of whole iterations, for `seconds` at least, and for one iteration."""
    algorithm = case.config.build_algo()
    try:
        for _ in range(WARM_UP):
            first = last = agent_steps(algorithm.train())
        rates: list[float] = []
        began = now = time.perf_counter()
        while not rates or now - began < seconds:
            before, then = last, now
            last, now = agent_steps(algorithm.train()), time.perf_counter()
            rates.append((last - before) / (now - then))
    finally:
        algorithm.stop()
    rate = (last - first) / (now - began)
    return Measurement("gpu", f"{case.file}, {case.how}", rate, "agent-steps/s", samples=tuple(rates))


def agent_steps(result: Mapping[str, Any]) -> int:
    """So far, in an iteration's result."""
    return int(result["num_agent_steps_sampled_lifetime"])


def main(arguments: list[str] | None = None) -> None:
    """Measure and print, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one counted iteration of each: does it run at all?")
    given = parser.parse_args(arguments)
    began = time.perf_counter()
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
    else:
        print("no GPU is at hand: small sizes on the CPU, which say nothing of a GPU")
    print(table(run(given.quick)))
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
