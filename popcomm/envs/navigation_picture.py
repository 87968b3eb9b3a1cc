"""Pictures of navigation: agents and where they are heading, landmarks, how far is seen, and edges between agents."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from popcomm.envs.drawn_figure import DPI, PIXELS, blank, pixels
from popcomm.envs.drawn_legend import OUTLINED, legend_below
from popcomm.envs.drawn_links import draw_links

# Okabe & Ito's palette, which the colour-blind can tell apart; kinds also differ in their shape.
BLUE, ORANGE, GREEN, GREY, BLACK = "#56B4E9", "#E69F00", "#009E73", "#999999", "#000000"
NAMED = 32  # of more agents no numbers are drawn
AXES = 0.85  # share of the picture that the plane takes


def draw_navigation(
    places: np.ndarray,
    velocities: np.ndarray,
    landmarks: np.ndarray,
    radius: float,
    near: float,
    own: bool = False,
    view: float | None = None,
    links: np.ndarray | None = None,
    title: str = "",
) -> np.ndarray:
    """An RGB picture [480, 480, 3] uint8.

    Args:
        places, velocities, landmarks: [N, 2] each.
        radius: of an agent.
        near: a landmark is occupied by an agent that is nearer.
        own: whether to draw a line from each agent to its own landmark, number i of agent i.
        view: how far agents see; None draws no circles.
        links: [M, 2] int, (sender, receiver) pairs: messages that were heard, or edges that grew.
        title: a line of text above.
    """
    figure, axes = blank((0.03, 0.10, 0.94, AXES), title)
    reach = max(float(np.abs(np.concatenate((places, landmarks))).max()) + 1.2 * radius, 1.0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    points = AXES * PIXELS / (2 * reach) * 72 / DPI  # a unit of length, in points
    if own:
        ways = np.stack((places, landmarks), 1)
        axes.add_collection(LineCollection(list(ways), colors=GREY, linewidths=0.8, linestyles=":", zorder=1))
    gaps = np.linalg.norm(landmarks[:, None] - places, axis=-1).min(1)
    for mark, gap in zip(landmarks, gaps, strict=True):
        colour, shape = (GREEN, "P") if gap < near else (ORANGE, "X")
        width = min(0.16 * points, 11.0)
        axes.plot(*mark, marker=shape, color=colour, markersize=width, markeredgecolor=BLACK, zorder=4)
    for seat, place in enumerate(places):
        axes.add_patch(Circle(tuple(place), radius, facecolor=BLUE, edgecolor=BLACK, alpha=0.7, zorder=2))
        if view is not None:
            axes.add_patch(Circle(tuple(place), view, fill=False, edgecolor=GREY, linestyle="--", linewidth=0.6))
        if len(places) <= NAMED:
            size = min(max(0.12 * points, 4.0), 10.0)
            x, y = place - 0.5 * radius
            axes.text(x, y, str(seat), ha="center", va="center", fontsize=size, zorder=5)
    tails = np.stack((places, places + 0.4 * velocities), 1)  # to where they would come to rest
    axes.add_collection(LineCollection(list(tails), colors=BLACK, linewidths=1.0, zorder=3))
    if links is not None:
        draw_links(axes, places, links, radius * points, zorder=3)
    _legend(figure, own, view is not None, links is not None)
    return pixels(figure)


def _legend(figure: Figure, own: bool, views: bool, linked: bool) -> None:
    handles = [
        Line2D([], [], marker="o", color=BLUE, markersize=8, label="agent", **OUTLINED),
        Line2D([], [], marker="P", color=GREEN, markersize=7, label="occupied", **OUTLINED),
        Line2D([], [], marker="X", color=ORANGE, markersize=7, label="free landmark", **OUTLINED),
    ]
    if own:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="own landmark"))
    if views:
        handles.append(Line2D([], [], color=GREY, linestyle="--", label="view"))
    if linked:
        handles.append(Line2D([], [], color=GREEN, label="edge"))
    legend_below(figure, handles)
