"""What a child of a run learns with: numbers stay in their ranges, values of a list are those beside."""

from __future__ import annotations

import numpy as np
import pytest

from popcomm.cli.exploring import drawn, explored
from popcomm.cli.search_space import Space

RANGE, LIST = Space("loguniform", (1e-3, 1e-1)), Space("choice", (1, 2, 4, 8))
WHOLE, STEPPED = Space("randint", (1, 10)), Space("quniform", (0.0, 1.0, 0.25))


def children(space: Space, value: object, resample: float = 0.0, count: int = 200) -> list[object]:
    rng = np.random.default_rng(0)
    return [explored({"a.x": value}, {"a.x": space}, ["a.x"], (1.2, 0.8), resample, rng)["a.x"] for _ in range(count)]


def test_a_number_is_multiplied_by_one_of_the_factors() -> None:
    assert {round(float(x), 9) for x in children(RANGE, 0.01)} == {0.012, 0.008}  # type: ignore[arg-type]


def test_a_number_stays_in_its_range() -> None:
    assert set(children(RANGE, 0.1)) == {0.1, 0.1 * 0.8}
    assert set(children(RANGE, 1e-3)) == {1e-3 * 1.2, 1e-3}
    assert set(children(WHOLE, 9)) == {9, 7}  # the upper end is none of its values


def test_a_whole_number_that_its_factor_does_not_move_takes_a_step() -> None:
    assert set(children(WHOLE, 2)) == {3, 1}


@pytest.mark.parametrize("factors", [(1.2, 0.5), (0.5, 1.2)])
def test_the_order_of_factors_is_no_matter(factors: tuple[float, float]) -> None:
    """As in Tune, which draws one of them. 1.2 does not move a 2, and takes it a step up; 0.5 halves it."""
    spaces, values = {"a.x": WHOLE, "a.y": LIST, "a.z": RANGE}, {"a.x": 2, "a.y": 2, "a.z": 0.01}
    rng = np.random.default_rng(0)
    found = [explored(values, spaces, spaces, factors, 0.0, rng) for _ in range(400)]
    assert {one["a.x"] for one in found} == {1, 3}
    assert {one["a.y"] for one in found} == {1, 4}
    assert {round(one["a.z"], 9) for one in found} == {0.012, 0.005}
    assert 140 < sum(one["a.x"] == 3 for one in found) < 260


def test_factors_above_1_alone_take_steps_up_alone_and_one_of_1_none() -> None:
    rng = np.random.default_rng(0)
    assert {explored({"a.x": 2}, {"a.x": WHOLE}, ["a.x"], (1.1, 1.2), 0.0, rng)["a.x"] for _ in range(50)} == {3}
    assert {explored({"a.x": 2}, {"a.x": WHOLE}, ["a.x"], (1.0, 1.0), 0.0, rng)["a.x"] for _ in range(50)} == {2}


def test_a_number_with_steps_stays_on_them() -> None:
    assert set(children(STEPPED, 1.0)) == {1.0, 0.75}


@pytest.mark.parametrize(
    ("space", "low", "inner"),
    [
        (Space("qrandint", (16, 256, 16)), (16, [32, 16]), (32, [48, 16])),
        (Space("qlograndint", (8, 128, 8)), (8, [16, 8]), (16, [24, 8])),
        (Space("quniform", (0.1, 1.0, 0.1)), (0.1, [0.2, 0.1]), (0.2, [0.3, 0.1])),
        (Space("qloguniform", (0.5, 8.0, 0.5)), (0.5, [1.0, 0.5]), (1.0, [1.5, 0.5])),
        (Space("qrandn", (0.0, 1.0, 0.5)), (0.0, [0.5, -0.5]), (0.5, [1.0, 0.0])),
    ],
)
def test_a_number_with_steps_that_its_factor_does_not_move_takes_one_step(
    space: Space, low: tuple[float, list[float]], inner: tuple[float, list[float]]
) -> None:
    for value, beside in (low, inner):
        assert {round(float(x), 9) for x in children(space, value)} == set(beside)  # type: ignore[arg-type]


def test_of_a_list_the_value_beside_is_taken() -> None:
    assert set(children(LIST, 2)) == {1, 4}
    assert set(children(LIST, 8)) == {8, 4}


def test_values_are_drawn_anew_as_often_as_asked() -> None:
    anew = children(LIST, 1, resample=1.0, count=400)
    assert {anew.count(value) // 50 for value in (1, 2, 4, 8)} <= {1, 2}
    half = children(RANGE, 0.01, resample=0.5, count=400)
    kept = sum(round(float(x), 9) in (0.012, 0.008) for x in half)  # type: ignore[arg-type]
    assert 160 < kept < 240


def test_keys_that_are_not_varied_keep_their_values() -> None:
    parameters = {"a.x": 0.01, "a.y": 4}
    found = explored(parameters, {"a.x": RANGE, "a.y": LIST}, ["a.x"], (2.0, 0.5), 0.0, np.random.default_rng(1))
    assert found["a.y"] == 4
    assert found["a.x"] in (0.02, 0.005)
    assert parameters == {"a.x": 0.01, "a.y": 4}


@pytest.mark.parametrize(
    ("space", "low", "high"),
    [(RANGE, 1e-3, 1e-1), (WHOLE, 1, 9), (STEPPED, 0, 1), (Space("lograndint", (1, 100)), 1, 99)],
)
def test_what_is_drawn_lies_in_its_range(space: Space, low: float, high: float) -> None:
    rng = np.random.default_rng(0)
    values = [drawn(space, rng) for _ in range(500)]
    assert low <= min(values)
    assert max(values) <= high
    if "log" in space.kind:  # half of them below the geometric mean
        assert 0.4 < np.mean(np.array(values) < np.sqrt(low * high)) < 0.6
