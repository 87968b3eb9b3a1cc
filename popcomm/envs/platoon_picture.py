"""Pictures of a ring of two lanes: vehicles with their speeds, the mission, crashes, and who heard whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Arc, Circle, Polygon

from popcomm.envs.drawn_figure import blank, pixels
from popcomm.envs.drawn_legend import OUTLINED, legend_below
from popcomm.envs.drawn_links import draw_links
from popcomm.envs.platoon_dynamics import ACTIONS, HOLD, KINDS

# Okabe & Ito's palette, which the colour-blind can tell apart; species also differ in their length.
BLUE, ORANGE, GREEN, VERMILION, BLACK = "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#000000"
COLOURS = {"truck": ORANGE, "car": BLUE, "emergency": VERMILION}
ASPHALT, DARK = "#DDDDDD", "#444444"
CRASH: dict[str, Any] = {
    "marker": "X",
    "linestyle": "none",
    "color": BLACK,
    "markeredgecolor": "#FFFFFF",
    "markersize": 9,
}
RIGHT, LEFT, WIDTH = 1.0, 0.86, 0.075  # radii of the lanes' middles, and the width of what drives on them


def draw_platoon(
    places: np.ndarray,
    speeds: np.ndarray,
    lanes: np.ndarray,
    kinds: Sequence[str],
    criticality: np.ndarray,
    sides: np.ndarray,
    chosen: np.ndarray,
    crashed: np.ndarray,
    road: float,
    links: np.ndarray | None = None,
    title: str = "",
) -> np.ndarray:
    """An RGB picture [480, 480, 3] uint8. They drive against the clock; the right lane is the outer one.

    Args:
        places, speeds, lanes: [N], m, m / s, and 0 right, 1 left.
        kinds: N names of species.
        criticality, sides: [N], of missions, 0 without one, and the lane that they are on.
        chosen: [N] int, the last actions; -1 none yet.
        crashed: [N] bool.
        road: m around.
        links: [M, 2] int, (sender, receiver) pairs whose messages were heard.
        title: a line of text above.
    """
    figure, axes = blank((0.02, 0.07, 0.96, 0.87), title)
    axes.set(xlim=(-1.35, 1.35), ylim=(-1.3, 1.3), aspect="equal")
    axes.axis("off")
    _draw_road(axes, sorted({int(side) for side, mission in zip(sides, criticality, strict=True) if mission > 0}))
    angles = places * (2 * math.pi / road)
    radii = np.where(lanes == 0, RIGHT, LEFT)
    lengths = np.array([KINDS[kind].length for kind in kinds])
    middles = angles - lengths / 2 * (2 * math.pi / road)
    points = np.stack((radii * np.cos(middles), radii * np.sin(middles)), 1)
    if links is not None:
        draw_links(axes, points, links, 8.0, zorder=4)
    size = min(7.0, max(70.0 / len(kinds), 4.5))
    axes.text(0, 0, f"↺ all drive this way\n{road:g} m around", ha="center", va="center", fontsize=7.5, color=DARK)
    for seat, kind in enumerate(kinds):
        corners = _body(angles[seat], radii[seat], lengths[seat] * 2 * math.pi / road)
        axes.add_patch(Polygon(corners, facecolor=COLOURS[kind], edgecolor=BLACK, linewidth=0.6, zorder=3))
        if crashed[seat]:
            axes.plot(*points[seat], **CRASH, zorder=5)
        told = f"{seat}: {speeds[seat]:.0f} m/s" + _more_of(int(chosen[seat]), float(criticality[seat]))
        _tell(axes, told, middles[seat], outside=lanes[seat] == 0, size=size)
    _legend(figure, links is not None, bool(crashed.any()))
    return pixels(figure)


def _more_of(chosen: int, criticality: float) -> str:
    """Lines of what a vehicle does and must do; none where there is nothing to say."""
    doing = f"\n{ACTIONS[chosen]}" if chosen > HOLD else ""
    return doing + (f"\ncritical {criticality:.2f}" if criticality > 0 else "")


def _tell(axes: Any, told: str, angle: float, outside: bool, size: float) -> None:
    """Words beside the road, on the side of the vehicle's lane; they begin or end where they would reach into it."""
    x, y = math.cos(angle), math.sin(angle)
    reach, away = (RIGHT + 0.11, x) if outside else (LEFT - 0.11, -x)
    across = "left" if away > 0.4 else "right" if away < -0.4 else "center"
    up = y if outside else -y
    along = "bottom" if up > 0.7 else "top" if up < -0.7 else "center"
    axes.text(reach * x, reach * y, told, ha=across, va=along, fontsize=size, zorder=5)


def _draw_road(axes: Any, sides: Sequence[int]) -> None:
    """Both lanes, and a line along those that missions are on."""
    axes.add_patch(Circle((0, 0), RIGHT + 0.07, facecolor=ASPHALT, edgecolor=BLACK, linewidth=0.6, zorder=0))
    axes.add_patch(Circle((0, 0), LEFT - 0.07, facecolor="#FFFFFF", edgecolor=BLACK, linewidth=0.6, zorder=0))
    middle = (RIGHT + LEFT) / 2
    axes.add_patch(Arc((0, 0), 2 * middle, 2 * middle, color="#FFFFFF", linestyle="--", linewidth=1.2, zorder=1))
    for side in sides:
        radius = LEFT if side else RIGHT
        axes.add_patch(Arc((0, 0), 2 * radius, 2 * radius, color=VERMILION, linestyle=":", linewidth=1.0, zorder=1))


def _body(front: float, radius: float, span: float) -> np.ndarray:
    """[2 K, 2], the outline of a vehicle whose front is at the angle `front`, bent as the road is."""
    along = np.linspace(front - span, front, 6)
    sides = [(radius + shift) * np.stack((np.cos(along), np.sin(along)), 1) for shift in (WIDTH / 2, -WIDTH / 2)]
    return np.concatenate((sides[0], sides[1][::-1]))


def _legend(figure: Figure, linked: bool, crash: bool) -> None:
    handles = [
        Line2D([], [], marker="s", color=colour, markersize=6, label=kind, **OUTLINED)
        for kind, colour in COLOURS.items()
    ]
    handles.append(Line2D([], [], color=VERMILION, linestyle=":", label="lane of a mission"))
    if crash:
        handles.append(Line2D([], [], label="crash", **CRASH))
    if linked:
        handles.append(Line2D([], [], color=GREEN, label="heard"))
    legend_below(figure, handles)
