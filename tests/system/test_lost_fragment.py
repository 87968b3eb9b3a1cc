"""Runners whose processes end while nobody asks them: before the learners have what they sampled, and after."""

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


def config_of(learners: int) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 6})
        .communication(messages={"kind": "symbols", "vocab_size": 8, "length": 2})
        .env_runners(num_env_runners=2, num_worlds_per_env_runner=4, rollout_fragment_length=4)
        .learners(num_learners=learners)
        .fault_tolerance(max_empty_iterations=100)
        .training(num_epochs=1)
        .debugging(seed=7)
    )


def algorithm_of(learners: int) -> PopulationPPO:
    return config_of(learners).build_algo()


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


def lives(folder: Path) -> set[str]:
    """Processes that have made worlds, each of which leaves a file."""
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("overlap", [False, True])
def test_runners_that_ray_began_anew_unnoticed_are_given_weights_before_they_act(
    overlap: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recreated: list[int] = []
    acted = tmp_path / "acted"

    def made(env_runner: Any, **_: Any) -> None:
        if env_runner.worker_index:
            (tmp_path / str(os.getpid())).touch()

    def ends(env_runner: Any, **_: Any) -> None:  # with the weights it has
        weights = sum(float(p.detach().double().sum()) for p in env_runner.agent("swarm").parameters())
        with acted.open("a") as file:
            file.write(f"{env_runner.worker_index} {weights!r}\n")

    algorithm = (
        config_of(0)
        .env_runners(overlap=overlap)
        .callbacks(
            on_environment_created=made,
            on_sample_end=ends,
            on_env_runners_recreated=lambda env_runner_indices, **_: recreated.extend(env_runner_indices),
        )
        .build_algo()
    )
    try:
        algorithm.train()
        before, processes = lives(tmp_path), algorithm.foreach_sampling_runner(lambda runner: os.getpid())
        for process in processes:
            os.kill(process, signal.SIGKILL)
        end = time.monotonic() + 60
        while len(lives(tmp_path) - before) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1.0)  # until they are there for good
        beginning = {line.split()[1] for line in acted.read_text().splitlines()[:2]}
        acted.write_text("")
        learned = weight_digest(algorithm)
        for _ in range(3):
            result = algorithm.train()["popcomm"]
        assert weight_digest(algorithm) != learned
        assert recreated == [1, 2]
        assert (result["charts/env_runners"], result["charts/env_runner_restarts"]) == (2, 2)
        assert sum("is lost" in message for message in caplog.messages) >= 2
        # Both act with the same weights, and never with those of the beginning.
        told = [line.split() for line in acted.read_text().splitlines()]
        assert [runner for runner, _ in told].count("1") == [runner for runner, _ in told].count("2") >= 2
        by_runner = [[weights for runner, weights in told if runner == of] for of in "12"]
        assert by_runner[0] == by_runner[1]
        assert not beginning & set(by_runner[0])
    finally:
        algorithm.stop()
