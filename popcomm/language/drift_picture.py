"""The picture of a vocabulary over training: how its symbols come and go, and how far it drifts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from popcomm.language.drawing import BLUE, GREEN, MUTED, VERMILLION, card, dress, heatmap, legend, sparse_ticks
from popcomm.language.drift import SETTLED, Drift

Array = NDArray[Any]

MOST_SYMBOLS = 96  # rows of the heatmap that can still be told apart
LOOKS = ((BLUE, "-", "o"), (GREEN, "--", "s"))


def vocabulary_over_training(env_steps: Array, shares: Array, drifts: Mapping[str, Drift]) -> Figure:
    """What is said at each checkpoint, and how far it is from what is said at the next one.

    Args:
        env_steps: [C] of each checkpoint.
        shares: [C, V], share of each symbol in all that is said.
        drifts: {name: Drift of arrays [C - 1]}.
    """
    figure = card(10.5, 4.8, "The vocabulary over training")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    _shares(left, env_steps, shares)
    dress(
        right, "Drift to the next checkpoint", "environment steps at the next checkpoint", "bits above chance, 0 to 1"
    )
    for (name, drift), (colour, dash, marker) in zip(drifts.items(), LOOKS, strict=False):
        look = {"color": colour, "linestyle": dash, "marker": marker, "markersize": 4}
        right.plot(env_steps[1:], drift.consecutive_above_chance, label=name, **look)
    right.axhline(SETTLED, color=VERMILLION, linestyle=":", linewidth=1.4, label=f"settled: under {SETTLED}")
    right.axhline(0, color=MUTED, linewidth=0.8)
    right.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend(right, loc="upper right")
    return figure


def _shares(axes: Any, env_steps: Array, shares: Array) -> None:
    vocab = shares.shape[1]
    # Symbols that go together in time stand together: by the checkpoint at which they were said most.
    often = np.argsort(-shares.mean(0), kind="stable")[:MOST_SYMBOLS]
    rows = often[np.argsort(shares[:, often].argmax(0), kind="stable")]
    which = f"{vocab} symbols" if len(rows) == vocab else f"{len(rows)} most used of {vocab} symbols"
    dress(axes, "How often each symbol is said", "environment steps at the checkpoint", "", None)
    axes.set_ylabel(f"{which}, by when they peak", fontsize=9)
    said = np.where(shares > 0, shares, np.nan)[:, rows].T
    heatmap(axes, said, "share (grey: never)", norm=PowerNorm(0.5, vmin=0, vmax=max(float(shares.max()), 1e-9)))
    form = EngFormatter(places=0, sep="")
    ticks = sparse_ticks(len(env_steps), 6)
    axes.set_xticks(ticks, [form(env_steps[i]) for i in ticks])
    ticks = sparse_ticks(len(rows), 24)
    axes.set_yticks(ticks, rows[ticks])
