"""Pictures of a referential game: who speaks, what of, who heard whom, and who answered right."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from popcomm.envs.drawn_figure import blank, pixels
from popcomm.envs.drawn_legend import OUTLINED, legend_below
from popcomm.envs.drawn_links import draw_links

if TYPE_CHECKING:
    from popcomm.envs.referential_v0 import ReferentialWorld

# Okabe & Ito's palette, which the colour-blind can tell apart; kinds also differ in their shape or mark.
BLUE, ORANGE, GREEN, VERMILION, BLACK = "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#000000"
LINE, LINES = 60, 5  # letters in a line of text, and lines


def draw_world(game: ReferentialWorld, world: int, links: Tensor | None = None) -> np.ndarray:
    """The present of one world of a game that was reset, as an RGB picture [480, 480, 3] uint8.

    Args:
        game: the worlds.
        world: which of them.
        links: [M, 2] int64, (sender, receiver) pairs whose messages were heard.
    """
    title = f"step {game._age} of {game.last_step + 1}, {game.rounds} rounds"
    figure, axes = blank((0.03, 0.29, 0.94, 0.65), title, size=10)
    axes.set(xlim=(-2.1, 2.1), ylim=(-1.45, 1.45), aspect="equal")
    axes.axis("off")
    speaks = game._sight.speaks(game._episode, game._now)[world].cpu().numpy()
    angles = math.pi - 2 * math.pi * np.arange(len(speaks)) / len(speaks)
    places = np.stack((1.1 * np.cos(angles), 1.1 * np.sin(angles)), 1)
    size = min(15.0, 90.0 / len(speaks))  # of half a marker, in points
    if links is not None:
        draw_links(axes, places, links.cpu().numpy(), size)
    for seat, (x, y) in enumerate(places):
        kind: dict[str, Any] = {"marker": "D", "color": ORANGE} if speaks[seat] else {"marker": "o", "color": BLUE}
        axes.plot(x, y, markersize=1.4 * size, markeredgecolor=BLACK, zorder=3, **kind)
        axes.text(x, y, str(seat), ha="center", va="center", fontsize=0.75 * size, zorder=4)
    for seat, mark in _marks(game, world).items():
        x, y = places[seat] * 1.28
        side = "center" if abs(x) < 0.3 else "left" if x > 0 else "right"
        colour = GREEN if mark.startswith("✓") else VERMILION
        axes.text(x, y, mark, ha=side, va="center", fontsize=max(7.0, 0.8 * size), color=colour, weight="bold")
    figure.text(0.04, 0.265, "\n".join(_story(game, world)), fontsize=9.5, va="top", linespacing=1.35)
    _legend(figure, links is not None)
    return pixels(figure)


def _marks(game: ReferentialWorld, world: int) -> dict[int, str]:
    """{seat: how its latest answer did}, of the listeners of the latest round that was answered."""
    answered = _answered(game)
    if answered is None or game._counts is None:
        return {}
    listened = ~game._episode.speaking[answered, world]
    counts = game._counts[world].tolist()
    start = game.num_agents - len(counts)
    marks = {}
    for seat in listened.nonzero().flatten().tolist():
        right = counts[seat - start]
        sign = "✓" if right == game._parts else "✗"
        marks[seat] = sign if game.picking else f"{sign} {right}/{game._parts}"
    return marks


def _answered(game: ReferentialWorld) -> int | None:
    """The latest round that was answered."""
    return None if game._counts is None else (game._age - 1) // game.turns - 1


def _story(game: ReferentialWorld, world: int) -> list[str]:
    """The rounds that are seen, heard and answered, and the candidates; at most LINES lines."""
    heard = game._now.heard_of
    told = [
        (game._now.spoken_of, "seen by speakers"),
        (heard, "heard by listeners" + (", answers due" if game._now.due else "")),
        (_answered(game), "answered"),
    ]
    lines = [f"round {n + 1}, {what}: {_digits(game, n, world)}" for n, what in told if n is not None]
    if heard is not None and game._episode.candidates is not None:
        shown = game.meanings[game._episode.candidates[heard, world]].tolist()
        lines.append("candidates: " + ", ".join(" ".join(map(str, row)) for row in shown))
    wrapped = [part for line in lines for part in textwrap.wrap(line, LINE)]
    return wrapped if len(wrapped) <= LINES else [*wrapped[: LINES - 1], wrapped[LINES - 1][: LINE - 4] + " ..."]


def _digits(game: ReferentialWorld, played: int, world: int) -> str:
    return " ".join(map(str, game.meanings[game._episode.targets[played, world]].tolist()))


def _legend(figure: Figure, has_links: bool) -> None:
    handles = [
        Line2D([], [], marker="D", color=ORANGE, markersize=6, label="speaks", **OUTLINED),
        Line2D([], [], marker="o", color=BLUE, markersize=6, label="does not", **OUTLINED),
        Line2D([], [], marker="$✓$", color=GREEN, linestyle="none", label="answered right"),
        Line2D([], [], marker="$✗$", color=VERMILION, linestyle="none", label="wrong"),
    ]
    if has_links:
        handles.append(Line2D([], [], color=GREEN, label="message heard"))
    legend_below(figure, handles)
