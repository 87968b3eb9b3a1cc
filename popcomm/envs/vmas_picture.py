"""Pictures of scenarios of VMAS: bodies in their shapes and colours, and who heard whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.patches import Circle, Patch, Polygon

from popcomm.envs.drawn_figure import blank, pixels
from popcomm.envs.drawn_links import draw_links

BLACK = "#000000"
THIN = 0.02  # width of what has none, in the world's unit of length
MARGIN = 0.1  # around all bodies, of their extent
REACH = 0.3  # as much of a long body is shown for certain, to each side


class Body(NamedTuple):
    """One entity of a scenario."""

    place: tuple[float, float]
    turn: float  # radians
    size: tuple[float, ...]  # (radius,) of a disc, (length, width) of a box
    colour: tuple[float, ...]  # red, green, blue, 0 to 1
    acts: bool  # an agent, which has a black edge
    hollow: bool = False

    def patch(self) -> Patch:
        look: dict[str, Any] = {
            "facecolor": "none" if self.hollow else self.colour,
            "edgecolor": BLACK if self.acts else self.colour,
            "linewidth": 1.0,
            "alpha": 1.0 if self.acts else 0.6,
            "zorder": 4 if self.acts else 2,
        }
        if len(self.size) == 1:
            return Circle(self.place, self.size[0], **look)
        half = np.array(self.size) / 2
        corners = half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return Polygon(corners @ np.array([(cos, sin), (-sin, cos)]) + self.place, **look)


def body_of(entity: Any, world: int) -> Body:
    """An entity of VMAS as it is in one world."""
    shape, state = entity.shape, entity.state
    colour = np.clip(np.asarray(torch.as_tensor(entity.color).cpu()), 0.0, 1.0)  # some are drawn at random, beyond that
    is_box = hasattr(shape, "hollow")  # a line's width is in pixels
    if hasattr(shape, "radius"):
        size: tuple[float, ...] = (float(shape.radius),)
    else:
        size = (float(shape.length), float(shape.width) if is_box else THIN)
    x, y = state.pos[world].tolist()
    return Body(
        place=(x, y),
        turn=float(state.rot[world]),
        size=size,
        colour=tuple((colour[world] if colour.ndim > 1 else colour).tolist()),
        acts=hasattr(entity, "action"),
        hollow=is_box and shape.hollow,
    )


def draw_bodies(bodies: Sequence[Body], seats: np.ndarray, links: np.ndarray | None, title: str) -> np.ndarray:
    """An RGB picture [480, 480, 3] uint8, with the middle of every body in it.

    Args:
        bodies: of the world.
        seats: [N, 2], where the agents are.
        links: [M, 2] int, (sender, receiver) pairs whose messages were heard.
        title: a line of text above.
    """
    figure, axes = blank((0.02, 0.02, 0.96, 0.9), title)
    reach = np.array([min(REACH, max(body.size)) for body in bodies])[:, None]
    places = np.array([body.place for body in bodies])
    low, high = (places - reach).min(0), (places + reach).max(0)
    middle, half = (low + high) / 2, (0.5 + MARGIN) * float((high - low).max())
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal")
    axes.set(xticks=[], yticks=[])
    for body in bodies:
        axes.add_patch(body.patch())
    if links is not None and len(links):
        draw_links(axes, seats, links, gap=4, zorder=5)
    return pixels(figure)
