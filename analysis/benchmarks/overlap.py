"""Sampling while learning against taking turns: mpe2's simple_spread, one remote env runner, the learner in the driver.

    python -m popcomm.analysis.benchmarks.overlap

Both trainings live at once and are run in turn, a few iterations each, so that what disturbs the machine disturbs both.
Beside the ratio of the times on the wall stands what follows from CPU time alone, which other work on the machine
stretches less: with a free core for each, an iteration takes sampling + learning in turn, and the longer of the two at
the same time.
"""

from __future__ import annotations

import os

# Before Ray is imported: no network beyond loopback, one thread for each process.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import argparse
import time
from typing import Any

import torch
from popcomm.analysis.benchmarks.common import Measurement, median, table
from popcomm.analysis.benchmarks.training import local_ray

from popcomm.rllib import PopulationPPOConfig

ENV, AGENTS = "mpe2.simple_spread_v3:parallel_env", 3
WORLDS, LENGTH = 32, 25


def config(overlap: bool) -> PopulationPPOConfig:
    """Symbols and all else by default."""
    return (
        PopulationPPOConfig()
        .environment(ENV, env_config={"max_cycles": LENGTH})
        .communication(messages={"kind": "symbols", "vocab_size": 16, "length": 2})
        .env_runners(
            num_env_runners=1, num_worlds_per_env_runner=WORLDS, rollout_fragment_length=LENGTH, overlap=overlap
        )
        .debugging(seed=0)
    )


def run(turns: int = 4, iterations: int = 4) -> list[Measurement]:
    """Agent-steps a second of both, turn by turn, their ratios, and what CPU time says."""
    torch.set_num_threads(1)
    with local_ray():
        trainings = {name: config(name == "overlap").build_algo() for name in ("in turn", "overlap")}
        rates: dict[str, list[float]] = {name: [] for name in trainings}
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in trainings}
        for training in trainings.values():
            for _ in range(2):
                training.train()
        for _ in range(turns):
            for name, training in trainings.items():
                rate, cpu = timed(training, iterations)
                rates[name].append(rate)
                spent[name].append(cpu)
        for training in trainings.values():
            training.stop()
    return told(rates, spent)


def timed(training: Any, iterations: int) -> tuple[float, tuple[float, float]]:
    """Agent-steps a second, and CPU seconds of an iteration in the runner and in the driver."""
    [sampling] = training.foreach_sampling_runner(lambda runner: time.process_time())
    before, began, learning = training.env_steps, time.perf_counter(), time.process_time()
    for _ in range(iterations):
        training.train()
    seconds, learned = time.perf_counter() - began, time.process_time() - learning
    [sampled] = training.foreach_sampling_runner(lambda runner: time.process_time())
    rate = (training.env_steps - before) * AGENTS / seconds
    return rate, ((sampled - sampling) / iterations, learned / iterations)


def told(rates: dict[str, list[float]], spent: dict[str, list[tuple[float, float]]]) -> list[Measurement]:
    """All of it as measurements."""
    results = [
        Measurement("overlap", f"simple_spread, {name}", median(samples), "agent-steps/s", samples=tuple(samples))
        for name, samples in rates.items()
    ]
    ratios = tuple(b / a for a, b in zip(rates["in turn"], rates["overlap"], strict=True))
    results.append(Measurement("overlap", "overlap / in turn, lowest", min(ratios), "times"))
    results.append(Measurement("overlap", "overlap / in turn, median", median(ratios), "times", 1.5, samples=ratios))
    results.append(Measurement("overlap", "overlap / in turn, highest", max(ratios), "times"))
    sampling, learning = (median(cpu[i] for cpu in spent["in turn"]) for i in (0, 1))
    ahead = max(median(cpu[i] for cpu in spent["overlap"]) for i in (0, 1))
    results.append(Measurement("overlap", "an iteration in turn: sampling", sampling, "CPU s"))
    results.append(Measurement("overlap", "an iteration in turn: learning", learning, "CPU s"))
    results.append(Measurement("overlap", "an iteration with overlap: the longer of the two", ahead, "CPU s"))
    results.append(
        Measurement("overlap", "on free cores, by CPU time: overlap / in turn", (sampling + learning) / ahead, "times")
    )
    return results


def main(arguments: list[str] | None = None) -> None:
    """Measure and print, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=4, help="of each training")
    parser.add_argument("--iterations", type=int, default=4, help="in a turn")
    given = parser.parse_args(arguments)
    measured = run(given.turns, given.iterations)
    print(table(measured))
    for one in measured:
        if one.samples:
            print(f"{one.case}: {', '.join(f'{sample:.3g}' for sample in one.samples)}")


if __name__ == "__main__":
    main()
