"""Runners whose processes end while nobody asks them: before the learners have what they sampled, and after."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from popcomm.rllib import PopulationPPO, PopulationPPOConfig, learners
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


def weights_of(agent: Any) -> float:
    """A number that tells networks apart."""
    return sum(float(p.detach().double().sum()) for p in agent.parameters())


def test_all_begin_with_the_learners_weights_with_a_seed_or_without() -> None:
    algorithm = config_of(0).debugging(seed=None).build_algo()
    try:
        learned = learners.ask(algorithm.learner_group, lambda learner: weights_of(learner.networks["swarm"].agent))
        assert learned * 2 == algorithm.foreach_sampling_runner(lambda runner: weights_of(runner.agent("swarm")))
    finally:
        algorithm.stop()


def kill(algorithm: PopulationPPO, runners: list[int]) -> None:
    """End the processes of some runners, and wait until Ray has begun them anew, which nobody is to notice."""
    processes = dict(algorithm.foreach_sampling_runner(lambda runner: (runner.worker_index, os.getpid())))
    actors = algorithm.env_runner_group._worker_manager.actors()  # past what would notice
    for runner in runners:
        os.kill(processes[runner], signal.SIGKILL)
    end = time.monotonic() + 60
    for runner in runners:
        found = processes[runner]
        while found == processes[runner] and time.monotonic() < end:
            try:
                found = ray.get(actors[runner].apply.remote(lambda _: os.getpid()))
            except RayError:  # it is not there yet
                time.sleep(0.1)


@pytest.mark.parametrize(("overlap", "lost"), [(False, [1, 2]), (True, [1, 2]), (True, [2])])
def test_runners_that_ray_began_anew_unnoticed_are_given_weights_before_they_act(
    overlap: bool, lost: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recreated: list[int] = []
    acted = tmp_path / "acted"

    def ends(env_runner: Any, **_: Any) -> None:  # with the weights it has
        with acted.open("a") as file:
            file.write(f"{env_runner.worker_index} {weights_of(env_runner.agent('swarm'))!r}\n")

    config = config_of(0).env_runners(overlap=overlap)
    config.callbacks(
        on_sample_end=ends,
        on_env_runners_recreated=lambda env_runner_indices, **_: recreated.extend(env_runner_indices),
    )
    algorithm = config.build_algo()
    try:
        algorithm.train()
        beginning = {line.split()[1] for line in acted.read_text().splitlines()[:2]}
        kill(algorithm, lost)
        acted.write_text("")
        learned = weight_digest(algorithm)
        for _ in range(3):
            result = algorithm.train()["popcomm"]
        assert weight_digest(algorithm) != learned
        assert recreated == lost
        assert (result["charts/env_runners"], result["charts/env_runner_restarts"]) == (2, len(lost))
        if not overlap:
            assert sum("its process ended, and it is begun anew" in message for message in caplog.messages) == 2
        # All act with weights that others act with too, and never with those of the beginning.
        told = [line.split() for line in acted.read_text().splitlines()]
        first, second = ([weights for runner, weights in told if runner == of] for of in "12")
        assert len(second) >= 2
        assert set(second) <= set(first)
        assert len(beginning) == 1
        assert not beginning & {*first, *second}
    finally:
        algorithm.stop()
