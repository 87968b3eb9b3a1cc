"""Networks that grow, in RLlib's processes: weights reach runners and learners, and checkpoints hold what has grown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from popcomm.rllib import PopulationPPO
from tests.rllib.test_growth import config_of

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_restored_run_grows_on_bit_for_bit(tmp_path: Path) -> None:
    config = config_of(patience=3, minibatch=3, epochs=1).env_runners(num_env_runners=1)
    straight = config.learners(num_learners=2).build_algo()
    try:
        straight.train()
        path = straight.save_to_path(tmp_path / "checkpoint")
        straight.train()
        expected = straight.learner_group.get_weights()["speaker"]
    finally:
        straight.stop()
    restored = PopulationPPO.from_checkpoint(path)
    try:
        restored.train()
        weights = restored.learner_group.get_weights()["speaker"]
    finally:
        restored.stop()
    assert len(expected["agent.unit_of"]) > 5
    for name, value in expected.items():
        np.testing.assert_array_equal(weights[name], value, err_msg=name)
