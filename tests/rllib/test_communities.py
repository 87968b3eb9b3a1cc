"""Communities in the trainer: all species of a world are of one community, and blocks of worlds are even."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.rllib.test_rollout import clock_config, fragments, runner_of

APART: dict[str, Any] = {"seating": "communities", "communities": 2, "members": 6, "env_config": {"lengths": (3, 5)}}


def members_of(mixing: float) -> dict[str, np.ndarray]:
    """{species: [B, T, N] members} of twelve worlds of two seats, whose episodes start at different times."""
    runner = runner_of(clock_config(**APART, mixing=mixing))
    return {name: a["members"] for name, a in fragments(runner, 3)[-1].items()}


def test_speakers_and_listeners_of_a_world_are_of_its_community() -> None:
    for members in members_of(0.0).values():
        assert (members // 3 == (np.arange(12) % 2)[:, None, None]).all()
        assert (members[:, 0] != members[:, -1]).any()


def test_some_sit_elsewhere_where_communities_mix() -> None:
    for members in members_of(0.5).values():
        strangers = members // 3 != (np.arange(12) % 2)[:, None, None]
        assert 0 < strangers.mean() < 0.5


def test_a_block_of_worlds_holds_every_community_evenly() -> None:
    config = clock_config(**APART)
    config.validate()
    assert config.plan.balanced_block == 6
    assert clock_config(members=6).plan.balanced_block == 3
