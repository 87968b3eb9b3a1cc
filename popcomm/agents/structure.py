"""Observation spaces as JSON, with the shapes of pictures and the entries of Dicts."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces


def structure_to_json(space: spaces.Space | None) -> dict[str, Any] | None:
    """A space as types that JSON has; None for one that holds another kind than these, which is told by its size."""
    try:
        return None if space is None else _told(space)
    except TypeError:
        return None


def structure_from_json(data: Mapping[str, Any] | None) -> spaces.Space | None:
    """The inverse of `structure_to_json`.

    Raises:
        KeyError, TypeError, ValueError: the data are no space.
    """
    if data is None:
        return None
    kind = data["kind"]
    if kind == "dict":  # in its own order, which is that of the numbers
        return spaces.Dict(OrderedDict((key, structure_from_json(inner)) for key, inner in data["entries"]))
    if kind == "tuple":
        return spaces.Tuple([structure_from_json(inner) for inner in data["entries"]])
    if kind == "box":
        dtype = np.dtype(data["dtype"]).type
        low, high = (np.broadcast_to(_numbers(data[key], dtype), data["shape"]) for key in ("low", "high"))
        return spaces.Box(low, high, dtype=dtype)
    if kind == "discrete":
        return spaces.Discrete(data["n"], start=data["start"])
    if kind == "multi_discrete":
        return spaces.MultiDiscrete(np.array(data["nvec"]), start=np.array(data["start"]))
    if kind == "multi_binary":
        return spaces.MultiBinary(data["shape"])
    raise ValueError(f"no observation space of kind '{kind}'")


def _told(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Dict):
        return {"kind": "dict", "entries": [[_text(key), _told(inner)] for key, inner in space.spaces.items()]}
    if isinstance(space, spaces.Tuple):
        return {"kind": "tuple", "entries": [_told(inner) for inner in space.spaces]}
    if isinstance(space, spaces.Box):
        bounds = {"low": _bounds(space.low), "high": _bounds(space.high)}
        return {"kind": "box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "multi_discrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi_binary", "shape": list(space.shape)}
    raise TypeError(f"a {type(space).__name__} has no form in JSON")


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is no text")
    return key


def _bounds(values: np.ndarray) -> Any:
    """Bounds, one for all where they are alike: a picture has thousands. Infinite ones, which JSON has not, as text."""
    alike = values.size > 0 and bool((values == values.flat[0]).all())
    shown = [v if math.isfinite(v) else str(v) for v in (values.flat[:1] if alike else values.ravel()).tolist()]
    return shown[0] if alike else {"each": shown, "shape": list(values.shape)}


def _numbers(bounds: Any, dtype: Any) -> np.ndarray:
    if isinstance(bounds, Mapping):
        return np.array([dtype(v) for v in bounds["each"]], dtype).reshape(bounds["shape"])
    return np.array(dtype(bounds))
