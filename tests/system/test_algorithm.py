"""PopulationPPO with real Ray: local and remote parts, checkpoints, faults."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.checkpoints import MANIFEST, CheckpointError, latest_valid, weight_digest
from tests.rllib.worlds import BanditWorld, ClockWorld

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_cluster")]

SYMBOLS = {"kind": "symbols", "vocab_size": 8, "length": 2}


def config_of(runners: int = 0, learners: int = 0, **changes: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 6})
        .communication(messages=SYMBOLS, topology={"kind": "k_nearest", "k": 2})
        .population(agent=changes.get("agent", "symbolic"), members=changes.get("members", 4))
        .env_runners(num_env_runners=runners, num_worlds_per_env_runner=8, rollout_fragment_length=4)
        .learners(num_learners=learners)
        .training(minibatch_size=changes.get("minibatch_size"), num_epochs=2)
        .debugging(seed=7)
    )


def breaking(runners: int) -> PopulationPPOConfig:
    """Worlds that raise in their sixth step."""
    return (
        PopulationPPOConfig()
        .environment(BanditWorld, env_config={"broken_at": 6})
        .communication(messages=None)
        .population(agent="mlp")
        .env_runners(num_env_runners=runners, num_worlds_per_env_runner=4, rollout_fragment_length=4)
    )


def digest_after(config: PopulationPPOConfig, iterations: int) -> str:
    algorithm = config.build_algo()
    try:
        for _ in range(iterations):
            algorithm.train()
        return weight_digest(algorithm)
    finally:
        algorithm.stop()


@pytest.mark.parametrize(("runners", "learners"), [(0, 0), (2, 0), (1, 1)])
def test_two_iterations_count_their_steps(runners: int, learners: int) -> None:
    algorithm = config_of(runners, learners, minibatch_size=4).build_algo()
    try:
        algorithm.train()
        result = algorithm.train()
        worlds = 8 * max(1, runners)
        # Seven of the eight steps; the eighth row only starts the worlds over (episodes of six steps).
        assert result["num_env_steps_sampled_lifetime"] == worlds * 7
        assert result["num_agent_steps_sampled_lifetime"] == worlds * 7 * 4
        assert np.isfinite(result["env_runners"]["episode_return_mean"])
        returns = result["env_runners"]["agent_episode_returns_mean"]
        assert sum(returns.values()) == pytest.approx(result["env_runners"]["episode_return_mean"], rel=1e-4)
    finally:
        algorithm.stop()


def test_the_same_seed_and_workers_give_the_same_weights() -> None:
    assert digest_after(config_of(2, 0), 3) == digest_after(config_of(2, 0), 3)


@pytest.mark.parametrize(("runners", "learners"), [(0, 0), (2, 1)])
def test_a_restored_run_continues_bit_for_bit(tmp_path: Path, runners: int, learners: int) -> None:
    straight = config_of(runners, learners, minibatch_size=4).build_algo()
    try:
        for _ in range(2):
            straight.train()
        saved = straight.save_to_path(tmp_path / "half")
        for _ in range(2):
            straight.train()
        expected = weight_digest(straight)
    finally:
        straight.stop()
    restored = PopulationPPO.from_checkpoint(saved)
    try:
        assert restored.training_iteration == 2
        for _ in range(2):
            result = restored.train()
        assert weight_digest(restored) == expected
        assert result["training_iteration"] == 4
    finally:
        restored.stop()


def test_fades_and_learning_go_on_with_another_number_of_runners(tmp_path: Path) -> None:
    """The gate has closed for good where the reward was above 0; the new runners' worlds are new ones."""

    def config(runners: int) -> PopulationPPOConfig:
        gate = {"kind": "gated", "measure": "reward", "begin": -1.0, "end": 0.01, "smoothing": 0.0}
        return (
            PopulationPPOConfig()
            .environment(ClockWorld)
            .communication(
                messages={"kind": "words", "bits": 8, "min_on": 1, "max_on": 4},
                reflexes=[{"kind": "publishing", "schedule": gate}],
            )
            .population(agent="mlp")
            .env_runners(num_env_runners=runners, num_worlds_per_env_runner=4, rollout_fragment_length=4)
            .training(num_epochs=1)
            .debugging(seed=5)
        )

    def strength(algorithm: PopulationPPO) -> float:
        return algorithm.train()["popcomm"]["channel/publishing_strength"]

    before = config(0).build_algo()
    try:
        assert [strength(before) for _ in range(2)] == [1.0, 0.0]
        before.save_to_path(str(tmp_path / "saved"))
        weights = weight_digest(before)
        fades = before.fades()
    finally:
        before.stop()
    after = config(2).build_algo()
    try:
        after.restore_from_path(str(tmp_path / "saved"))
        assert weight_digest(after) == weights
        assert after.fades() == fades
        # As if no reward had been seen: what closed stays closed, in both runners.
        after.performance = {"reward": -5.0}
        assert strength(after) == 0.0
        assert [f[0]["lowest"] for f in after.foreach_sampling_runner(lambda runner: runner.fades())] == [0.0, 0.0]
    finally:
        after.stop()


def test_two_learners_learn_what_one_learns_from_the_same_batch() -> None:
    """Whole batches, no minibatches: the same sums in another order."""
    weights = []
    for learners in (1, 2):
        algorithm = config_of(2, learners).build_algo()
        try:
            algorithm.train()
            weights.append(algorithm.learner_group.get_weights()["swarm"])
        finally:
            algorithm.stop()
    for name in weights[0]:
        np.testing.assert_allclose(weights[0][name], weights[1][name], atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    algorithm = config_of(members=1).build_algo()
    try:
        algorithm.train()
        return Path(algorithm.save_to_path(tmp_path_factory.mktemp("saved") / "checkpoint"))
    finally:
        algorithm.stop()


def test_every_damaged_file_is_refused_by_name(checkpoint: Path, tmp_path: Path) -> None:
    files = [f.relative_to(checkpoint) for f in sorted(checkpoint.rglob("*")) if f.is_file() and f.name != MANIFEST]
    assert len(files) > 5
    for number, name in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(checkpoint, copy)
        content = (copy / name).read_bytes()
        damages = {"cut": content[:-1], "flipped": bytes([content[0] ^ 1]) + content[1:]}
        for damage in damages.values():
            (copy / name).write_bytes(damage)
            with pytest.raises(CheckpointError, match=str(name)):
                PopulationPPO.from_checkpoint(copy)
        (copy / name).unlink()
        with pytest.raises(CheckpointError, match=f"lacks the file {name}"):
            PopulationPPO.from_checkpoint(copy)
        shutil.rmtree(copy)


def test_a_half_written_checkpoint_is_passed_over_for_the_last_whole_one(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "checkpoint_000001")
    shutil.copytree(checkpoint, tmp_path / "checkpoint_000002")
    (tmp_path / "checkpoint_000002" / MANIFEST).unlink()
    assert latest_valid(tmp_path) == tmp_path / "checkpoint_000001"
    assert latest_valid(tmp_path / "nowhere") is None
    with pytest.raises(CheckpointError, match="not completely written"):
        PopulationPPO.from_checkpoint(tmp_path / "checkpoint_000002")


def test_other_weights_than_the_manifests_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    manifest = (other / MANIFEST).read_text()
    (other / MANIFEST).write_text(manifest.replace('"weights": "', '"weights": "0'))
    with pytest.raises(CheckpointError, match="not those that were saved"):
        PopulationPPO.from_checkpoint(other)


def test_a_folder_with_other_things_is_not_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    from popcomm.rllib import checkpoints

    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="holds something that is no checkpoint"):
        checkpoints.save(None, lambda path: path, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_failed_save_leaves_the_older_checkpoint_and_no_rubbish(checkpoint: Path, tmp_path: Path) -> None:
    from popcomm.rllib import checkpoints

    target = tmp_path / "kept"
    shutil.copytree(checkpoint, target)

    def write(path: str) -> str:
        (Path(path) / "part").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(None, write, target)
    checkpoints.verify(target)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("runners", [0, 1])
def test_an_environments_own_error_reaches_the_user(runners: int) -> None:
    algorithm = breaking(runners).build_algo()
    try:
        algorithm.train()
        with pytest.raises(Exception, match="the bandit's arm came off"):
            algorithm.train()
    finally:
        algorithm.stop()


@pytest.mark.parametrize("runners", [0, 1])
def test_worlds_that_fail_are_made_anew_where_that_is_asked_for(runners: int) -> None:
    """The arm comes off in the sixth step: every second fragment of four steps fails, and the others train."""
    config = breaking(runners).fault_tolerance(restart_failed_sub_environments=True, max_empty_iterations=2)
    algorithm = config.build_algo()
    try:
        results = [algorithm.train() for _ in range(4)]
        assert results[-1]["num_env_steps_sampled_lifetime"] == 2 * 4 * 4
    finally:
        algorithm.stop()


def test_an_older_checkpoint_restored_into_a_running_algorithm_reaches_the_runners(tmp_path: Path) -> None:
    algorithm = config_of(2).build_algo()
    try:
        algorithm.train()
        saved = algorithm.save_to_path(tmp_path / "one")
        expected = algorithm.train()["env_runners"]["reward_mean"]
        weights = weight_digest(algorithm)
        algorithm.train()
        algorithm.restore_from_path(saved)
        assert algorithm.train()["env_runners"]["reward_mean"] == expected
        assert weight_digest(algorithm) == weights
    finally:
        algorithm.stop()


def test_lost_runners_end_the_training_instead_of_counting_empty_iterations() -> None:
    config = config_of(1).fault_tolerance(restart_failed_env_runners=False, max_empty_iterations=2)
    config.ignore_env_runner_failures = True
    algorithm = config.build_algo()
    try:
        algorithm.train()
        algorithm.env_runner_group.foreach_env_runner(_die, local_env_runner=False)
        with pytest.raises(Exception, match="brought no samples"):
            _train(algorithm, 4)
    finally:
        algorithm.stop()


def _train(algorithm: PopulationPPO, iterations: int) -> None:
    for _ in range(iterations):
        algorithm.train()


def _die(runner: Any) -> None:
    import os

    os._exit(1)


def test_a_lost_runner_comes_back() -> None:
    config = config_of(2).fault_tolerance(restart_failed_env_runners=True)
    algorithm = config.build_algo()
    try:
        algorithm.train()
        algorithm.env_runner_group.foreach_env_runner(_die, local_env_runner=False, remote_worker_ids=[1])
        for _ in range(20):
            result = algorithm.train()
            if result["fault_tolerance"]["num_healthy_workers"] == 2:
                break
        assert result["fault_tolerance"]["num_healthy_workers"] == 2
        assert result["fault_tolerance"]["num_remote_worker_restarts"] >= 1
    finally:
        algorithm.stop()


def test_a_species_loads_weights_from_a_checkpoint_of_its_own() -> None:
    config = (
        PopulationPPOConfig()
        .environment(ClockWorld)
        .communication(messages=SYMBOLS)
        .population(agent="mlp")
        .env_runners(num_worlds_per_env_runner=4, rollout_fragment_length=4)
    )
    trained = config.copy().debugging(seed=1).build_algo()
    fresh = config.copy().debugging(seed=2).build_algo()
    try:
        trained.train()
        path = trained.save_to_path()
        fresh.restore_from_path(
            f"{path}/learner_group/learner/rl_module/speaker", component="learner_group/learner/rl_module/speaker"
        )
        theirs, ours = trained.learner_group.get_weights(), fresh.learner_group.get_weights()
        for name, value in theirs["speaker"].items():
            np.testing.assert_array_equal(value, ours["speaker"][name])
        assert any(not np.array_equal(v, ours["listener"][n]) for n, v in theirs["listener"].items())
    finally:
        trained.stop()
        fresh.stop()


def test_species_cannot_be_removed_from_a_running_population() -> None:
    algorithm = config_of(members=1).build_algo()
    try:
        with pytest.raises(UserError, match="share a world"):
            algorithm.remove_module("swarm")
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ({"agents": 12}, r"env_config .*'num_agents', 4\)\], not .*'num_agents', 12\)\]"),
        ({"worlds": 4}, "num_worlds_per_env_runner 8, not 4"),
        ({"runners": 2}, "1 runners, not 2"),
    ],
)
def test_learning_goes_on_with_other_seats_worlds_or_runners_in_new_episodes(
    then: dict[str, int], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = config_of().build_algo()
    try:
        first.train()
        saved, weights = first.save_to_path(tmp_path / "few"), weight_digest(first)
        env_steps = first.env_steps
    finally:
        first.stop()
    config = config_of(runners=then.get("runners", 0))
    config.environment(env_config={"num_agents": then.get("agents", 4), "max_steps": 6})
    config.env_runners(num_worlds_per_env_runner=then.get("worlds", 8))
    second = config.build_algo()
    try:
        second.train()  # in the middle of episodes that are not those of the checkpoint
        with caplog.at_level("WARNING"):
            second.restore_from_path(saved)
        assert [r for r in caplog.records if re.search(f"have {said}: .* start new episodes", r.message)]
        assert weight_digest(second) == weights
        assert (second.training_iteration, second.env_steps) == (1, env_steps)
        result = second.train()
        assert result["training_iteration"] == 2
        # Four steps of all worlds: the first of them opens episodes of six.
        sampled = then.get("worlds", 8) * then.get("runners", 1) * 4
        assert result["num_env_steps_sampled_lifetime"] == env_steps + sampled
        assert weight_digest(second) != weights
    finally:
        second.stop()
