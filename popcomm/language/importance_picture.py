"""Who matters to whom: importance of messages as a matrix of senders and receivers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from popcomm.language.drawing import card, pair_heatmap

PREFIX = "importance/"  # of the numbers of pairs among those of a language
FEW = 12  # names whose cells have numbers


def pairs(numbers: Mapping[str, float], prefix: str = PREFIX) -> tuple[list[str], list[str], NDArray[Any]]:
    """(senders [S], receivers [R], matrix [S, R]) of numbers that are called "<prefix>sender/receiver"; nan: none.

    >>> pairs({"importance/a/b": 0.5, "importance/b/a": 0.0, "importance": 0.3})
    (['a', 'b'], ['b', 'a'], array([[0.5, nan],
           [nan, 0. ]]))
    """
    named = {key.removeprefix(prefix): value for key, value in numbers.items() if key.startswith(prefix)}
    found = {tuple(name.split("/", 1)): value for name, value in named.items() if name.count("/") == 1}
    senders, receivers = (list(dict.fromkeys(pair[side] for pair in found)) for side in (0, 1))
    matrix = np.array([[found.get((sender, receiver), np.nan) for receiver in receivers] for sender in senders])
    return senders, receivers, matrix


def message_importance(senders: Sequence[str], receivers: Sequence[str], matrix: NDArray[Any]) -> Figure:
    """The matrix [S, R] of total variation distances as a heat map; grey: nobody was heard."""
    figure = card(7.5, 5.5, "Who matters to whom: how far a policy moves without a message")
    axes = figure.subplots()
    most = max(0.05, float(np.nanmax(matrix)))
    pair_heatmap(axes, "", senders, receivers, matrix, "total variation distance", most)
    if max(matrix.shape) <= FEW:
        middle = most * 0.6
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                ink = "white" if value < middle else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
    return figure
