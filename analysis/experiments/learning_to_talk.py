"""Do agents learn to talk? Games of the literature, several ways to talk, silence and random messages beside them.

    python -m popcomm.analysis.experiments.learning_to_talk --seeds 5 --out runs/learning_to_talk [--docs docs]

Every run is a process of its own on one thread, and leaves one JSON file; those that are there are not made again. The
games that take long are run only when they are named: --tasks predator_prey. Writes learning_to_talk.md, .png and .json
into the folder, of all results in it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from popcomm.analysis.experiments import learning_tasks as games
from popcomm.analysis.experiments.figures import Curve, panels, seeds_and_mean
from popcomm.analysis.experiments.frame import Experiment, Options
from popcomm.analysis.experiments.intervals import mean_interval
from popcomm.analysis.experiments.learning_course import RESULTS, Trial, run_one
from popcomm.analysis.experiments.learning_tasks import CONDITIONS, RETURN, TASKS, Task
from popcomm.analysis.experiments.records import arms_of

from popcomm.cli.ray_session import prepare_environment
from popcomm.errors import UserError
from popcomm.language.drawing import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, VERMILLION

NAME = "learning_to_talk"
# What was tried, what decided, what did not help, written by hand; left out of the page while it is empty.
FINDINGS = Path(__file__).with_name(f"{NAME}_findings.md")

Run = Mapping[str, Any]
Runs = Sequence[Run]
Groups = Mapping[str, Mapping[str, Runs]]  # {task: {condition: its runs by seed}}


# ---- runs ----


def arguments(parser: argparse.ArgumentParser) -> None:
    short = ", ".join(name for name, task in TASKS.items() if not task.long)
    parser.add_argument("--tasks", nargs="+", help=f"of {', '.join(TASKS)} [{short}]")
    parser.add_argument("--conditions", nargs="+", help=f"of {', '.join(CONDITIONS)} [all]")
    parser.add_argument("--seconds", type=float, help="CPU budget of each run until the bar [the task's: 120 or more]")
    parser.add_argument("--one", nargs=3, metavar=("TASK", "CONDITION", "SEED"), help="one run, in this process")


def planned(options: Options) -> list[Trial]:
    """What the command line asks for, seeds outermost: a stop leaves whole sets.

    Raises:
        UserError: an unknown task or condition.
    """
    named = options.tasks or [name for name, task in TASKS.items() if not task.long]
    tasks = [games.task_named(name) for name in named]
    conditions = options.conditions or list(CONDITIONS)
    return [
        Trial(options.out, task, condition, seed, options.seconds or task.seconds)
        for seed, task, condition in itertools.product(range(1, options.seeds + 1), tasks, conditions)
        if games.runs_in(condition, task.name)
    ]


def results(options: Options, trials: Sequence[Trial]) -> dict[str, dict[str, list[Run]]]:
    """All results in the folder."""
    found = [json.loads(file.read_text()) for file in (options.out / RESULTS).glob("*.json")]
    if not found:
        raise UserError(f"{options.out} holds no results yet")
    return grouped(found)


def main(given: Sequence[str] | None = None) -> int:
    """Train what is missing, write the page; returns the exit code: 1 for a failed run, 2 for a user's mistake."""
    given = list(sys.argv[1:] if given is None else given)
    return _one(given) if "--one" in given else EXPERIMENT.main(given)


def _one(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    arguments(parser)
    options = parser.parse_args(given)
    name, condition, seed = options.one
    try:
        task = games.task_named(name)
        games.condition_named(condition)
        if not seed.isdigit():
            raise UserError(f"--one: the seed is '{seed}', and must be a whole number, 0 or more")
        trial = Trial(options.out, task, condition, int(seed), options.seconds or task.seconds)
        if not trial.is_complete():
            run_one(trial)
    except UserError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    return 0


# ---- measures ----


class Verdict(NamedTuple):
    """How many of the seeds did what is asked."""

    seeds: int
    met: int  # whose greedy policy came to the bar within the budget
    close: int  # whose sampled policy is near the greedy one at the end
    stayed: int  # that met the bar, and meet it at the end

    @property
    def holds(self) -> bool:
        return self.met == self.close == self.stayed == self.seeds


def grouped(results: Runs) -> dict[str, dict[str, list[Run]]]:
    """{task: {condition: its runs by seed}}, in the order of the tables of tasks and conditions.

    Raises:
        UserError: runs of a task had different budgets or bars.
    """
    groups: dict[str, dict[str, list[Run]]] = {}
    for task in TASKS:
        found = [r for r in results if r["task"] == task]
        for key in ("seconds", "bar"):
            values = sorted({r[key] for r in found})
            if len(values) > 1:
                raise UserError(f"runs of {task} have different {key}: {', '.join(map(str, values))}; keep one kind")
        if arms := arms_of(found, itemgetter("condition"), CONDITIONS):
            groups[task] = arms
    return groups


def verdict(task: Task, runs: Runs) -> Verdict:
    met = [r for r in runs if r["met"] is not None]
    return Verdict(
        len(runs),
        len(met),
        sum(task.close(r["end"]["sampled"], r["end"]["greedy"]) for r in runs),
        sum(task.meets(r["end"]["greedy"]) for r in met),
    )


def sentence(task: Task, condition: str, runs: Runs) -> str:
    """What became of the bar, by the numbers."""
    told, way = verdict(task, runs), CONDITIONS[condition]
    sign = "<=" if task.lower else ">="
    asked = f"{task.title}, {way.title}: greedy {sign} {task.threshold:.4g} on {told.met} of {told.seeds} seeds"
    if way.control:
        return f"{asked}; a control, of which it is not asked."
    after = f"sampled within a tenth of greedy at the end on {told.close} of {told.seeds}"
    if told.met:
        after += f"; still there {task.stays:,} episodes later on {told.stayed} of {told.met}"
    return f"{asked}; {after}: {'met' if told.holds else '**missed**'}."


# ---- figure and page ----

# Colours of Okabe & Ito, with black and grey; dashes tell apart what colours do not.
STYLES: dict[str, tuple[str, Any]] = {
    "straight_through": (BLUE, "-"),
    "relaxed": (ORANGE, "-"),
    "dru": (GREEN, (0, (5, 1.5))),
    "vectors": (PURPLE, (0, (5, 1.5, 1, 1.5))),
    "reinforce": (VERMILLION, (0, (2, 1))),
    "silent": (MUTED, (0, (1, 1.5))),
    "noise": (MUTED, (0, (4, 2))),
    "members": (SKY, "-"),
    "commnet": (BLUE, (0, (3, 1))),
    "ic3net": (GREEN, (0, (3, 1))),
    "tarmac": (VERMILLION, (0, (3, 1))),
    "mlp": (INK, (0, (3, 1, 1, 1, 1, 1))),
}
NEAR = 0.01  # references nearer than this share of the range have one label


def draw(groups: Groups) -> Figure:
    """groups: {task: {condition: its runs}}, at least one task."""
    labels = []
    for name in groups:
        better = "less is better" if TASKS[name].lower else "more is better"
        labels.append((f"{TASKS[name].title} ({better})", "episodes", TASKS[name].unit))
    size = (6.4, 1.3 + 3.5 * len(groups))
    figure, every = panels("Learning to talk: the greedy policy while it learns", *size, *labels, columns=1)
    for axes, (name, conditions) in zip(every, groups.items(), strict=True):
        _panel(axes, TASKS[name], conditions)
    shown = {condition for conditions in groups.values() for condition in conditions}
    handles = [
        every[0].plot([], [], color=colour, linestyle=dash, linewidth=2, label=CONDITIONS[name].title)[0]
        for name, (colour, dash) in STYLES.items()
        if name in shown
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False, labelcolor=INK, handlelength=3
    )
    return figure


def _panel(axes: Axes, task: Task, conditions: Mapping[str, Runs]) -> None:
    for condition, runs in conditions.items():
        colour, dash = STYLES[condition]
        curves = [curve_of(run) for run in runs]
        seeds_and_mean(axes, curves, colour, dash, thin=dash)
    for label, value in labelled(task.references):
        axes.axhline(value, color=INK, linewidth=0.8, alpha=0.6)
        beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(f"{label} {value:.3g}", (1.0, value), xytext=(-2, 2), ha="right", fontsize=8, color=INK, **beside)
    axes.set_xlim(left=0)


def curve_of(run: Run) -> Curve:
    """Episodes and the greedy measure of a run's evaluations, [K] each."""
    rows = np.array(run["curve"], float)
    return rows[:, 0], rows[:, 3]


def labelled(references: Mapping[str, float]) -> list[tuple[str, float]]:
    """References from the lowest on, those that lie on one another under one label."""
    span = max(references.values(), default=0.0) - min(references.values(), default=0.0)
    found: list[tuple[str, float]] = []
    for name, value in sorted(references.items(), key=lambda item: item[1]):
        if found and value - found[-1][1] <= NEAR * span:
            found[-1] = (f"{found[-1][0]}, {name}", found[-1][1])
        else:
            found.append((name, value))
    return found


def page(groups: Groups) -> dict[str, Any]:
    rows = [(TASKS[task], way, runs) for task, conditions in groups.items() for way, runs in conditions.items()]
    asked = [verdict(task, runs).holds for task, way, runs in rows if not CONDITIONS[way].control]
    ways = {way for _, way, _ in rows}
    return {
        "findings": FINDINGS.read_text(encoding="utf-8").strip(), "asked": asked, "rows": rows, "groups": groups,
        "tasks": TASKS, "ways": CONDITIONS, "shown": [way for way in CONDITIONS if way in ways],
        "sentence": sentence, "verdict": verdict, "around": around, "of_those_that_met": met,
    }  # fmt: skip


def around(task: Task, values: Sequence[float]) -> str:
    """The mean over seeds with its interval, and the worst seed."""
    interval = mean_interval(values)
    told = "" if math.isnan(interval.low) else f" {interval.shown(3, '')}"
    worst = max(values) if task.lower else min(values)
    return f"{np.mean(values):.3f}{told}, worst {worst:.3f}"


def met(runs: Runs, key: str, form: str) -> str:
    """The median over the seeds that met the bar, and how many these are."""
    found = [r["met"][key] for r in runs if r["met"] is not None]
    return f"{float(np.median(found)):{form}} ({len(found)})" if found else "-"


def numbers(groups: Groups) -> dict[str, Any]:
    """The configuration once for each task and condition, of the first seed."""
    runs = [r for conditions in groups.values() for found in conditions.values() for r in found]
    tasks = {name: TASKS[name] for name in groups}
    return {
        "curve": ["episodes", "env_steps", "cpu_s", "greedy", "sampled"],
        "measure": {name: task.unit if task.measure == RETURN else task.measure for name, task in tasks.items()},
        "references": {name: task.references for name, task in tasks.items()},
        "configs": {
            name: {condition: found[0]["config"] for condition, found in conditions.items()}
            for name, conditions in groups.items()
        },
        "runs": [{key: value for key, value in r.items() if key != "config"} for r in runs],
    }


EXPERIMENT = Experiment(
    NAME, __doc__, planned, page, draw, results, numbers, arguments, seeds=5, jobs=2, page_only="--page"
)

if __name__ == "__main__":
    prepare_environment()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    sys.exit(main())
