"""What is written down of a training: transcripts, statistics, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from popcomm.language import progress
from popcomm.language.recording import read_conversations
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.attendance import Attendance
from popcomm.rllib.overlap import Ahead
from popcomm.rllib.privacy import Ledger
from popcomm.rllib.recording import Recording, _losses
from popcomm.rllib.training_schedules import TrainingSchedules
from tests.rllib.test_rollout import clock_config, runner_of


def test_returns_are_counted_once_per_episode() -> None:
    """Action 1 is worth 1: the sum of all rewards in two whole episodes of three steps."""
    runner = runner_of(clock_config(agent="mlp", env_config={"lengths": (3,)}))
    batch = runner.sample().policy_batches  # rows 0-2 and 4-6 act, row 3 starts over
    total = sum(np.asarray(part["rewards"]).sum() for part in batch.values())
    (first, lengths), (second, _) = runner.statistics.finished
    assert first.sum() + second.sum() == pytest.approx(total)
    assert lengths.tolist() == [3] * 12


def test_losses_of_several_species_are_averaged_and_kept_apart() -> None:
    got = _losses({"a": {"vf_loss": 1.0, "num_updates": 3}, "b": {"vf_loss": 3.0}})
    assert got == {"losses/a/value_loss": 1.0, "losses/b/value_loss": 3.0, "losses/value_loss": 2.0}


def test_updates_that_were_left_out_are_counted_over_all_species() -> None:
    assert _losses({"a": {"num_non_finite_updates": 3.0}}) == {"losses/non_finite_updates": 3.0}
    got = _losses({"a": {"num_non_finite_updates": 3.0}, "b": {"num_non_finite_updates": 1.0}})
    assert got["losses/non_finite_updates"] == 4.0
    assert got["losses/b/non_finite_updates"] == 1.0


def test_a_fragment_in_which_no_episode_ends_has_no_return() -> None:
    """Episodes of six steps and fragments of seven rows: one ends in the first and in the second, none in the third."""
    runner = runner_of(clock_config(agent="mlp", env_config={"lengths": (13,)}))
    told = []
    for _ in range(4):
        runner.sample()
        metrics = runner.get_metrics()
        told.append(("episode_return_mean" in metrics and metrics["episode_return_mean"].peek(), metrics))
    ended = [metrics["num_episodes"].peek() for _, metrics in told]
    assert ended == [0, 12, 0, 12]
    returns = [float(value) if value is not False else np.nan for value, _ in told]
    assert np.isfinite(returns).tolist() == [False, True, False, True]


class _Training:
    """What the callback reads of an algorithm; every iteration's language is given."""

    def __init__(self, run_dir: Path | None, **settings: Any) -> None:
        self.config = clock_config(agent="mlp", **settings)
        self.config.validate()
        self.config.recording(run_dir=run_dir, conversation_every=0, picture_every=0)
        self.plan, self.recording, self.iteration = self.config.plan, Recording(), 0
        self.members, self.selected, self.survival = {}, {}, None
        self.schedules = TrainingSchedules(self.config)
        self.attendance, self.ahead, self.ledger = Attendance(self.config), Ahead(self.config), Ledger(None)

    def learner_statistics(self, result: dict[str, Any]) -> dict[str, dict[str, float]]:
        return {"speaker": {"message_entropy": result["entropy"]}}

    def train(self, language: dict[str, float], entropy: float = 1.0) -> dict[str, Any]:
        self.iteration += 1
        result: dict[str, Any] = {
            "env_runners": {"language": language, "num_episodes_lifetime": 1, "episode_return_mean": 1.0},
            "num_env_steps_sampled_lifetime": 10 * self.iteration,
            "num_agent_steps_sampled_lifetime": 40 * self.iteration,
            "entropy": entropy,
        }
        result["env_runners"]["episode_len_mean"] = 3.0
        self.recording.measure(self, result)
        self.recording.write(self, result)
        return result


def test_signs_of_collapse_are_scalars_and_words(tmp_path: Path) -> None:
    training = _Training(tmp_path)
    first = training.train({"messages_per_speaker": 3.0, "listening": 0.2})
    assert first["collapse"] == {}
    second = training.train({"messages_per_speaker": 1.0, "listening": 0.2})
    assert second["collapse"] == {"constant_speaker": "speakers always say the same"}
    lines = progress.read(tmp_path / "progress.jsonl")
    assert lines["language/collapse"].tolist() == [0, 1]
    assert lines["language/constant_speaker"].tolist() == [0, 1]
    assert lines["language/protocol_lost"].tolist() == [0, 0]


def test_the_share_of_entropy_is_over_those_who_may_speak() -> None:
    """Two symbols of five: 2 ln 5 nats at most. Half of the steps are silent, and count as 0 in the mean."""
    training = _Training(None)
    assert training.train({}, entropy=np.log(5))["popcomm"]["language/message_entropy_share"] == pytest.approx(0.5)
    spoken = training.train({"voiced": 0.5}, entropy=np.log(5))
    assert spoken["popcomm"]["language/message_entropy_share"] == pytest.approx(1.0)


def test_bits_without_noise_have_no_share_of_entropy() -> None:
    training = _Training(None)
    training.config.communication(messages={"kind": "dru", "size": 2, "noise": 0.0})
    assert "language/message_entropy_share" not in training.train({}, entropy=0.0)["popcomm"]


def test_a_resumed_run_remembers_for_how_long_listeners_were_deaf(tmp_path: Path) -> None:
    """Ten iterations before and fifteen after make twenty-five in a row; the file goes on beyond the checkpoint."""
    deaf = {"messages_per_speaker": 3.0, "listening": 0.0}
    training = _Training(tmp_path)
    for _ in range(12):
        assert not training.train(deaf)["collapse"]
    again = _Training(tmp_path)
    again.iteration = 10
    held = [set(again.train(deaf)["collapse"]) for _ in range(15)]
    assert held[-2:] == [set(), {"deaf_listener"}]


def test_silent_runs_have_no_language_to_collapse() -> None:
    result = _Training(None, messages=None).train({})
    assert "collapse" not in result
    assert "language/collapse" not in result["popcomm"]


@pytest.mark.system
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_folder_gets_its_progress_events_and_conversations(tmp_path: Path) -> None:
    config = (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 5, "max_steps": 4})
        .communication(messages={"kind": "symbols", "vocab_size": 8, "length": 2}, topology={"kind": "ring", "k": 2})
        .env_runners(num_worlds_per_env_runner=6, rollout_fragment_length=5)
        .recording(run_dir=tmp_path, conversation_every=2, conversation_worlds=3, picture_every=2)
        .recording(metrics=["topographic_similarity"])
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    try:
        for _ in range(2):
            algorithm.train()
    finally:
        algorithm.stop()
    lines = progress.read(tmp_path / "progress.jsonl")
    assert lines["iteration"].tolist() == [1, 2]
    # The fifth row of each fragment only starts the worlds over.
    assert lines["env_steps"].tolist() == [24, 48]
    assert lines["agent_steps"].tolist() == [120, 240]
    for name in (
        "charts/episodic_return",
        "losses/policy_loss",
        "losses/world_model",
        "language/symbol_entropy",
        "language/collapse",
    ):
        assert np.isfinite(lines[name]).all(), name
    assert np.isfinite(lines["language/topographic_similarity"][0])
    assert b"language/topographic_similarity" in next((tmp_path / "tensorboard").glob("events.*")).read_bytes()
    table = read_conversations(tmp_path).to_pandas()
    # Both iterations, each stamped with its own steps; the part was written after the second.
    assert len(table) == 2 * 3 * 5 * 4
    assert table.groupby("iteration")["env_steps"].agg(["min", "max"]).to_numpy().tolist() == [[6, 24], [30, 48]]
    assert [path.name for path in (tmp_path / "conversations").iterdir()] == ["part-000002.parquet"]
    assert table["receivers"].map(len)[table["step"] < 3].eq(2).all()
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
