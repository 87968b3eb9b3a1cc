"""A learned graph over a training: how strong each link was, and what is left of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from popcomm.language.drawing import BLUE, MUTED, card, dress, pair_heatmap
from popcomm.language.importance_picture import pairs

Curve = tuple[NDArray[Any], NDArray[Any]]
NAMED = 8  # lines that have their names beside them


def graph_over_time(curves: Mapping[str, Curve]) -> Figure:
    """Left: strength of every link against environment steps, 0 where it is shut; right: the links of the end.

    Args:
        curves: {"sender/receiver": (environment steps [K], strengths [K])}.
    """
    figure = card(12, 4.8, "Who hears whom, as it was learned")
    left, right = figure.subplots(1, 2, width_ratios=[1.4, 1])
    dress(left, "Strengths of links", "environment steps", "strength")
    for name, (steps, values) in curves.items():
        shut = values[-1] == 0
        left.plot(steps, values, color=MUTED if shut else BLUE, linewidth=1.2, alpha=0.8)
        if len(curves) <= NAMED:
            left.annotate(name.replace("/", " to "), (steps[-1], values[-1]), fontsize=8, color=MUTED)
    left.set_ylim(-0.03, 1.03)
    senders, receivers, matrix = pairs({name: values[-1] for name, (_, values) in curves.items()}, "")
    pair_heatmap(right, "At the end", senders, receivers, matrix, "strength")
    return figure
