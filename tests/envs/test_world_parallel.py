"""The PettingZoo face of worlds: it passes PettingZoo's own tests and says what the World says."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

from popcomm.envs import WorldParallelEnv, swarm_v0
from popcomm.envs.world_parallel import turn_based
from popcomm.errors import UserError
from tests.envs.tiny_world import DEATH, TinyWorld


def tiny() -> WorldParallelEnv:
    return WorldParallelEnv(TinyWorld(1), name="tiny", render_mode="rgb_array")


def allowed(env: WorldParallelEnv, observations: dict[str, Any]) -> dict[str, Any]:
    """A fixed choice of actions that the masks allow."""
    actions: dict[str, Any] = {}
    for agent in env.agents:
        told = observations[agent]
        masked = isinstance(told, dict)
        actions[agent] = int(told["action_mask"].argmax()) if masked else np.array([0.5, 0.25], np.float32)
    return actions


@pytest.mark.parametrize("kwargs", [{}, {"continuous_actions": True}, {"num_agents": 1}, {"scout_fraction": 0.3}])
def test_the_swarm_passes_pettingzoos_parallel_test_without_a_warning(kwargs: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(swarm_v0.parallel_env(**kwargs), num_cycles=150)


@pytest.mark.filterwarnings("ignore:Agent's m:UserWarning")
@pytest.mark.parametrize("make", [swarm_v0.env, swarm_v0.raw_env])
@pytest.mark.parametrize("continuous", [False, True])
def test_the_swarm_passes_pettingzoos_aec_test(make: Callable[..., Any], continuous: bool) -> None:
    api_test(make(num_agents=4, max_steps=30, continuous_actions=continuous), num_cycles=100)


def test_the_swarm_passes_pettingzoos_seed_tests() -> None:
    parallel_seed_test(swarm_v0.parallel_env, num_cycles=120)
    seed_test(swarm_v0.env, num_cycles=120)


@pytest.mark.filterwarnings("ignore:Agent's m:UserWarning")
def test_a_world_with_species_masks_and_deaths_passes_pettingzoos_tests() -> None:
    parallel_api_test(tiny(), num_cycles=50)
    api_test(turn_based(tiny()), num_cycles=50)


def test_agents_spaces_and_metadata_are_those_of_the_world() -> None:
    env = tiny()
    assert env.possible_agents == ["walker_0", "walker_1", "caller_0"]
    assert env.action_space("walker_0") is env.action_space("walker_0")
    assert env.action_space("walker_0") is not env.action_space("walker_1")
    assert env.observation_space("caller_0") is env.observation_space("caller_0")
    assert isinstance(env.observation_space("walker_0"), spaces.Dict)
    assert env.state_space.shape == (1,)
    assert env.metadata["name"] == "tiny"
    assert env.metadata["is_parallelizable"] is True
    assert env.metadata["render_fps"] == 15
    assert swarm_v0.parallel_env().possible_agents == [f"swarm_{i}" for i in range(10)]


def test_an_agent_that_dies_says_so_once_and_leaves() -> None:
    env = tiny()
    told, _ = env.reset(seed=0)
    for step in range(1, DEATH + 2):
        told, rewards, terminated, truncated, infos = env.step(allowed(env, told))
        present = "walker_0" in told
        assert present == (step <= DEATH)
        assert terminated.get("walker_0", False) == (step == DEATH)
        assert ("walker_0" in env.agents) == (step < DEATH)
        assert told.keys() == rewards.keys() == terminated.keys() == truncated.keys() == infos.keys()


def test_it_says_what_the_world_says() -> None:
    env, world = tiny(), TinyWorld(1)
    told, infos = env.reset(seed=5)
    row = world.reset(5)
    while env.agents:
        for agent, seat in zip(env.possible_agents, range(3), strict=True):
            if agent in told:
                told_now = told[agent]["observation"] if seat < 2 else told[agent]
                expected = row.observations["walker"][0, seat] if seat < 2 else row.observations["caller"][0, 0]
                assert told_now.tolist() == expected.tolist()
                assert infos[agent]["label"] == row.labels[0, seat].item()
                assert env.agent_positions()[agent].tolist() == row.positions[0, seat].tolist()
        assert env.state().tolist() == row.state[0].tolist()
        actions = allowed(env, told)
        walkers = [actions.get(agent, 0) for agent in ("walker_0", "walker_1")]
        row = world.step({"walker": torch.tensor([walkers]), "caller": torch.tensor(np.array([[actions["caller_0"]]]))})
        told, rewards, _, truncated, infos = env.step(actions)
        assert rewards == {agent: row.rewards[0, env.possible_agents.index(agent)].item() for agent in rewards}
    assert truncated == {"walker_1": True, "caller_0": True}


def test_talk_costs_in_the_next_step_only() -> None:
    def rewards_after(spoken: dict[str, float]) -> list[dict[str, float]]:
        env = tiny()
        told, _ = env.reset(seed=0)
        env.speak(spoken)
        found = []
        for _ in range(2):
            told, rewards, *_ = env.step(allowed(env, told))
            found.append(rewards)
        return found

    silent, loud = rewards_after({}), rewards_after({"walker_1": 3.0})
    assert loud[0] == {**silent[0], "walker_1": silent[0]["walker_1"] - 1.5}
    assert loud[1] == silent[1]


def test_what_the_user_does_to_an_observation_does_not_reach_the_world() -> None:
    env = tiny()
    told, _ = env.reset(seed=0)
    told["caller_0"][:] = 99.0
    env.state()[:] = 99.0
    env.agent_positions()["caller_0"][:] = 99.0
    assert env.state() != 99.0
    assert env.world.last.observations["caller"][0, 0] != 99.0
    assert env.agent_positions()["caller_0"] != 99.0


def test_pictures_are_drawn_in_the_render_mode_only() -> None:
    env = tiny()
    env.reset(seed=0)
    assert env.render().shape == (4, 4, 3)
    silent = WorldParallelEnv(TinyWorld(1), name="tiny")
    silent.reset(seed=0)
    assert silent.render() is None


def test_mistakes_are_said_in_words() -> None:
    with pytest.raises(UserError, match="num_worlds = 2; must be 1"):
        WorldParallelEnv(TinyWorld(2), name="tiny")
    with pytest.raises(UserError, match="render_mode 'human' does not exist"):
        swarm_v0.parallel_env(render_mode="human")
    env = tiny()
    with pytest.raises(UserError, match="call reset before step"):
        env.step({})
    told, _ = env.reset(seed=0)
    actions = allowed(env, told)
    with pytest.raises(UserError, match="'walker_1' acts in this step"):
        env.step({agent: a for agent, a in actions.items() if agent != "walker_1"})
    with pytest.raises(UserError, match="acting agent 'walker_9' does not exist"):
        env.step({**actions, "walker_9": 0})
    with pytest.raises(UserError, match="agent 'walkr_1' does not exist; did you mean 'walker_1'"):
        env.speak({"walkr_1": 1.0})


def episodes(env: WorldParallelEnv, steps: int, flip: bool = False, pickle_at: int = -1) -> list[Any]:
    """What an env says over several episodes; actions are a function of agent and step."""
    said: list[Any] = []
    observations, _ = env.reset(seed=11)
    for t in range(steps):
        if t == pickle_at:
            env = pickle.loads(pickle.dumps(env))
        if not env.agents:
            observations, _ = env.reset()
        actions = {agent: (3 * t + 7 * int(agent.split("_")[1])) % 5 for agent in env.agents}
        env.speak({agent: float(a) for agent, a in actions.items()})
        ordered = dict(reversed(actions.items())) if flip else actions
        observations, rewards, *_ = env.step(ordered)
        said.append(({agent: values.tolist() for agent, values in observations.items()}, rewards))
    return said


@pytest.mark.parametrize("difference", [{}, {"flip": True}, {"pickle_at": 137}], ids=["again", "flipped", "pickled"])
def test_a_seed_decides_all_that_follows(difference: dict[str, Any]) -> None:
    def make() -> WorldParallelEnv:
        return swarm_v0.parallel_env(num_agents=5, max_steps=40, message_cost=0.01)

    assert episodes(make(), 300, **difference) == episodes(make(), 300)


def test_observations_know_their_environment_and_copies_are_plain() -> None:
    env = swarm_v0.parallel_env(num_agents=2)
    observations, _ = env.reset(seed=1)
    assert observations.env is env
    for again in (copy.copy(observations), copy.deepcopy(observations), pickle.loads(pickle.dumps(observations))):
        assert type(again) is dict
        assert list(again) == list(observations)
