"""Seats of a world, named and parted anew: the same world, told in another order."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.species import with_species
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import World, WorldStep
from popcomm.errors import UserError
from tests.envs.scripted_env import ScriptedEnv, SpaceEnv
from tests.rllib.worlds import ClockWorld

AGENTS = ("a_0", "a_1", "a_2", "a_3")
PAIRS = {"odd": ["a_3", "a_1"], "even": ["a_0", "a_2"]}
ORDER = [3, 1, 0, 2]  # the seats of PAIRS


def scripted(_: Any = None, **changes: Any) -> ScriptedEnv:
    return ScriptedEnv([{}, {"a_1": "terminated"}, {}, {}], AGENTS, AGENTS, **changes)


def worlds(count: int = 2, **changes: Any) -> ParallelEnvWorld:
    return ParallelEnvWorld(lambda _: scripted(**changes), count)


def steps_of(world: World, length: int = 7) -> list[WorldStep]:
    """Seat n of species s does n + 1 in every step, so that rewards name the seats."""
    told = [world.reset(seed=1)]
    names = [agent for s in world.species.values() for agent in s.agents]
    for _ in range(length):
        actions = {}
        for name, s in world.species.items():
            numbers = torch.tensor([int(names[seat][-1]) for seat in range(s.start, s.stop)])
            actions[name] = numbers.expand(world.num_worlds, -1)
        told.append(world.step(actions))
    return told


@pytest.mark.parametrize("mask", [None, "info", "observation"])
def test_every_seat_sees_does_and_earns_what_its_agent_would(mask: str | None) -> None:
    plain, parted = worlds(positions=True, mask=mask), with_species(worlds(positions=True, mask=mask), PAIRS)
    assert {name: (s.start, s.stop, s.agents) for name, s in parted.species.items()} == {
        "odd": (0, 2, ("a_3", "a_1")),
        "even": (2, 4, ("a_0", "a_2")),
    }
    for one, other in zip(steps_of(plain), steps_of(parted), strict=True):
        for key in ("rewards", "terminated", "truncated", "alive", "first", "positions"):
            assert torch.equal(getattr(one, key)[:, ORDER], getattr(other, key))
        joined = torch.cat(list(other.observations.values()), 1)
        assert torch.equal(one.observations["a"][:, ORDER], joined)
        if mask:
            assert one.action_masks is not None
            assert other.action_masks is not None
            assert torch.equal(one.action_masks["a"][:, ORDER], torch.cat(list(other.action_masks.values()), 1))
    assert steps_of(parted)[1].rewards[0].tolist() == [3, 1, 0, 2]


def test_symbols_are_charged_to_the_agents_who_say_them() -> None:
    class Heard(ScriptedEnv):
        heard: list[dict[str, float]] = []  # noqa: RUF012

        def speak(self, symbols: dict[str, float]) -> None:
            self.heard.append(symbols)

    world = with_species(ParallelEnvWorld(lambda _: Heard([{}, {}], AGENTS, AGENTS), 1), PAIRS)
    world.reset(seed=0)
    nothing = {name: torch.zeros(1, 2, dtype=torch.int64) for name in PAIRS}
    world.step(nothing, torch.tensor([[3.0, 1.0, 0.0, 2.0]]))
    assert Heard.heard == [{"a_0": 0, "a_1": 1, "a_2": 2, "a_3": 3}]


def test_a_function_says_of_which_species_agents_are_with_or_without_the_episode_of_rllib() -> None:
    ways: list[Any] = [
        lambda agent: "odd" if int(agent[-1]) % 2 else "even",
        lambda agent, episode, **kwargs: "odd" if int(agent[-1]) % 2 else "even",
        lambda agent, *args, **kwargs: "odd" if int(agent[-1]) % 2 else "even",
    ]
    for way in ways:
        species = with_species(worlds(), way).species
        assert {name: s.agents for name, s in species.items()} == {"even": ("a_0", "a_2"), "odd": ("a_1", "a_3")}


def test_a_function_is_asked_by_the_names_that_the_environment_has() -> None:
    face = (spaces.Box(0, 1, (1,), np.float32), np.zeros(1, np.float32), spaces.Discrete(2))
    world = ParallelEnvWorld(lambda _: SpaceEnv({0: face, 1: face, 2: face}), 1)  # type: ignore[dict-item]
    parted = with_species(world, lambda agent: "low" if agent < 1 else "high")
    assert {name: s.agents for name, s in parted.species.items()} == {"low": ("0",), "high": ("1", "2")}
    assert with_species(world, {"low": [0], "high": [1, 2]}).species == parted.species


def test_an_agents_id_is_its_seat_among_those_of_its_species() -> None:
    told = steps_of(with_species(worlds(), {"odd": ["a_3", "a_1"], "even": ["a_0", "a_2"]}, agent_id=True))[0]
    for seen in told.observations.values():
        assert torch.equal(seen[..., 3:], torch.eye(2).expand(2, -1, -1))
    told = with_species(worlds(), agent_id=True).reset(seed=1)
    assert torch.equal(told.observations["a"][..., 3:], torch.eye(4).expand(2, -1, -1))
    assert torch.equal(told.observations["a"][..., :3], worlds().reset(seed=1).observations["a"])


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (spaces.Box(0, 255, (2, 2, 3), np.uint8), ["observation", "agent_id"]),
        (spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Discrete(3)}), ["a", "b", "agent_id"]),
        (spaces.Dict({"agent_id": spaces.Discrete(2)}), ["observation", "agent_id"]),
    ],
)
def test_the_structure_of_an_observation_ends_with_the_id(space: spaces.Space, names: list[str]) -> None:
    env = SpaceEnv({name: (space, space.sample(), spaces.Discrete(2)) for name in ("a_0", "a_1")})
    species = with_species(ParallelEnvWorld(lambda _: env, 1), agent_id=True).species["a"]
    assert isinstance(species.structure, spaces.Dict)
    assert list(species.structure.spaces) == names
    assert spaces.flatdim(species.structure) == species.obs_size
    seen = OrderedDict((name, inner.sample()) for name, inner in species.structure.spaces.items())
    seen["agent_id"] = 1
    assert spaces.flatten(species.structure, seen)[-2:].tolist() == [0, 1]


def test_species_that_are_alike_can_be_one_and_those_that_are_not_cannot() -> None:
    face, other = ((spaces.Discrete(n), 0, spaces.Discrete(2)) for n in (2, 3))
    apart = with_species(
        ParallelEnvWorld(lambda _: SpaceEnv({"a": face, "b": face, "c": other}), 1),
        {
            "x": ["b"],
            "y": ["a"],
            "z": ["c"],
        },
    )
    again = with_species(apart, {"all": ["a", "b"], "c": ["c"]})
    told = again.reset(seed=0)
    assert told.observations["all"].shape == (1, 2, 2)
    again.step({"all": torch.tensor([[0, 1]]), "c": torch.tensor([[1]])})
    with pytest.raises(UserError, match="'all' has a and c, which differ in what they observe; agents of a species"):
        with_species(apart, {"all": ["a", "b", "c"]})


@pytest.mark.parametrize(
    ("species", "sentence"),
    [
        ({"odd": ["a_1", "a_3"]}, "does not say of which species a_0, a_2 are; all agents are of one"),
        ({"odd": ["a_1", "a_1"]}, "agent 'a_1' is in 'odd' and in 'odd'"),
        ({"odd": ["a1"]}, r"environment.species.odd: the agent 'a1' does not exist; did you mean 'a_1'\?"),
        ({"odd": "a_1"}, "environment.species.odd is 'a_1', and must be a list of agents"),
        ({"odd": []}, r"environment.species.odd is \[\], and must be a list of agents"),
        ({"default": ["a_0"]}, "names 'default', and a species has a text for a name, without '/', and not 'default'"),
        ({"a/b": ["a_0"]}, "names 'a/b', and a species has a text for a name"),
        (lambda agent: None, "environment.species says None of agent 'a_0', and a species has a text for a name"),
        (3, r"environment.species is 3, and must be a mapping such as \{scout: \[a_0\]\}, or a function"),
    ],
)
def test_what_does_not_part_the_agents_is_refused(species: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        with_species(worlds(1), species)


def test_without_a_choice_the_world_is_the_world() -> None:
    world = worlds(1)
    assert with_species(world) is world


def parted_clocks(count: int) -> World:
    species = {"late": ["listener_1"], "speaker": ["speaker_1", "speaker_0"], "early": ["listener_0"]}
    return with_species(ClockWorld(count, death=2), species, agent_id=True)


def test_a_parted_world_keeps_the_contract() -> None:
    world_api_test(parted_clocks(6))


def test_what_the_world_has_beside_the_contract_is_still_there() -> None:
    world = parted_clocks(3)
    assert world.death == 2
    world.tells_state = False
    assert not world.world.tells_state
    assert world.state_size == 2
    again = pickle.loads(pickle.dumps(world))
    assert torch.equal(again.reset(seed=2).rewards, world.reset(seed=2).rewards)


def test_links_are_drawn_between_the_seats_of_the_world() -> None:
    class Drawn(ClockWorld):
        def render(self, world: int = 0, links: Any = None) -> np.ndarray:
            return links.numpy()

    world = with_species(Drawn(1), {"late": ["listener_1", "listener_0"], "speaker": ["speaker_0", "speaker_1"]})
    assert world.render(0, torch.tensor([[0, 2], [3, 1]])).tolist() == [[3, 0], [1, 2]]
