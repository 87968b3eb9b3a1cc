"""RLlib's evaluation of a population, with real Ray, and what of it is written down; the checkpoint that is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import popcomm
from popcomm.language import progress
from popcomm.rllib.checkpoints import weight_digest
from tests.system.test_algorithm import config_of

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_cluster")]


def evaluated(runners: int, **told: Any) -> Any:
    return config_of().evaluation(
        evaluation_interval=2, evaluation_duration=8, evaluation_num_env_runners=runners, **told
    )


def test_an_evaluation_is_in_results_progress_and_tensorboard_and_leaves_training_as_it_is(tmp_path: Path) -> None:
    plain, algorithm = config_of().build_algo(), evaluated(0).recording(run_dir=str(tmp_path)).build_algo()
    try:
        results = [algorithm.train() for _ in range(2)]
        for _ in range(2):
            plain.train()
        assert weight_digest(plain) == weight_digest(algorithm)
        assert "evaluation" not in results[0]
        told = results[1]["evaluation"]["env_runners"]
        found = algorithm.population().evaluate(8)
        assert told["episode_return_mean"] == found.return_mean
        assert (told["episode_return_mean_low"], told["episode_return_mean_high"]) == found.return_interval
        assert told["num_episodes"] == found.episodes == 8
        assert told["agent_episode_returns_mean"]["swarm_1"] == found.per_agent["swarm_1"].mean
    finally:
        plain.stop()
        algorithm.stop()
    curve = progress.read(tmp_path / "progress.jsonl")["evaluation/episodic_return"]
    assert np.isnan(curve[0])
    assert curve[1] == told["episode_return_mean"]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("evaluation/episodic_return")] == pytest.approx([curve[1]])


def test_evaluation_runners_share_the_episodes_out(tmp_path: Path) -> None:
    config = evaluated(2, evaluation_config={"explore": False, "env_config": {"num_agents": 5, "max_steps": 3}})
    algorithm = config.build_algo()
    try:
        told, again = (algorithm.evaluate()["env_runners"] for _ in range(2))
        assert told["num_episodes"] == 8
        assert told["episode_len_mean"] == 3
        assert set(told["agent_episode_returns_mean"]) == {f"swarm_{i}" for i in range(5)}
        assert told["episode_return_mean"] == again["episode_return_mean"]
    finally:
        algorithm.stop()


def test_a_checkpoint_holds_the_population_that_was_trained(tmp_path: Path) -> None:
    algorithm = config_of().build_algo()
    try:
        algorithm.train()
        saved = algorithm.save_to_path(str(tmp_path / "checkpoint"))
        one, other = algorithm.population(), popcomm.load(saved)
        assert other.clock.step == algorithm.env_steps > 0
        np.testing.assert_array_equal(one.evaluate(4).returns, other.evaluate(4).returns)
    finally:
        algorithm.stop()
