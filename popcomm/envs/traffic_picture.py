"""Pictures of towns: streets with their queues, what each light shows to which lane, and edges between lights."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from popcomm.envs.drawn_figure import blank, pixels
from popcomm.envs.drawn_legend import OUTLINED, legend_below
from popcomm.envs.drawn_links import draw_links
from popcomm.envs.sumo_map import SumoMap

# Okabe & Ito's palette, which the colour-blind can tell apart; lights also differ in their shape.
BLUE, ORANGE, GREEN, VERMILION, BLACK, GREY = "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#000000", "#BBBBBB"
PURPLE = "#CC79A7"
NAMED = 32  # of more lights no numbers are drawn
ROOM = 7.5  # meters of lane that a standing vehicle takes
# What a lane is shown, by the best of its letters: green, yellow, red; with the shape of its mark.
SHOWN = {"green": (GREEN, "^"), "yellow": (ORANGE, "s"), "red": (VERMILION, "o")}


def draw_traffic(
    plan: SumoMap,
    standing: np.ndarray,
    lights: list[str],
    links: np.ndarray | None = None,
    title: str = "",
) -> np.ndarray:
    """An RGB picture [480, 480, 3] uint8.

    Args:
        plan: the network.
        standing: [L] int, vehicles that stand on each lane; drawn from its end back, as far as they reach.
        lights: of each light its state, a letter for each link.
        links: [M, 2] int, (sender, receiver) pairs: messages that were heard, or edges that grew.
        title: a line of text above.
    """
    figure, axes = blank((0.03, 0.10, 0.94, 0.85), title)
    points = np.concatenate(plan.shapes)
    low, high = points.min(0), points.max(0)
    margin = 0.03 * float((high - low).max())
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.add_collection(LineCollection(list(plan.shapes), colors=GREY, linewidths=1.2, zorder=1))
    queues = [_last(plan.shapes[lane], ROOM * standing[lane]) for lane in standing.nonzero()[0]]
    axes.add_collection(LineCollection(queues, colors=PURPLE, linewidths=3.0, zorder=2))
    width = min(6.0, 60.0 / np.sqrt(sum(map(len, plan.incoming))))
    for shown, places in _shown(plan, lights).items():
        colour, shape = SHOWN[shown]
        look = {"markersize": width, "markeredgecolor": BLACK, "markeredgewidth": 0.3, "linestyle": "none"}
        axes.plot(*np.array(places).T, marker=shape, color=colour, zorder=4, **look)
    if len(plan.positions) <= NAMED:
        for seat, place in enumerate(plan.positions):
            axes.annotate(str(seat), place, (7, 7), textcoords="offset points", fontsize=6.5, zorder=5)
    _draw_scale(axes, low, float((high - low).max()))
    if links is not None:
        draw_links(axes, plan.positions, links, 8.0, zorder=3, color=BLUE)
    _legend(figure, links is not None)
    return pixels(figure)


def _draw_scale(axes: Any, corner: np.ndarray, extent: float) -> None:
    """A bar of so many meters, a power of ten, at the lower left."""
    length = 10.0 ** math.floor(math.log10(extent / 3))
    (x, y), up = corner, 0.01 * extent
    axes.plot((x, x + length), (y, y), color=BLACK, linewidth=1.5, solid_capstyle="butt")
    axes.text(x, y + up, f"{length:g} m", fontsize=6.5)


def _shown(plan: SumoMap, lights: list[str]) -> dict[str, list[np.ndarray]]:
    """{what is shown: where the lanes end that see it}."""
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for links, state in zip(plan.links, lights, strict=True):
        letters: dict[int, str] = defaultdict(str)
        for lane, _, letter in links:
            letters[lane] += state[letter].lower()
        for lane, seen in letters.items():
            found["green" if "g" in seen else "yellow" if "y" in seen else "red"].append(plan.shapes[lane][-1])
    return found


def _last(shape: np.ndarray, length: float) -> np.ndarray:
    """The last so many meters of a line [K, 2], or all of it."""
    kept, left = [shape[-1]], length
    for start, end in zip(shape[-2::-1], shape[:0:-1], strict=True):
        piece = float(np.linalg.norm(end - start))
        if piece >= left:
            kept.append(end + (start - end) * left / max(piece, 1e-9))
            break
        kept.append(start)
        left -= piece
    return np.array(kept)


def _legend(figure: Figure, linked: bool) -> None:
    handles = [
        Line2D([], [], marker=shape, color=colour, markersize=6, label=name, **OUTLINED)
        for name, (colour, shape) in SHOWN.items()
    ]
    handles += [Line2D([], [], color=PURPLE, linewidth=3, label="queue"), Line2D([], [], color=GREY, label="lane")]
    if linked:
        handles.append(Line2D([], [], color=BLUE, label="edge"))
    legend_below(figure, handles)
