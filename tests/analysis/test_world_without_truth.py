"""The experiment on a world model without its ground truth: who reads the state, what is probed, what is claimed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments import world_without_truth as experiment
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.local_training import LocalTraining

from popcomm.envs.swarm_v0 import SwarmWorld


def learned(arm: str) -> dict[str, np.ndarray]:
    """Weights after an iteration in a small world."""
    config = experiment.settings(arm, 1, 1_000)
    config.env_runners(num_worlds_per_env_runner=4).training(minibatch_size=4)
    training = LocalTraining(config, 4)
    training.iterate()
    parameters = training.learner.networks["swarm"].named_parameters()
    return {name: parameter.detach().numpy().copy() for name, parameter in parameters}


@pytest.mark.parametrize("arm", ["supervised", "rewards"])
def test_the_true_state_shapes_weights_in_the_supervised_arm_alone(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true = learned(arm)
    monkeypatch.setattr(SwarmWorld, "_state", lambda world: torch.full((world.num_worlds, 11), 0.3))
    false = learned(arm)
    changed = {name for name in true if not np.array_equal(true[name], false[name])}
    assert any("message_head" in name for name in true)
    assert any("message_head" in name for name in changed) == (arm == "supervised")
    assert bool(changed) == (arm == "supervised")


def test_what_messages_hold_of_the_state_is_told_by_parts() -> None:
    rng = np.random.default_rng(0)
    state = rng.normal(size=(30, 20, 11))
    messages = rng.integers(experiment.SYMBOLS, size=(30, 20, 2, 3))
    messages[..., 0, 0] = 8 * (state[..., 6] > 0)  # the sign of the dispersion, in one of two words
    found = experiment.of_messages(messages, state, nonlinear=False)
    assert found["dispersion"] > 0.4
    assert max(found[part] for part in ("centroid", "velocity", "beacon")) < 0.1
    assert found["linear"] == pytest.approx(found["dispersion"] / 11, abs=0.05)
    assert found["deep"] is None


def probe(linear: float, control: float = 0.05) -> dict[str, Any]:
    parts = dict.fromkeys(experiment.PARTS, linear)
    return {"linear": linear, "control": control, "highest": control + 0.02, "p_value": 0.025, "deep": linear, **parts}


def runs() -> list[dict[str, Any]]:
    """Unsupervised messages tell .2 more than untrained ones, and .2 less than supervised; rewards alone nothing."""
    told = {"supervised": 0.6, "unsupervised": 0.4, "rewards": 0.2}
    return [
        {
            "arm": arm, "seed": seed, "env_steps": 100, "episodes": 20, "score_before": 10.0, "score": 40.0,
            "seconds": 60.0, "world_r2": 0.5 if arm == "supervised" else None, "untrained": probe(0.2),
            "trained": probe(value + 0.01 * (-1) ** seed), "drawn evenly": {**probe(0.0, 0.0), "deep": None},
        }
        for seed in (1, 2, 3, 4)
        for arm, value in told.items()
    ]  # fmt: skip


def test_claims_hold_where_intervals_lie_above_0_and_all_runs_above_their_controls() -> None:
    told = experiment.claims(experiment.grouped(runs()))
    assert [claim.holds for claim in told] == [True, True, True, False, True, True]
    assert told[1].measured.startswith("+0.200")
    spoilt = runs()
    spoilt[1]["trained"]["highest"] = 0.9
    assert not experiment.claims(experiment.grouped(spoilt))[0].holds


def test_the_page_and_the_figure_tell_of_the_runs_that_are_there() -> None:
    page = markdown(experiment.EXPERIMENT, runs(), "the command", {})
    assert "| supervised on the true state | 0.1, 1.0 | 4 | 40.0 | trained | 0.600 [" in page
    assert "| symbols drawn evenly | 0.000 [" in page
    assert len(experiment.draw(runs()).axes) == 2
    assert "needs two seeds" in markdown(experiment.EXPERIMENT, runs()[:2], "the command", {})
