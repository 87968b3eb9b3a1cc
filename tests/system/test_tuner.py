"""Tune as RLlib's users write it: a config as param_space, the algorithm by its name, PBT with old and new actors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining

from popcomm.language import progress
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.checkpoints import weight_digest

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_cluster")]

REWARD = "popcomm/charts/reward"


def config_of(**env_config: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 6, **env_config})
        .communication(messages={"kind": "symbols", "vocab_size": 4, "length": 1})
        .population(agent="mlp", members=2)
        .env_runners(num_worlds_per_env_runner=4, rollout_fragment_length=4)
        .training(num_epochs=1)
        .debugging(seed=1)
    )


def fit(trainable: Any, space: Any, folder: Path, iterations: int, **how: Any) -> Any:
    run = tune.RunConfig(stop={"training_iteration": iterations}, storage_path=str(folder), verbose=0)
    results = tune.Tuner(trainable, param_space=space, tune_config=tune.TuneConfig(**how), run_config=run).fit()
    assert not results.errors
    return results


def test_every_trial_of_a_nested_search_records_in_its_own_folder(tmp_path: Path) -> None:
    """By name, and ended early by ASHA or not."""
    config = config_of(num_agents=tune.grid_search([2, 4])).population(agent_config={"hidden": tune.choice([8])})
    config.recording(run_dir=str(tmp_path / "the same for all"), picture_every=0)
    scheduler = ASHAScheduler(metric=REWARD, mode="max", max_t=3, grace_period=1)
    results = fit("PopulationPPO", config, tmp_path / "store", 3, scheduler=scheduler)
    seats = set()
    for result in results:
        lines = progress.read(Path(result.path) / "progress.jsonl")
        assert lines["iteration"].tolist() == list(range(1, result.metrics["training_iteration"] + 1))
        seats.add(result.config["env_config"]["num_agents"])
        assert lines["agent_steps"].iloc[0] == 4 * 4 * result.config["env_config"]["num_agents"]
    assert seats == {2, 4}
    assert not (tmp_path / "the same for all").exists()


def test_pbt_in_actors_that_are_used_again_ends_and_trains_with_what_it_mutates(tmp_path: Path) -> None:
    config = config_of().training(lr=tune.grid_search([1e-3, 2e-3])).recording(run_dir="here", picture_every=0)
    scheduler = PopulationBasedTraining(
        metric=REWARD,
        mode="max",
        time_attr="training_iteration",
        perturbation_interval=2,
        quantile_fraction=0.5,
        resample_probability=1.0,
        hyperparam_mutations={"lr": lambda: 5e-3},
        synch=True,
    )
    results = fit(PopulationPPO, config, tmp_path, 3, scheduler=scheduler, reuse_actors=True)
    mutated = set()
    for result in results:
        assert result.metrics["training_iteration"] == 3
        lines = progress.read(Path(result.path) / "progress.jsonl")
        assert lines["iteration"].tolist() == [1, 2, 3]
        assert lines["losses/learning_rate"].iloc[-1] == pytest.approx(result.config["lr"])
        mutated.add(result.config["lr"])
    assert 5e-3 in mutated


def test_an_algorithm_that_is_reset_is_one_that_was_built_anew() -> None:
    def digest(algorithm: PopulationPPO) -> str:
        algorithm.train()
        return weight_digest(algorithm)

    changes = {"lr": 0.01, "members": 4, "seed": 5}
    used = config_of().build_algo()
    try:
        used.train()
        assert used.reset({**config_of().to_dict(), **changes})
        assert used.iteration == 0
        again = digest(used)
    finally:
        used.stop()
    built = config_of().training(lr=0.01).population(members=4).debugging(seed=5).build_algo()
    try:
        assert digest(built) == again
    finally:
        built.stop()
