"""Who learns to pick what is meant among candidates, and what it takes: weights for places, or for what stands there?

    python -m popcomm.analysis.experiments.discrimination --out runs/discrimination [--seeds 5] [--docs docs] [--quick]

The discrimination game: a speaker sees a meaning, and a listener must pick it out of five candidates, four of them
drawn anew for every round. Networks that hold every candidate against what they heard, beside the same networks whose
policy knows candidates by their places alone; told the right answer, or by trial and with speakers that learn by
Reinforce. A fifth of the combinations of attribute values is kept out of training.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from popcomm.analysis.experiments.figures import level
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.intervals import mean_interval, mean_shown
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of
from scipy import stats

from popcomm import language
from popcomm.cli import documents, schema
from popcomm.envs.referential_v0 import ReferentialWorld
from popcomm.language.drawing import BLUE, GREEN, INK, ORANGE, card, dress, legend
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.crossplay import cross_play

NAME = "discrimination"
HELD_OUT, DISTRACTORS = 0.2, 4
CHANCE = 1 / (DISTRACTORS + 1)
STEPS, QUICK_STEPS = 200_000, 12_000  # environment steps of a run; 31 of 32 say something
CURVE = 50  # points of it, at most
DRAWS = 20  # of candidates, for every meaning, when frozen players are asked

Record = Mapping[str, Any]

AGENTS: dict[str, dict[str, Any]] = {"mlp": {"hidden": 64}, "gru": {"hidden": 128}, "symbolic": {"hidden_dim": 64}}
# Beside the shipped config.
WAYS: dict[str, dict[str, Any]] = {
    "told": {},
    "by trial": {
        "communication.gradient": "reinforce",
        "training.learn_from": "rewards",
        "training.lr": 2e-3,
        "training.num_epochs": 2,
        "training.message_entropy_coeff": 0.01,
        "training.message_balance_coeff": 0.02,
    },
}
TITLES = {"told": "told the answer, straight-through", "by trial": "by trial, speakers by Reinforce"}
ARMS = [
    *({"agent": agent, "way": way, "weighed": True} for agent in AGENTS for way in WAYS),
    *({"agent": agent, "way": "told", "weighed": False} for agent in AGENTS),
]


class ByPlaces(ReferentialWorld):
    """The same game and the same numbers; nothing says which of them tell of which action."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.species = {name: replace(species, structure=None) for name, species in self.species.items()}


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    return trials_of(options, train, ARMS, env_steps=QUICK_STEPS if options.quick else STEPS)


def settings(agent: str, way: str, weighed: bool, seed: int) -> PopulationPPOConfig:
    """The configuration of a run: the shipped one; which combinations are held out is another draw for every seed."""
    own = {
        "environment.env_config.held_out": HELD_OUT,
        "environment.env_config.meaning_seed": seed,
        "environment.env_config.distractors": DISTRACTORS,
        "population.agent": agent,
        "population.agent_config": AGENTS[agent],
        **WAYS[way],
        "debugging.seed": seed,
    }
    if not weighed:
        own["environment.env"] = f"{__name__ if __name__ != '__main__' else EXPERIMENT.module}:{ByPlaces.__name__}"
    overrides = [f"{key}={json.dumps(value)}" for key, value in own.items()]
    return schema.apply(documents.load("discrimination", overrides), PopulationPPOConfig())


def train(agent: str, way: str, weighed: bool, seed: int, env_steps: int) -> Record:
    """One run, measured at its end; `seconds` is CPU time of its iterations."""
    training, curve = LocalTraining(settings(agent, way, weighed, seed), 64), []
    began = time.process_time()
    while training.env_steps < env_steps:
        training.iterate()
        curve.append({"env_steps": training.env_steps, "score": training.runner.statistics.world["accuracy"]})
    seconds, population = time.process_time() - began, training.population()
    seen, new = ([cross_play(population, split, seed=draw) for draw in range(DRAWS)] for split in ("train", "held_out"))
    meanings, said = seen[0].meanings, seen[0].messages[0]
    return {
        "seen": np.mean([played.accuracy for played in seen]),
        "held_out": np.mean([played.accuracy for played in new]), "sampled": curve[-1]["score"],
        "topsim": language.topographic_similarity(meanings, said), "words": len(np.unique(said, axis=0)),
        "meanings": len(said), "curve": curve[:: -(-len(curve) // CURVE)], "seconds": seconds,
    }  # fmt: skip


# ---- measures ----


def one_known(attributes: int = 2, values: int = 10, distractors: int = DISTRACTORS) -> float:
    """The accuracy of who understands one attribute, and guesses among the candidates that have it.

    >>> one_known(2, 2, 3), round(one_known(), 3)
    (0.5, 0.832)
    """
    meanings = values**attributes
    return picked_among(meanings, meanings // values, distractors)


def picked_among(meanings: int, alike: int, distractors: int) -> float:
    """The accuracy of who cannot tell the target from others of its kind, and guesses among the candidates that are.

    Of the distractors, drawn without replacement, X are of its kind (hypergeometric): the mean of 1 / (1 + X).

    Args:
        meanings: of which candidates are drawn.
        alike: how many are of the target's kind, with it.
        distractors: candidates beside the target.
    """
    others = stats.hypergeom(meanings - 1, alike - 1, distractors)
    counts = np.arange(distractors + 1)
    return float((others.pmf(counts) / (1 + counts)).sum())


def arm_of(record: Record) -> tuple[str, str, bool]:
    return record["agent"], record["way"], record["weighed"]


def grouped(records: Sequence[Record]) -> dict[tuple[str, str, bool], list[Record]]:
    """{(agent, way, whether candidates are weighed): its runs by seed}, in the order of ARMS."""
    return arms_of(records, arm_of, [arm_of(arm) for arm in ARMS])


def claims(groups: Mapping[tuple[str, str, bool], Sequence[Record]]) -> list[Claim]:
    """What was to be shown, as far as there are runs."""
    found: list[Claim] = []
    for agent in AGENTS:
        runs, places = (groups.get((agent, "told", weighed), []) for weighed in (True, False))
        text = f"`{agent}` understands more where candidates are weighed: seen combinations ({{seeds}} seeds)"
        found += outdone(text, runs, places, itemgetter("seen"), least=2)
        for way in WAYS:
            runs = groups.get((agent, way, True), [])
            if len(runs) > 1:
                for key, which in (("seen", "seen"), ("held_out", "held-out")):
                    values = [run[key] for run in runs]
                    text = f"`{agent}`, {TITLES[way]}, picks more of {which} combinations than chance ({CHANCE:g})"
                    found.append(Claim(text, mean_shown(values, 3), mean_interval(values).low > CHANCE))
    return found


# ---- figure and page ----

COLOURS = dict(zip(AGENTS, (BLUE, GREEN, ORANGE), strict=True))


def _named(arm: tuple[str, str, bool]) -> str:
    agent, way, weighed = arm
    return f"{agent}, {TITLES[way] if weighed else 'told, by places alone'}"


def draw(records: Sequence[Record]) -> Figure:
    """Curves of all runs; and what is picked of seen and of held-out combinations, an arm a row."""
    groups = grouped(records)
    figure = card(14, 5, "Picking what is meant among five candidates")
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    dress(left, "Over the training, sampled choices", "environment steps", "accuracy")
    dashes = {("told", True): "-", ("by trial", True): "--", ("told", False): ":"}
    for (agent, way, weighed), runs in groups.items():
        name = f"{agent}, {way}" if weighed else f"{agent}, told, by places alone"
        for number, run in enumerate(runs):
            x, y = ([point[key] for point in run["curve"]] for key in ("env_steps", "score"))
            style = {"color": COLOURS[agent], "linestyle": dashes[way, weighed], "linewidth": 1.1, "alpha": 0.75}
            left.plot(x, y, label=None if number else name, **style)
    left.set_ylim(0, 1.03)
    level(left, CHANCE, "")
    legend(left, loc="lower right", fontsize=7, ncols=3)
    _picked(right, groups)
    return figure


def _picked(axes: Axes, groups: Mapping[tuple[str, str, bool], Sequence[Record]]) -> None:
    dress(axes, "At the end: seen (open) and held-out combinations", "accuracy, likeliest choices", grid="x")
    for row, (arm, runs) in enumerate(groups.items()):
        for key, fill, up in (("seen", "none", 0.12), ("held_out", COLOURS[arm[0]], -0.12)):
            values = [run[key] for run in runs]
            axes.scatter(values, [row - up] * len(values), s=26, facecolors=fill, edgecolors=COLOURS[arm[0]])
            axes.plot([np.mean(values)] * 2, [row - up - 0.16, row - up + 0.16], color=INK, linewidth=1.6)
    axes.axvline(CHANCE, color=INK, linestyle=":", linewidth=1)
    axes.set_yticks(range(len(groups)), [_named(arm) for arm in groups], fontsize=7)
    axes.set_xlim(0, 1.04)
    axes.invert_yaxis()


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)

    def shown(runs: Sequence[Record], key: str, digits: int = 3) -> str:
        return mean_shown([run[key] for run in runs], digits)

    return {
        "records": records, "groups": groups, "claims": claims(groups), "titles": TITLES, "shown": shown,
        "chance": CHANCE, "distractors": DISTRACTORS, "held_out": HELD_OUT, "steps": records[0]["env_steps"],
        "one_known": one_known(), "draws": DRAWS,
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
