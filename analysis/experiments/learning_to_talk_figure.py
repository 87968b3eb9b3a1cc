"""The curves of learning to talk: a panel for each game, one below the other, so that a phone shows them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from popcomm.analysis.experiments.learning_tasks import CONDITIONS, TASKS, Task

from popcomm.language.drawing import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, VERMILLION, card, dress

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
    "mlp": (INK, (0, (3, 1, 1, 1, 1, 1))),
}
POINTS = 200  # of a mean curve
NEAR = 0.01  # references nearer than this share of the range have one label

Groups = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]


def draw(groups: Groups) -> Figure:
    """groups: {task: {condition: its runs}}, at least one task."""
    figure = card(6.4, 1.3 + 3.5 * len(groups), "Learning to talk: the greedy policy while it learns")
    panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axes, (name, conditions) in zip(panels, groups.items(), strict=True):
        _panel(axes, TASKS[name], conditions)
    shown = {condition for conditions in groups.values() for condition in conditions}
    handles = [
        panels[0].plot([], [], color=colour, linestyle=dash, linewidth=2, label=CONDITIONS[name].title)[0]
        for name, (colour, dash) in STYLES.items()
        if name in shown
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False, labelcolor=INK, handlelength=3
    )
    return figure


def _panel(axes: Axes, task: Task, conditions: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    better = "less is better" if task.lower else "more is better"
    dress(axes, f"{task.title} ({better})", "episodes", task.unit)
    for condition, runs in conditions.items():
        colour, dash = STYLES[condition]
        curves = [curve_of(run) for run in runs]
        for episodes, greedy in curves:
            axes.plot(episodes, greedy, color=colour, linestyle=dash, linewidth=0.7, alpha=0.35)
        axes.plot(*mean_curve(curves), color=colour, linestyle=dash, linewidth=2.2)
    for label, value in labelled(task.references):
        axes.axhline(value, color=INK, linewidth=0.8, alpha=0.6)
        axes.annotate(
            f"{label} {value:.3g}",
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=INK,
        )
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def curve_of(run: Mapping[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Episodes and the greedy measure of a run's evaluations, [K] each."""
    rows = np.array(run["curve"], float)
    return rows[:, 0], rows[:, 3]


def mean_curve(curves: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The mean over runs, as far as all of them went; evaluations are joined by straight lines."""
    grid = np.linspace(0, min(episodes[-1] for episodes, _ in curves), POINTS)
    return grid, np.mean([np.interp(grid, episodes, greedy) for episodes, greedy in curves], 0)


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
