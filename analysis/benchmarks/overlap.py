"""Sampling while learning against taking turns: mpe2's simple_spread, one remote env runner, the learner in the driver.

    python -m popcomm.analysis.benchmarks.overlap

Both trainings live at once and are run in turn, a few iterations each, so that what disturbs the machine disturbs both.
Beside the ratio of the times on the wall stands what follows from CPU time alone, which other work on the machine
stretches less. With a free core for each process an iteration in turn takes sampling, learning, and what only the
driver does between the two; with overlap the longer of sampling and learning, and the same rest. Sampling is most of
simple_spread, and overlap can hide no more than the shorter part: `--epochs` says how much there is to be learned from
a fragment, and the default is that of MAPPO on simple_spread (Yu et al. 2022, table of MPE's settings).
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
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from popcomm.analysis.benchmarks.common import Measurement, median, table
from popcomm.analysis.benchmarks.training import local_ray

from popcomm.rllib import PopulationPPOConfig

ENV, AGENTS = "mpe2.simple_spread_v3:parallel_env", 3
WORLDS, LENGTH = 32, 25
EPOCHS = 10
BAR = 1.5  # times
TURNS, OVERLAP = "in turn", "overlap"


class Spent(NamedTuple):
    """CPU seconds of an iteration."""

    sampling: float  # in the env runner
    learning: float  # in the driver, while it updates
    rest: float  # in the driver besides: what neither sampling nor learning can hide behind

    @property
    def in_turn(self) -> float:
        """Seconds that it takes on free cores."""
        return self.sampling + self.learning + self.rest

    @property
    def overlapped(self) -> float:
        """The same with overlap."""
        return max(self.sampling, self.learning) + self.rest


def config(overlap: bool, epochs: int = EPOCHS) -> PopulationPPOConfig:
    """Symbols and all else by default."""
    return (
        PopulationPPOConfig()
        .environment(ENV, env_config={"max_cycles": LENGTH})
        .communication(messages={"kind": "symbols", "vocab_size": 16, "length": 2})
        .env_runners(
            num_env_runners=1, num_worlds_per_env_runner=WORLDS, rollout_fragment_length=LENGTH, overlap=overlap
        )
        .training(num_epochs=epochs)
        .debugging(seed=0)
    )


def run(turns: int = 4, iterations: int = 4, epochs: int = EPOCHS) -> list[Measurement]:
    """Agent-steps a second of both, turn by turn, their ratios, and what CPU time says."""
    torch.set_num_threads(1)
    with local_ray():
        trainings = {name: Timed(config(name == OVERLAP, epochs)) for name in (TURNS, OVERLAP)}
        rates: dict[str, list[float]] = {name: [] for name in trainings}
        spent: dict[str, list[Spent]] = {name: [] for name in trainings}
        for training in trainings.values():
            training.turn(2)
        for _ in range(turns):
            for name, training in trainings.items():
                rate, cpu = training.turn(iterations)
                rates[name].append(rate)
                spent[name].append(cpu)
        for training in trainings.values():
            training.algorithm.stop()
    return told(rates, spent, epochs)


class Timed:
    """A training whose clocks are read."""

    def __init__(self, own: PopulationPPOConfig) -> None:
        self.algorithm: Any = own.build_algo()
        self.learned = 0.0  # CPU seconds in the driver, of all updates
        self._learn = self.algorithm._learn
        self.algorithm._learn = self._counted

    def _counted(self, *args: Any) -> Any:
        began = time.process_time()
        try:
            return self._learn(*args)
        finally:
            self.learned += time.process_time() - began

    def turn(self, iterations: int) -> tuple[float, Spent]:
        """Agent-steps a second on the wall, and CPU time of an iteration."""
        [sampling] = self.algorithm.foreach_sampling_runner(lambda runner: time.process_time())
        before, learned = self.algorithm.env_steps, self.learned
        began, driving = time.perf_counter(), time.process_time()
        for _ in range(iterations):
            self.algorithm.train()
        seconds, drove = time.perf_counter() - began, time.process_time() - driving
        [sampled] = self.algorithm.foreach_sampling_runner(lambda runner: time.process_time())
        learned = self.learned - learned
        rate = (self.algorithm.env_steps - before) * AGENTS / seconds
        return rate, Spent(*(part / iterations for part in (sampled - sampling, learned, drove - learned)))


def told(rates: dict[str, list[float]], spent: dict[str, list[Spent]], epochs: int) -> list[Measurement]:
    """All of it as measurements."""

    def row(case: str, value: float, unit: str, bar: float | None = None, samples: Sequence[float] = ()) -> Measurement:
        return Measurement("overlap", case, value, unit, bar, samples=tuple(samples))

    results = [
        row(f"{epochs} epochs, {name}", median(samples), "agent-steps/s", None, samples)
        for name, samples in rates.items()
    ]
    ratios = [b / a for a, b in zip(rates[TURNS], rates[OVERLAP], strict=True)]
    of = {name: Spent(*(median(values) for values in zip(*samples, strict=True))) for name, samples in spent.items()}
    results += [
        row("overlap / in turn, lowest", min(ratios), "times"),
        row("overlap / in turn, median", median(ratios), "times", BAR, ratios),
        row("overlap / in turn, highest", max(ratios), "times"),
    ]
    results += [
        row(f"an iteration {name}: {part}", seconds, "CPU s")
        for name, one in of.items()
        for part, seconds in one._asdict().items()
    ]
    free = of[TURNS].in_turn / of[OVERLAP].overlapped
    return [*results, row("on free cores, by CPU time: overlap / in turn", free, "times", BAR)]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=4, help="of each training")
    parser.add_argument("--iterations", type=int, default=4, help="in a turn")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"passes over a fragment [{EPOCHS}]")
    given = parser.parse_args(arguments)
    measured = run(given.turns, given.iterations, given.epochs)
    print(table(measured))
    for one in measured:
        if one.samples:
            print(f"{one.case}: {', '.join(f'{sample:.3g}' for sample in one.samples)}")


if __name__ == "__main__":
    main()
