"""The sheet that a picture is drawn on, and its pixels: the part that pictures of different environments share."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PIXELS, DPI = 480, 100


def blank(place: tuple[float, float, float, float], title: str, size: float = 9, pad: float = 4) -> tuple[Figure, Any]:
    """A square figure of PIXELS, and the axes in it.

    Args:
        place: of the axes, (left, bottom, width, height) as shares of the figure.
        title: a line of text above.
        size, pad: of the title and the gap below it, in points.
    """
    figure = Figure(figsize=(PIXELS / DPI, PIXELS / DPI), dpi=DPI)
    axes = figure.add_axes(place)
    axes.set_title(title, fontsize=size, pad=pad)
    return figure, axes


def pixels(figure: Figure) -> np.ndarray:
    """The RGB picture [PIXELS, PIXELS, 3] uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
