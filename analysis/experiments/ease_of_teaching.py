"""Is the language of a liquid population easier to learn? Fresh listeners are taught languages that work equally well.

    python -m popcomm.analysis.experiments.ease_of_teaching --out runs/ease [--seeds 5] [--jobs 2] [--docs docs]

Ten speakers and ten listeners name 100 meanings. In the liquid arm the eldest make room for newborns until all have
been replaced; then nobody is any more. In both arms populations learn until all pairs understand the same share of the
meanings, and at that moment their speakers teach fresh listeners, and do not learn themselves; and once more when both
have made equally many steps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from popcomm.analysis.experiments.communities import distances
from popcomm.analysis.experiments.figures import seeds_and_mean
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.intervals import mean_shown
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of

from popcomm.cli import documents, schema
from popcomm.language.drawing import GREEN, MUTED, card, dress, legend
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.crossplay import CrossPlay, cross_play

NAME = "ease_of_teaching"
FILE = "liquid_population"
EPISODES = 64  # of an evaluation, which nobody asks for here
ARMS = {"none": ("survival.strategy=null",), "liquid": ()}
TITLES = {"none": "nobody is replaced", "liquid": "the eldest were replaced by newborns, until all had been"}
COLOURS, DASHES = {"none": MUTED, "liquid": GREEN}, {"none": (0, (5, 2)), "liquid": "-"}
EQUAL, LATE = "equal", "late"
MOMENTS = {EQUAL: "at equal understanding", LATE: "after equally many steps"}


class Size(NamedTuple):
    """How large a run is."""

    liquid: int  # env steps in which the eldest are replaced
    steps: int  # env steps of a run, at most
    target: float  # share of the meanings, all pairs, at which languages count as equally good
    lessons: int  # iterations in which fresh listeners are taught


FULL, QUICK = Size(165_000, 260_000, 0.95, 6), Size(16_000, 24_000, 0.02, 2)

Record = Mapping[str, Any]


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    size = QUICK if options.quick else FULL
    return trials_of(options, train, [{"arm": arm} for arm in ARMS], **size._asdict())


def settings(arm: str, seed: int) -> PopulationPPOConfig:
    """The configuration of a run."""
    return schema.apply(documents.load(FILE, [*ARMS[arm], f"debugging.seed={seed}"]), PopulationPPOConfig())


def train(arm: str, seed: int, liquid: int, steps: int, target: float, lessons: int) -> Record:
    """One run and both its lessons; `seconds` is CPU time of this process."""
    began = time.process_time()
    training = LocalTraining(settings(arm, seed), EPISODES)
    moments: dict[str, Any] = {}
    curve = []
    while training.env_steps < steps:
        training.iterate()
        if training.env_steps >= liquid:
            training.survival = None  # whoever lives now grows old
        played = cross_play(training.population())  # all pairs on all meanings, by the likeliest choices
        curve.append([training.env_steps, float(played.accuracy.mean())])
        if EQUAL not in moments and training.survival is None and curve[-1][1] >= target:
            moments[EQUAL] = taught(training, played, seed, lessons)
    moments[LATE] = taught(training, played, seed, lessons)
    return {"moments": moments, "curve": curve, "seconds": time.process_time() - began}


def school(training: LocalTraining, seed: int) -> LocalTraining:
    """Fresh listeners, and the speakers of a training as they are now, who do not learn any more.

    (Ease of teaching: Li and Bowling 2019.) Listeners and meanings of a seed are the same for all arms.
    """
    config = settings("none", 1000 + seed).multi_agent(policies_to_train=["listener"])
    fresh = LocalTraining(config, EPISODES)
    fresh.learner.networks["speaker"].set_state(training.learner.networks["speaker"].get_state())
    return fresh


def distance_of_speakers(played: CrossPlay) -> float:
    """The share of meanings for which two speakers say another thing, the mean over pairs."""
    apart = distances(played.messages)
    return float(apart[~np.eye(len(apart), dtype=bool)].mean())


def taught(training: LocalTraining, played: CrossPlay, seed: int, lessons: int) -> dict[str, Any]:
    """What fresh listeners understand of these speakers after each iteration of lessons."""
    fresh, grades = school(training, seed), []
    for _ in range(lessons):
        fresh.iterate()
        grades.append(float(cross_play(fresh.population()).accuracy.mean()))
    return {
        "understood": float(played.accuracy.mean()), "env_steps": training.env_steps, "ease": float(np.mean(grades)),
        "grades": grades, "lesson_steps": fresh.env_steps, "distance": distance_of_speakers(played),
        "words": float(np.mean([len(np.unique(own, axis=0)) for own in played.messages])),
    }  # fmt: skip


# ---- measures, figure and page ----


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """{arm: its runs by seed}."""
    return arms_of(records, lambda r: r["arm"], ARMS)


def at(moment: str, runs: Sequence[Record]) -> list[Record]:
    """What was measured at a moment, of the runs that came to it."""
    return [{"seed": run["seed"], **run["moments"][moment]} for run in runs if moment in run["moments"]]


def claims(records: Sequence[Record]) -> list[Claim]:
    """What was to be shown, as far as there are runs."""
    groups = grouped(records)
    found: list[Claim] = []
    for moment, words in MOMENTS.items():
        first, second = (at(moment, groups.get(arm, ())) for arm in ("liquid", "none"))
        text = f"Fresh listeners learn the language of a liquid population faster, {words} ({{seeds}} seeds)"
        found += outdone(text, first, second, itemgetter("ease"))
    return found


def draw(records: Sequence[Record]) -> Figure:
    """What fresh listeners understand, lesson by lesson: seeds thin, means thick."""
    groups = grouped(records)
    figure = card(10.8, 4.4, "How fast fresh listeners learn a population's language")
    for axes, (moment, words) in zip(figure.subplots(1, 2, sharey=True), MOMENTS.items(), strict=True):
        dress(axes, words.capitalize(), "iterations of lessons", "share of meanings understood")
        for arm, runs in groups.items():
            taken = [np.array(one["grades"]) for one in at(moment, runs)]
            curves = [(np.arange(1.0, 1 + len(grades)), grades) for grades in taken]
            seeds_and_mean(axes, curves, COLOURS[arm], DASHES[arm], TITLES[arm])
        if axes.has_data():
            legend(axes, loc="best")
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    def shown(values: Sequence[float], digits: int = 3) -> str:
        return mean_shown(values, digits) if values else "-"

    groups = grouped(records)
    table = [
        {"arm": TITLES[arm], "moment": words, "lessons": at(moment, runs)}
        for moment, words in MOMENTS.items()
        for arm, runs in groups.items()
    ]
    return {"records": records, "claims": claims(records), "table": table, "shown": shown, "size": records[0]}


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1, jobs=2)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
