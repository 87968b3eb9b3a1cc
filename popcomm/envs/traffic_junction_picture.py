"""Pictures of a junction: the roads, which cars stand where and want to go where, who braked, who crashed."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from popcomm.envs.drawn_figure import DPI, PIXELS, blank, pixels
from popcomm.envs.drawn_legend import OUTLINED, legend_below
from popcomm.envs.drawn_links import draw_links
from popcomm.envs.traffic_roads import Roads

# Okabe & Ito's palette, which the colour-blind can tell apart; kinds also differ in their shape.
BLUE, ORANGE, GREEN, VERMILION, BLACK, GREY = "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#000000", "#DDDDDD"


def draw_traffic(
    roads: Roads,
    cells: np.ndarray,
    following: np.ndarray,
    driving: np.ndarray,
    braked: np.ndarray,
    crashed: np.ndarray,
    links: np.ndarray | None = None,
    title: str = "",
) -> np.ndarray:
    """An RGB picture [480, 480, 3] uint8.

    Args:
        roads: the map.
        cells: [N] int, the road cells of the cars.
        following: [N] int, the next ones of their routes; the same ones at the exit.
        driving: [N] bool, seats with a car.
        braked: [N] bool, whose last action was to brake.
        crashed: [N] bool, who stands in a cell with another car.
        links: [M, 2] int, (sender, receiver) pairs whose messages were heard.
        title: a line of text above.
    """
    figure, axes = blank((0.03, 0.11, 0.94, 0.83), title)
    axes.set(xlim=(0, roads.size), ylim=(roads.size, 0), aspect="equal", xticks=[], yticks=[])
    for row, column in roads.cells.tolist():
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=GREY, edgecolor="white", linewidth=0.8, zorder=0))
    points = 0.83 * PIXELS / roads.size * 72 / DPI  # width of a cell, in points
    places = _places_in_cells(roads, cells, driving)
    ahead = (roads.cells[following] - roads.cells[cells])[:, ::-1]
    if links is not None:
        draw_links(axes, places, links, 0.25 * points, bend=0.2)
    for row, column in roads.cells[np.unique(cells[crashed])].tolist():
        cross: dict[str, Any] = {"marker": "X", "color": VERMILION, "markeredgecolor": BLACK, "markeredgewidth": 0.7}
        axes.plot(column + 0.5, row + 0.5, markersize=1.2 * points, zorder=3, **cross)
    for seat in np.flatnonzero(driving).tolist():
        width = (0.4 if crashed[seat] else 0.6) * points
        _draw_car(axes, seat, places[seat], ahead[seat], bool(braked[seat]), width)
    _legend(figure, links is not None)
    return pixels(figure)


def _places_in_cells(roads: Roads, cells: np.ndarray, driving: np.ndarray) -> np.ndarray:
    """[N, 2] x and y: the middle of a car's cell, or a ring around it where several share one."""
    places = roads.cells[cells][:, ::-1] + 0.5
    for cell in np.unique(cells[driving]):
        seats = np.flatnonzero(driving & (cells == cell))
        if len(seats) > 1:
            angles = 2 * np.pi * np.arange(len(seats)) / len(seats)
            places[seats] += 0.25 * np.stack((np.cos(angles), np.sin(angles)), 1)
    return places


def _draw_car(axes: Any, seat: int, place: np.ndarray, ahead: np.ndarray, braked: bool, width: float) -> None:
    look: dict[str, Any] = {"marker": "s", "color": ORANGE} if braked else {"marker": "o", "color": BLUE}
    if ahead.any():
        style: dict[str, Any] = {"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=place + 0.72 * ahead, xytext=place, arrowprops=style, zorder=4)
    axes.plot(*place, markersize=width, markeredgecolor=BLACK, markeredgewidth=0.7, zorder=5, **look)
    axes.text(*place, str(seat), ha="center", va="center", fontsize=max(0.55 * width, 4.0), zorder=6)


def _legend(figure: Figure, has_links: bool) -> None:
    handles: list[Any] = [
        Line2D([], [], marker="o", color=BLUE, markersize=6, label="gave gas, or entered", **OUTLINED),
        Line2D([], [], marker="s", color=ORANGE, markersize=6, label="braked", **OUTLINED),
        Line2D([], [], marker="X", color=VERMILION, markersize=7, label="crash", **OUTLINED),
        Line2D([], [], marker=r"$\rightarrow$", color=BLACK, markersize=9, linestyle="none", label="next cell"),
        Patch(color=GREY, label="road"),
    ]
    if has_links:
        handles.append(Line2D([], [], color=GREEN, label="message"))
    legend_below(figure, handles, fontsize=7, columnspacing=0.9, handlelength=1.4)
