"""Probes of messages: what is in them is found, what is not is not, however slowly both change."""

from __future__ import annotations

import numpy as np
import pytest
from popcomm.analysis.experiments import probes

EPISODES, STEPS = 60, 20


def walks(seed: int, numbers: int = 2) -> np.ndarray:
    """[E, T, D], slow and independent of one another."""
    return np.random.default_rng(seed).normal(size=(EPISODES, STEPS, numbers)).cumsum(1).astype(np.float32)


def test_what_is_said_outright_is_found_and_what_is_never_said_is_not() -> None:
    state = walks(0)
    found = probes.ridge(np.concatenate([state[..., :1], walks(1)], -1), state)
    assert found.r2[0] > 0.95
    assert found.r2[1] < 0.1
    assert found.mean == pytest.approx(found.r2.mean())
    assert found.p_value == pytest.approx(1 / (probes.SHIFTS + 1))
    assert found.highest < 0.2


def test_slow_and_independent_messages_are_not_above_their_controls() -> None:
    told = [probes.ridge(walks(2 * seed), walks(2 * seed + 1), 19).p_value <= 0.05 for seed in range(100)]
    assert np.mean(told) < 0.12


def test_what_all_episodes_share_is_in_the_controls_too() -> None:
    clock = np.broadcast_to(np.arange(STEPS, dtype=np.float32)[:, None], (EPISODES, STEPS, 1))
    found = probes.ridge(clock, clock + 0.1 * walks(3, 1))
    assert found.mean > 0.9
    assert found.control > 0.9
    assert found.p_value > 0.05


def test_a_hidden_layer_finds_what_only_two_seats_together_tell() -> None:
    rng = np.random.default_rng(4)
    signs = rng.choice([-1.0, 1.0], size=(EPISODES, STEPS, 2)).astype(np.float32)
    both = signs.prod(-1, keepdims=True)
    assert probes.ridge(signs, both).mean < 0.1
    assert probes.network(signs, both)[0] > 0.95
    assert np.array_equal(probes.network(signs, both), probes.network(signs, both))


def test_shifts_leave_no_episode_its_own_state_and_keep_it_in_its_part() -> None:
    orders = probes.shifted(EPISODES, 30)
    assert not (orders == np.arange(EPISODES)).any()
    for part in probes.parts_of(EPISODES):
        assert (np.sort(orders[:, part], 1) == part).all()


def test_what_does_not_vary_counts_for_nothing() -> None:
    state = np.concatenate([walks(5, 1), np.ones((EPISODES, STEPS, 1), np.float32)], -1)
    assert probes.ridge(state, state).r2.tolist() == pytest.approx([1.0, 0.0], abs=0.01)
    assert probes.ridge(state, state).mean > 0.99


def test_one_hot_tells_seats_positions_and_symbols_apart() -> None:
    assert probes.one_hot(np.array([[[0, 2], [1, -1]]]), 3).tolist() == [[1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]]
