"""What agents observe in its own form: told to networks beside the number of numbers, and kept in JSON."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from popcomm.agents.contract import AgentSpec
from popcomm.agents.pretrained import spec_from_json, spec_to_json
from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.space_json import space_from_json, space_to_json
from popcomm.rllib import PopulationPPOConfig
from tests.envs.scripted_env import SpaceEnv

PICTURE = spaces.Box(0, 255, (8, 6, 3), np.uint8)
SPACES: dict[str, spaces.Space] = {
    "picture": PICTURE,
    "bounds": spaces.Box(np.array([-1.5, -np.inf], np.float32), np.array([2.0, 0.5], np.float32)),
    "integers": spaces.Box(-(2**62), 2**62 + 1, (3,), np.int64),
    "choice": spaces.Discrete(4, start=2),
    "choices": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "flags": spaces.MultiBinary([2, 2]),
    "nested": spaces.Dict(
        OrderedDict([("z", PICTURE), ("a", spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (0,), np.float32)]))])
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_spaces_survive_as_json_with_the_order_of_their_numbers(name: str) -> None:
    space = SPACES[name]
    again = space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False)))
    assert again == space
    assert str(spaces.flatten_space(again)) == str(spaces.flatten_space(space))
    if isinstance(space, spaces.Dict):
        assert list(again.spaces) == list(space.spaces)


def test_a_picture_takes_no_more_json_than_a_number() -> None:
    assert len(json.dumps(space_to_json(spaces.Box(0, 255, (84, 84, 3), np.uint8)))) < 100


def test_what_has_no_json_is_told_by_its_size_alone() -> None:
    spec = AgentSpec(3, spaces.Discrete(2), None, 0, observation_space=spaces.OneOf([spaces.Discrete(2)]))
    assert spec_from_json(spec_to_json(spec)).observation_space == spaces.Box(-np.inf, np.inf, (3,), np.float32)


def test_a_spec_without_a_structure_observes_a_box() -> None:
    spec = AgentSpec(5, spaces.Discrete(2), None, 0)
    assert spec.observation_space == spaces.Box(-np.inf, np.inf, (5,), np.float32)


def test_a_structure_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="has 144 numbers, and obs_size is 5"):
        AgentSpec(5, spaces.Discrete(2), None, 0, observation_space=PICTURE)


def kinds(_: Any) -> SpaceEnv:
    """A scout that sees pictures, and two workers that see a Dict with a mask of what they may do."""
    near = {"near": spaces.Box(0, 1, (2, 2), np.float32), "kind": spaces.Discrete(3)}
    space = spaces.Dict({**near, "action_mask": spaces.MultiBinary(2)})
    seen = {"near": np.zeros((2, 2), np.float32), "kind": 1, "action_mask": np.ones(2, np.int8)}
    worker = (space, seen, spaces.Discrete(2))
    scout = (PICTURE, np.zeros((8, 6, 3), np.uint8), spaces.Discrete(2))
    return SpaceEnv({"scout": scout, "worker_0": worker, "worker_1": worker})


def specs_of_kinds() -> dict[str, AgentSpec]:
    config = PopulationPPOConfig().environment(kinds).population(agent="mlp")
    return {name: species.spec for name, species in config.plan.species.items()}


def test_networks_are_told_the_shape_of_pictures_and_the_entries_of_dicts() -> None:
    specs = specs_of_kinds()
    scout, worker = specs["scout"], specs["worker"]
    assert (scout.observation_space, scout.obs_size) == (PICTURE, 8 * 6 * 3)
    assert isinstance(worker.observation_space, spaces.Dict)
    assert list(worker.observation_space.spaces) == ["kind", "near"]
    assert worker.obs_size == 3 + 4


def test_networks_are_told_their_species_and_whose_every_seat_is() -> None:
    specs = specs_of_kinds()
    assert {name: (spec.species, spec.num_seats) for name, spec in specs.items()} == {
        "scout": ("scout", 1),
        "worker": ("worker", 2),
    }
    assert {spec.seat_species for spec in specs.values()} == {("scout", "worker", "worker")}


def test_the_vector_is_gymnasiums_flattening_of_the_structure() -> None:
    world = ParallelEnvWorld(kinds, 1)
    for species in world.species.values():
        assert species.structure is not None
        assert spaces.flatdim(species.structure) == species.obs_size
