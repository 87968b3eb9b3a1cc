"""Communities of different tasks: what is asked where, what is measured of it, and the experiment's page."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments import community_tasks as tasks
from popcomm.analysis.experiments.community_tasks import EXPERIMENT, OneAttributeEach
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.local_training import LocalTraining

from popcomm.rollout.crossplay import CrossPlay, cross_play

MEANINGS = np.array(list(product(range(4), range(4))))


def test_worlds_ask_for_one_attribute_in_turn() -> None:
    world = OneAttributeEach(num_worlds=4, values=5, rounds=3)
    world.reset(seed=1)
    meant = world.meanings[world._episode.targets[0]]
    step = world.step({"speaker": torch.zeros(4, 1), "listener": torch.zeros(4, 1, 2)})
    assert step.answers is not None
    expected = meant.clone()
    expected[[0, 2], 1] = 0
    expected[[1, 3], 0] = 0
    assert torch.equal(step.answers["listener"][:, 0], expected)
    right = world.step({"speaker": torch.zeros(4, 1), "listener": step.answers["listener"]})
    assert right.rewards.tolist() == [[1, 1]] * 4


def played(messages: np.ndarray, answers: np.ndarray) -> CrossPlay:
    """Two speakers and two listeners, one of each in each community."""
    right = answers == MEANINGS
    return CrossPlay(right.all(-1).mean(-1), right.mean((-1, -2)), messages, MEANINGS, answers)


def test_what_is_asked_of_whom_is_told_apart() -> None:
    """Speaker p says attribute p and nothing else, and all listeners read symbol s as the value s of their own."""
    messages = np.stack([MEANINGS[:, [0, 0]], 10 + MEANINGS[:, [1, 1]]])
    answers = np.zeros((2, 2, 16, 2), int)
    for speaker, listener in product(range(2), range(2)):
        answers[speaker, listener, :, listener] = messages[speaker, :, 0] % 10
    messages, answers = messages.repeat(2, 0), answers.repeat(2, 0).repeat(2, 1)  # two members in each community
    found = tasks.measured(played(messages, answers), "different")
    assert found["within"] == 1
    assert found["asked of listeners"] == pytest.approx(1 / 4), "the other attribute, which is not said"
    assert found["asked of speakers"] == pytest.approx(1 / 4), "value 0 always, of four"
    assert found["bits own"] == pytest.approx(2)
    assert found["bits other"] == pytest.approx(0)
    assert found["distance_within"] == 0
    assert found["distance_between"] == 1


def test_of_the_same_task_all_attributes_count() -> None:
    messages = MEANINGS[None].repeat(4, 0)
    answers = np.broadcast_to(MEANINGS, (4, 4, 16, 2)).copy()
    answers[0, 1, :, 1] += 1  # one pair of a community misses the second attribute
    found = tasks.measured(played(messages, answers), "same")
    assert found["within"] == pytest.approx(1 - 0.5 / 8)
    assert found["asked of listeners"] == found["asked of speakers"] == 1


@pytest.mark.parametrize("kind", tasks.TASKS)
def test_the_configuration_is_valid_and_its_population_is_measured(kind: str) -> None:
    training = LocalTraining(tasks.settings(kind, 0.05, 1), 12)
    assert training.plan.seating_rule.mixing == 0.05
    found = cross_play(training.population())
    assert found.answers is not None
    assert found.answers.shape == (6, 6, 100, 2)
    assert (found.answers == found.meanings).all(-1).mean(-1) == pytest.approx(found.accuracy)
    assert set(tasks.measured(found, kind)) >= {"within", "bits own"}


def record(kind: str, mixing: float, seed: int) -> dict[str, Any]:
    apart = {"same": 0.2, "different": 0.5}[kind] * (1 - mixing)
    return {
        "tasks": kind, "mixing": mixing, "seed": seed, "asked": 1000, "exchange": 0.1, "seconds": 2.0,
        "within": 0.9, "asked of listeners": 0.1 + mixing + 0.001 * seed, "asked of speakers": 0.1,
        "distance_within": 0.4, "distance_between": 0.4 + apart + 0.001 * seed, "bits own": 3.0 + 0.01 * seed,
        "bits other": 1.0 + mixing,
    }  # fmt: skip


def test_claims_follow_the_intervals_and_the_page_is_written() -> None:
    records = [record(kind, mixing, seed) for kind in tasks.TASKS for mixing in tasks.MIXINGS for seed in (1, 2, 3)]
    holds = {claim.text: claim.holds for claim in tasks.claims(tasks.grouped(records))}
    assert holds["Different tasks open a larger gap (distance between less within) than the same task, at mixing 0"]
    assert holds["Speakers tell of what their community asks more than of the rest, in bits, at mixing 1"]
    assert holds["A little contact makes strangers understood (both name both attributes): mixing 0.05 less 0"]
    page = markdown(EXPERIMENT, records, "python -m x")
    assert "nan" not in page
    assert tasks.draw(records).axes
    assert markdown(EXPERIMENT, records[:1], "python -m x")
