"""What the figures of experiments have in common: curves of seeds with their mean, and levels with a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from popcomm.language.drawing import MUTED, card, dress

POINTS = 200  # of a mean curve
DOTTED, DOTS, DASHED = (0, (1, 3)), (0, (1, 1.5)), (0, (5, 2))

Curve = tuple[NDArray[Any], NDArray[Any]]  # x and y, [K] each


def panels(
    title: str, width: float, height: float, *labels: tuple[str, str, str], columns: int = 2, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A card of panels over steps, which are told in thousands and millions.

    Args:
        width, height: inches.
        labels: of each panel, row by row: its title, what goes across, what goes up.
        options: of matplotlib's `subplots`.
    """
    figure = card(width, height, title)
    every = list(figure.subplots(-(-len(labels) // columns), columns, squeeze=False, **options).ravel())
    for axes, told in zip(every, labels, strict=True):
        dress(axes, *told)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure, every


def seeds_and_means(
    axes: Axes, groups: Mapping[float, Sequence[float]], colour: str, mark: str = "o", label: str = "", **line: Any
) -> None:
    """A point for each seed, and a line through the means. groups: {where across: numbers of the seeds}.

    line: how the line of the means looks; {}: there is none.
    """
    places = [place for place, values in groups.items() for _ in values]
    every = [value for values in groups.values() for value in values]
    axes.scatter(places, every, color=colour, marker=mark, s=26, alpha=0.75, label=label or None, zorder=3)
    if line:
        axes.plot(list(groups), [float(np.mean(values)) for values in groups.values()], color=colour, **line)


def of_tables(tables: Sequence[pd.DataFrame], key: str, x: str = "env_steps") -> list[Curve]:
    """The column `key` of tables of progress where it was measured; those that never were are left out."""
    measured = [table.dropna(subset=[key]) for table in tables if key in table]
    return [(table[x].to_numpy(float), table[key].to_numpy(float)) for table in measured if len(table)]


def of_runs(runs: Sequence[Mapping[str, Any]], key: str = "score", x: str = "env_steps") -> list[Curve]:
    """The numbers `key` of the points of the runs' curves."""
    columns = [[np.array([point[name] for point in run["curve"]], float) for name in (x, key)] for run in runs]
    return [(across, up) for across, up in columns]


def mean_of(curves: Sequence[Curve]) -> Curve:
    """The mean where all were measured; points are joined by straight lines. Curves must not be none."""
    grid = np.linspace(max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves), POINTS)
    return grid, np.mean([np.interp(grid, x, y) for x, y in curves], 0)


def seeds_and_mean(
    axes: Axes, curves: Sequence[Curve], colour: str, dash: Any, label: str = "", thin: Any = "-"
) -> None:
    """Each seed thin, their mean thick; nothing of no curves."""
    for x, y in curves:
        axes.plot(x, y, color=colour, linestyle=thin, linewidth=0.8, alpha=0.4)
    if curves:
        axes.plot(*mean_of(curves), color=colour, linestyle=dash, linewidth=2.4, label=label or None)


# Where a line has its name: a fraction of the axes, the way from there (points), and what of the text is there.
PLACES: dict[str, tuple[float, tuple[int, int], str, str]] = {
    "left": (0.0, (4, 3), "left", "baseline"),
    "right": (1.0, (-4, 3), "right", "baseline"),
    "outside": (1.0, (3, 0), "left", "center"),  # beyond its right end, where no curve is
}


def level(axes: Axes, value: float, label: str, dash: Any = DOTTED, place: str = "left", colour: str = MUTED) -> None:
    """A horizontal line, named at a place of PLACES."""
    axes.axhline(value, color=colour, linestyle=dash, linewidth=1.2)
    end, way, ha, va = PLACES[place]
    axes.annotate(
        label,
        (end, value),
        xycoords=("axes fraction", "data"),
        xytext=way,
        textcoords="offset points",
        ha=ha,
        va=va,
        fontsize=8,
        color=colour,
    )
