"""Scripted swarms: what they earn, and what they know."""

from __future__ import annotations

import pytest
import torch

from popcomm.envs import swarm_references
from popcomm.envs.swarm_v0 import SwarmWorld
from popcomm.errors import UserError


def test_being_told_is_worth_more_than_seeing_alone_and_that_more_than_chance() -> None:
    found = swarm_references.controls({"num_agents": 10, "max_steps": 60}, worlds=64)
    assert found["told"] > 1.3 * found["alone"] > 1.3 * 1.2 * found["random"]


def test_where_all_see_the_beacon_being_told_adds_nothing() -> None:
    found = swarm_references.controls({"num_agents": 4, "max_steps": 40, "sensing_radius": 8.0}, worlds=32)
    assert found["told"] == pytest.approx(found["alone"])


def test_the_beacon_is_read_from_the_latent_state() -> None:
    world = SwarmWorld(num_worlds=5, glimpse_noise=0.0, sensing_radius=8.0)
    step = world.reset(3)
    glimpse = step.observations["swarm"][..., 7:9] * (world.size / 2)
    assert step.positions is not None
    seen = (step.positions + glimpse).remainder(world.size)
    torch.testing.assert_close(seen, swarm_references.beacon_of(step, world.size).expand_as(seen), atol=1e-3, rtol=0)


def test_thrust_goes_the_short_way_round_and_rests_at_the_goal() -> None:
    displacement = torch.tensor([[[3.0, 1.0], [-3.0, 1.0], [0.2, 0.4], [0.2, -4.0], [9.0, 0.0], [0.0, 0.05]]])
    actions = swarm_references.thrust_towards(displacement, torch.zeros_like(displacement), size=10.0)
    assert actions.tolist() == [[1, 2, 3, 4, 2, 0]]


def test_continuous_swarms_have_no_scripted_controls() -> None:
    with pytest.raises(UserError, match="continuous_actions"):
        swarm_references.controls({"continuous_actions": True})
