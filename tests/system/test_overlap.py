"""Overlap with real Ray: one update behind, the same bits, resumed bit for bit, and rollouts past the driver."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pyarrow.parquet as pq
import pytest
import ray
from ray.rllib.policy.sample_batch import MultiAgentBatch

from popcomm.language.recording import conversation_path
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.checkpoints import weight_digest
from popcomm.rllib.fragment import nbytes

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_cluster")]

BEHIND = "charts/updates_behind"


def config_of(runners: int = 1, learners: int = 0, worlds: int = 8, **training: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 6})
        .communication(messages={"kind": "symbols", "vocab_size": 8, "length": 2})
        .population(members=4)
        .env_runners(num_env_runners=runners, num_worlds_per_env_runner=worlds, rollout_fragment_length=4, overlap=True)
        .learners(num_learners=learners)
        .training(**training)
        .debugging(seed=7)
    )


def told(algorithm: PopulationPPO, iterations: int) -> list[dict[str, Any]]:
    return [algorithm.train()["popcomm"] for _ in range(iterations)]


def results_of(config: PopulationPPOConfig, iterations: int) -> list[dict[str, Any]]:
    algorithm = config.build_algo()
    try:
        return told(algorithm, iterations)
    finally:
        algorithm.stop()


def test_runners_are_one_update_behind_and_the_clock_is_that_of_taking_turns() -> None:
    """Of a population that cannot learn, every fragment is of the first weights: the first two are those of overlap."""
    ahead = results_of(config_of(), 3)
    still = results_of(config_of(lr=0.0).env_runners(overlap=False), 3)
    taking_turns = results_of(config_of().env_runners(overlap=False), 2)
    rewards = [line["charts/reward"] for line in ahead]
    assert rewards[:2] == [line["charts/reward"] for line in still[:2]]
    assert rewards[2] != still[2]["charts/reward"]
    assert taking_turns[1]["charts/reward"] != still[1]["charts/reward"]
    assert [line["env_steps"] for line in ahead] == [line["env_steps"] for line in still]
    assert [line[BEHIND] for line in ahead] == [0, 1, 1]
    assert BEHIND not in still[0]


def test_the_same_bits_again_and_after_a_checkpoint_which_holds_what_was_sampled_ahead(tmp_path: Path) -> None:
    def config(folder: str) -> PopulationPPOConfig:
        return config_of(2, minibatch_size=4).recording(run_dir=str(tmp_path / folder), conversation_every=1)

    straight = config("straight").build_algo()
    try:
        told(straight, 4)
        expected, steps = weight_digest(straight), straight.env_steps
    finally:
        straight.stop()
    first = config("resumed").build_algo()
    try:
        told(first, 2)
        saved = first.save_to_path(tmp_path / "half")
        told(first, 1)  # of which the run folder is freed again
    finally:
        first.stop()
    restored = PopulationPPO.from_checkpoint(saved, config=config("resumed"))
    try:
        assert told(restored, 2)[0][BEHIND] == 1
        assert (weight_digest(restored), restored.env_steps) == (expected, steps)
    finally:
        restored.stop()
    for iteration in range(1, 5):
        one, two = (pq.read_table(conversation_path(tmp_path / run, iteration)) for run in ("straight", "resumed"))
        assert set(one["iteration"].to_pylist()) <= {iteration - 1, iteration}
        assert one.equals(two)


def test_no_rollout_passes_the_driver_and_weights_are_put_once_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = config_of(2, 1, worlds=256, num_epochs=1).build_algo()
    try:
        told(algorithm, 1)
        got: list[Any] = []
        put: list[Any] = []
        get, keep = ray.get, ray.put
        monkeypatch.setattr(ray, "get", lambda *args, **kwargs: got.append(get(*args, **kwargs)) or got[-1])
        monkeypatch.setattr(ray, "put", lambda value, *args: put.append(value) or keep(value, *args))
        told(algorithm, 1)
        monkeypatch.undo()
        assert algorithm.ahead._held is not None
        batches = [ray.get(answer.batch) for answer in algorithm.ahead._held]  # type: ignore[union-attr]
        rollouts = sum(nbytes(batch) for batch in batches)
        assert not any(isinstance(value, MultiAgentBatch) for value in got)
        assert sum(len(cloudpickle.dumps(value)) for value in got) < rollouts / 2
        assert [set(value) for value in put] == [{"rl_module", "weights_seq_no"}]
    finally:
        algorithm.stop()


def test_nothing_is_sampled_ahead_of_a_generation_that_ends() -> None:
    config = config_of().survival(strategy={"kind": "top_k", "k": 2}, every=2)
    assert [line[BEHIND] for line in results_of(config, 4)] == [0, 1, 0, 1]


def test_what_was_sampled_ahead_is_sampled_anew_where_its_runner_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    config = config_of().fault_tolerance(restart_failed_env_runners=True, max_empty_iterations=1000)
    algorithm = config.build_algo()
    try:
        told(algorithm, 1)
        steps, held = algorithm.env_steps, algorithm.ahead._held
        assert held is not None
        algorithm.env_runner_group.foreach_env_runner(_die, local_env_runner=False)
        [line] = told(algorithm, 1)
        end = time.monotonic() + 60  # a process is begun anew meanwhile
        while line["env_steps"] == steps and time.monotonic() < end:
            time.sleep(0.2)
            [line] = told(algorithm, 1)
        assert (line["env_steps"] > steps, line[BEHIND]) == (True, 0)
        assert told(algorithm, 1)[0][BEHIND] == 1
        assert "what env runner 1 sampled ahead is lost with its process" in caplog.text
    finally:
        algorithm.stop()


def _die(runner: Any) -> None:
    os._exit(1)
