"""Box actions in the bounds of their space, by hand."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from popcomm.agents.action_bounds import ActionBounds

INF = np.inf


def bounded(low: list[float], high: list[float], actions: list[float]) -> list[float]:
    space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)
    return ActionBounds(space).of(torch.tensor(actions)).tolist()


def test_the_unit_interval_becomes_the_interval_of_the_space() -> None:
    assert bounded([300.0] * 4, [500.0] * 4, [-1.0, 0.0, 0.5, 1.0]) == [300.0, 400.0, 450.0, 500.0]


def test_what_lies_beyond_is_clipped() -> None:
    assert bounded([-2.0, -2.0], [6.0, 6.0], [-1.5, 7.0]) == [-2.0, 6.0]


def test_a_bound_on_one_side_only_clips_and_none_lets_all_pass() -> None:
    assert bounded([0.0, -INF, -INF], [INF, 1.0, INF], [-3.0, 3.0, -40.0]) == [0.0, 1.0, -40.0]
    assert bounded([0.0, -INF], [INF, 1.0], [12.5, -12.5]) == [12.5, -12.5]


def test_the_limits_of_float32_are_no_bounds() -> None:
    largest = float(np.finfo(np.float32).max)
    assert bounded([-largest], [largest], [2.5]) == [2.5]


def test_the_unit_box_and_choices_stay_as_they_are_to_the_last_bit() -> None:
    numbers = torch.rand(5, 2) * 2 - 1
    assert torch.equal(ActionBounds(spaces.Box(-1, 1, (2,), np.float32)).of(numbers), numbers)
    choices = torch.tensor([[3, 0]])
    assert ActionBounds(spaces.MultiDiscrete([4, 2])).of(choices) is choices


def test_what_is_not_a_number_does_not_become_one() -> None:
    assert np.isnan(bounded([0.0], [1.0], [float("nan")])).all()
