"""Training without Ray's processes is the training, and its evaluations are what they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.benchmarks.small_game_world import SmallGameWorld
from popcomm.analysis.experiments.local_training import LocalTraining

from popcomm.rllib import PopulationPPOConfig
from tests.rllib.test_learner import weights
from tests.rllib.worlds import BanditWorld, ClockWorld


def small_config(**population: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(SmallGameWorld)
        .communication(messages={"kind": "symbols", "vocab_size": 4, "length": 1})
        .population(**{"agent": "mlp", **population})
        .env_runners(num_worlds_per_env_runner=40)
        .debugging(seed=3)
    )


def bandit(explore: bool) -> tuple[LocalTraining, np.ndarray]:
    config = PopulationPPOConfig().environment(BanditWorld).population(agent="mlp").debugging(seed=3)
    training = LocalTraining(config, evaluation_worlds=400)
    return training, training.evaluate(explore)[0]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("population", [{"agent": "symbolic"}, {"agent": "mlp", "members": 5}])
def test_it_gives_the_weights_of_the_algorithm(population: dict[str, Any]) -> None:
    """Also where it is looked at on the way: what an evaluation draws is its own."""
    training = LocalTraining(small_config(**population), evaluation_worlds=8)
    before = weights(training.learner.networks["player"])
    for _ in range(3):
        training.iterate()
        training.point()
    algo = small_config(**population).build_algo()
    try:
        for _ in range(3):
            result = algo.train()
        expected = next(iter(algo.learner_group.foreach_learner(lambda m: weights(m.networks["player"])))).get()
    finally:
        algo.stop()
    got = weights(training.learner.networks["player"])
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)
    assert not any(torch.equal(got[name], before[name]) for name in got if name.endswith("message_head.weight"))
    assert training.env_steps == result["num_env_steps_sampled_lifetime"]
    assert training.episodes == result["env_runners"]["num_episodes_lifetime"]


def test_greedy_takes_the_likeliest_action_and_sampled_draws() -> None:
    """Arms pay 0, .2 and 1 a step, in four steps: who never changes its mind earns four times one of them."""
    training, greedy = bandit(explore=False)
    assert len(np.unique(greedy)) == 1
    assert greedy[0, 0] == pytest.approx(4 * np.array([0, 0.2, 1])[np.abs([0, 0.8, 4] - greedy[0, 0]).argmin()])
    sampled = training.evaluate(explore=True)[0]
    assert len(np.unique(sampled.round(3))) > 5


def test_an_evaluation_is_the_same_every_time_and_follows_the_weights() -> None:
    training = LocalTraining(small_config(members=5), evaluation_worlds=27)
    assert training.evaluation_worlds == 30  # whole blocks, so that members sit equally often
    first, again = training.evaluate(explore=True)[0], training.evaluate(explore=True)[0]
    assert first.shape == (30, 3)
    assert np.array_equal(first, again)
    for _ in range(3):
        training.iterate()
    assert not np.array_equal(first, training.evaluate(explore=True)[0])


def test_every_world_plays_one_episode_whatever_its_length() -> None:
    """Worlds last 3 and 20 steps in turn, and a fragment 7: short worlds must not count twice. Seats are paid a step
    for action 1, so rewards per episode are the length for who always takes it, and 0 for who never does."""
    config = (
        PopulationPPOConfig()
        .environment(ClockWorld, env_config={"lengths": (3, 20)})
        .population(agent="mlp")
        .env_runners(rollout_fragment_length=7)
        .debugging(seed=3)
    )
    training = LocalTraining(config, evaluation_worlds=6)
    for module in training.learner.networks.values():
        head = module.agent.policy_head
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        with torch.no_grad():
            head.bias[..., 1] = 1.0
    returns, _ = training.evaluate(explore=False)
    assert returns.tolist() == [[3.0] * 4, [20.0] * 4] * 3


def test_schedules_look_at_the_steps_before_an_iteration_as_those_of_the_algorithm_do() -> None:
    """The first iteration has the first value, whatever it samples."""
    training = LocalTraining(small_config().training(lr=[[0, 1e-2], [10, 1e-3]]), evaluation_worlds=8)
    rates = [training.iterate()["player"]["default_optimizer_learning_rate"].peek() for _ in range(2)]
    assert rates == pytest.approx([1e-2, 1e-3])
