"""Pictures of games without a place: seats in a circle or a row, what each is and did, and who heard whom."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from popcomm.envs.drawn_figure import blank, pixels
from popcomm.envs.drawn_links import draw_links

# Okabe & Ito's palette, which the colour-blind can tell apart; kinds of seat also differ in their shape.
BLUE, ORANGE, GREEN, VERMILION, BLACK = "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#000000"
LOOKS: tuple[dict[str, Any], ...] = ({"marker": "o", "color": BLUE}, {"marker": "D", "color": ORANGE})
LINE = 66  # letters in a line of the text below


class Seat(NamedTuple):
    """One seat in a picture."""

    kind: int  # which of the two looks: 0 a blue circle, 1 an orange diamond
    text: str  # on it
    note: str  # beside it
    good: bool | None = None  # the note is green where True, vermilion where False, else black


def draw_seats(
    seats: Sequence[Seat],
    kinds: tuple[str, str],
    title: str,
    story: Sequence[str],
    links: np.ndarray | None = None,
    row: bool = False,
) -> np.ndarray:
    """An RGB picture [480, 480, 3] uint8.

    Args:
        seats: in the order of the world's.
        kinds: what the two looks mean, for the legend.
        title: a line of text above.
        story: sentences below; long ones are wrapped.
        links: [M, 2] int, (sender, receiver) pairs whose messages were heard.
        row: seats stand in a row, from left to right, and not in a circle, from the top clockwise.
    """
    figure, axes = blank((0.02, 0.29, 0.96, 0.63), title, size=11, pad=6)
    axes.set(xlim=(-2.1, 2.1), ylim=(-1.4, 1.4), aspect="equal")
    axes.axis("off")
    count = len(seats)
    places = _in_row(count) if row else _in_circle(count)
    size = min(15.0, 90.0 / count)  # of half a marker, in points
    if links is not None:
        draw_links(axes, places, links, size, bend=-0.15, alpha=1.0, linewidth=1.5)
    for seat, (x, y) in zip(seats, places, strict=True):
        axes.plot(x, y, markersize=1.5 * size, markeredgecolor=BLACK, zorder=3, **LOOKS[seat.kind])
        axes.text(x, y, seat.text, ha="center", va="center", fontsize=0.75 * size, zorder=4)
        colour = BLACK if seat.good is None else GREEN if seat.good else VERMILION
        style: dict[str, Any] = {"color": colour, "fontsize": max(4.0, min(9.5, (44.0 if row else 75.0) / count))}
        if row:
            axes.text(x, y - 0.35, seat.note, ha="center", va="top", **style)
        elif abs(x) < 0.3:
            axes.text(x, 1.28 * y, seat.note, ha="center", va="center", **style)
        else:
            axes.text(
                1.2 * x + math.copysign(0.1, x), y, seat.note, ha="left" if x > 0 else "right", va="center", **style
            )
    wrapped = [part for line in story for part in textwrap.wrap(line, LINE)]
    figure.text(0.04, 0.27, "\n".join(wrapped), fontsize=9.5, va="top", linespacing=1.4)
    _legend(figure, kinds, links is not None)
    return pixels(figure)


def _in_circle(count: int) -> np.ndarray:
    """[count, 2]."""
    angles = math.pi / 2 - 2 * math.pi * np.arange(count) / count
    return np.stack((0.95 * np.cos(angles), 0.95 * np.sin(angles)), 1)


def _in_row(count: int) -> np.ndarray:
    """[count, 2]."""
    width = 4.2 / count
    return np.stack(((np.arange(count) + 0.5) * width - 2.1, np.full(count, 0.25)), 1)


def _legend(figure: Figure, kinds: tuple[str, str], has_links: bool) -> None:
    style: dict[str, Any] = {"linestyle": "none", "markeredgecolor": BLACK, "markeredgewidth": 0.5, "markersize": 7}
    handles = [Line2D([], [], label=kind, **look, **style) for kind, look in zip(kinds, LOOKS, strict=True)]
    if has_links:
        handles.append(Line2D([], [], color=GREEN, label="message heard"))
    figure.legend(handles=handles, loc="lower center", ncol=len(handles), fontsize=8, frameon=False)
