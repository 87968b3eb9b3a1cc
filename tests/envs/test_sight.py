"""Pictures stay bytes on their way from an environment to a network, and their numbers come out as they went in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.sight import Picture, Sight, sight_of
from popcomm.envs.species import with_species
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import Species
from popcomm.errors import UserError

LAST = spaces.Box(0, 255, (6, 5, 3), np.uint8)
FIRST = spaces.Box(0, 255, (3, 6, 5), np.uint8)
GREY = spaces.Box(0, 255, (6, 5), np.uint8)
WHERE = spaces.Box(-1, 1, (2,), np.float32)


class Painter(ParallelEnv):
    """Two agents see random pictures; after four steps it is over."""

    metadata = {"name": "painter"}  # noqa: RUF012

    def __init__(self, space: spaces.Space = LAST, value: Any = None) -> None:
        self.possible_agents, self.agents = ["a_0", "a_1"], []
        self.space, self.value = space, value
        self.rng = np.random.default_rng(0)

    def observation_space(self, agent: str) -> spaces.Space:
        return self.space

    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Discrete(2)

    def _seen(self) -> dict[str, Any]:
        self.space.seed(int(self.rng.integers(2**31)))
        self.shown = {agent: self.space.sample() if self.value is None else self.value for agent in self.agents}
        return self.shown

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.rng = np.random.default_rng(seed)
        self.agents, self.t = list(self.possible_agents), 0
        return self._seen(), {agent: {} for agent in self.agents}

    def step(self, actions: Any) -> Any:
        self.t += 1
        seen, over = self._seen(), self.t == 4
        told = {agent: float(actions[agent]) for agent in self.agents}
        flags = dict.fromkeys(self.agents, over)
        no = dict.fromkeys(self.agents, False)
        self.agents = [] if over else self.agents
        return seen, told, no, flags, {agent: {} for agent in told}


@pytest.mark.parametrize(
    ("space", "size"),
    [(LAST, (3, 6, 5)), (FIRST, (3, 6, 5)), (GREY, (1, 6, 5)), (spaces.Box(0, 255, (4, 4, 4), np.uint8), (4, 4, 4))],
)
def test_where_the_channels_are(space: spaces.Box, size: tuple[int, ...]) -> None:
    sight = Sight(space)
    assert sight.pictures[0].size == size
    shown = space.sample()
    planes = sight.pictures[0].planes(torch.from_numpy(shown.ravel()))
    assert planes.shape == size
    expected = shown if space is FIRST else shown[None] if shown.ndim == 2 else shown.transpose(2, 0, 1)
    assert np.array_equal(planes.numpy(), expected)


def test_what_is_no_picture_has_no_sight() -> None:
    for space in (
        WHERE,
        spaces.Box(0, 255, (128,), np.uint8),
        spaces.Box(0, 1, (6, 5, 3), np.float32),
        spaces.Discrete(3),
        None,
    ):
        assert sight_of(space) is None
    assert Species("a", 0, 1, 2, spaces.Discrete(2)).obs_dtype == torch.float32


def test_what_is_kept_in_bytes() -> None:
    both = spaces.Dict({"eye": LAST, "id": spaces.Discrete(3)})
    mixed = spaces.Dict({"eye": LAST, "where": WHERE})
    assert [Sight(space).in_bytes for space in (LAST, both, mixed)] == [True, True, False]
    assert Sight(both).high.tolist() == [255.0] * 90 + [1.0] * 3


def test_pictures_are_scaled_and_what_is_beside_them_is_not() -> None:
    sight = Sight(spaces.Dict({"eye": GREY, "where": WHERE}))
    kept = torch.cat([torch.arange(30.0) * 8, torch.tensor([-1.0, 0.5])])
    numbers = sight.numbers(kept)
    torch.testing.assert_close(numbers[:30], torch.arange(30.0) * 8 / 255)
    assert numbers[30:].tolist() == [-1.0, 0.5]
    assert kept[1] == 8.0
    assert sight.beside(numbers).tolist() == [-1.0, 0.5]
    assert Sight(GREY).numbers(torch.full((1, 30), 255, dtype=torch.uint8)).tolist() == [[1.0] * 30]


def test_each_picture_is_scaled_by_its_own_largest_bound() -> None:
    both = spaces.Dict({"cells": spaces.Box(0, 1, (2, 2), np.uint8), "eye": spaces.Box(0, 255, (2, 2), np.uint8)})
    sight = Sight(both)
    kept = torch.tensor([0, 1, 1, 0, 0, 255, 51, 0], dtype=torch.uint8)
    assert sight.numbers(kept).tolist() == pytest.approx([0, 1, 1, 0, 0, 1, 0.2, 0])
    assert sight.high.tolist() == [1.0] * 4 + [255.0] * 4
    assert sight.glimpse(kept).tolist() == pytest.approx([0, 1, 1, 0, 0, 1, 0.2, 0])


def test_a_state_of_small_bytes_is_scaled_by_the_bound_of_its_space() -> None:
    painter = Painter()
    painter.state = lambda: np.ones((2, 2), np.uint8)  # type: ignore[method-assign]
    painter.state_space = spaces.Box(0, 2, (2, 2), np.uint8)
    state = ParallelEnvWorld(lambda config: painter, 1).reset(seed=0).state
    assert state is not None
    assert state.tolist() == [[0.5] * 4]


def test_a_glimpse_is_the_means_of_parts() -> None:
    sight = Sight(spaces.Tuple((spaces.Box(0, 255, (16, 16, 1), np.uint8), spaces.Discrete(2))))
    shown = torch.zeros(300, 258, dtype=torch.uint8)
    shown[:, :2] = 255  # two pixels of the four of the first part
    shown[:, -1] = 1
    glimpse = sight.glimpse(shown)
    assert glimpse.shape == (300, sight.glimpse_size) == (300, 66)
    assert glimpse[7].tolist() == [0.5] + [0.0] * 63 + [0.0, 1.0]


def worlds(**options: Any) -> ParallelEnvWorld:
    return ParallelEnvWorld(lambda config: Painter(**options), 2)


def test_a_world_tells_pictures_as_bytes() -> None:
    world = worlds()
    step = world.reset(seed=3)
    (name,) = world.species
    seen = step.observations[name]
    assert seen.dtype == torch.uint8
    assert seen.shape == (2, 2, 90)
    assert np.array_equal(seen[1, 0].numpy(), world._envs[1].shown["a_0"].ravel())
    world_api_test(world, 12)


def test_a_state_that_is_a_picture_is_told_in_small() -> None:
    painter = Painter()
    painter.state = lambda: np.full((32, 24, 3), 51, np.uint8)  # type: ignore[method-assign]
    world = ParallelEnvWorld(lambda config: painter, 1)
    state = world.reset(seed=0).state
    assert world.state_size == 8 * 8 * 3
    assert state is not None
    torch.testing.assert_close(state, torch.full((1, 192), 0.2))


def test_an_id_beside_a_picture_is_bytes_too() -> None:
    world = with_species(worlds(), agent_id=True)
    (species,) = world.species.values()
    seen = world.reset(seed=3).observations[species.name]
    assert seen.dtype == species.obs_dtype == torch.uint8
    assert seen[0, :, -2:].tolist() == [[1, 0], [0, 1]]
    world_api_test(world, 12)


def test_a_picture_beside_real_numbers_is_kept_as_floats() -> None:
    world = worlds(space=spaces.Dict({"eye": GREY, "where": WHERE}))
    seen = next(iter(world.reset(seed=3).observations.values()))
    assert seen.dtype == torch.float32
    assert seen.max() > 100


@pytest.mark.parametrize("value", [np.full((6, 5), 256), np.full((6, 5), -1), np.full((6, 5), 0.5)])
def test_what_is_no_byte_is_refused(value: np.ndarray) -> None:
    with pytest.raises(UserError, match="no byte"):
        worlds(space=GREY, value=value).reset()


def test_bytes_outside_their_bounds_are_refused() -> None:
    with pytest.raises(UserError, match="must be between 0 and 100"):
        worlds(space=spaces.Box(0, 100, (6, 5), np.uint8), value=np.full((6, 5), 101, np.uint8)).reset()


def test_a_picture_is_a_view_of_the_observation() -> None:
    obs = torch.zeros(2, 30)
    Picture(0, (6, 5)).planes(obs)[0, 0, 1, 2] = 1.0
    assert obs[0, 7] == 1.0
