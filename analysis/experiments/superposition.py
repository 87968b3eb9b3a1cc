"""Does a message that is put together of several encoders help? Three ways to weigh them, against one encoder.

    python -m popcomm.analysis.experiments.superposition --out runs/superposition [--seeds 5] [--docs docs] [--quick]

The game is that of message_credit: every seat sees one of a few kinds and must name, a step later, the kind that one
other seat saw; all hear all, and all are paid the mean. Messages are vectors of two numbers, learned through the
channel. All arms have as many weights, to within a few in a hundred: who has one encoder has wider hidden layers for
the others' K. Each run has a process of its own; its result is appended to results.jsonl, and runs that are there are
not made again. Writes superposition.md, .png and .json into the folder.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from popcomm.analysis.experiments.figures import seeds_and_mean
from popcomm.analysis.experiments.frame import Claim, Experiment, Options
from popcomm.analysis.experiments.intervals import difference, mean_interval
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.message_credit import AskedWorld, BySlot, area, score
from popcomm.analysis.experiments.records import RESULTS, Trial, arms_of, results_of

from popcomm.language.drawing import BLUE, GREEN, MUTED, ORANGE, card, dress, legend
from popcomm.rllib import PopulationPPOConfig

NAME = "superposition"
SEATS, KINDS, SIZE, ENCODERS, HIDDEN = 5, 4, 2, 4, 24
STEPS, QUICK_STEPS = 40_000, 6_000  # environment steps of a run
LOOKS, WORLDS, FRAGMENT = 12, 64, 12
ARMS = ("one", "random", "learned", "top_1")
TITLES = {
    "one": "one encoder, wider hidden layers",
    "random": "four, weighed at random in training, alike in play",
    "learned": "four, weighed by the network (softmax)",
    "top_1": "four, the one with the highest score",
}
COLOURS = {"one": MUTED, "random": ORANGE, "learned": GREEN, "top_1": BLUE}

Record = Mapping[str, Any]


def planned(options: Options) -> list[Trial]:
    """Seeds outermost: a stop leaves whole sets of arms."""
    steps = QUICK_STEPS if options.quick else STEPS
    return [
        Trial(options.out / RESULTS, {"arm": arm, "seed": seed, "env_steps": steps}, train)
        for seed, arm in itertools.product(range(1, options.seeds + 1), ARMS)
    ]


def results(options: Options, trials: Sequence[Trial]) -> list[Record]:
    return results_of(trials)


# ---- runs ----


def settings(arm: str, seed: int, hidden: int) -> PopulationPPOConfig:
    """The configuration of a run; who must name whose kind is another one for every seed."""
    parts = {} if arm == "one" else {"superposition": {"encoders": ENCODERS, "measure": arm}}
    return (
        PopulationPPOConfig()
        .environment(AskedWorld, env_config={"layout_seed": seed, "kinds": KINDS, "seats": SEATS})
        .communication(messages={"kind": "vectors", "size": SIZE, **parts}, topology={"kind": "full"})
        .population(agent=BySlot, agent_config={"hidden": hidden}, members=SEATS, seating="fixed")
        .training(
            lr=3e-3, gamma=0.9, lambda_=0.9, entropy_coeff=0.01, num_epochs=4, minibatch_size=WORLDS,
            message_balance_coeff=0.0,
        )
        .env_runners(num_worlds_per_env_runner=WORLDS, rollout_fragment_length=FRAGMENT)
        .debugging(seed=seed)
    )  # fmt: skip


def weights(arm: str, hidden: int) -> int:
    """How many weights a member has."""
    config = settings(arm, 1, hidden)
    config.validate()
    with torch.device("meta"):
        agent = BySlot(config.plan.species["seat"].spec, hidden)
    return sum(parameter.numel() for parameter in agent.parameters()) // SEATS


@cache
def width(arm: str) -> int:
    """Of hidden layers, so that weights come next to those of "learned", which has most, at HIDDEN."""
    aim = weights("learned", HIDDEN)
    return min(range(HIDDEN, 2 * HIDDEN), key=lambda hidden: abs(weights(arm, hidden) - aim))


def train(arm: str, seed: int, env_steps: int) -> Record:
    """One run, measured on its way and at its end; `seconds` is CPU time of its iterations."""
    hidden = width(arm)
    training = LocalTraining(settings(arm, seed, hidden), 256)
    curve, seconds = [{"env_steps": 0, "score": score(training)}], 0.0
    for number in range(1, LOOKS + 1):
        began = time.process_time()
        while training.env_steps < env_steps * number / LOOKS:
            training.iterate()
        seconds += time.process_time() - began
        curve.append({"env_steps": training.env_steps, "score": score(training)})
    return {
        "score": curve[-1]["score"],
        "curve": curve,
        "hidden": hidden,
        "weights": weights(arm, hidden),
        "seconds": seconds,
    }


# ---- measures, figure and page ----


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """{arm: its runs by seed}, in the order of ARMS."""
    runs = arms_of(records, lambda r: r["arm"])
    return {arm: runs[arm] for arm in ARMS if arm in runs}


def claims(groups: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """Of every measure, whether it learns faster than one encoder, on the same seeds."""
    found = []
    for arm in ARMS[1:]:
        ours, beside = groups.get(arm, []), groups.get("one", [])
        seeds = sorted({r["seed"] for r in ours} & {r["seed"] for r in beside})
        if len(seeds) < 2:
            continue
        first, second = ([area(r) for r in runs if r["seed"] in seeds] for runs in (ours, beside))
        gain = difference(first, second)
        text = f"`{arm}` learns faster than one encoder: mean score over the training ({len(seeds)} seeds)"
        found.append(Claim(text, gain.shown(3), gain.paired.low > 0))
    return found


def draw(records: Sequence[Record]) -> Figure:
    """Scores over the training, every seed thin."""
    figure = card(9, 4.6, "Messages of one encoder and of four")
    axes = figure.subplots()
    dress(axes, "Kinds named right", "environment steps", "share, likeliest choices")
    for arm, runs in grouped(records).items():
        curves = [tuple(np.array([p[key] for p in r["curve"]], float) for key in ("env_steps", "score")) for r in runs]
        seeds_and_mean(axes, curves, COLOURS[arm], "-", arm)
    axes.axhline(1 / KINDS, color=MUTED, linewidth=1, linestyle=":")
    legend(axes, loc="best")
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)

    def shown(runs: Sequence[Record], key: str) -> str:
        values = [area(r) if key == "area" else r[key] for r in runs]
        return f"{np.mean(values):.3f} {mean_interval(values).shown(3)}"

    return {
        "records": records,
        "groups": groups,
        "claims": claims(groups),
        "titles": TITLES,
        "shown": shown,
        "seats": SEATS,
        "kinds": KINDS,
        "size": SIZE,
        "chance": 1 / KINDS,
        "steps": records[0]["env_steps"],
    }


EXPERIMENT = Experiment(
    NAME, __doc__, planned, results, page, draw, lambda records: {"runs": records}, seeds=5, quick=1
)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
