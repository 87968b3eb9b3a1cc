"""A runner whose process ends after it has sampled, before the learners have what it sampled."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.checkpoints import weight_digest

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_cluster")]


def algorithm_of(learners: int) -> PopulationPPO:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 6})
        .communication(messages={"kind": "symbols", "vocab_size": 8, "length": 2})
        .env_runners(num_env_runners=2, num_worlds_per_env_runner=4, rollout_fragment_length=4)
        .learners(num_learners=learners)
        .fault_tolerance(max_empty_iterations=100)
        .training(num_epochs=1)
        .debugging(seed=7)
        .build_algo()
    )


def lose_before_learning(algorithm: PopulationPPO, runners: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the next iteration the processes of some runners end once all have answered."""
    sample = algorithm._sample
    processes = algorithm.foreach_sampling_runner(lambda runner: os.getpid())

    def sample_and_lose() -> Any:
        sampled = sample()
        monkeypatch.undo()
        for runner in runners:
            os.kill(processes[runner - 1], signal.SIGKILL)
            while Path(f"/proc/{processes[runner - 1]}").exists():
                time.sleep(0.05)
        time.sleep(2.0)  # until Ray has noticed, and freed what they kept
        return sampled

    monkeypatch.setattr(algorithm, "_sample", sample_and_lose)


@pytest.mark.parametrize("learners", [0, 2])
def test_training_goes_on_with_what_the_other_runner_sampled_or_samples_anew(
    learners: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    algorithm = algorithm_of(learners)
    try:
        algorithm.train()
        before = weight_digest(algorithm)
        lose_before_learning(algorithm, [2], monkeypatch)
        algorithm.train()
        assert weight_digest(algorithm) != before
        assert caplog.messages.count("what env runner 2 sampled is lost with its process") == 1

        end = time.monotonic() + 60  # a process is begun anew meanwhile
        while algorithm.train()["popcomm"]["charts/env_runners"] < 2 and time.monotonic() < end:
            time.sleep(0.2)
        before = weight_digest(algorithm)
        lose_before_learning(algorithm, [1, 2], monkeypatch)
        algorithm.train()
        assert weight_digest(algorithm) == before
        while weight_digest(algorithm) == before and time.monotonic() < end + 60:
            algorithm.train()
            time.sleep(0.2)
        assert weight_digest(algorithm) != before
    finally:
        algorithm.stop()
