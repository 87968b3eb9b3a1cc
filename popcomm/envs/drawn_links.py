"""Who was heard by whom, as bent arrows: the part that pictures of different environments share."""

from __future__ import annotations

from typing import Any

import numpy as np

GREEN = "#009E73"  # of Okabe & Ito's palette, which the colour-blind can tell apart


def draw_links(
    axes: Any,
    places: np.ndarray,
    links: np.ndarray,
    gap: float,
    bend: float = 0.12,
    zorder: float = 2,
    **look: Any,
) -> None:
    """An arrow from every sender to its receiver.

    Args:
        axes: matplotlib Axes.
        places: [N, 2], of the seats, in data coordinates.
        links: [M, 2] int, (sender, receiver) pairs.
        gap: points left free at both ends of an arrow.
        bend: how far arrows are bent, in their own length: it keeps the two directions of a pair apart.
        zorder: matplotlib's.
        look: of the arrows, beside a green at an opacity of 0.7: what matplotlib's FancyArrowPatch takes.
    """
    style: dict[str, Any] = {"arrowstyle": "->", "color": GREEN, "alpha": 0.7, "shrinkA": gap, "shrinkB": gap, **look}
    style["connectionstyle"] = f"arc3,rad={bend}"
    for sender, receiver in links:
        axes.annotate("", xy=places[receiver], xytext=places[sender], arrowprops=style, zorder=zorder)
