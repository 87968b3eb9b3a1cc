"""Who listens to whom at one moment: agents where they stand, arrows from sender to listener, weight as width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from numpy.typing import NDArray

from popcomm.language.drawing import BLUE, CARD, CATEGORIES, INK, MUTED, ORANGE, card, dress

Array = NDArray[Any]

# More arrows than this hide one another; the heaviest are drawn and the title says so.
MOST_LINKS = 600


def topology(
    links: Array,
    num_agents: int,
    weights: Array | None = None,
    positions: Array | None = None,
    torus: tuple[float, ...] | None = None,
    roles: Sequence[str] | None = None,
    hubs: Array | None = None,
    names: Sequence[str] | None = None,
    title: str = "Who listens to whom",
    weighs: str = "attention",
    unit: str = "",
) -> Figure:
    """Agents as discs, coloured by role or orange for hubs, and an arrow for each message that was heard.

    Args:
        links: [E, 2] (sender, listener); np.stack([senders[mask], mask.nonzero()[0]], 1) of an inbox [N, K].
        weights: [E] attention that the listener gave, or None: arrows are alike.
        positions: [N, D] in the world's unit of length; the first two axes count. None or D = 0: a circle.
        torus: the world's extent along each axis; arrows then go the short way, across the border as dashes.
        roles: N names (species) that colours tell apart.
        hubs: [N] bool.
        names: N short names, the seat numbers by default.
        weighs: what weights are a measure of, e.g. "age".
        unit: of weights, e.g. "iterations"; attention has none.
    """
    on_circle = positions is None or positions.shape[-1] == 0
    places, extent = _circle(num_agents) if on_circle else _plane(positions, torus)
    links = np.asarray(links, dtype=np.int64).reshape(-1, 2)
    heaviest = np.argsort(np.zeros(len(links)) if weights is None else -weights, kind="stable")[:MOST_LINKS]
    figure = card(8.2, 8.4, title)
    axes = dress(figure.add_subplot(), grid=None)
    axes.set_aspect("equal")
    disc = float(np.clip(22 - 1.2 * num_agents**0.6, 4, 20))  # points
    _arrows(axes, links[heaviest], None if weights is None else weights[heaviest], places, extent, disc)
    _discs(axes, places, _colours(num_agents, roles, hubs), disc, names)
    _frame(axes, places, extent, on_circle)
    how = "arrow: sender to listener" + ("" if weights is None else f"; its width and darkness: {weighs}")
    if len(links) > MOST_LINKS:
        how += f"; {MOST_LINKS} of {len(links)}"
    if extent is not None and _shifts(places, links[heaviest], extent).any():
        how += "; dashed: across the border"
    axes.set_title(how, fontsize=9, color=MUTED, loc="left")
    _key(axes, weights, roles, hubs, (weighs, unit))
    return figure


def _circle(n: int) -> tuple[Array, None]:
    angle = np.pi / 2 - 2 * np.pi * np.arange(n) / max(n, 1)
    return np.stack([np.cos(angle), np.sin(angle)], 1), None


def _plane(positions: Array | None, torus: tuple[float, ...] | None) -> tuple[Array, Array | None]:
    """The first two axes, wrapped into the torus: places [N, 2] and its extent [2] or None."""
    places = np.asarray(positions, dtype=float)[:, :2]
    if places.shape[1] == 1:
        places = np.concatenate([places, np.zeros_like(places)], 1)
    extent = None if torus is None else np.array((*torus, 1.0)[:2], dtype=float)
    return (places if extent is None else np.mod(places, extent)), extent


def _shifts(places: Array, links: Array, extent: Array | None) -> Array:
    """What to add to each listener's place [E, 2] so that the arrow goes the short way round."""
    if extent is None:
        return np.zeros((len(links), 2))
    return -extent * np.round((places[links[:, 1]] - places[links[:, 0]]) / extent)


def _arrows(axes: Axes, links: Array, weights: Array | None, places: Array, extent: Array | None, disc: float) -> None:
    strength = np.full(len(links), 0.5) if weights is None else weights / max(float(np.max(weights, initial=0)), 1e-9)
    shifts = _shifts(places, links, extent)
    # Light arrows first, so that heavy ones lie on top.
    for i in np.argsort(strength, kind="stable"):
        start, stop = places[links[i, 0]], places[links[i, 1]]
        shift = shifts[i]
        style: dict[str, Any] = {
            "arrowstyle": f"-|>,head_length={2.5 + 3 * strength[i]:.2f},head_width={1.2 + 1.8 * strength[i]:.2f}",
            "connectionstyle": "arc3,rad=0.13",
            "shrinkA": disc / 2 + 1,
            "shrinkB": disc / 2 + 1,
            "linewidth": 0.4 + 2.6 * strength[i] ** 1.5,
            "color": INK,
            "alpha": 0.12 + 0.73 * float(strength[i]) ** 1.5,
            "clip_on": True,
        }
        if not shift.any():
            axes.add_patch(FancyArrowPatch(start, stop, **style))
            continue
        # Both halves are drawn whole, towards a ghost of the other end, and the frame cuts them at the border.
        for a, b in ((start, stop + shift), (start - shift, stop)):
            axes.add_patch(FancyArrowPatch(a, b, **style, linestyle=(0, (4, 2))))


def _colours(n: int, roles: Sequence[str] | None, hubs: Array | None) -> list[str]:
    kinds = sorted(set(roles)) if roles else []
    colours = [CATEGORIES[kinds.index(role) % len(CATEGORIES)] for role in roles] if roles else [BLUE] * n
    return colours if hubs is None else [ORANGE if hub else c for c, hub in zip(colours, hubs, strict=True)]


def _discs(axes: Axes, places: Array, colours: list[str], disc: float, names: Sequence[str] | None) -> None:
    axes.scatter(places[:, 0], places[:, 1], s=disc**2, c=colours, edgecolors=CARD, linewidths=1.5, zorder=3)
    if disc >= 11:
        texts = names if names is not None else [str(i) for i in range(len(places))]
        for (x, y), text, colour in zip(places, texts, colours, strict=True):
            ink = INK if colour in (ORANGE, *CATEGORIES[2:5]) else "white"
            axes.annotate(
                text, (x, y), ha="center", va="center", fontsize=disc * 0.42, color=ink, fontweight="bold", zorder=4
            )


def _frame(axes: Axes, places: Array, extent: Array | None, on_circle: bool) -> None:
    """The border of the torus, or room around the agents."""
    if extent is not None:
        axes.set_xlim(0, extent[0])
        axes.set_ylim(0, extent[1])
        for side in axes.spines.values():
            side.set_visible(True)
            side.set_color("#b5b9bd")
            side.set_linestyle((0, (1, 2)))
        return
    low, high = places.min(0), places.max(0)
    room = 0.12 * max(float((high - low).max()), 1e-6)
    axes.set_xlim(low[0] - room, high[0] + room)
    axes.set_ylim(low[1] - room, high[1] + room)
    if on_circle:
        axes.set_axis_off()


def _key(
    axes: Axes, weights: Array | None, roles: Sequence[str] | None, hubs: Array | None, measure: tuple[str, str]
) -> None:
    kinds = sorted(set(roles)) if roles else []
    marks = [(CATEGORIES[i % len(CATEGORIES)], kind) for i, kind in enumerate(kinds)] if len(kinds) > 1 else []
    if hubs is not None and np.any(hubs):
        marks = marks or [(BLUE, "agent")]
        marks.append((ORANGE, "hub"))
    handles = [Line2D([], [], linestyle="none", marker="o", markersize=8, color=c, label=name) for c, name in marks]
    if weights is not None and len(weights):
        most = float(np.max(weights))
        for part in (1.0, 0.5):
            line = {"linewidth": 0.4 + 2.6 * part**1.5, "alpha": 0.12 + 0.73 * part**1.5, "color": INK}
            handles.append(Line2D([], [], label=f"{measure[0]} {most * part:.3g} {measure[1]}".rstrip(), **line))
    if handles:
        axes.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.03),
            ncols=6,
            fontsize=9,
            frameon=False,
            labelcolor=INK,
        )
