"""The page that puts several runs beside each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from popcomm.analysis.closer import heights
from popcomm.analysis.comparison import Comparison, Number, difference
from popcomm.analysis.page import Section, Table, page
from popcomm.analysis.report import configuration
from popcomm.analysis.sections import counted
from popcomm.analysis.sweep_pictures import curves, mean_course

from popcomm.language.drawing import BLUE, CATEGORIES, INK, card, dress, png

RETURNS = ("charts/agent_episodic_return", "charts/reward")  # the first that was measured is drawn
PANELS = 6  # of the picture of ends
LONGEST = 46  # characters of a panel's title
MADE_OF_ENDS = (
    "Of the progress means of the last tenth of what was measured until all runs had taken as many steps; of the "
    "language what the recorded messages have, as in each run's report. Intervals are Student's t, 95 %, over runs."
)


def write_comparison(paths: list[Path], target: Path) -> Path:
    """Write the page on these runs, and on all trials of sweeps among them; returns its path.

    Raises:
        UserError: a folder that holds no run, a run that is there twice, or one run alone.
    """
    found = Comparison.read(paths)
    groups = found.groups
    text = page(
        f"{counted(len(found.runs), 'run')} beside each other",
        _compared(found),
        {
            "Conditions": {name: counted(len(runs), "run") for name, runs in groups.items()},
            "Of the first run": configuration(found.runs[0].folder.config),
        },
        sections(found),
        yaml.safe_dump(found.runs[0].folder.config, sort_keys=False, allow_unicode=True),
        about="The runs",
        data={"curves": courses(found)},
    )
    target.write_text(text, encoding="utf-8")
    return target


def _compared(found: Comparison) -> str:
    """How many conditions there are, and how far they are compared."""
    told = counted(len(found.groups), "condition")
    if math.isfinite(found.horizon):
        told += f"; compared up to environment step {found.horizon:,.0f}, where all have been"
    return told


def sections(found: Comparison) -> list[Section]:
    """Curves, what the runs came to, differences between conditions, and each run by itself."""
    numbers = found.numbers()
    return [_learning(found), _ends(found, numbers), *_differences(found, numbers), _each(found)]


def courses(found: Comparison) -> dict[str, Any]:
    """What the script of curves draws: of each measure a mean and an interval for each condition."""
    measures = {}
    for key in found.measures():
        series = []
        for name, runs in found.groups.items():
            steps, *lines = mean_course([run.folder.progress for run in runs], key)
            told = zip(("y", "low", "high"), map(heights, lines), strict=True)
            series.append({"label": f"{name} ({len(runs)})", "x": steps.tolist(), **dict(told)})
        if any(one["x"] for one in series):
            measures[key] = series
    return {"x": "environment steps", "measures": measures}


def _learning(found: Comparison) -> Section:
    title, measures = "How do they learn?", found.measures()
    metric = next((key for key in RETURNS if key in measures), None)
    if metric is None:
        return Section("learning_curves", title, "", missing="No run has measured its reward twice.")
    names = {name: [run.name for run in runs] for name, runs in found.groups.items()}
    figure = curves(names, {run.name: run.folder.progress for run in found.runs}, metric)
    findings = []
    if alone := [name for name, runs in found.groups.items() if len(runs) < 2]:
        findings.append(f"Of one run there is no interval: {'; '.join(alone)}.")
    return Section(
        "learning_curves", title, "Choose a measure below; a band is how sure a mean is.",
        findings, _same_seeds(found), picture=png(figure), widget="curves",
        computed="Means over the runs of a condition that got as far, with 95 % t intervals; between the steps at "
        "which a run measured it is a straight line.",
        change="runs with seeds of their own",
    )  # fmt: skip


def _same_seeds(found: Comparison) -> str:
    """A sentence on runs that are no samples of their own; empty where there are none."""
    for name, runs in found.groups.items():
        seeds = [run.seed for run in runs if run.seed is not None]
        if len(set(map(str, seeds))) < len(seeds):
            return (
                f"Runs of {name} have the same seed: with the same number of runners they are the same run, and "
                "intervals are too narrow."
            )
    return ""


def _ends(found: Comparison, numbers: dict[str, dict[str, Number]]) -> Section:
    title = "What do they come to?"
    if not numbers:
        return Section("ends", title, "", missing="The runs have measured nothing yet.")
    names = list(found.groups)
    rows = [(key, *(told[name].shown() for name in names)) for key, told in numbers.items()]
    key = next((key for key in RETURNS if key in numbers), next(iter(numbers)))
    headline = f"{key}: {'; '.join(f'{name} {numbers[key][name].shown()}' for name in names[:3])}."
    look = "A dot is a run, a bar the 95 % interval of their mean: it speaks of further seeds, not of other settings."
    return Section(
        "ends", title, look, [], headline, picture=png(_dots(numbers, names)), computed=MADE_OF_ENDS,
        change="more seeds", table=Table("Mean and 95 % interval", ("measure", *names), rows),
    )  # fmt: skip


def _differences(found: Comparison, numbers: dict[str, dict[str, Number]]) -> list[Section]:
    first, *others = found.groups
    if not others or not numbers:
        return []
    rows, apart, asked = [], [], 0
    for key, told in numbers.items():
        cells = []
        for name in others:
            mean, interval = difference(told[first], told[name])
            asked += math.isfinite(interval.low)
            if interval.excludes_zero:
                apart.append(f"{key} ({name})")
            cells.append(f"{mean:+.3g} {_bounds(interval)}" if math.isfinite(mean) else "not measured")
        rows.append((key, *cells))
    headline = (
        f"Against {first}, {len(apart)} of {asked} differences have an interval without 0; by chance one in twenty "
        "would."
        if asked
        else f"Against {first} nothing can be told apart: it takes two runs of each condition."
    )
    findings = [headline] + ([f"They are: {'; '.join(apart[:12])}."] if apart else [])
    made = f"Mean of a condition less that of {first}; intervals after Welch, 95 %, each by itself. {MADE_OF_ENDS}"
    return [
        Section(
            "differences", "Which conditions differ?", "An interval without 0 is a difference that other seeds would "
            "show, too; of many such intervals some are there by chance.", findings, headline, computed=made,
            change="more seeds, or a measure that was chosen beforehand",
            table=Table(f"Less {first}", ("measure", *others), rows),
        )
    ]  # fmt: skip


def _bounds(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"[{low:+.3g}, {high:+.3g}]" if math.isfinite(low) else "(no interval: needs two runs of each)"


def _each(found: Comparison) -> Section:
    metric = next((key for key in RETURNS if key in found.measures()), None)
    rows = [
        (
            run.name, run.condition, str(run.seed), f"{len(run.folder.progress):,}",
            f"{run.folder.now('env_steps'):,.0f}", "-" if metric is None else f"{run.folder.last(metric):.4g}",
        )
        for run in found.runs
    ]  # fmt: skip
    columns = ("run", "condition", "seed", "iterations", "environment steps", metric or "return")
    return Section(
        "each", "One by one", "A run that is far from the others of its condition is worth a look at its own report.",
        computed="The last number is that of the run's own end, as in its report.", table=Table("Runs", columns, rows),
    )  # fmt: skip


def _dots(numbers: dict[str, dict[str, Number]], names: list[str]) -> Figure:
    """Small multiples: the runs of each condition, and the interval of their mean."""
    shown = sorted(numbers, key=lambda key: key not in RETURNS)[:PANELS]
    rows = -(-len(shown) // 3)
    figure = card(10.5, 0.6 + 2.4 * rows, "What the runs came to")
    grid = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    for axes, key in zip(grid, shown, strict=False):
        _panel(dress(axes), key, [numbers[key][name] for name in names])
    return figure


def _panel(axes: Axes, title: str, told: list[Number]) -> None:
    shown = title if len(title) <= LONGEST else f"{title[: LONGEST - 3]}..."
    axes.set_title(shown, fontsize=8.5, color=INK, loc="left", parse_math=False)
    for place, number in enumerate(told):
        colour = CATEGORIES[place] if place < len(CATEGORIES) else BLUE
        spread = np.linspace(-0.12, 0.12, len(number.values)) if len(number.values) > 1 else [0.0]
        if number.values:
            axes.plot(place + np.array(spread), number.values, "o", color=colour, markersize=4, alpha=0.6)
            axes.plot([place - 0.22, place + 0.22], [number.mean] * 2, color=colour, linewidth=2)
        low, high = number.interval
        if math.isfinite(low):
            axes.plot([place, place], [low, high], color=colour, linewidth=1.6)
    axes.set_xticks(range(len(told)), [str(place + 1) for place in range(len(told))])
    axes.set_xlim(-0.6, len(told) - 0.4)
    axes.set_xlabel("condition, in the order of the tables", fontsize=8)
