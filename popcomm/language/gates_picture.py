"""How open gates are: receivers' as a matrix of senders and receivers, senders' and priorities as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from popcomm.language.drawing import card, dress, pair_heatmap


def gates(
    pairs: tuple[Sequence[str], Sequence[str], NDArray[Any]] | None, senders: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Draw what there is.

    Args:
        pairs: (senders [S], receivers [R], openness [S, R] in [0, 1]); nan: nobody was heard. None: no such gates.
        senders: {what is shown: {sender: in [0, 1]}}.
    """
    panels = (pairs is not None) + len(senders)
    figure = card(5.5 * panels, 5.0, "What is let in, and what goes out")
    every = np.atleast_1d(figure.subplots(1, panels, squeeze=False)[0])
    if pairs is not None:
        names, receivers, matrix = pairs
        pair_heatmap(every[0], "receivers' gates", names, receivers, matrix, "share that is let in")
    for axes, (title, shares) in zip(every[panels - len(senders) :], senders.items(), strict=True):
        dress(axes, title, "", "")
        axes.bar(range(len(shares)), list(shares.values()), color="#4477aa")
        axes.set_ylim(0, 1)
        axes.set_xticks(range(len(shares)), list(shares), rotation=30, ha="right")
    return figure
