"""Pictures of a territory: who sees the predator, who heard whom, who flees which way, and what it earned."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from popcomm.envs.drawn_figure import blank, pixels
from popcomm.envs.drawn_legend import OUTLINED
from popcomm.envs.drawn_links import draw_links

# Okabe & Ito's palette, which the colour-blind can tell apart; kinds also differ in their shape or mark.
BLUE, ORANGE, GREEN, VERMILION, BLACK = "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#000000"


def draw_alarm(
    kind: int,
    running: int,
    duration: int,
    sees: np.ndarray,
    chosen: np.ndarray | None,
    rewards: np.ndarray,
    links: np.ndarray | None = None,
    title: str = "",
) -> np.ndarray:
    """An RGB picture [480, 480, 3] uint8.

    Args:
        kind: of the running event, -1 in calm.
        running: which of its steps this is, from 1 on.
        duration: steps of an event.
        sees: [N] bool, who sees it.
        chosen: [N] int, the latest actions, before this step; None draws none.
        rewards: [N], what they earned.
        links: [M, 2] int, (sender, receiver) pairs whose messages were heard.
        title: a line of text above.
    """
    figure, axes = blank((0.03, 0.10, 0.94, 0.84), title)
    axes.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")
    axes.axis("off")
    angles = math.pi / 2 - 2 * math.pi * np.arange(len(sees)) / len(sees)
    places = np.stack((1.15 * np.cos(angles), 1.15 * np.sin(angles)), 1)
    size = min(15.0, 110.0 / len(sees))  # of half a marker, in points
    if links is not None:
        draw_links(axes, places, links, size, alpha=0.5)
    calm = kind < 0
    axes.text(0, 0.1, "calm" if calm else f"kind {kind}", ha="center", fontsize=15, color=BLUE if calm else VERMILION)
    if not calm:
        axes.text(0, -0.1, f"step {running} of {duration}", ha="center", fontsize=9)
    for seat, (x, y) in enumerate(places):
        look: dict[str, Any] = {"marker": "D", "color": ORANGE} if sees[seat] else {"marker": "o", "color": BLUE}
        axes.plot(x, y, markersize=1.5 * size, markeredgecolor=BLACK, zorder=3, **look)
        axes.text(x, y, str(seat), ha="center", va="center", fontsize=0.75 * size, zorder=4)
        if chosen is not None:
            did = "forages" if chosen[seat] == 0 else f"flees {chosen[seat] - 1}"
            colour = GREEN if rewards[seat] > 0 else VERMILION
            text = f"{did}\n{rewards[seat]:+.2f}"
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 0.55 * size, "color": colour}
            axes.text(1.24 * x, 1.24 * y, text, **style)
    _legend(figure, links is not None)
    return pixels(figure)


def _legend(figure: Figure, has_links: bool) -> None:
    handles = [
        Line2D([], [], marker="D", color=ORANGE, markersize=6, label="sees it", **OUTLINED),
        Line2D([], [], marker="o", color=BLUE, markersize=6, label="does not", **OUTLINED),
    ]
    if has_links:
        handles.append(Line2D([], [], color=GREEN, label="message heard"))
    figure.legend(handles=handles, loc="lower center", ncol=len(handles), fontsize=7.5, frameon=False)
