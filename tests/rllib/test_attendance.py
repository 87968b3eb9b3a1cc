"""Attendance: who of the env runners sampled, and what is said of those who did not."""

from __future__ import annotations

import pytest

from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.attendance import Attendance


def of(runners: int, **faults: bool) -> Attendance:
    config = PopulationPPOConfig().env_runners(num_env_runners=runners, sample_timeout_s=7)
    return Attendance(config.fault_tolerance(**faults))


def test_a_lost_runner_is_told_once_and_so_is_its_return(caplog: pytest.LogCaptureFixture) -> None:
    attendance = of(3)
    for answered in ({1, 2, 3}, {1, 3}, {1, 3}, {1, 2, 3}):
        attendance.take(answered, {1, 3})
    lost, back = (record.message for record in caplog.records)
    assert lost == "env runner 2 is lost: its process ended, and it is begun anew; 2 of 3 sample"
    assert back == "env runner 2 samples again"


def test_one_that_stays_away_and_one_that_hangs_are_told_apart() -> None:
    attendance = of(2, restart_failed_env_runners=False)
    attendance.take(set(), {2})
    assert "env runner 1 is lost: its process ended, and it stays away" in attendance.reason
    assert "env runner 2 gave no samples in 7 s (env_runners.sample_timeout_s); does its environment hang?" in (
        attendance.reason
    )


def test_every_line_of_progress_has_how_many_sampled() -> None:
    attendance = of(3)
    attendance.take({1, 3}, {1, 3})
    told = attendance.scalars({"fault_tolerance": {"num_remote_worker_restarts": 4}})  # of processes that never sampled
    assert told == {"charts/env_runners": 2, "charts/env_runner_restarts": 4}
    assert of(0).scalars({}) == {}


def test_every_new_process_counts_and_those_that_nobody_missed_are_told(caplog: pytest.LogCaptureFixture) -> None:
    attendance = of(2)
    attendance.take({1, 2}, {1, 2}, {1: "a", 2: "b"})
    attendance.take({1, 2}, {1, 2}, {1: "a", 2: ""})  # of a checkpoint, which does not say whose it is
    assert attendance.take({1, 2}, {1, 2}, {1: "a", 2: "c"}) == [2]
    assert caplog.messages == ["env runner 2 was begun anew between two fragments: its process had ended"]
    attendance.take({2}, {2}, {2: "c"})
    assert attendance.take({1, 2}, {1, 2}, {1: "d", 2: "c"}) == []
    assert caplog.messages[2:] == ["env runner 1 samples again"]
    assert attendance.scalars({})["charts/env_runner_restarts"] == 2
