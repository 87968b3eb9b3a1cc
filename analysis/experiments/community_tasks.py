"""Dialects by task and by contact: communities that ask different things of the same meanings, and meet more or less.

    python -m popcomm.analysis.experiments.community_tasks --out runs/community_tasks [--seeds 5] [--docs docs]

Six speakers and six listeners in two communities play referential_v0 with meanings of two attributes. In one kind of
run both communities name both attributes; in the other one names the first attribute and the other the second, and the
speaker sees both all the same. The communities never meet, seldom, or all the time.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from popcomm.analysis.experiments import communities
from popcomm.analysis.experiments.communities import MEMBERS, VALUES, distances, exchange, same_community
from popcomm.analysis.experiments.figures import level
from popcomm.analysis.experiments.frame import Claim, Experiment, Options
from popcomm.analysis.experiments.intervals import mean_shown, paired
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of
from torch import Tensor

from popcomm.envs.referential_v0 import ReferentialWorld
from popcomm.language.arrays import as_classes
from popcomm.language.basics import mutual_information
from popcomm.language.drawing import BLUE, GREEN, INK, ORANGE, PURPLE, card, dress, legend
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.crossplay import CrossPlay, cross_play

NAME = "community_tasks"
COMMUNITIES = 2
MESSAGES, QUICK_MESSAGES = 400_000, 8_000  # of all speakers together, in a run
MIXINGS = (0.0, 0.05, 1.0)
TASKS = ("same", "different")
TITLES = {"same": "both name both attributes", "different": "one attribute each"}

Array = NDArray[Any]
Record = Mapping[str, Any]
Arms = Mapping[tuple[str, float], Sequence[Record]]


class OneAttributeEach(ReferentialWorld):
    """referential_v0 in which worlds of even number ask for the first attribute, those of odd number for the second.

    World b belongs to community b mod 2 (`popcomm.agents.seating`). What is asked is not shown; the right answer to
    the other attribute is its value 0, always. Arguments, rewards and the rest: `ReferentialWorld`, reconstructing.
    """

    def _right_answer(self, played: int) -> Tensor:
        right = super()._right_answer(played).clone()
        community = torch.arange(self.num_worlds, device=self.device) % COMMUNITIES
        right[torch.arange(self.num_worlds, device=self.device), 1 - community] = 0
        return right


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    arms = [{"tasks": tasks, "mixing": mixing} for tasks, mixing in itertools.product(TASKS, MIXINGS)]
    return trials_of(options, train, arms, asked=QUICK_MESSAGES if options.quick else MESSAGES)


def settings(tasks: str, mixing: float, seed: int) -> PopulationPPOConfig:
    """The configuration of a run: that of the experiment with communities of one task."""
    config = communities.settings(COMMUNITIES, mixing, seed)
    if tasks == "different":
        config.environment(OneAttributeEach, env_config=config.env_config)
    return config


def train(tasks: str, mixing: float, seed: int, asked: int) -> Record:
    """One run, measured at its end; `seconds` is CPU time of this process."""
    began, training = time.process_time(), LocalTraining(settings(tasks, mixing, seed))
    while training.env_steps < asked:
        training.iterate()
    told = measured(cross_play(training.population()), tasks)
    return {"exchange": exchange(COMMUNITIES, mixing), **told, "seconds": time.process_time() - began}


# ---- measures ----


def measured(played: CrossPlay, tasks: str) -> dict[str, float]:
    """Who understands whom, of what is asked of each; and what each community tells of its own attribute and the other.

    With the same task, all attributes are everybody's own. "asked of listeners" and "asked of speakers": between the
    communities, the attribute that the one or the other is asked for.
    """
    assert played.answers is not None
    right = (played.answers == played.meanings).mean(2)  # [S, L, A], of meanings
    speakers = len(right)
    own = np.arange(speakers) * COMMUNITIES // speakers  # community, and with different tasks the attribute asked for
    same = same_community(speakers, COMMUNITIES)
    apart = distances(played.messages)
    row, column = np.indices(same.shape)
    of_listener = right[row, column, own[column]] if tasks == "different" else right.mean(-1)
    of_speaker = right[row, column, own[row]] if tasks == "different" else right.mean(-1)
    # Every meaning is played once: this is no sample, and the plug-in estimate is exact.
    codes = [as_classes(said) for said in played.messages]
    bits = np.array([[mutual_information(code, meant) for meant in played.meanings.T] for code in codes])
    others = same & ~np.eye(speakers, dtype=bool)
    return {
        "within": float(of_listener[same].mean()), "asked of listeners": float(of_listener[~same].mean()),
        "asked of speakers": float(of_speaker[~same].mean()), "distance_within": float(apart[others].mean()),
        "distance_between": float(apart[~same].mean()),
        "bits own": float(bits[np.arange(speakers), own].mean()),
        "bits other": float(bits[np.arange(speakers), 1 - own].mean()),
    }  # fmt: skip


def grouped(records: Sequence[Record]) -> dict[tuple[str, float], list[Record]]:
    order = list(itertools.product(TASKS, MIXINGS))
    return arms_of(records, lambda r: (r["tasks"], r["mixing"]), order)


def dialect(run: Record) -> float:
    """How much further strangers' languages are apart than those of a community."""
    return float(run["distance_between"] - run["distance_within"])


def claims(groups: Arms) -> list[Claim]:
    """What was to be shown, as far as there are runs."""
    found: list[Claim] = []

    def told(text: str, first: Any, second: Any, of: Any, other: Any = None, digits: int = 3) -> None:
        gap = paired(groups.get(first, []), groups.get(second, []), of, other)
        if gap is not None and len(groups[first]) > 1:
            found.append(Claim(text, gap.shown(digits), gap.paired.low > 0))

    for mixing in MIXINGS[:2]:
        arms, at = (("different", mixing), ("same", mixing)), f"than the same task, at mixing {mixing:g}"
        told(f"Different tasks set strangers' words further apart {at}", *arms, itemgetter("distance_between"))
        told(f"Different tasks open a larger gap (distance between less within) {at}", *arms, dialect)
    for mixing in MIXINGS:
        arm = ("different", mixing)
        text = f"Speakers tell of what their community asks more than of the rest, in bits, at mixing {mixing:g}"
        told(text, arm, arm, itemgetter("bits own"), itemgetter("bits other"), 2)
    text = "Full contact makes those of different tasks tell of what the others ask: bits, mixing 1 less mixing 0"
    told(text, ("different", 1.0), ("different", 0.0), itemgetter("bits other"), digits=2)
    for tasks in TASKS:
        text = f"A little contact makes strangers understood ({TITLES[tasks]}): mixing 0.05 less 0"
        told(text, (tasks, 0.05), (tasks, 0.0), itemgetter("asked of listeners"))
    text = "It makes them understood of what the speaker's own community asks (one attribute each): mixing 0.05 less 0"
    told(text, ("different", 0.05), ("different", 0.0), itemgetter("asked of speakers"))
    return found


# ---- figure and page ----

COLOURS = {("same", 0): BLUE, ("same", 1): GREEN, ("different", 0): ORANGE, ("different", 1): PURPLE}
PANELS = (
    ("Understood, of what is asked of the listener", "share of meanings", ("within", "asked of listeners")),
    ("Distance of languages", "share of meanings said differently", ("distance_within", "distance_between")),
    ("What speakers tell", "bits of an attribute", ("bits own", "bits other")),
)
NAMES = {
    "within": "within", "asked of listeners": "between", "distance_within": "within", "distance_between": "between",
    "bits own": "of what is asked of them", "bits other": "of the other attribute",
}  # fmt: skip


def draw(records: Sequence[Record]) -> Figure:
    """Who is understood, how far languages are apart and what they tell, against mixing, every seed a point."""
    groups = grouped(records)
    figure = card(14, 4.8, "Communities of the same task and of different ones")
    for axes, (title, unit, keys) in zip(figure.subplots(1, 3), PANELS, strict=True):
        dress(axes, title, "mixing", unit)
        for tasks, (number, key) in itertools.product(TASKS, enumerate(keys)):
            runs = {mixing: groups[tasks, mixing] for mixing in MIXINGS if (tasks, mixing) in groups}
            places, colour = [MIXINGS.index(mixing) for mixing in runs], COLOURS[tasks, number]
            means = [np.mean([run[key] for run in found]) for found in runs.values()]
            axes.plot(places, means, "-" if not number else "--", color=colour, label=f"{tasks}, {NAMES[key]}")
            for place, found in zip(places, runs.values(), strict=True):
                axes.plot([place] * len(found), [run[key] for run in found], "o", color=colour, markersize=4, alpha=0.7)
        axes.set_xticks(range(len(MIXINGS)), [f"{mixing:g}" for mixing in MIXINGS])
        if "within" in keys:
            level(axes, 1 / VALUES, "an attribute guessed", colour=INK, place="right")
        legend(axes, loc="best", fontsize=7)
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)

    def shown(runs: Sequence[Record], key: str, digits: int = 3) -> str:
        return mean_shown([run[key] for run in runs], digits)

    def apart(runs: Sequence[Record]) -> str:
        return mean_shown([dialect(run) for run in runs], 3, "+")

    return {
        "records": records, "groups": groups, "claims": claims(groups), "shown": shown, "apart": apart,
        "titles": TITLES, "members": MEMBERS, "values": VALUES, "asked": records[0]["asked"],
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
