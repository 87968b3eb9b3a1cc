"""Learning to talk as a page: what was asked and what came of it, in tables, a figure and one sentence for each bar."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from popcomm.analysis.experiments.intervals import mean_interval
from popcomm.analysis.experiments.learning_tasks import CONDITIONS, RETURN, TASKS, Task
from popcomm.analysis.experiments.learning_to_talk_figure import draw

from popcomm.errors import UserError
from popcomm.language.drawing import png

NAME = "learning_to_talk"
# What was tried, what decided, what did not help, written by hand; left out of the page while it is empty.
FINDINGS = Path(__file__).with_name(f"{NAME}_findings.md")

Run = Mapping[str, Any]
Runs = Sequence[Run]


class Verdict(NamedTuple):
    """How many of the seeds did what is asked."""

    seeds: int
    met: int  # whose greedy policy came to the bar within the budget
    close: int  # whose sampled policy is near the greedy one at the end
    stayed: int  # that met the bar, and meet it at the end

    @property
    def holds(self) -> bool:
        return self.met == self.close == self.stayed == self.seeds


def write(folder: Path, results: Runs, command: str) -> list[Path]:
    """learning_to_talk.md, .png and .json of all results into the folder; their paths, the page first.

    Raises:
        UserError: there are no results, or runs of a task had different budgets or bars.
    """
    if not results:
        raise UserError(f"{folder} holds no results yet")
    groups = grouped(results)
    files = {
        f"{NAME}.md": markdown(groups, command).encode(),
        f"{NAME}.png": png(draw(groups)),
        f"{NAME}.json": numbers(groups, command).encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


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
        for condition in CONDITIONS:
            runs = sorted((r for r in found if r["condition"] == condition), key=lambda r: r["seed"])
            if runs:
                groups.setdefault(task, {})[condition] = runs
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


def markdown(groups: Mapping[str, Mapping[str, Runs]], command: str) -> str:
    """The page; groups: {task: {condition: its runs}}. The picture lies beside it."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("popcomm", "ray", "torch"))
    findings = FINDINGS.read_text(encoding="utf-8").strip()
    lines = [
        "# Learning to talk",
        "",
        "Do agents learn to communicate in the small games of the literature, and by which way of talking? Each game "
        "is trained under the same settings but for the number of worlds, the size of the alphabet and who hears whom; "
        "the conditions differ in what passes between agents and how senders learn. Silence and random messages stand "
        "beside them.",
        "",
        f"Written by `{command}` with {versions}; results that were in its folder already are shown too, and not made "
        "again.",
        "",
        f"![Greedy measure against episodes, a panel for each game]({NAME}.png)",
        "",
        "Thin lines are seeds, thick ones their mean as far as all of them went. Horizontal lines are what scripts "
        "earn: random actions, the best known without talk, and all-knowing players.",
        "",
        *(["## What was found", "", findings, ""] if findings else []),
        "## Bars",
        "",
        *_bars(groups),
        "",
        "## Ways to talk",
        "",
        *[f"- **{CONDITIONS[name].title}**: {CONDITIONS[name].about}." for name in _shown(groups)],
        "",
        *[line for name, conditions in groups.items() for line in _section(TASKS[name], conditions)],
        *_method(),
    ]
    return "\n".join(lines) + "\n"


def _shown(groups: Mapping[str, Mapping[str, Runs]]) -> list[str]:
    return [name for name in CONDITIONS if any(name in conditions for conditions in groups.values())]


def _bars(groups: Mapping[str, Mapping[str, Runs]]) -> list[str]:
    """A sentence for each bar; first how many of those that are asked are met."""
    asked = [
        verdict(TASKS[task], runs).holds
        for task, conditions in groups.items()
        for condition, runs in conditions.items()
        if not CONDITIONS[condition].control
    ]
    told = [
        f"- {sentence(TASKS[task], condition, runs)}"
        for task, conditions in groups.items()
        for condition, runs in conditions.items()
    ]
    return [f"A bar is met where every seed does all that is asked: {sum(asked)} of {len(asked)} are.", "", *told]


def _section(task: Task, conditions: Mapping[str, Runs]) -> list[str]:
    """A game: its references, and a row for each condition."""
    seconds = next(iter(conditions.values()))[0]["seconds"]
    known = ", ".join(f"{name} {value:.3g}" for name, value in task.references.items())
    within = "" if task.most_episodes is None else f"{task.most_episodes:,} episodes and "
    share = f" ({task.bar:g} of the oracle)" if task.of_oracle else ""
    sign = "<=" if task.lower else ">="
    header = (
        "condition", "seeds", "greedy at the end", "sampled at the end", "bar met",
        "episodes until", "CPU s until", f"still there {task.stays:,} episodes later",
    )  # fmt: skip
    return [
        f"## {task.title}",
        "",
        f"Measure: {task.unit}. References: {known}. Bar: greedy {sign} {task.threshold:.4g}{share} within "
        f"{within}{seconds:,g} CPU seconds. {task.note}".rstrip(),
        "",
        *_table(header, [_row(task, condition, runs) for condition, runs in conditions.items()]),
        "",
    ]


def _row(task: Task, condition: str, runs: Runs) -> list[str]:
    told = verdict(task, runs)
    return [
        CONDITIONS[condition].title,
        str(told.seeds),
        _mean(task, [r["end"]["greedy"] for r in runs]),
        _mean(task, [r["end"]["sampled"] for r in runs]),
        f"{told.met} of {told.seeds} ({told.met / told.seeds:.0%})",
        _median(runs, "episodes", lambda value: f"{value:,.0f}"),
        _median(runs, "cpu_s", lambda value: f"{value:.1f}"),
        f"{told.stayed} of {told.met}" if told.met else "-",
    ]


def _mean(task: Task, values: Sequence[float]) -> str:
    """The mean over seeds with its interval, and the worst seed."""
    interval = mean_interval(values)
    around = "" if math.isnan(interval.low) else f" [{interval.low:.3f}, {interval.high:.3f}]"
    worst = max(values) if task.lower else min(values)
    return f"{np.mean(values):.3f}{around}, worst {worst:.3f}"


def _median(runs: Runs, key: str, shown: Callable[[float], str]) -> str:
    """Over the seeds that met the bar, and how many these are."""
    found = [r["met"][key] for r in runs if r["met"] is not None]
    return f"{shown(float(np.median(found)))} ({len(found)})" if found else "-"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _method() -> list[str]:
    return [
        "## How it was measured",
        "",
        "- Each run is a process of its own on one thread. CPU seconds are those of this process: making worlds and "
        "networks (about one), training and evaluations all count, starting Python does not. Other work on the machine "
        "makes them longer, for caches are shared.",
        "- Greedy: the likeliest actions and messages. Sampled: both as in training, messages with training's noise. "
        "On the way both play one episode in each of the same new worlds (512; 128 of MPE), first after one "
        "second, then ever more seldom, so that evaluations cost a fifth of the time at most.",
        "- The bar is met at the first evaluation whose greedy policy comes to it, a lucky one too. Then training goes "
        "on; whether it is still there is told by the numbers at the end, which are of four times as many worlds "
        "that no run has seen before. Runs that do not meet the bar end with their budget.",
        "- Brackets are 95 % intervals of the mean (Student's t over seeds); they are not cut at what is possible. "
        "Medians are over the seeds that met the bar, whose number stands beside them, so they flatter a "
        "condition in which few do.",
        "- Random messages leave the network and its losses as they are; what was said is replaced on the way, in "
        "evaluations too. Silence takes out more than what is heard: a network that neither speaks nor listens is "
        "smaller and faster.",
        "",
        f"Every number of the page and all curves are in [{NAME}.json]({NAME}.json).",
    ]


def numbers(groups: Mapping[str, Mapping[str, Runs]], command: str) -> str:
    """All results as JSON, a run a line; the configuration once for each task and condition, of the first seed."""
    runs = [r for conditions in groups.values() for found in conditions.values() for r in found]
    whole = {
        "command": command,
        "curve": ["episodes", "env_steps", "cpu_s", "greedy", "sampled"],
        "measure": {
            task: TASKS[task].unit if TASKS[task].measure == RETURN else TASKS[task].measure for task in groups
        },
        "references": {task: TASKS[task].references for task in groups},
        "configs": {
            task: {condition: found[0]["config"] for condition, found in conditions.items()}
            for task, conditions in groups.items()
        },
    }
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in whole.items())
    lines = ",\n".join(json.dumps(_rounded({k: v for k, v in r.items() if k != "config"})) for r in runs)
    return f'{{\n{head},\n"runs": [\n{lines}\n]\n}}\n'


def _rounded(value: Any) -> Any:
    """Numbers to five digits after the point, all the way down."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value
