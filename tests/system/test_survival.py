"""Survival with real Ray: checkpoints, remote runners, several learners, and what a run folder has of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from popcomm.language import progress
from popcomm.language.recording import read_conversations
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.checkpoints import CheckpointError, weight_digest

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_cluster")]


def config_of(runners: int = 0, learners: int = 0, run_dir: Path | None = None, **survival: Any) -> PopulationPPOConfig:
    mutated = {} if survival.get("newborns") == "imitate" else {"mutation_std": 0.05}  # those begin with new weights
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 2, "max_steps": 3})
        .communication(messages={"kind": "symbols", "vocab_size": 8, "length": 2})
        .population(agent="symbolic", members=4, agent_config={"hidden_dim": 8})
        .survival(**{"strategy": {"kind": "top_k", "k": 2}, "every": 2, **mutated, **survival})
        .env_runners(num_env_runners=runners, num_worlds_per_env_runner=8, rollout_fragment_length=4)
        .learners(num_learners=learners)
        .training(minibatch_size=4, num_epochs=1)
        .recording(run_dir=run_dir, conversation_every=0, picture_every=0)
        .debugging(seed=7)
    )


def tree(algorithm: PopulationPPO) -> pd.DataFrame:
    assert algorithm.survival is not None
    return pd.DataFrame(algorithm.survival.table())


@pytest.mark.parametrize(("runners", "learners"), [(0, 0), (2, 1)])
def test_a_restored_selection_goes_on_bit_for_bit_with_the_same_family_tree(
    tmp_path: Path, runners: int, learners: int
) -> None:
    survival = {"crossover": 0.3, "hyperparameters": {"lr": [0.5, 2.0]}}
    straight = config_of(runners, learners, **survival).build_algo()
    try:
        for _ in range(3):  # in the middle of a generation
            straight.train()
        folder = straight.save_to_path(tmp_path / "checkpoint")
        for _ in range(3):
            straight.train()
        weights, family = weight_digest(straight), tree(straight)
    finally:
        straight.stop()
    restored = PopulationPPO.from_checkpoint(folder)
    try:
        for _ in range(3):
            restored.train()
        assert weight_digest(restored) == weights
        pd.testing.assert_frame_equal(tree(restored), family)
        assert family.generation.max() == 3
    finally:
        restored.stop()


def test_two_learners_have_equal_populations_after_a_generation() -> None:
    algorithm = config_of(0, 2, newborns="imitate").build_algo()
    try:
        for _ in range(3):
            algorithm.train()

        def weights(learner: Any) -> dict[str, np.ndarray]:
            return learner.module.get_state()["swarm"]

        first, second = (answer.get() for answer in algorithm.learner_group.foreach_learner(weights))
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert tree(algorithm).birth.max() == 1
    finally:
        algorithm.stop()


def test_a_setting_that_changes_what_networks_are_made_of_is_named_where_a_run_is_resumed_with_it(
    tmp_path: Path,
) -> None:
    def asking(**survival: Any) -> PopulationPPOConfig:
        return config_of(**survival).training(quality_coeff=0.0)

    same = {"hyperparameters": {"lr": [0.5, 2.0]}}
    algorithm = asking(**same).build_algo()
    try:
        algorithm.train()
        algorithm.save_to_path(tmp_path)
    finally:
        algorithm.stop()
    others = {
        "lacks lessons of newborns that imitate there, which survival.newborns": asking(newborns="imitate", **same),
        "has learning rates of each member there, which survival.hyperparameters": asking(),
        "lacks a head .* there, which training.quality_coeff": config_of(**same).training(quality_coeff=0.5),
    }
    for said, config in others.items():
        with pytest.raises(CheckpointError, match=f"does not fit this population: species 'swarm' {said}"):
            PopulationPPO.from_checkpoint(tmp_path, config=config)
    # Other bounds are nothing that networks are made of.
    PopulationPPO.from_checkpoint(tmp_path, config=asking(hyperparameters={"lr": [0.25, 4.0]})).stop()


def test_a_run_folder_has_the_lineage_and_what_members_came_to(tmp_path: Path) -> None:
    algorithm = config_of(run_dir=tmp_path).recording(conversation_every=3).build_algo()
    try:
        results = [algorithm.train() for _ in range(4)]
    finally:
        algorithm.stop()
    lineage = pd.read_parquet(tmp_path / "lineage.parquet")
    assert lineage.groupby("generation").size().tolist() == [4, 4, 4]
    assert lineage.groupby("generation").iteration.first().dropna().tolist() == [2, 4]
    talk = read_conversations(tmp_path).select(["iteration", "generation"]).to_pandas().drop_duplicates()
    assert talk.to_numpy().tolist() == [[1, 0], [2, 0], [3, 1]]
    lines = progress.read(tmp_path / "progress.jsonl")
    # A generation ends with every second iteration, and the others have no number of it.
    assert lines["survival/births"].notna().tolist() == [False, True, False, True]
    assert lines["survival/births"].dropna().tolist() == [2, 2]
    last = json.loads((tmp_path / "progress.jsonl").read_text().splitlines()[-1])
    assert len(last["member/swarm/return"]) == 4
    assert not any(name.startswith("member/") for name in lines)
    assert results[1]["survival"]["swarm"]["effective_founders"] <= 2
    assert results[0]["member"]["swarm"]["steps"].sum() == 8 * 2 * 3  # the fourth row only starts the worlds over
    assert list((tmp_path / "tensorboard").iterdir())
