"""Exploring: what a child of a run learns with, from what its parent does (PBT's explore, Jaderberg et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from popcomm.cli.search_space import BELLS, EXCLUSIVE, LISTS, WHOLE, Space


def explored(
    parameters: Mapping[str, Any],
    spaces: Mapping[str, Space],
    keys: Iterable[str],
    factors: Sequence[float],
    resample_probability: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The parameters with some of them varied.

    A number of a range is multiplied by one of the factors and stays in its range; of a list the value beside is taken,
    where there is one. With `resample_probability` a value is drawn anew from its space.

    Args:
        parameters: {"section.key": value} of the parent, inactive ones too.
        spaces: {"section.key": what it was drawn from}.
        keys: of those that are varied.
        factors: one is drawn for each number, whatever their order; what goes in steps, and its factor does not move,
            goes a step up where that is above 1, and down where it is below.
        rng: of all that is random.
    """
    found = dict(parameters)
    for key in keys:
        space = spaces[key]
        # Both are drawn always, so that what one key does is the same whatever became of another.
        anew, way = rng.random() < resample_probability, int(rng.integers(len(factors)))
        found[key] = drawn(space, rng) if anew else _beside(space, found[key], factors[way], way, rng)
    return found


def drawn(space: Space, rng: np.random.Generator) -> Any:
    """A value of the space. rng: of all that is random."""
    if space.kind in LISTS:
        return space.arguments[int(rng.integers(len(space.arguments)))]
    first, second = space.arguments[:2]
    if space.kind in BELLS:
        return _fitted(space, rng.normal(first, second))
    if space.kind in EXCLUSIVE and "log" not in space.kind:
        return int(rng.integers(first, second))
    if "log" in space.kind:
        return _fitted(space, math.exp(rng.uniform(math.log(first), math.log(second))))
    return _fitted(space, rng.uniform(first, second))


def _beside(space: Space, value: Any, factor: float, way: int, rng: np.random.Generator) -> Any:
    if space.kind not in LISTS:
        moved = _fitted(space, value * factor)
        step = space.arguments[2] if space.kind.startswith("q") else 1 if space.kind in WHOLE else 0
        # What goes in steps, and its factor does not move, takes one.
        stays = step > 0 and math.isclose(moved, value)
        return _fitted(space, value + step * np.sign(factor - 1)) if stays else moved
    if value not in space.arguments:
        return drawn(space, rng)
    place = space.arguments.index(value) + (1 if way == 0 else -1)
    return space.arguments[min(max(place, 0), len(space.arguments) - 1)]


def _fitted(space: Space, value: float) -> Any:
    """The nearest value of a range."""
    if space.kind.startswith("q"):
        step = space.arguments[2]
        value = round(value / step) * step
    if space.kind not in BELLS:
        low, high = space.corners()
        value = min(max(value, low), high)
    return round(value) if space.kind in WHOLE else float(value)
