"""The picture of `popcomm evaluate --noise`: what a world returns against the strength of noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from popcomm.language.drawing import CATEGORIES, ORANGE, card, dress, legend, png
from popcomm.rollout.evaluation import Estimate

INKS = (*CATEGORIES, ORANGE)
MARKS = "osD^vP*X"


def draw(curves: Mapping[str, Mapping[float, Estimate]]) -> bytes:
    """A PNG with a line for each kind of noise, {kind: {strength: return of a world}}, and 95 % intervals."""
    figure = card(6.4, 4.2, "return against noise")
    axes = dress(figure.subplots(), "", "strength of the noise", "return of a world, mean and 95 % interval")
    for place, (kind, curve) in enumerate(curves.items()):
        ink, strengths = INKS[place % len(INKS)], np.array(list(curve))
        mean, low, high = (np.array([getattr(one, key) for one in curve.values()]) for key in ("mean", "low", "high"))
        axes.plot(strengths, mean, color=ink, marker=MARKS[place % len(MARKS)], markersize=5, label=kind)
        axes.fill_between(strengths, low, high, color=ink, alpha=0.15, linewidth=0)
    legend(axes)
    return png(figure)
