"""A channel on a ParallelEnv whose messages may end early: nobody hears or pays what follows the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from popcomm.agents import TinyAgent
from popcomm.agents.acting import spec_for
from popcomm.channels import Full, Symbols
from popcomm.envs import swarm_v0
from popcomm.envs.messaging import with_messages
from popcomm.errors import UserError
from tests.envs.scripted_env import ScriptedEnv

KIND = Symbols(4, 3, end_symbol=True)


def step_of(layout: str, message: list[int]) -> Any:
    """What a_1 observes after a_0 said a message and a_1 nothing but an end."""
    env = with_messages(ScriptedEnv([{}] * 3, ("a_0", "a_1"), ("a_0", "a_1")), KIND, Full(), layout)
    env.reset(seed=0)
    said = {"a_0": message, "a_1": [0, 3, 3]}
    if layout == "flat":
        actions: dict[str, Any] = {agent: np.array([1, *words]) for agent, words in said.items()}
    else:
        actions = {agent: {"action": 1, "message": np.array(words)} for agent, words in said.items()}
    return env.step(actions)[0]


@pytest.mark.parametrize("tail", [[0, 0], [2, 3], [3, 1]])
def test_what_follows_the_end_is_zeros_in_the_inbox(tail: list[int]) -> None:
    observations = step_of("dict", [0, *tail])
    assert observations["a_1"]["inbox"].tolist() == [[0, 0, 0]]
    assert observations["a_1"]["mask"].tolist() == [1]
    assert step_of("dict", [2, 0, tail[1]])["a_1"]["inbox"].tolist() == [[2, 0, 0]]
    assert step_of("dict", [2, 1, tail[1]])["a_1"]["inbox"].tolist() == [[2, 1, tail[1]]]


def test_it_is_no_one_hot_either_where_observations_are_flat() -> None:
    first, other = (step_of("flat", [2, 0, last])["a_1"] for last in (0, 3))
    assert np.array_equal(first, other)
    assert first[-1 - 12 : -1].reshape(3, 4).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_it_costs_nothing() -> None:
    def rewards(message: list[int]) -> float:
        env = with_messages(swarm_v0.parallel_env(num_agents=2, message_cost=0.5), KIND, Full())
        env.reset(seed=0)
        actions = {a: {"action": env.unwrapped.action_space(a).sample() * 0, "message": message} for a in env.agents}
        return sum(env.step(actions)[1].values())

    assert rewards([2, 0, 3]) == pytest.approx(rewards([2, 0, 0]))
    assert rewards([0, 3, 3]) - rewards([2, 0, 3]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("layout", ["dict", "flat"])
def test_it_is_a_parallel_env(layout: str) -> None:
    parallel_api_test(with_messages(swarm_v0.parallel_env(num_agents=3), KIND, Full(), layout), num_cycles=20)


def test_an_agent_acts_and_hears_in_it() -> None:
    env = with_messages(swarm_v0.parallel_env(num_agents=3), KIND, Full())
    observations, _ = env.reset(seed=0)
    agent = TinyAgent(spec_for(env, "agent_0" if "agent_0" in env.agents else env.agents[0]), 8, 2, 2, 1)
    for _ in range(5):
        actions = {}
        for name in env.agents:
            action, message = agent.act(observations[name])
            assert message is not None
            ends = np.flatnonzero(message == 0)
            assert not len(ends) or not message[ends[0] :].any()
            actions[name] = {"action": action, "message": message}
        observations, *_ = env.step(actions)


def test_those_on_the_simplex_are_refused_with_what_they_are_in_play() -> None:
    with pytest.raises(UserError, match=r"Symbols\(vocab_size=4, length=3, end_symbol=True\)"):
        with_messages(
            ScriptedEnv([{}]),
            {"kind": "symbols", "vocab_size": 4, "length": 3, "end_symbol": True, "relaxed": True},
            Full(),
        )
