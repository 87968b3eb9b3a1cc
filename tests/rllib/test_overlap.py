"""What overlap cannot be told, and what is held of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.answers import Sampled
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.fragment import nbytes
from popcomm.rllib.overlap import Ahead


def config_of(**runners: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 6})
        .communication(messages={"kind": "symbols", "vocab_size": 8, "length": 2})
        .population(members=4)
        .env_runners(**{"num_worlds_per_env_runner": 4, "rollout_fragment_length": 4, **runners})
        .debugging(seed=3)
    )


def test_overlap_is_off_unless_it_is_asked_for_and_configs_of_before_have_none() -> None:
    assert config_of().overlap is False
    assert PopulationPPOConfig.overlap is False


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (config_of(overlap=True), "overlap is true, and env_runners.num_env_runners is 0: one process"),
        (config_of(overlap="yes", num_env_runners=1), "env_runners.overlap is 'yes'"),
        (
            config_of(overlap=True, num_env_runners=1).survival(strategy={"kind": "top_k", "k": 2}, every=1),
            "survival.every is 1",
        ),
        (config_of(overlap=True, num_env_runners=1).acceleration(autocast="bf16"), "autocast is 'bf16'"),
        (
            config_of(overlap=True, num_env_runners=1).population(agent="bottom_up", members=1, seating="worlds"),
            "networks of population.agent .* change their parts",
        ),
    ],
)
def test_where_it_has_no_effect_or_cannot_be_it_is_refused(config: PopulationPPOConfig, said: str) -> None:
    with pytest.raises(UserError, match=said):
        config.validate()


def test_it_goes_with_runners_and_with_generations_of_several_iterations() -> None:
    config = config_of(overlap=True, num_env_runners=2).survival(strategy={"kind": "top_k", "k": 2}, every=2)
    config.validate()
    assert config.overlap is True


@pytest.fixture(scope="module")
def sampled() -> tuple[PopulationPPOConfig, Sampled]:
    config = config_of()
    config.validate()
    runner = PopulationEnvRunner(config=config)
    answer = runner.sample_or_say_why(False)
    assert isinstance(answer, Sampled)
    return config, answer


def test_what_is_held_is_the_same_after_a_checkpoint(sampled: tuple[PopulationPPOConfig, Sampled]) -> None:
    config, answer = sampled
    before, after, metrics = Ahead(config), Ahead(config), MetricsLogger(root=True)
    before._held = [answer]
    after.set_state(before.get_state(), metrics)
    assert after._held is not None
    [found] = after._held
    assert isinstance(found, Sampled)
    arrays, expected = found.batch.policy_batches["swarm"], answer.batch.policy_batches["swarm"]
    assert arrays.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array)
    assert nbytes(found.batch) == nbytes(answer.batch)
    assert found.batch.env_steps() == answer.batch.env_steps() == answer.steps
    assert (found.rows, found.performance, found.members) == (answer.rows, answer.performance, answer.members)
    told = [MetricsLogger(root=True), MetricsLogger(root=True)]
    for logger, one in zip(told, (answer, found), strict=True):
        logger.aggregate([one.metrics])
    assert told[0].reduce(compile=True) == told[1].reduce(compile=True)


def test_nothing_is_held_where_nothing_was(sampled: tuple[PopulationPPOConfig, Sampled]) -> None:
    ahead = Ahead(sampled[0])
    ahead._held = [sampled[1]]
    ahead.set_state([], MetricsLogger())
    assert ahead._held is None
    assert ahead.get_state() == []
    assert ahead.scalars() == {}
