"""Pictures of a sweep: learning curves with intervals, parallel coordinates, a heat map of two settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from popcomm.analysis.lineages import OTHERS
from scipy import stats

from popcomm.language.drawing import CATEGORIES, INK, MUTED, card, dress, heatmap, legend
from popcomm.language.intervals import LEVEL

Array = NDArray[np.float64]

POINTS = 200  # of a curve
MOST_CURVES = len(CATEGORIES)  # with a colour of their own; others are grey
LONGEST = 34  # characters of a label


def curves(groups: Mapping[str, Sequence[str]], courses: Mapping[str, pd.DataFrame], metric: str) -> Figure:
    """The metric over environment steps, a mean and a 95 % interval for each group.

    Args:
        groups: {label: trials}, the best first.
        courses: {trial: its progress}.
    """
    figure = card(10.5, 4.6, f"{metric} over training")
    axes = dress(figure.subplots(), "", "environment steps", metric)
    # The grey ones first, so that they lie behind.
    for place, (label, names) in reversed(list(enumerate(groups.items()))):
        steps, means, low, high = mean_course([courses[name] for name in names], metric)
        if not len(steps):
            continue
        coloured = place < MOST_CURVES
        colour = CATEGORIES[place] if coloured else OTHERS
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        shown = label if len(label) <= LONGEST else f"{label[: LONGEST - 3]}..."
        name = f"{shown} ({len(names)})" if coloured else None
        axes.plot(steps, means, color=colour, linewidth=1.7 if coloured else 0.9, label=name)
    handles, labels = axes.get_legend_handles_labels()
    legend(axes, handles=handles[::-1], labels=labels[::-1], loc="best", fontsize=7)
    return figure


def mean_course(courses: Sequence[pd.DataFrame], metric: str) -> tuple[Array, Array, Array, Array]:
    """(environment steps, means, lower ends, upper ends), [S] each, over the courses that got as far.

    Between the steps at which a course measured it is a straight line. Student's t interval; nan of fewer than two.
    """
    known = [course[["env_steps", metric]].dropna() for course in courses if metric in course]
    known = [course for course in known if len(course)]
    if not known:
        return (np.empty(0),) * 4
    steps = np.unique(np.concatenate([course["env_steps"].to_numpy(float) for course in known]))
    if len(steps) > POINTS:
        steps = np.linspace(steps[0], steps[-1], POINTS)
    table = np.stack([
        np.interp(steps, course["env_steps"], course[metric], left=np.nan, right=np.nan) for course in known
    ])  # fmt: skip
    count = np.isfinite(table).sum(0)
    table, steps, count = table[:, count > 0], steps[count > 0], count[count > 0]
    means = np.nanmean(table, 0)
    spread = np.sqrt(np.nansum(np.square(table - means), 0) / np.maximum(count - 1, 1))
    half = stats.t.ppf((1 + LEVEL) / 2, np.maximum(count - 1, 1)) * spread / np.sqrt(count)
    half = np.where(count > 1, half, np.nan)
    return steps, means, means - half, means + half


def parallel_coordinates(rows: pd.DataFrame, keys: Sequence[str], metric: str, mode: str) -> Figure:
    """A line for each trial through its settings, and to what it came; the better, the brighter.

    Args:
        rows: of the trials, the best first, with the keys and the metric.
        mode: "max" or "min".
    """
    axes_keys = [*keys, metric]
    figure = card(max(10.5, 1.9 * len(axes_keys)), 4.6, "Settings, and what they came to")
    axes = dress(figure.subplots(), grid=None)
    places = np.stack([heights(rows[key])[0] for key in axes_keys], axis=1)  # [trials, axes]
    worth = places[:, -1] if mode == "max" else 1 - places[:, -1]
    colours = colormaps["viridis"](np.nan_to_num(worth))
    for i in np.argsort(worth, kind="stable"):
        axes.plot(range(len(axes_keys)), places[i], color=colours[i], linewidth=1.4, alpha=0.85)
    for x, key in enumerate(axes_keys):
        _axis(axes, x, *heights(rows[key])[1:])
    names = [".".join(key.split(".")[-2:]) for key in axes_keys]
    axes.set_xticks(range(len(axes_keys)), names, fontsize=8, color=INK)
    axes.set_yticks([])
    axes.set_ylim(-0.06, 1.06)
    axes.set_xlim(-0.3, len(axes_keys) - 0.55)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def _axis(axes: Axes, x: int, marks: Sequence[float], labels: Sequence[str]) -> None:
    axes.axvline(x, color=MUTED, linewidth=0.8)
    for mark, label in zip(marks, labels, strict=True):
        axes.annotate(
            label, (x, mark), xytext=(4, 0), textcoords="offset points", fontsize=7, color=INK, va="center",
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "#fcfcfa", "edgecolor": "none", "alpha": 0.75},
        )  # fmt: skip


def heights(values: pd.Series) -> tuple[Array, list[float], list[str]]:
    """Where values lie on an axis, in [0, 1], and its marks with their labels.

    Numbers are linear, or logarithmic over more than a factor of 30; all else, and what is not set, is spread evenly.

    >>> heights(pd.Series([1.0, 3.0, 2.0]))[0].tolist()
    [0.0, 1.0, 0.5]
    """
    numeric = pd.to_numeric(values, errors="coerce")
    if values.isna().any() or numeric.isna().any() or values.map(lambda v: isinstance(v, bool)).any():
        words = values.map(lambda value: "not set" if _unset(value) else str(value))
        order = sorted(words.unique())
        spots = np.linspace(0, 1, len(order)) if len(order) > 1 else np.array([0.5])
        return words.map(dict(zip(order, spots, strict=True))).to_numpy(float), spots.tolist(), order
    numbers = numeric.to_numpy(float)
    low, high = numbers.min(), numbers.max()
    if low == high:
        return np.full(len(numbers), 0.5), [0.5], [f"{low:.3g}"]
    wide = low > 0 and high / low > 30
    scaled = np.log(numbers) if wide else numbers
    spots = (scaled - scaled.min()) / (scaled.max() - scaled.min())
    few = np.unique(numbers)
    if len(few) <= 6:
        return spots, [float(spots[numbers == one][0]) for one in few], [f"{one:.3g}" for one in few]
    marks = np.linspace(0, 1, 4)
    there = scaled.min() + marks * (scaled.max() - scaled.min())
    return spots, marks.tolist(), [f"{math.exp(one) if wide else one:.3g}" for one in there]


def _unset(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def heat_map(means: pd.DataFrame, counts: pd.DataFrame, across: str, down: str, metric: str) -> Figure:
    """Means of the metric over two settings, [rows, columns], with how many trials each is of."""
    figure = card(max(10.5, 1.1 * means.shape[1] + 3.0), 0.6 * means.shape[0] + 2.0, f"{metric} by two settings")
    axes = dress(figure.subplots(), "", across, down, None)
    values = means.to_numpy(float)
    heatmap(axes, values, metric)
    axes.set_xticks(range(means.shape[1]), [_named(one) for one in means.columns])
    axes.set_yticks(range(means.shape[0]), [_named(one) for one in means.index])
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:.3g}\n({int(counts.iloc[i, j])})"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=INK if value > middle else "white")
    return figure


def _named(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
