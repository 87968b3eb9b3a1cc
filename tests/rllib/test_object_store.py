"""A fragment for which Ray has no room, neither in memory nor on its disk: one sentence that names the settings."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.answers import SamplingFailure
from popcomm.rllib.attendance import Attendance
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.harvest import Harvest
from popcomm.rllib.overlap import Ahead
from tests.rllib.worlds import ClockWorld


@pytest.mark.parametrize("error", [ObjectStoreFullError("full"), OutOfDiskError("Local disk is full")])
def test_it_names_what_makes_fragments_smaller_and_the_store_larger(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(value: object) -> None:
        raise error

    monkeypatch.setattr(ray, "put", refuse)
    config = (
        PopulationPPOConfig()
        .environment(ClockWorld)
        .communication(messages=None)
        .env_runners(num_worlds_per_env_runner=2, rollout_fragment_length=5)
        .fault_tolerance(restart_failed_sub_environments=True)  # the worlds have done nothing wrong
    )
    answer = PopulationEnvRunner(config=config).sample_or_say_why(by_reference=True)
    assert isinstance(answer, SamplingFailure)
    harvest = Harvest(config, Attendance(config), Ahead(config))
    group = SimpleNamespace(local_env_runner=None)
    with pytest.raises(UserError, match=r"^a fragment of 0 MiB fits neither .* nor on the disk") as told:
        harvest.gather(group, lambda runner: answer)
    for setting in (
        "env_runners.num_worlds_per_env_runner (2)",
        "env_runners.rollout_fragment_length (5)",
        "RAY_TMPDIR",
        "--object-store-memory",
    ):
        assert setting in str(told.value)
