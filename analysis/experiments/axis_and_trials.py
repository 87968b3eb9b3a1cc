"""Population based training on the member axis, and the same between Tune's trials: what it brings, what it costs.

    python -m popcomm.analysis.experiments.axis_and_trials --out runs/axis [--seeds 5] [--docs docs]

A small swarm in which all boids of a world are one member. On the axis one training has all members; between trials
each member is a training of its own under `popcomm sweep`, one after another. Both have the same samples, the same
strategy (the worst takes over from the best) and the same learning rates and entropy weights to vary; a control on the
axis has the same spread of them, and nobody is replaced.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.intervals import mean_shown
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of
from rich.console import Console

import popcomm
from popcomm.cli import documents, schema, sweep
from popcomm.cli.run_folder import PROGRESS, trained_seconds
from popcomm.language import progress
from popcomm.language.drawing import BLUE, INK, MUTED, ORANGE, card, dress
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.survival import Survival
from popcomm.rollout.population import Population

NAME = "axis_and_trials"
FILE = "survival_sweep"
WORLDS = 16  # of each member
LR, ENTROPY = 2.0e-3, 0.02
SPREAD = (0.25, 4.0)  # multiples of both that members begin with
PERTURBATION = 1.2
EPISODES = 256  # of each member, in its evaluation
AXIS, TRIALS, FIXED = "axis", "trials", "fixed"
TITLES = {AXIS: "on the member axis", TRIALS: "between Tune's trials", FIXED: "on the axis, nobody is replaced"}
COLOURS = {AXIS: BLUE, TRIALS: ORANGE, FIXED: MUTED}


class Size(NamedTuple):
    """How large a run is."""

    members: int
    every: int  # iterations of a generation
    generations: int


FULL, QUICK = Size(4, 20, 3), Size(2, 2, 2)

Record = Mapping[str, Any]


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    size = QUICK if options.quick else FULL
    return trials_of(options, train, [{"arm": arm} for arm in TITLES], **size._asdict())


def train(arm: str, **key: Any) -> Record:
    """One run of an arm."""
    return (between_trials if arm == TRIALS else on_the_axis)(arm, **key)


def document_of(seed: int, size: Size, members: int) -> dict[str, Any]:
    """What both have in common. members: of a training."""
    worlds, iterations = WORLDS * members, size.every * size.generations
    overrides = [
        f"population.members={members}", "population.seating=worlds", f"debugging.seed={seed}",
        f"env_runners.num_worlds_per_env_runner={worlds}", f"training.minibatch_size={worlds}",
        f"training.lr={LR}", f"training.entropy_coeff={ENTROPY}", f"stop.training_iteration={iterations}",
    ]  # fmt: skip
    document = documents.load(FILE, overrides)
    del document["tune"], document["survival"], document["recording"]["checkpoint_every"]
    return document


def strategy(members: int) -> dict[str, Any]:
    """Who takes over from whom: the worst one from the best."""
    return {"kind": "truncation", "elites": members - 1, "share": 1 / members}


class Timed(LocalTraining):
    """One that knows what ends of generations took, in seconds."""

    ending_s = 0.0

    def end_generation(self, survival: Survival) -> None:
        began = time.perf_counter()
        super().end_generation(survival)
        self.ending_s += time.perf_counter() - began


def on_the_axis(arm: str, seed: int, members: int, every: int, generations: int) -> Record:
    """One training that has all members. `wall_s` is all of it, `trained_s` sampling and learning."""
    size = Size(members, every, generations)
    document = document_of(seed, size, members)
    document["survival"] = {
        "strategy": strategy(members), "every": every if arm == AXIS else size.every * size.generations + 1,
        "mutation_std": 0.0, "smoothing": 0.0, "perturbation": PERTURBATION,
        "hyperparameters": {"lr": list(SPREAD), "entropy_coeff": list(SPREAD)},
    }  # fmt: skip
    began = time.perf_counter()
    training = Timed(schema.apply(document, PopulationPPOConfig()), WORLDS)
    made = time.perf_counter()
    for _ in range(every * generations):
        training.iterate()
    ended = time.perf_counter()
    # One member sits on all seats, so that every boid of a world has the same.
    found = training.population().evaluate(EPISODES * members, greedy=True, seed=seed).per_member["swarm"]
    returns = [float(one.mean) for one in found]
    trained = ended - made - training.ending_s
    return _result(returns, training.env_steps, ended - began, trained, training.ending_s / generations)


def between_trials(arm: str, seed: int, members: int, every: int, generations: int) -> Record:
    """One sweep whose trials are the members, one at a time. `trained_s` is what they say they trained."""
    document = document_of(seed, Size(members, every, generations), 1)
    document["tune"] = {
        "param_space": {
            "training.lr": {"loguniform": [LR * SPREAD[0], LR * SPREAD[1]]},
            "training.entropy_coeff": {"loguniform": [ENTROPY * SPREAD[0], ENTROPY * SPREAD[1]]},
        },
        "num_samples": members, "metric": "charts/episodic_return", "mode": "max",
        "scheduler": {
            "kind": "population_survival", "strategy": strategy(members), "every": every, "perturbation": PERTURBATION,
        },
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        told = sweep.run(document, Path(folder, "sweep"), False, 1, Console(file=io.StringIO()))
        wall = time.perf_counter() - began
        if told != ["done"] * members:
            raise RuntimeError(f"trials of the sweep are {', '.join(told)}")
        runs = sorted(path.parent for path in Path(folder, "sweep").glob(f"*/{PROGRESS}"))
        tables = [progress.read(run / PROGRESS) for run in runs]
        returns = [_worth(popcomm.load(run), seed) for run in runs]
    trained = sum(trained_seconds(table["time_s"].to_numpy(float)) for table in tables)
    env_steps = sum(int(table["env_steps"].iloc[-1]) for table in tables)
    return _result(returns, env_steps, wall, trained, (wall - trained) / generations)


def _worth(population: Population, seed: int) -> float:
    return float(population.evaluate(EPISODES, greedy=True, seed=seed).per_member["swarm"][0].mean)


def _result(returns: Sequence[float], env_steps: int, wall: float, trained: float, generation: float) -> Record:
    return {
        "best": max(returns), "mean": float(np.mean(returns)), "returns": list(returns), "env_steps": env_steps,
        "wall_s": wall, "trained_s": trained, "generation_s": generation,
    }  # fmt: skip


# ---- measures, figure and page ----


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """{arm: its runs by seed}."""
    return arms_of(records, lambda r: r["arm"], TITLES)


def claims(records: Sequence[Record]) -> list[Claim]:
    """What was to be shown, as far as there are runs."""
    groups = grouped(records)
    axis, trials, fixed = (groups.get(arm, []) for arm in (AXIS, TRIALS, FIXED))
    asked = (
        (trials, axis, "generation_s", "A generation costs less on the axis, seconds saved"),
        (axis, trials, "mean", "Members on the axis earn more than trials"),
        (axis, fixed, "mean", "Members that are selected earn more than those that are not"),
    )
    return [claim for first, second, key, text in asked for claim in outdone(text, first, second, itemgetter(key), 2)]


def draw(records: Sequence[Record]) -> Figure:
    """Members' returns, and the cost of a generation, run by run."""
    groups = grouped(records)
    figure = card(9.6, 4.2, "Population based training: on the axis, and between trials")
    first, second = figure.subplots(1, 2)
    dress(first, "What members came to", "", "return per boid and episode")
    dress(second, "What a generation costs", "", "seconds")
    for place, (arm, runs) in enumerate(groups.items()):
        for axes, values in (
            (first, [value for run in runs for value in run["returns"]]),
            (second, [run["generation_s"] for run in runs if arm != FIXED]),
        ):
            axes.plot([place] * len(values), values, "o", color=COLOURS[arm], alpha=0.5)
            if values:
                axes.plot(place, np.mean(values), "_", color=INK, markersize=18)
    second.set_yscale("log")
    for axes in (first, second):
        axes.set_xticks(range(len(groups)), [TITLES[arm].replace(", ", ",\n") for arm in groups])
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    def shown(runs: Sequence[Record], key: str, digits: int = 2) -> str:
        return mean_shown([run[key] for run in runs], digits)

    return {
        "records": records, "groups": grouped(records), "claims": claims(records), "shown": shown, "titles": TITLES,
        "size": records[0], "worlds": WORLDS, "fixed": FIXED, "episodes": EPISODES,
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
