"""Scripts that remember: what they heard late is of the episode in which they act."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from popcomm.envs import factory_references, platoon_references
from popcomm.envs.factory_v0 import FactoryWorld
from popcomm.envs.platoon_v0 import PlatoonWorld
from popcomm.envs.scripted import Delayed, Randomly


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_in_the_first_steps_of_every_episode_its_first_view_is_seen_and_then_that_of_so_many_steps_ago(
    delay: int,
) -> None:
    world = PlatoonWorld(2, max_steps=5)
    delayed, policy, ages = Delayed(delay), Randomly(), []
    episode: list[torch.Tensor] = []
    step = world.reset(1)
    for _ in range(17):
        if step.first.any():
            episode = []
        episode.append(world.here()[0])
        (place,) = delayed(world, world.here()[:1])
        age = len(episode) - 1
        assert torch.equal(place, episode[max(0, age - delay)])
        ages.append(age)
        step = world.step(policy(world))
    assert ages.count(0) == 3


def test_worlds_begin_each_for_itself() -> None:
    world, delayed = PlatoonWorld(2), Delayed(1)
    step = world.reset(1)
    now = torch.zeros(2)
    for time, begins in enumerate([(True, True), (False, False), (False, True), (False, False)]):
        first = torch.tensor(begins).unsqueeze(1).expand_as(step.first)
        world._last = step._replace(first=first)
        (seen,) = delayed(world, (now + time,))
        assert seen.tolist() == [[0, 0], [0, 0], [1, 2], [2, 2]][time]


@pytest.mark.parametrize(
    ("world", "script"), [(FactoryWorld, factory_references.Told), (PlatoonWorld, platoon_references.Told)]
)
def test_who_played_an_episode_acts_in_the_next_as_one_who_did_not(world: Any, script: Any) -> None:
    played, fresh = world(64, max_steps=4), script(2)
    old = script(2)
    step, begun = played.reset(3), 0
    for _ in range(12):
        if step.first.any():
            fresh, begun = script(2), begun + 1
        chosen, expected = old(played), fresh(played)
        for name, actions in chosen.items():
            assert torch.equal(actions, expected[name])
        step = played.step(chosen)
    assert begun == 3
