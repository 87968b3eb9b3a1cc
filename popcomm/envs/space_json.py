"""Gymnasium's spaces as types that JSON has, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from popcomm.errors import UserError


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """Discrete, MultiDiscrete, MultiBinary, Box, Text, and Dict and Tuple of them.

    Raises:
        UserError: another space.
    """
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n), "start": int(space.start), **_dtype(space)}
    if isinstance(space, spaces.MultiDiscrete):
        start = {"start": space.start.tolist()} if np.any(space.start) else {}
        return {"kind": "multi_discrete", "nvec": space.nvec.tolist(), **start, **_dtype(space)}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi_binary", "n": space.n if np.ndim(space.n) == 0 else list(space.n)}
    if isinstance(space, spaces.Box):
        return _box_to_json(space)
    if isinstance(space, spaces.Text):
        return {"kind": "text", "shortest": space.min_length, "longest": space.max_length, "of": space.characters}
    if isinstance(space, spaces.Dict):
        return {"kind": "dict", "parts": [[key, space_to_json(part)] for key, part in space.spaces.items()]}
    if isinstance(space, spaces.Tuple):
        return {"kind": "tuple", "parts": [space_to_json(part) for part in space.spaces]}
    raise UserError(f"a space of type {type(space).__name__} cannot be written as JSON")


def space_from_json(data: Mapping[str, Any]) -> spaces.Space:
    """The inverse of `space_to_json`.

    Raises:
        KeyError, TypeError, ValueError: the data are no space.
    """
    kind = data["kind"]
    if kind == "discrete":
        return spaces.Discrete(data["n"], start=data["start"], **_as_written(data))
    if kind == "multi_discrete":
        return spaces.MultiDiscrete(data["nvec"], start=data.get("start"), **_as_written(data))
    if kind == "multi_binary":
        return spaces.MultiBinary(data["n"])
    if kind == "box":
        return _box_from_json(data)
    if kind == "text":
        return spaces.Text(data["longest"], min_length=data["shortest"], charset=data["of"])
    if kind == "dict":
        return spaces.Dict([(key, space_from_json(part)) for key, part in data["parts"]])
    if kind == "tuple":
        return spaces.Tuple([space_from_json(part) for part in data["parts"]])
    raise ValueError(f"no space of kind '{kind}'")


def _dtype(space: spaces.Space) -> dict[str, str]:
    """The dtype of choices, where it is not the usual int64."""
    return {} if space.dtype == np.int64 else {"dtype": str(space.dtype)}


def _as_written(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"dtype": np.dtype(data["dtype"]).type} if "dtype" in data else {}


def _box_to_json(space: spaces.Box) -> dict[str, Any]:
    """Bounds of every number, or one for all of a picture; of vectors of float32, shape and dtype go without saying."""
    usual = space.dtype == np.float32 and len(space.shape) == 1
    more = {} if usual else {"shape": list(space.shape), "dtype": str(space.dtype)}
    return {"kind": "box", "low": _bounds(space.low, usual), "high": _bounds(space.high, usual), **more}


def _bounds(values: np.ndarray, each: bool) -> Any:
    """Numbers as JSON has them; infinite ones, which it has not, as "inf" and "-inf"."""
    flat = values.ravel()
    if not each and flat.size and (flat == flat[0]).all():
        return _number(flat[0])
    return [_number(value) for value in flat]


def _number(value: Any) -> float | int | str:
    if isinstance(value, np.integer | np.bool_):
        return int(value)
    return float(value) if math.isfinite(value) else str(float(value))


def _box_from_json(data: Mapping[str, Any]) -> spaces.Box:
    dtype = np.dtype(data.get("dtype", "float32"))
    low, high = (_array(data[key], dtype, data.get("shape")) for key in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype.type)


def _array(bounds: Any, dtype: np.dtype, shape: list[int] | None) -> np.ndarray:
    if not isinstance(bounds, list):
        bounds = [bounds] * math.prod(shape or [1])
    numbers = [float(value) if isinstance(value, str) else value for value in bounds]
    return np.array(numbers, dtype).reshape(len(numbers) if shape is None else shape)
