"""Senses taken away: what is left is always of the observation's own space, and the action mask as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from popcomm.channels.broadcast.reflexes import Reflex, SensoryDeprivation
from popcomm.envs.deprivation import check_spaces, perceived
from popcomm.errors import UserError

WITHDRAW, NOISE = SensoryDeprivation("withdraw"), SensoryDeprivation("noise")
NUMBERS: dict[str, tuple[spaces.Space, Any]] = {
    "floats": (spaces.Box(-2.0, 3.0, (2, 3), np.float32), np.zeros((2, 3))),
    "half bounded floats": (spaces.Box(np.array([-np.inf, 0.0]), np.array([0.5, np.inf]), dtype=np.float64), [0.0, 0]),
    "unbounded floats": (spaces.Box(-np.inf, np.inf, (3,), np.float32), np.zeros(3)),
    "narrow floats": (spaces.Box(0.1, 0.3, (4,), np.float16), np.full(4, np.float16(0.1))),
    "above zero": (spaces.Box(2.0, 5.0, (2,), np.float32), [2.0, 2.0]),
    "below zero": (spaces.Box(-5, -3, (2,), np.int16), [-3, -3]),
    "bytes": (spaces.Box(0, 255, (2, 2), np.uint8), np.zeros((2, 2))),
    "unbounded ints": (spaces.Box(-np.inf, np.inf, (3,), np.int64), np.zeros(3)),
    "half bounded ints": (spaces.Box(7, np.inf, (3,), np.int32), [7, 7, 7]),
    "discrete": (spaces.Discrete(5), 0),
    "discrete from 3": (spaces.Discrete(4, start=3), 3),
    "discrete from -2": (spaces.Discrete(4, start=-2), 0),
    "multi discrete": (spaces.MultiDiscrete([3, 4]), [0, 0]),
    "multi discrete from": (spaces.MultiDiscrete(np.array([[3, 4]]), start=np.array([[1, -9]])), [[1, -6]]),
    "multi binary": (spaces.MultiBinary((2, 3)), np.zeros((2, 3))),
}
PLAIN = {name: space for name, (space, _) in NUMBERS.items()}
NESTED = spaces.Dict(
    {
        "observation": spaces.Dict({"near": PLAIN["floats"], "far": spaces.Tuple([PLAIN["discrete"], PLAIN["bytes"]])}),
        "action_mask": spaces.MultiBinary(4),
    }
)


@pytest.mark.parametrize("name", NUMBERS)
def test_withdrawn_numbers_are_zero_or_what_is_nearest_to_it(name: str) -> None:
    space, zero = NUMBERS[name]
    space.seed(0)
    seen = perceived(space.sample(), space, WITHDRAW, np.random.default_rng(0))
    assert space.contains(seen)
    np.testing.assert_array_equal(seen, zero)


@pytest.mark.parametrize("name", NUMBERS)
def test_noise_lies_in_the_space_and_varies(name: str) -> None:
    space, rng = NUMBERS[name][0], np.random.default_rng(1)
    value = space.sample()
    seen = [perceived(value, space, NOISE, rng) for _ in range(60)]
    assert all(space.contains(one) for one in seen)
    assert len({np.asarray(one).tobytes() for one in seen}) > 1


def test_noise_without_bounds_stays_within_one() -> None:
    rng = np.random.default_rng(2)
    for name in ("unbounded floats", "unbounded ints"):
        drawn = np.stack([perceived(np.full(3, 50), PLAIN[name], NOISE, rng) for _ in range(200)])
        assert drawn.min() >= -1
        assert drawn.max() <= 1
        assert drawn.min() < -0.9
        assert drawn.max() > 0.9
    counted = np.stack([perceived(np.full(3, 50), PLAIN["half bounded ints"], NOISE, rng) for _ in range(200)])
    assert set(counted.ravel().tolist()) == {7, 8}


def test_every_whole_number_is_as_likely_as_the_others() -> None:
    rng, space, draws = np.random.default_rng(3), PLAIN["discrete from 3"], 4000
    counts = np.bincount([perceived(3, space, NOISE, rng) - 3 for _ in range(draws)], minlength=4)
    assert len(counts) == 4
    # Four standard errors of a share of 1/4.
    assert np.abs(counts / draws - 0.25).max() < 4 * (0.25 * 0.75 / draws) ** 0.5


@pytest.mark.parametrize("reflex", [WITHDRAW, NOISE])
def test_an_action_mask_stays_as_it_was_and_all_else_goes(reflex: Reflex) -> None:
    NESTED.seed(4)
    rng, value = np.random.default_rng(4), NESTED.sample()
    value["action_mask"] = np.array([1, 0, 0, 1], np.int8)
    seen = perceived(value, NESTED, reflex, rng)
    assert NESTED.contains(seen)
    assert seen["action_mask"] is value["action_mask"]
    assert (seen["observation"]["near"] != value["observation"]["near"]).all()
    assert (seen["observation"]["far"][1] != value["observation"]["far"][1]).all()


def test_the_observation_itself_is_left_alone() -> None:
    value = {"observation": np.ones(3, np.float32)}
    perceived(value, spaces.Dict({"observation": PLAIN["unbounded floats"]}), WITHDRAW, np.random.default_rng(5))
    assert value["observation"].tolist() == [1.0, 1.0, 1.0]


class Dimmed(Reflex):
    """Halves what is seen."""

    def perceive(self, values: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return values / 2


def test_a_reflex_of_ones_own_gets_what_would_be_seen() -> None:
    rng = np.random.default_rng(6)
    assert perceived(4, PLAIN["discrete"], Dimmed(), rng) == 2
    assert perceived([2, 2], PLAIN["multi discrete"], Dimmed(), rng).tolist() == [1, 1]
    assert perceived(np.full((2, 2), 9, np.uint8), PLAIN["bytes"], Dimmed(), rng).tolist() == [[4, 4], [4, 4]]
    assert perceived(np.full((2, 3), 3.0), PLAIN["floats"], Dimmed(), rng).ravel().tolist() == [1.5] * 6


def test_spaces_without_numbers_are_refused_by_the_agents_name() -> None:
    check_spaces({**PLAIN, "nested": NESTED})
    wrong = spaces.Dict({"observation": spaces.Tuple([PLAIN["bytes"], spaces.Text(5)])})
    with pytest.raises(UserError, match="agent 'b' observes a Text space, and reflexes can take away numbers only"):
        check_spaces({"a": NESTED, "b": wrong})
