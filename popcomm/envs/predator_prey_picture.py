"""Pictures of a hunt: the field, the prey, who stands where and sees how far, and who heard whom."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from popcomm.envs.drawn_figure import DPI, PIXELS, blank, pixels
from popcomm.envs.drawn_legend import OUTLINED, legend_below
from popcomm.envs.drawn_links import draw_links

# Okabe & Ito's palette, which the colour-blind can tell apart; kinds also differ in their shape.
BLUE, ORANGE, GREEN, YELLOW, BLACK = "#56B4E9", "#E69F00", "#009E73", "#F0E442", "#000000"


def draw_hunt(
    size: int, prey: int, cells: np.ndarray, vision: int, links: np.ndarray | None = None, title: str = ""
) -> np.ndarray:
    """An RGB picture [480, 480, 3] uint8.

    Args:
        size: S, cells along a side.
        prey: its cell, row * S + column; row 0 is the upmost.
        cells: [N] int, those of the predators.
        vision: how many cells in each direction they see.
        links: [M, 2] int, (sender, receiver) pairs whose messages were heard.
        title: a line of text above.
    """
    figure, axes = blank((0.03, 0.11, 0.94, 0.83), title)
    axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal", xticks=[], yticks=[])
    for line in range(1, size):
        axes.axhline(line, color="#DDDDDD", linewidth=0.6, zorder=0)
        axes.axvline(line, color="#DDDDDD", linewidth=0.6, zorder=0)
    rows, columns = np.divmod(cells, size)
    for row, column in set(zip(rows.tolist(), columns.tolist(), strict=True)):
        side = 2 * vision + 1
        axes.add_patch(Rectangle((column - vision, row - vision), side, side, color=YELLOW, alpha=0.35, zorder=1))
    points = 0.83 * PIXELS / size * 72 / DPI  # width of a cell, in points
    star: dict[str, Any] = {"marker": "*", "color": ORANGE, "markeredgecolor": BLACK, "markeredgewidth": 0.7}
    axes.plot(prey % size + 0.5, prey // size + 0.5, markersize=0.85 * points, zorder=2, **star)
    places = _places_in_cells(cells, size)
    if links is not None:
        draw_links(axes, places, links, 0.2 * points, zorder=3)
    width = 0.42 * points
    for seat, (x, y) in enumerate(places):
        there = cells[seat] == prey
        look: dict[str, Any] = {"marker": "D", "color": GREEN} if there else {"marker": "o", "color": BLUE}
        axes.plot(x, y, markersize=0.8 * width if there else width, markeredgecolor=BLACK, zorder=4, **look)
        axes.text(x, y, str(seat), ha="center", va="center", fontsize=max(0.5 * width, 4.0), zorder=5)
    _legend(figure, links is not None)
    return pixels(figure)


def _places_in_cells(cells: np.ndarray, size: int) -> np.ndarray:
    """[N, 2] x and y: the middle of a predator's cell, or a ring around it where several share one."""
    places = np.empty((len(cells), 2))
    for cell in np.unique(cells):
        seats = np.flatnonzero(cells == cell)
        angles = 2 * np.pi * np.arange(len(seats)) / len(seats)
        radius = 0.27 if len(seats) > 1 else 0.0
        places[seats, 0] = cell % size + 0.5 + radius * np.cos(angles)
        places[seats, 1] = cell // size + 0.5 + radius * np.sin(angles)
    return places


def _legend(figure: Figure, has_links: bool) -> None:
    handles: list[Any] = [
        Line2D([], [], marker="o", color=BLUE, markersize=6, label="predator", **OUTLINED),
        Line2D([], [], marker="D", color=GREEN, markersize=5, label="predator at the prey", **OUTLINED),
        Line2D([], [], marker="*", color=ORANGE, markersize=9, label="prey", **OUTLINED),
        Patch(color=YELLOW, alpha=0.35, label="in view"),
    ]
    if has_links:
        handles.append(Line2D([], [], color=GREEN, label="message"))
    legend_below(figure, handles)
