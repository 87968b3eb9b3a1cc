"""Federated averaging with real Ray: one learner and two, checkpoints, what is logged and reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from popcomm.analysis.report import standing
from popcomm.analysis.run_folder import RunFolder

from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.checkpoints import weight_digest
from tests.rllib.test_federated import PRIVATE, config_of

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_cluster")]


def of_learners(learners: int, runners: int = 0) -> PopulationPPOConfig:
    return (
        config_of(PRIVATE)
        .training(minibatch_size=None)
        .env_runners(num_env_runners=runners)
        .learners(num_learners=learners)
    )


def test_two_learners_publish_and_go_on_from_what_one_does() -> None:
    """Whole batches: the same sums in another order, and the same noise."""
    found: list[dict[str, Any]] = []
    for learners in (1, 2):
        algorithm = of_learners(learners, runners=2).build_algo()
        try:
            for _ in range(2):
                algorithm.train()
            found.append(algorithm.learner_group.get_weights()["swarm"])
        finally:
            algorithm.stop()
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], atol=1e-4, err_msg=name)


def test_a_checkpoint_between_rounds_goes_on_bit_for_bit_with_all_that_was_spent(tmp_path: Path) -> None:
    algorithm = of_learners(0).recording(run_dir=str(tmp_path / "run")).build_algo()
    restored: Any = None
    try:
        told = [algorithm.train()["popcomm"] for _ in range(3)]
        assert [each["federated/rounds"] for each in told] == [0, 1, 1]
        saved = algorithm.save_to_path(tmp_path / "saved")
        restored = PopulationPPO.from_checkpoint(saved)
        after = [each.train()["popcomm"] for each in (algorithm, restored)]
        assert weight_digest(algorithm) == weight_digest(restored)
        assert after[0]["federated/epsilon"] == after[1]["federated/epsilon"] > told[-1]["federated/epsilon"] > 0
        assert after[0]["federated/update_norm"] == after[1]["federated/update_norm"]
    finally:
        for each in (algorithm, restored):
            if each is not None:
                each.stop()
    line = json.loads((tmp_path / "run" / "progress.jsonl").read_text().splitlines()[-1])
    assert line["federated/swarm/epsilon"] == [pytest.approx(after[0]["federated/epsilon"])] * 4
    assert "in 2 rounds of a member" in standing(RunFolder.read(tmp_path / "run"))["privacy of updates spent"]
