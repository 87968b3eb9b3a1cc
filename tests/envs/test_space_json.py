"""Spaces as JSON and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces

from popcomm.envs.space_json import space_from_json, space_to_json
from popcomm.errors import UserError

SPACES = [
    spaces.Discrete(3, start=2),
    spaces.Discrete(3, dtype=np.int32),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([2, 3], dtype=np.int8),
    spaces.MultiDiscrete([2, 3], start=[1, 0]),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Box(-np.inf, 1.0, (3,), np.float32),
    spaces.Box(np.array([0.5, -np.inf]), np.array([1.0, np.inf]), dtype=np.float64),
    spaces.Box(0, 255, (4, 5, 3), np.uint8),
    spaces.Text(5, min_length=2, charset="abc"),
    spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (), np.float32)])}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back_from_json_as_it_was(space: spaces.Space) -> None:
    again = space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False)))
    assert again == space
    assert again.dtype == space.dtype
    assert spaces.flatdim(again) == spaces.flatdim(space)


def test_a_picture_has_its_bounds_written_once() -> None:
    told = space_to_json(spaces.Box(0, 255, (84, 84, 3), np.uint8))
    assert told == {"kind": "box", "low": 0, "high": 255, "shape": [84, 84, 3], "dtype": "uint8"}


def test_a_space_without_a_fixed_size_is_refused() -> None:
    with pytest.raises(UserError, match="a space of type Sequence cannot be written as JSON"):
        space_to_json(spaces.Sequence(spaces.Discrete(2)))
    with pytest.raises(ValueError, match="no space of kind 'cube'"):
        space_from_json({"kind": "cube"})
