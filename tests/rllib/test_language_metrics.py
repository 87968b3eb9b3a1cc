"""Metrics while training: bounded samples, a bounded share of the time, and not a bit of training changed."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.language_metrics import SAMPLE, SHARE, LanguageMetrics, sampled
from tests.rllib.test_rollout import clock_config, runner_of
from tests.rllib.test_transcript import Parted

ALL = ("topographic_similarity", "information", "message_entropy", "vocabulary", "inter_speaker_similarity")


def config_of(*metrics: str, **settings: Any) -> PopulationPPOConfig:
    config = clock_config(agent="mlp", **settings).environment(Parted)
    return config.recording(metrics=list(metrics), run_dir="somewhere", conversation_worlds=12)


def test_what_is_measured_is_the_suite_on_what_was_said() -> None:
    """All 12 worlds are recorded, and there are fewer messages than a sample holds."""
    runner = runner_of(config_of(*ALL, members=4))
    runner.sample(iteration=1)
    found, rows = runner.statistics.language, runner.transcript.rows()
    symbols = np.array([message for message in rows["symbols"] if message is not None])
    assert 100 < len(symbols) < SAMPLE
    counts = np.unique(symbols, axis=0, return_counts=True)[1]
    shares = counts / counts.sum()
    assert found["message_entropy"] == pytest.approx(-(shares * np.log2(shares)).sum())
    assert {"topographic_similarity", "information", "inter_speaker_similarity"} <= found.keys()
    meant = {tuple(meaning) for meaning in rows["meaning"] if meaning is not None}
    assert found["vocabulary/meanings"] == len(meant) == 3


def test_the_sample_is_of_the_seed_and_the_iteration_and_bounded() -> None:
    config = config_of("message_entropy").env_runners(num_worlds_per_env_runner=64, rollout_fragment_length=20)
    runner = runner_of(config)
    fragments = runner.sample(iteration=1).policy_batches
    labels = [torch.arange(64).unsqueeze(1).expand(64, 4)] * 20

    def drawn(seed: int) -> Any:
        return sampled(runner.plan, fragments, labels, None, seed)

    one, again, other = drawn(1), drawn(1), drawn(2)
    assert len(one.messages) == SAMPLE
    for name in ("messages", "meanings", "streams", "speakers"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert len(np.unique(one.meanings)) > 10
    assert (one.meanings != other.meanings).any()


def test_messages_are_those_of_their_labels_streams_and_speakers() -> None:
    """Every seat says its own name and the time, which the labels tell as well."""
    runner = runner_of(config_of("message_entropy"))
    fragments = {name: dict(part) for name, part in runner.sample(iteration=1).policy_batches.items()}
    for name, part in fragments.items():
        seats = runner.layout.species[name].start + np.arange(part["alive"].shape[2])
        time = np.arange(part["messages"].shape[1])[None, :, None]
        said = np.broadcast_to(seats + 10 * (time - 1), part["messages"].shape[:3])
        part["messages"] = np.stack([said, said], -1)
    labels = [10 * t + torch.arange(4).expand(12, 4) for t in range(7)]
    corpus = sampled(runner.plan, fragments, labels, None, 3)
    assert corpus is not None
    assert corpus.meanings is not None
    assert corpus.speakers is not None
    np.testing.assert_array_equal(corpus.messages[:, 0], corpus.meanings[:, 0])
    np.testing.assert_array_equal(corpus.messages[:, 0] % 10, corpus.speakers)
    # Episodes of three steps in even worlds, and of five in odd ones, which fragments of seven rows divide once.
    alive = fragments["speaker"]["alive"].any(2)
    assert len(np.unique(corpus.streams)) == sum(
        len(np.flatnonzero(np.diff(row.astype(int)) == 1)) + 1 for row in alive
    )


@pytest.mark.parametrize("settings", [{"members": 1}, {"members": 8, "dropout": 0.2}])
def test_measuring_changes_nothing_in_what_is_sampled(settings: dict[str, Any]) -> None:
    measuring, mute = runner_of(config_of(*ALL[:4], **settings)), runner_of(config_of(**settings))
    for iteration in range(1, 4):
        ours, theirs = measuring.sample(iteration=iteration), mute.sample(iteration=iteration)
        for name, part in ours.policy_batches.items():
            for key, values in part.items():
                np.testing.assert_array_equal(values, theirs.policy_batches[name][key], err_msg=key)
    assert "topographic_similarity" not in mute.statistics.language


def test_two_runs_measure_the_same() -> None:
    one, other = (runner_of(config_of(*ALL, members=4)) for _ in range(2))
    for runner in (one, other):
        runner.sample(iteration=1)
    assert one.statistics.language == other.statistics.language


def test_measuring_takes_its_share_of_the_time_and_no_more() -> None:
    """On a clock on which an iteration takes a fifth of a second, and every metric a hundredth."""
    seconds = [0.0]

    def clock() -> float:
        seconds[0] += 0.01
        return seconds[0]

    runner = runner_of(config_of("message_entropy", "vocabulary"))
    fragments = runner.sample(iteration=1).policy_batches
    labels = [torch.zeros(12, 4, dtype=torch.int64)] * 7
    metrics = LanguageMetrics(runner.config, runner.plan, None, clock)
    found = []
    for iteration in range(1, 301):
        found.append(metrics.measure(fragments, labels, iteration))
        seconds[0] += 0.2
    assert {"message_entropy", "vocabulary/meanings"} <= found[0].keys()
    share = sum(metrics.spent.values()) / seconds[0]
    assert 0.9 * SHARE < share < SHARE + 0.02 / seconds[0]
    # A dear one waits, and the other does not wait for it.
    metrics.spent["vocabulary"] += 1.0
    seconds[0] += 10.0
    assert metrics.measure(fragments, labels, 301).keys() == {"message_entropy"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda c: c.recording(metrics=["topografic_similarity"]),
            "'topografic_similarity' does not exist; did you mean",
        ),
        (lambda c: c.recording(metrics="message_entropy"), "must be a list of names"),
        (
            lambda c: c.communication(messages={"kind": "vectors", "size": 2}, gradient="through"),
            "messages of kind vectors have no symbols",
        ),
    ],
)
def test_what_cannot_be_measured_is_told(change: Any, sentence: str) -> None:
    config = config_of("message_entropy")
    change(config)
    with pytest.raises(UserError, match=sentence):
        config.validate()


def test_without_labels_their_metrics_are_refused_and_the_others_named() -> None:
    config = clock_config(agent="mlp").recording(metrics=["message_entropy", "topographic_similarity"])
    with pytest.raises(
        UserError, match="topographic_similarity needs meanings, and this environment has no labels; all"
    ):
        config.validate()
    config.recording(metrics=["message_entropy", "speaker_consistency"]).validate()
    runner = runner_of(config)
    runner.sample(iteration=1)
    assert "speaker_consistency" in runner.statistics.language


def test_silence_is_told_to_have_no_language(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        runner = runner_of(config_of("message_entropy").communication(messages=None))
    assert "nobody speaks here" in caplog.text
    runner.sample(iteration=1)
    assert "message_entropy" not in runner.statistics.language
