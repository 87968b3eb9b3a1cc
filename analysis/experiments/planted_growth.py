"""Which edges does growth find? Criteria, pace, learning rate and reward, where it is known which edges are needed.

    python -m popcomm.analysis.experiments.planted_growth --out runs/planted_growth [--seeds 5] [--docs docs] [--quick]

Planted edges: every seat sees one of four symbols; half of the seats are to name their own, the others that of one
other seat. A Bottom Up Network grows as many edges as are planted, and it is looked whether they are those. Runner and
learner are in one process, without Ray; all runs of a table and seed share it.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from popcomm.analysis.experiments.figures import level
from popcomm.analysis.experiments.frame import Claim, Experiment, Options
from popcomm.analysis.experiments.intervals import mean_shown, paired
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.planted_edges import PlantedWorld, planted_pairs, planted_sources
from popcomm.analysis.experiments.records import Trial, arms_of, results_of, trials_of

from popcomm.agents.growth_criteria import CRITERIA
from popcomm.language.drawing import BLUE, GREEN, INK, MUTED, ORANGE, VERMILLION, card, dress, legend
from popcomm.rllib import PopulationPPOConfig

NAME = "planted_growth"
COMPARED = (*CRITERIA, "random")
SIZES = (16, 32)
BAR = 0.95  # of precision and of recall
AFTER = 2  # iterations after the last growth
LRS = (1e-3, 4e-3, 1.6e-2)
NEVER = 1e9  # a threshold that no score comes to
COST_ITERATIONS = 10

Record = Mapping[str, Any]


class Arm(NamedTuple):
    """How edges are grown, and for whom."""

    criterion: str = "csnr"
    seats: int = 16
    own: bool = False  # every seat is paid for itself, and not the team
    every: int = 2
    part: int = 8  # a growth adds N / part edges
    window: int | None = None  # iterations before a growth that are looked at; all
    lr: float = 4e-3
    counted: bool = True  # whether growth knows how many edges are planted; else it has a threshold and no budget
    hidden: int = 32

    @property
    def edges(self) -> int:
        return self.seats // 2

    @property
    def growth(self) -> dict[str, Any]:
        """`agent_config.growth`"""
        at_once = self.seats // self.part
        given = {"criterion": self.criterion, "every": self.every, "at_once": at_once}
        given |= {"edges": self.edges} if self.counted else {}
        return given if self.window is None else {**given, "window": self.window}

    @property
    def iterations(self) -> int:
        growths = math.ceil(self.edges / (self.seats // self.part))
        return self.every * growths * (1 if self.counted else 2) + AFTER


PACES = {
    "every iteration, N / 4 at once": {"every": 1, "part": 4},
    "every 2, N / 8": {},
    "every 2, N / 8, looked at in the last one": {"window": 1},
    "every 5, N / 4": {"every": 5, "part": 4},
    "every 5, N / 4, looked at in the last one": {"every": 5, "part": 4, "window": 1},
}
DEFAULT = "every 5, N / 4"  # what `growth` does unless told otherwise
TABLES: dict[str, dict[str, Arm]] = {
    "criteria": {
        f"{criterion}, {seats}, {'own' if own else 'team'}": Arm(criterion, seats, own)
        for seats, own, criterion in product(SIZES, (False, True), COMPARED)
    },
    "pace": {f"{name}, {seats}": Arm(seats=seats, **pace) for seats, (name, pace) in product(SIZES, PACES.items())},
    "rate": {f"{criterion}, {lr:g}": Arm(criterion, lr=lr) for criterion, lr in product(("csnr", "raw"), LRS)},
    "unbudgeted": {f"{seats}": Arm(seats=seats, counted=False) for seats in SIZES},
}
# Networks whose cost is measured: they look and never grow, so that nothing else differs.
LOOKS = {"nobody looks": None, "all iterations": 5, "the last of five": 1}


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    tables = ["criteria"] if options.quick else [*TABLES, "cost"]
    return trials_of(options, train, [{"table": table} for table in tables], quick=options.quick)


def settings(arm: Arm, seed: int) -> PopulationPPOConfig:
    world = {"seats": arm.seats, "edges": arm.edges, "layout_seed": seed, "team": not arm.own}
    return (
        PopulationPPOConfig()
        .environment(PlantedWorld, env_config=world)
        .communication(messages=None)
        .population(agent="bottom_up", agent_config={"hidden": arm.hidden, "growth": arm.growth})
        .env_runners(num_worlds_per_env_runner=64, rollout_fragment_length=16)
        .training(gamma=0.0, lr=arm.lr, num_epochs=2)
        .debugging(seed=seed)
    )


def pairs_of(agent: Any) -> set[tuple[int, int]]:
    """{(sender, receiver)} that any layer of the actor joins."""
    return {tuple(pair) for name in agent.layers if name.startswith("actor.") for pair in agent.edges(name).tolist()}


def grown(arm: Arm, seed: int, quick: bool = False) -> Record:
    """One training, and which of its edges are planted; `seconds` is CPU time of its iterations."""
    training, began = LocalTraining(settings(arm, seed)), time.process_time()
    for _ in range(4 if quick else arm.iterations):
        training.iterate()
    pairs = pairs_of(training.learner.networks["cell"].agent)
    planted = planted_pairs(planted_sources(arm.seats, arm.edges, seed))
    reward = float(training.fragment.policy_batches["cell"]["rewards"].mean())
    hits = len(pairs & planted)
    return {
        "precision": hits / len(pairs) if pairs else 0.0, "recall": hits / len(planted), "edges": len(pairs),
        "reward": reward, "iterations": training.iteration, "seconds": time.process_time() - began,
    }  # fmt: skip


def cost(seats: int, seed: int) -> dict[str, float]:
    """{who looks: CPU seconds of an iteration} of networks that look and never grow, in turns."""
    arm = Arm(seats=seats, hidden=64)
    trainings = {}
    for name, window in LOOKS.items():
        growth = {"criterion": "csnr", "every": 5, "threshold": NEVER, "window": window}
        given = {"criterion": "none"} if window is None else growth
        config = settings(arm, seed).population(agent_config={"hidden": arm.hidden, "growth": given})
        trainings[name] = LocalTraining(config)
        trainings[name].iterate()  # what is made once
    seconds = dict.fromkeys(LOOKS, 0.0)
    for _ in range(COST_ITERATIONS):
        for name, training in trainings.items():
            began = time.process_time()
            training.iterate()
            seconds[name] += (time.process_time() - began) / COST_ITERATIONS
    return seconds


def train(table: str, seed: int, quick: bool) -> Record:
    """All runs of a table with one seed."""
    if table == "cost":
        return {"runs": {str(seats): cost(seats, seed) for seats in SIZES}}
    return {"runs": {name: grown(arm, seed, quick) for name, arm in TABLES[table].items()}}


# ---- measures ----


def results(options: Options, trials: Sequence[Trial]) -> list[Record]:
    """A record for each run."""
    return [
        {"table": row["table"], "arm": arm, "seed": row["seed"], **run}
        for row in results_of(trials)
        for arm, run in row["runs"].items()
    ]


def grouped(records: Sequence[Record]) -> dict[str, dict[str, list[Record]]]:
    """{table: {arm: its runs by seed}}."""
    return {table: arms_of(runs, lambda r: r["arm"]) for table, runs in arms_of(records, lambda r: r["table"]).items()}


def least(run: Record) -> float:
    """The lesser of precision and recall."""
    return float(min(run["precision"], run["recall"]))


def looking(runs: Sequence[Record], who: str) -> list[float]:
    """Of every seed, by which share an iteration takes longer where gradients are looked at."""
    return [run[who] / run["nobody looks"] - 1 for run in runs]


def claims(groups: Mapping[str, Mapping[str, Sequence[Record]]]) -> list[Claim]:
    """The bars, and what would have to be so for a default to be another one."""
    found: list[Claim] = []
    criteria, paces = groups.get("criteria", {}), groups.get("pace", {})
    for seats, (pace, words) in product(
        SIZES, (("every 2, N / 8", "this pace"), (DEFAULT, "the defaults of `growth`"))
    ):
        runs = paces.get(f"{pace}, {seats}", [])
        if runs:
            values = [least(run) for run in runs]
            text = f"{seats} seats, team reward, {words} ({pace}): precision and recall are {BAR} or more on every seed"
            count = sum(value >= BAR for value in values)
            found.append(Claim(text, f"{count} of {len(runs)}, {mean_shown(values, 2)}", min(values) >= BAR))
    for seats, other in product(SIZES, ("centred", "variance", "raw")):
        gap = paired(criteria.get(f"csnr, {seats}, team", []), criteria.get(f"{other}, {seats}, team", []), least)
        if gap is not None and gap.paired is not None and len(criteria[f"csnr, {seats}, team"]) > 1:
            text = f"{seats} seats, team reward: `csnr` finds more than `{other}`"
            found.append(Claim(text, gap.shown(2), gap.paired.low > 0))
    for seats, pace in product(SIZES, ("every 2, N / 8", "every 5, N / 4")):
        one, every = (paces.get(f"{pace}{tail}, {seats}", []) for tail in (", looked at in the last one", ""))
        gap = paired(one, every, least)
        if gap is not None and len(one) > 1:
            text = f"{seats} seats, {pace}: to look in the last iteration alone loses no more than .05"
            found.append(Claim(text, gap.shown(2), gap.paired.low > -0.05))
    return found


# ---- figure and page ----

COLOURS = dict(zip(COMPARED, (VERMILLION, GREEN, ORANGE, BLUE, MUTED), strict=True))


def draw(records: Sequence[Record]) -> Figure:
    """What is found: by criterion, reward and size; and by pace and window."""
    groups = grouped(records)
    figure = card(14, 5.2, "Planted edges: how many of those that grow are needed, and how many of the needed grow")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    dress(left, "By criterion: points are seeds, lines their means", "", "lesser of precision and recall")
    cells = [f"{seats}, {reward}" for seats in SIZES for reward in ("team", "own")]
    for place, cell in enumerate(cells):
        for shift, criterion in enumerate(COMPARED):
            runs = groups.get("criteria", {}).get(f"{criterion}, {cell}", [])
            _seeds(left, place + 0.15 * (shift - 2), runs, COLOURS[criterion], criterion if not place else None)
    left.set_xticks(range(len(cells)), [cell.replace(", ", " seats,\n") + " reward" for cell in cells], fontsize=8)
    legend(left, loc="center right", fontsize=7)
    dress(right, "csnr under a team reward, by pace", "", "lesser of precision and recall")
    for place, pace in enumerate(PACES):
        for shift, (seats, colour) in enumerate(zip(SIZES, (ORANGE, BLUE), strict=True)):
            runs = groups.get("pace", {}).get(f"{pace}, {seats}", [])
            _seeds(right, place + 0.2 * (shift - 0.5), runs, colour, f"{seats} seats" if not place else None)
    right.set_xticks(range(len(PACES)), [pace.replace(", ", ",\n") for pace in PACES], fontsize=7)
    legend(right, loc="lower right", fontsize=8)
    for axes in (left, right):
        level(axes, BAR, "the bar")
        axes.set_ylim(-0.04, 1.06)
    return figure


def _seeds(axes: Axes, x: float, runs: Sequence[Record], colour: str, label: str | None) -> None:
    if runs:
        values = [least(run) for run in runs]
        axes.scatter([x] * len(values), values, s=24, color=colour, alpha=0.75, label=label)
        axes.plot([x - 0.06, x + 0.06], [np.mean(values)] * 2, color=INK, linewidth=1.6)


def page(records: Sequence[Record]) -> dict[str, Any]:
    def shown(runs: Sequence[Record], key: str, digits: int = 2) -> str:
        return mean_shown([run[key] for run in runs], digits)

    groups = grouped(records)
    costs = {
        seats: {who: mean_shown([100 * share for share in looking(runs, who)], 1) for who in LOOKS if LOOKS[who]}
        for seats, runs in groups.get("cost", {}).items()
    }
    return {
        "records": records, "groups": groups, "claims": claims(groups), "shown": shown, "tables": TABLES,
        "compared": COMPARED, "sizes": SIZES, "bar": BAR, "paces": PACES, "costs": costs, "arm": Arm(),
        "seconds": sum(run.get("seconds", 0.0) for run in records),
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, results=results, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
