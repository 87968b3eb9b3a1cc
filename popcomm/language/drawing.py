"""The look that all pictures share: an opaque light card, readable on light and dark pages; colour-blind-safe inks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

Array = NDArray[Any]

CARD, INK, MUTED, GRID = "#fcfcfa", "#24272b", "#5f666e", "#e2e3e0"
# Okabe & Ito 2008. Orange marks what stands out, blue is everything else.
BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442",
)  # fmt: skip
CATEGORIES = (BLUE, GREEN, PURPLE, SKY, YELLOW, VERMILLION)
# Of more rows than this, the first are drawn and the title says so.
MOST_ROWS = 30
DPI = 144


def card(width: float, height: float, title: str) -> Figure:
    """An empty figure (inches) without any global state, so that processes and threads can draw at the same time."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.04, hspace=0.06)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=CARD, layout=layout)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, fontweight="bold", color=INK, x=0.012, ha="left")
    return figure


def dress(axes: Axes, title: str = "", x: str = "", y: str = "", grid: Literal["x", "y", "both"] | None = "y") -> Axes:
    """Titles, labels with units, and quiet lines."""
    axes.set_facecolor(CARD)
    if title:
        axes.set_title(title, fontsize=10, color=INK, loc="left", pad=7)
    axes.set_xlabel(x, fontsize=9, color=MUTED)
    axes.set_ylabel(y, fontsize=9, color=MUTED)
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b5b9bd")
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    return axes


def legend(axes: Axes, **options: Any) -> None:
    """The legend of what was labelled, if anything was."""
    if axes.get_legend_handles_labels()[0]:
        settings = {"fontsize": 8, "frameon": False, "labelcolor": INK} | options
        axes.legend(**settings)


def heatmap(axes: Axes, values: Array, label: str, **options: Any) -> None:
    """values [rows, columns] with a colour bar; nan is grey."""
    axes.set_facecolor("#c9ccce")
    image = axes.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis", **options)
    for side in axes.spines.values():
        side.set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.015, fraction=0.05, aspect=18)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, labelsize=8, length=0)
    bar.set_label(label, fontsize=8, color=MUTED)


def pair_heatmap(
    axes: Axes, title: str, senders: Sequence[str], receivers: Sequence[str], values: Array, label: str, most: float = 1
) -> None:
    """values [senders, receivers] from 0 to `most`, with the names of both beside them."""
    dress(axes, title, "receiver", "sender", grid=None)
    heatmap(axes, values, label, vmin=0, vmax=most)
    axes.set_xticks(range(len(receivers)), receivers, rotation=30, ha="right")
    axes.set_yticks(range(len(senders)), senders)


def sparse_ticks(count: int, most: int = 24) -> Array:
    """At most `most` of the indices 0 ... count - 1, evenly spaced."""
    return np.arange(0, count, max(1, -(-count // most)))


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=figure.get_facecolor())
    return file.getvalue()


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure as [H, W, 3] uint8, the form that TensorBoard takes."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
