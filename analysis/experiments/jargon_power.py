"""The jargon experiment with power: do c11np's reflexes help those who learn by gradients, and those who only count?

    python -m popcomm.analysis.experiments.jargon_power --out runs/jargon_power [--seeds 12] [--docs docs] [--quick]

The conditions that decide, of many seeds: no reflexes, feedback and repetition, publishing beside (driven by events),
and all of them, gated; in a world where two see what comes, and in one where all do as long as nothing blinds them.
Troops learn by gradients, with a lexicon of 16 words and with any of millions; others only count. All of a learner's
conditions of a seed are made in a process of its own; the result is appended to results.jsonl, and what is there is not
made again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from popcomm.analysis.experiments import jargon
from popcomm.analysis.experiments.counting_agents import Life
from popcomm.analysis.experiments.figures import DOTTED, of_runs, seeds_and_mean
from popcomm.analysis.experiments.frame import Experiment, Options
from popcomm.analysis.experiments.intervals import (
    LEVEL,
    Interval,
    detectable,
    mean_interval,
    mean_shown,
    share_interval,
)
from popcomm.analysis.experiments.jargon_measures import formed_at, over_training, value, verdict
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import RESULTS, Trial, results_of

from popcomm.channels import Words
from popcomm.cli import documents, schema
from popcomm.language.drawing import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, card, dress, legend
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner

NAME = "jargon_power"
FIRST_SEED = jargon.FIRST_SEED
STEPS, QUICK_STEPS = 40_000, 2_000  # environment steps of a troop that learns by gradients
COUNTED, QUICK_COUNTED = 3_000, 300  # of one that counts, which needs fewer
WORLDS, LOOK = 4, 8  # of those that count; steps of each between two looks at what they know
JUDGED = 64  # steps of every world after training

# Who sees what comes: two of ten for a step, as in the first experiment, or all of them as long as it lasts.
SEEN = {"few see": {"watchers": 2, "glimpse": 1}, "all see": {"watchers": 10, "glimpse": 4}}
PUBLISHING = {"kind": "publishing", "rate": 2.0, "when": "events"}
# In a world where all see, any of them may be blind: half of all seats in a step.
DEPRIVATION = {"few see": 0.1, "all see": 0.5}
NONE, REPEATED, PUBLISHED, GATED = "no reflexes", "feedback + repetition", "+ publishing", "all, gated"
LEXICON, ANY = "16 words", "any words"
# {learner: [(words, world, condition)]}
ARMS: dict[str, list[tuple[str, str, str]]] = {
    "gradients": [
        *((LEXICON, "few see", condition) for condition in (NONE, REPEATED, PUBLISHED, GATED)),
        *((LEXICON, "all see", condition) for condition in (NONE, GATED)),
        *((ANY, "few see", condition) for condition in (NONE, PUBLISHED)),
    ],
    "counts": [
        *((ANY, "few see", condition) for condition in (NONE, REPEATED, PUBLISHED, GATED)),
        *((ANY, "all see", condition) for condition in (NONE, GATED)),
    ],
}

Arm = tuple[str, str, str, str]  # learner, words, world, condition
Record = Mapping[str, Any]


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    """Seeds outermost: a stop leaves whole sets of conditions."""
    sizes = {
        "gradients": QUICK_STEPS if options.quick else STEPS, "counts": QUICK_COUNTED if options.quick else COUNTED,
    }  # fmt: skip
    makers = {"gradients": trained, "counts": counted}
    return [
        Trial(options.out / RESULTS, {"learner": learner, "seed": seed, "env_steps": sizes[learner]}, make)
        for seed in range(FIRST_SEED, FIRST_SEED + options.seeds)
        for learner, make in makers.items()
    ]


def reflexes(world: str, condition: str) -> list[dict[str, Any]]:
    """Of a condition, as in a config."""
    deprivation = {"kind": "sensory_deprivation", "mode": "withdraw", "when": DEPRIVATION[world]}
    ladder = [jargon.FEEDBACK, jargon.REPETITION, PUBLISHING, deprivation]
    if condition == GATED:
        return [{**reflex, "schedule": dict(jargon.GATE)} for reflex in ladder]
    return [dict(reflex) for reflex in ladder[: {NONE: 0, REPEATED: 2, PUBLISHED: 3}[condition]]]


def env_config(world: str) -> dict[str, Any]:
    return {**documents.load(jargon.CONFIG)["environment"]["env_config"], **SEEN[world]}


def settings(words: str, world: str, condition: str, seed: int) -> PopulationPPOConfig:
    """The configuration of a run that learns by gradients: the shipped one."""
    own = {
        **{f"environment.env_config.{key}": number for key, number in SEEN[world].items()},
        "communication.reflexes": json.dumps(reflexes(world, condition)),
        "communication.messages.vocab": 16 if words == LEXICON else "null",
        "debugging.seed": seed,
    }
    document = documents.load(jargon.CONFIG, [f"{key}={setting}" for key, setting in own.items()])
    return schema.apply(document, PopulationPPOConfig())


def trained(learner: str, seed: int, env_steps: int) -> Record:
    """All conditions of a seed, learned by gradients."""
    return {"arms": [_trained(*arm, seed, env_steps) for arm in ARMS[learner]]}


def _trained(words: str, world: str, condition: str, seed: int, env_steps: int) -> Record:
    began, rows = time.process_time(), []
    training = LocalTraining(settings(words, world, condition, seed))
    while training.env_steps < env_steps:
        training.iterate()
        statistics = training.runner.statistics
        rows.append(
            {
                "env_steps": training.env_steps,
                "charts/reward": statistics.performance["reward"],
                **{f"language/{key}": number for key, number in statistics.language.items()},
                **{f"world/{key}": number for key, number in statistics.world.items()},
            }
        )
    judged = {place: _judged(training, place) for place in {world: 0, "few see": 0}}
    kinds = training.config.layout.num_labels
    return _record((words, world, condition), pd.DataFrame(rows), kinds, judged, time.process_time() - began)


def _judged(training: LocalTraining, world: str) -> Record:
    """What those who were trained come to in new episodes of a world, without reflexes."""
    config = training.config.copy(copy_frozen=False)
    config.communication(reflexes=[])
    config.environment(env_config={**config.env_config, **SEEN[world]})
    runner = PopulationEnvRunner(config=config, worker_index=0)
    runner.module.set_state(training.learner.module.get_state())
    runner.sample()  # the first words are on their way after it
    return jargon.evaluate(runner, config, JUDGED)


def counted(learner: str, seed: int, env_steps: int) -> Record:
    """All conditions of a seed, learned by counting."""
    return {"arms": [_counted(*arm, seed, env_steps) for arm in ARMS[learner]]}


def _counted(words: str, world: str, condition: str, seed: int, env_steps: int) -> Record:
    began, rows = time.process_time(), []
    life = Life(env_config(world), Words(), reflexes(world, condition), WORLDS, seed)
    kinds = life.world.num_labels
    while life.env_steps < env_steps:
        looks, told = life.pass_steps(LOOK), life.agreement()
        life.observe(jargon.jargon(told.mean, told.distinct, kinds))
        rows.append(
            {
                "env_steps": life.env_steps,
                "language/agreement": told.mean, "language/agreement_least": float(np.min(told.per_label)),
                "language/distinct_modal_words": told.distinct,
                "charts/reward": looks.reward, "world/informed": looks.informed,
                "world/false_alarms": looks.false_alarms,
            }
        )  # fmt: skip
    judged = {}
    for place in {world: 0, "few see": 0}:
        other = life.elsewhere(env_config(place), 16 * WORLDS, seed + 1000)
        looks, told = other.pass_steps(JUDGED, learning=False), other.agreement()
        score = jargon.jargon(told.mean, told.distinct, kinds)
        judged[place] = {**looks._asdict(), "agreement": told.mean, "distinct": told.distinct, "jargon": score}
    return _record((words, world, condition), pd.DataFrame(rows), kinds, judged, time.process_time() - began)


def _record(
    arm: tuple[str, str, str], table: pd.DataFrame, kinds: int, judged: Mapping[str, Record], seconds: float
) -> Record:
    """What is kept of a run. `few`: in the world where few see, whatever it was trained in."""
    score = table["language/agreement"] * table["language/distinct_modal_words"] / kinds
    points = np.unique(np.linspace(0, len(table) - 1, min(50, len(table))).astype(int))
    curve = [{"env_steps": int(table["env_steps"][i]), "score": float(score[i])} for i in points]
    words, world, condition = arm
    return {
        "words": words, "world": world, "condition": condition, "env_steps": int(table["env_steps"].iloc[-1]),
        "formed": formed_at(table, kinds), "over_training": over_training(table, kinds),
        "end": judged[world], "few": judged["few see"], "seconds": seconds, "curve": curve,
    }  # fmt: skip


# ---- measures ----


class Contrast(NamedTuple):
    """Two conditions that are compared, seed by seed."""

    text: str
    words: str
    world: str
    condition: str
    against: str
    key: str
    more: bool = True  # whether more of it was claimed


LEARNT, EARLY = "jargon, mean over learning", "steps until a jargon forms"
REPETITION = Contrast(f"Repetition and feedback: {LEARNT}", LEXICON, "few see", REPEATED, NONE, "over_training")
PUBLICATION = Contrast(
    f"Publishing in events, beside: {LEARNT}", LEXICON, "few see", PUBLISHED, REPEATED, "over_training"
)
ALL = Contrast(f"All, gated: {LEARNT}", LEXICON, "few see", GATED, NONE, "over_training")
SOONER = Contrast(f"All, gated: {EARLY}", LEXICON, "few see", GATED, NONE, "formed", more=False)
REWARD = Contrast("All, gated: reward afterwards, without reflexes", LEXICON, "few see", GATED, NONE, "end.reward")
BLIND = Contrast(
    "All, gated, where all see unless blinded: informed afterwards where few see", LEXICON, "all see", GATED, NONE,
    "few.informed",
)  # fmt: skip
RANDOM = Contrast(f"Repetition, feedback, publishing: {LEARNT}", ANY, "few see", PUBLISHED, NONE, "over_training")
SHARED = (REPETITION, PUBLICATION, ALL, SOONER, REWARD, BLIND)
# In the picture.
SHORT = {
    REPETITION.text: "repetition, feedback: jargon", PUBLICATION.text: "publishing beside them: jargon",
    ALL.text: "all, gated: jargon", SOONER.text: "all, gated: steps until it forms",
    REWARD.text: "all, gated: reward afterwards", BLIND.text: "all, gated, all see: informed",
    RANDOM.text: "all three, any words: jargon",
}  # fmt: skip
CONTRASTS = {"gradients": (*SHARED, RANDOM), "counts": tuple(one._replace(words=ANY) for one in SHARED)}


class Told(NamedTuple):
    """What a contrast came to."""

    contrast: Contrast
    seeds: int
    mean: float
    interval: Interval  # as wide as all contrasts of a learner together ask for (Bonferroni)
    verdict: str
    detectable: float  # the difference that would be found in four of five such experiments


def flat(records: Sequence[Record]) -> list[Record]:
    """A record for each condition and seed."""
    return [{"learner": r["learner"], "seed": r["seed"], **arm} for r in records for arm in r["arms"]]


def arm_of(run: Record) -> Arm:
    return run["learner"], run["words"], run["world"], run["condition"]


def grouped(runs: Sequence[Record]) -> dict[Arm, list[Record]]:
    """{arm: its runs by seed}, in the order of ARMS."""
    found: dict[Arm, list[Record]] = {(learner, *arm): [] for learner, arms in ARMS.items() for arm in arms}
    for run in sorted(runs, key=lambda r: r["seed"]):
        found[arm_of(run)].append(run)
    return {arm: made for arm, made in found.items() if made}


def compared(groups: Mapping[Arm, Sequence[Record]], learner: str) -> list[Told]:
    """All contrasts of a learner that two seeds at least have."""
    told = []
    level = 1 - (1 - LEVEL) / len(CONTRASTS[learner])
    for one in CONTRASTS[learner]:
        first = groups.get((learner, one.words, one.world, one.condition), [])
        second = {run["seed"]: run for run in groups.get((learner, one.words, one.world, one.against), [])}
        apart = [value(run, one.key) - value(second[run["seed"]], one.key) for run in first if run["seed"] in second]
        if len(apart) < 2:
            continue
        interval = mean_interval(apart, level)
        found = verdict(interval, 0.0, one.more)
        told.append(Told(one, len(apart), float(np.mean(apart)), interval, found, detectable(apart, level)))
    return told


# ---- figure and page ----

COLOURS = {NONE: INK, REPEATED: ORANGE, PUBLISHED: GREEN, GATED: PURPLE}
PANELS = {
    ("gradients", LEXICON, "few see"): "Gradients, 16 words, few see",
    ("gradients", ANY, "few see"): "Gradients, any words, few see",
    ("gradients", LEXICON, "all see"): "Gradients, 16 words, all see",
    ("counts", ANY, "few see"): "Counting, any words, few see",
    ("counts", ANY, "all see"): "Counting, any words, all see",
}


def draw(records: Sequence[Record]) -> Figure:
    """The jargon over learning, a panel for each learner, its words and its world; and all contrasts."""
    groups = grouped(flat(records))
    figure = card(15, 7.6, "Reflexes and jargon, with power")
    axes = figure.subplots(2, 3, width_ratios=[1, 1, 0.9]).ravel()
    for panel, (where, title) in zip(axes, PANELS.items(), strict=False):
        dress(panel, title, "environment steps", "jargon: agreement x kinds with own words")
        for condition, colour in COLOURS.items():
            runs = groups.get((*where, condition), [])
            seeds_and_mean(panel, of_runs(runs), colour, "-", condition)
        panel.set_ylim(0, 1.05)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        if panel.has_data():
            legend(panel, loc="lower right")
    _effects(axes[-1], groups)
    return figure


def _effects(axes: Axes, groups: Mapping[Arm, Sequence[Record]]) -> None:
    """Differences with their intervals, in standard errors would not be comparable: in units of the detectable one."""
    dress(axes, "Contrasts, in detectable differences", "difference / the one found in 4 of 5 cases", grid="x")
    names: list[str] = []
    for learner, colour in (("gradients", BLUE), ("counts", ORANGE)):
        label: str | None = f"troops that learn by {learner}" if learner == "gradients" else "troops that count"
        for told in compared(groups, learner):
            if not told.detectable > 0:
                continue
            row, unit = len(names), told.detectable
            axes.plot([told.interval.low / unit, told.interval.high / unit], [row, row], color=colour, linewidth=2)
            axes.plot([told.mean / unit], [row], "o", color=colour, markersize=5, label=label)
            names.append(SHORT[told.contrast.text])
            label = None
    axes.set_yticks(range(len(names)), names, fontsize=7)
    if names:
        legend(axes, loc="upper left", bbox_to_anchor=(-0.6, -0.06), fontsize=7)
    axes.axvline(0, color=MUTED, linestyle=DOTTED, linewidth=1)
    axes.invert_yaxis()


def page(records: Sequence[Record]) -> dict[str, Any]:
    runs = flat(records)
    groups = grouped(runs)

    def shown(made: Sequence[Record], key: str) -> str:
        return mean_shown([value(run, key) for run in made], 3)

    def formed(made: Sequence[Record]) -> str:
        count = sum(run["formed"] is not None for run in made)
        return f"{count} of {len(made)} {share_interval(count, len(made)).shown(2, '')}"

    references = {world: jargon.references_of(env_config(world)) for world in SEEN}
    return {
        "runs": runs, "groups": groups, "contrasts": {learner: compared(groups, learner) for learner in ARMS},
        "shown": shown, "formed": formed, "seen": SEEN, "deprivation": DEPRIVATION, "rate": PUBLISHING["rate"],
        "references": references, "own": {world: jargon.references_of(env_config(world) | {"reward_share": 0.0})
        for world in SEEN}, "words": Words().count, "worlds": WORLDS, "level": LEVEL,
        "sizes": {r["learner"]: r["env_steps"] for r in records},
    }  # fmt: skip


EXPERIMENT = Experiment(
    NAME, __doc__, planned, page, draw, results=lambda options, trials: results_of(trials), seeds=12, quick=1
)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
