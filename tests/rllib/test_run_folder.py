"""Whose a run folder is: one algorithm's, from when it is built until it is stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from popcomm.analysis.faults.local_run import without_ray
from pyarrow.fs import LocalFileSystem
from ray.rllib.algorithms.ppo.ppo import PPO

from popcomm.errors import UserError
from popcomm.manifest import MANIFEST, CheckpointError
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.run_lock import LOCK, taken


@pytest.fixture(autouse=True)
def _no_ray() -> Iterator[None]:
    with without_ray():
        yield


def config_of(run_dir: Path) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 3, "max_steps": 4})
        .population(agent="mlp")
        .env_runners(num_env_runners=0, num_worlds_per_env_runner=2, rollout_fragment_length=4)
        .training(num_epochs=1)
        .recording(run_dir=run_dir, conversation_every=0, picture_every=0)
        .debugging(seed=1)
    )


def test_a_second_algorithm_is_refused_in_a_sentence_until_the_first_is_stopped(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = config_of(run_dir).build_algo()
    first.train()
    assert json.loads((run_dir / LOCK).read_text())["pid"] == os.getpid()
    with pytest.raises(UserError) as caught:
        config_of(run_dir).build_algo()
    said = str(caught.value)
    assert said.startswith(f"recording.run_dir {run_dir} is in use by the process {os.getpid()} on ")
    assert said.endswith("; stop() the algorithm that has it, or name another folder")
    first.train()
    first.stop()
    assert sorted(path.name for path in run_dir.iterdir()) == ["progress.jsonl", "tensorboard"]
    second = config_of(run_dir).build_algo()
    second.stop()
    second.stop()
    assert not (run_dir / LOCK).exists()


def test_a_folder_is_taken_again_by_what_is_restored_into_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = config_of(run_dir).build_algo()
    first.train()
    saved = Path(first.save_to_path(tmp_path / "saved"))
    with pytest.raises(UserError, match="is in use by the process"):
        PopulationPPO.from_checkpoint(saved, config=config_of(run_dir))
    beside = PopulationPPO.from_checkpoint(saved)  # records nowhere
    beside.stop()
    assert (run_dir / LOCK).is_file()
    first.stop()
    again = PopulationPPO.from_checkpoint(saved, config=config_of(run_dir))
    again.train()
    assert (run_dir / LOCK).is_file()
    again.stop()
    assert not (run_dir / LOCK).exists()


def test_what_comes_to_no_algorithm_leaves_the_folder_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = config_of(tmp_path / "first").build_algo()
    saved = Path(first.save_to_path(tmp_path / "saved"))
    first.stop()
    told = json.loads((saved / MANIFEST).read_text())
    (saved / MANIFEST).write_text(json.dumps({**told, "weights": "others"}))
    with pytest.raises(CheckpointError, match="are not those that were saved"):
        PopulationPPO.from_checkpoint(saved, config=config_of(tmp_path / "run"))

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no road")

    monkeypatch.setattr(PPO, "setup", fail)
    with pytest.raises(RuntimeError, match="no road"):
        config_of(tmp_path / "run").build_algo()
    assert not (tmp_path / "run").exists()


def test_runners_and_evaluation_need_no_folder_of_their_own(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    config.evaluation(evaluation_interval=1, evaluation_num_env_runners=0, evaluation_duration=1)
    algorithm = config.build_algo()
    PopulationEnvRunner(config=algorithm.config, worker_index=1).sample()
    algorithm.train()
    algorithm.stop()
    assert not (tmp_path / "run" / LOCK).exists()


def test_the_folder_of_a_command_stays_its_own_when_what_it_trained_is_stopped(tmp_path: Path) -> None:
    with taken(tmp_path / "run"):
        algorithm = config_of(tmp_path / "run").build_algo()
        algorithm.train()
        algorithm.stop()
        assert (tmp_path / "run" / LOCK).is_file()
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_trial_of_tunes_records_in_its_own_folder_and_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # since a trial goes elsewhere
    first = config_of(tmp_path / "run").build_algo()
    storage = SimpleNamespace(
        storage_filesystem=LocalFileSystem(),
        trial_fs_path=str(tmp_path / "trial"),
        trial_working_directory=str(tmp_path / "work"),
        persist_artifacts=lambda: None,
    )
    trial = PopulationPPO(config=config_of(tmp_path / "run"), storage=storage)
    trial.train()
    assert (tmp_path / "trial/progress.jsonl").is_file()
    assert not (tmp_path / "trial" / LOCK).exists()
    for algorithm in (first, trial):
        algorithm.stop()
