"""Pictures of a swarm: agents with their headings, who heard whom, the beacon and how far it is perceived."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from popcomm.envs.drawn_figure import blank, pixels
from popcomm.envs.drawn_legend import OUTLINED, legend_below

# Okabe & Ito's palette, which the colour-blind can tell apart; kinds also differ in their shape.
BLUE, ORANGE, GREEN, BLACK, GREY = "#0072B2", "#E69F00", "#009E73", "#000000", "#999999"


def draw_swarm(
    positions: np.ndarray,
    velocity: np.ndarray,
    beacon: np.ndarray,
    perceives: np.ndarray,
    size: float,
    radius: float | None,
    links: np.ndarray | None = None,
    title: str = "",
) -> np.ndarray:
    """An RGB picture [480, 480, 3] uint8.

    Args:
        positions: [N, 2], in [0, size).
        velocity: [N, 2], per step.
        beacon: [2].
        perceives: [N] bool, who perceives the beacon.
        size: extent of the torus.
        radius: how far the beacon is perceived; None draws no circle.
        links: [M, 2] int, (sender, receiver) pairs whose messages were heard; drawn the shortest way round.
        title: a line of text above.
    """
    figure, axes = blank((0.03, 0.10, 0.94, 0.84), title)
    axes.set(xlim=(0, size), ylim=(0, size), xticks=[], yticks=[], aspect="equal")
    if links is not None and len(links):
        axes.add_collection(
            LineCollection(list(_segments(positions, links, size)), colors=GREEN, linewidths=0.9, alpha=0.6)
        )
    if radius is not None:
        for shift in _copies(size):
            axes.add_patch(Circle(tuple(beacon + shift), radius, fill=False, edgecolor=ORANGE, linestyle="--"))
    axes.scatter(beacon[0], beacon[1], s=190, color=ORANGE, marker="*", edgecolors=BLACK, linewidths=0.7, zorder=3)
    for seen, colour, shape in ((False, GREY, "o"), (True, BLUE, "D")):
        x, y = positions[perceives == seen].T
        axes.scatter(x, y, s=26, color=colour, marker=shape, edgecolors=BLACK, linewidths=0.5, zorder=4)
    tails = _headings(velocity) * 0.045 * size
    axes.add_collection(
        LineCollection(list(np.stack((positions, positions + tails), 1)), colors=BLACK, linewidths=1.2, zorder=5)
    )
    _legend(figure, links is not None, radius is not None)
    return pixels(figure)


def _copies(size: float) -> np.ndarray:
    """Shifts [9, 2] of the torus' copies: a circle at the border shows on the other side too."""
    steps = np.array((-size, 0.0, size))
    return np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)


def _segments(positions: np.ndarray, links: np.ndarray, size: float) -> np.ndarray:
    """[M ..., 2, 2]: each link from its sender; one that crosses the border also to its receiver, on the other side."""
    sender, receiver = positions[links[:, 0]], positions[links[:, 1]]
    turns = np.round((receiver - sender) / size)
    way = receiver - sender - size * turns
    crossing = turns.any(-1)
    from_sender = np.stack((sender, sender + way), 1)
    return np.concatenate((from_sender, np.stack((receiver - way, receiver), 1)[crossing]))


def _headings(velocity: np.ndarray) -> np.ndarray:
    """Unit vectors [N, 2]; zero at rest."""
    speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
    return np.divide(velocity, speed, out=np.zeros_like(velocity), where=speed > 0)


def _legend(figure: Figure, has_links: bool, has_radius: bool) -> None:
    handles = [
        Line2D([], [], marker="*", color=ORANGE, markersize=10, label="beacon", **OUTLINED),
        Line2D([], [], marker="D", color=BLUE, markersize=5, label="perceives it", **OUTLINED),
        Line2D([], [], marker="o", color=GREY, markersize=5, label="does not", **OUTLINED),
    ]
    if has_radius:
        handles.append(Line2D([], [], color=ORANGE, linestyle="--", label="sensing radius"))
    if has_links:
        handles.append(Line2D([], [], color=GREEN, label="message heard"))
    legend_below(figure, handles)
