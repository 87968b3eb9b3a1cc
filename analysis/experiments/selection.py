"""Does selection help? Populations that are selected, ones in which as many die by chance, and ones that live on.

    python -m popcomm.analysis.experiments.selection --out runs/selection [--seeds 5] [--jobs 2] [--docs docs]

Two worlds: boids that tell one another of a beacon (32 members on 8 seats), and ten speakers and ten listeners who name
100 meanings. All arms of a world have the same steps.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from popcomm.analysis.experiments.ease_of_teaching import distance_of_speakers, school
from popcomm.analysis.experiments.figures import of_runs, seeds_and_mean
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.intervals import mean_interval, mean_shown
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import RESULTS, Trial, arms_of, whole_folder

from popcomm.cli import documents, schema
from popcomm.evolution.diversity import of_weights
from popcomm.language.drawing import BLUE, GREEN, MUTED, ORANGE, card, dress, legend
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.crossplay import cross_play

NAME = "selection"
SWARM, GAME = "swarm", "game"
FILES = {SWARM: "survival", GAME: "liquid_population"}
STEPS = {SWARM: 130_000, GAME: 165_000}  # env steps of a run
LOOKS = 6
EPISODES = 256  # of an evaluation
LESSONS = 3  # iterations in which fresh listeners are taught by the speakers of the end
CHANCE = f"{__name__}:by_chance"
FOR_FILES = ("by_chance",)

# {world: {arm: overrides of its shipped config}}. In all arms but the first as many members are replaced.
ARMS: dict[str, dict[str, tuple[str, ...]]] = {
    SWARM: {
        "none": ("survival.strategy=null",),
        "chance": (f"survival.fitness={CHANCE}",),
        "selected": (),
        "rates": ("survival.hyperparameters={lr: [0.5, 2.0], entropy_coeff: [0.25, 4.0]}",),
    },
    GAME: {
        "none": ("survival.strategy=null",),
        "chance": (
            "survival.strategy={kind: truncation, elites: 9, share: 0.3}", f"survival.fitness={CHANCE}",
        ),
        "selected": ("survival.strategy={kind: truncation, elites: 9, share: 0.3}",),
        "liquid": (),
    },
}  # fmt: skip
TITLES = {
    "none": "nobody is replaced",
    "chance": "replaced by chance",
    "selected": "selected by return",
    "rates": "selected, with rates of their own",
    "liquid": "the eldest are replaced by newborns",
}
COLOURS = {"none": MUTED, "chance": ORANGE, "selected": BLUE, "rates": GREEN, "liquid": GREEN}
UNITS = {SWARM: "return per agent and episode", GAME: "share of meanings understood, all pairs"}

Record = Mapping[str, Any]
_CHANCE = np.random.default_rng(0)


def by_chance(measures: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """A fitness that says nothing; who ended no life has none, as in the other arms."""
    return np.where(np.isnan(measures["return"]), np.nan, _CHANCE.random(len(measures["return"])))


# ---- runs ----


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--worlds", nargs="+", choices=list(ARMS), default=list(ARMS), help="both unless said")


def planned(options: Options) -> list[Trial]:
    """Seeds outermost: a stop leaves whole sets of arms."""
    return [
        Trial(options.out / RESULTS, {"world": world, "arm": arm, "seed": seed, "env_steps": STEPS[world]}, train)
        for seed, world in itertools.product(range(1, options.seeds + 1), options.worlds)
        for arm in ARMS[world]
    ]


def settings(world: str, arm: str, seed: int) -> PopulationPPOConfig:
    """The configuration of a run."""
    overrides = [*ARMS[world][arm], f"debugging.seed={seed}"]
    return schema.apply(documents.load(FILES[world], overrides), PopulationPPOConfig())


def train(world: str, arm: str, seed: int, env_steps: int) -> Record:
    """One run, measured on its way and at its end; `seconds` is CPU time of this process."""
    global _CHANCE
    _CHANCE = np.random.default_rng(seed)
    began = time.process_time()
    training = LocalTraining(settings(world, arm, seed), EPISODES)
    curve = [{"env_steps": steps, **look(training, world)} for steps in training.looks(env_steps, LOOKS)]
    taught = ease_of_teaching(training, seed) if world == GAME else {}
    return {**curve[-1], **family(training), **taught, "curve": curve, "seconds": time.process_time() - began}


def look(training: LocalTraining, world: str) -> dict[str, float]:
    """How well it goes, by the likeliest choices, and how much members differ."""
    networks = training.learner.networks
    apart = {name: of_weights(list(network.agent.parameters())) for name, network in networks.items()}
    told = {"weight_diversity": float(np.mean(list(apart.values())))}
    if world == SWARM:
        return {"score": training.greedy(), **told}
    played = cross_play(training.population())
    return {"score": float(played.accuracy.mean()), "distance": distance_of_speakers(played), **told}


def family(training: LocalTraining) -> dict[str, Any]:
    """Births, and the lines that are left, of the first species that is selected."""
    if training.survival is None:
        return {"births": 0, "lines": None, "effective": None}
    generation = next(iter(training.survival.generations.values()))
    _, sizes = np.unique(generation.founders, return_counts=True)
    shares = sizes / sizes.sum()
    births = generation.born - generation.members
    return {"births": births, "lines": len(sizes), "effective": float(1 / np.square(shares).sum())}


def ease_of_teaching(training: LocalTraining, seed: int) -> dict[str, float]:
    """What fresh listeners understand of the speakers of the end after LESSONS iterations."""
    fresh = school(training, seed)
    for _ in range(LESSONS):
        fresh.iterate()
    return {"taught": float(cross_play(fresh.population()).accuracy.mean()), "lessons": fresh.env_steps}


# ---- measures ----


def grouped(records: Sequence[Record]) -> dict[str, dict[str, list[Record]]]:
    """{world: {arm: its runs by seed}}, in the order of ARMS."""
    worlds = arms_of(records, lambda r: r["world"], ARMS)
    return {world: arms_of(runs, lambda r: r["arm"], ARMS[world]) for world, runs in worlds.items()}


def claims(groups: Mapping[str, Mapping[str, Sequence[Record]]]) -> list[Claim]:
    """What selection was to bring, as far as there are runs."""
    found: list[Claim] = []
    asked = (
        (SWARM, "selected", "chance", "score", "Swarm: selection by return earns more than replacement by chance"),
        (SWARM, "selected", "none", "score", "Swarm: and more than no replacement"),
        (SWARM, "rates", "selected", "score", "Swarm: rates of their own, inherited, earn more than one rate for all"),
        (GAME, "selected", "chance", "score", "Game: selection is understood better than replacement by chance"),
        (GAME, "selected", "none", "score", "Game: and better than no replacement"),
        (GAME, "liquid", "none", "taught", "Game: fresh listeners learn the language of a liquid population faster"),
    )
    for world, arm, beside, key, text in asked:
        first, second = (groups.get(world, {}).get(name, []) for name in (arm, beside))
        found += outdone(f"{text} ({{seeds}} seeds)", first, second, itemgetter(key), least=2)
    return found


# ---- figure and page ----


def draw(records: Sequence[Record]) -> Figure:
    """What each arm came to on the way: seeds thin, means thick."""
    groups = grouped(records)
    figure = card(5.4 * len(groups), 4.6, "Survival: what selection brings, and what chance")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    titles = {SWARM: "Swarm, 32 members on 8 seats", GAME: "Naming game, 10 speakers and 10 listeners"}
    dashes = {"none": (0, (1, 1.5)), "chance": (0, (5, 2)), "selected": "-", "rates": (0, (5, 1.5, 1, 1.5))}
    for axes, (world, arms) in zip(panels, groups.items(), strict=True):
        dress(axes, titles[world], "environment steps", UNITS[world])
        for arm, runs in arms.items():
            seeds_and_mean(axes, of_runs(runs), COLOURS[arm], dashes.get(arm, (0, (3, 1, 1, 1))), TITLES[arm])
        legend(axes, loc="best")
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)

    def shown(runs: Sequence[Record], key: str) -> str:
        values = [r[key] for r in runs if r.get(key) is not None]
        if not values:
            return "-"
        return mean_interval(values).shown(3, "") if len(values) < 2 else mean_shown(values, 3)

    return {
        "records": records, "groups": groups, "claims": claims(groups), "shown": shown, "titles": TITLES,
        "untrained": np.mean([r["curve"][0]["score"] for r in records if r["world"] == SWARM] or [np.nan]),
        "steps": STEPS, "units": UNITS, "worlds": {SWARM: "The swarm", GAME: "The naming game"}, "lessons": LESSONS,
    }  # fmt: skip


def results(options: Options, _: Sequence[Trial]) -> list[Record]:
    """Of both worlds, asked for this time or not. Raises UserError: there are none."""
    return list(whole_folder(options, lambda row: {"env_steps": STEPS[row["world"]]}))


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, results, arguments=arguments, seeds=5, jobs=2)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
