"""Numbers that RLlib itself reads, and would take whatever they are, are refused before any work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from popcomm.cli import main as cli
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.rllib_numbers import AMOUNTS, COUNTS, LIMITS, RESOURCES, SKIPS
from tests.rllib.test_unsupported import READ, RLLIBS
from tests.rllib.worlds import ClockWorld

LIMIT = "a finite number of seconds above 0, or None: no limit"
AMOUNT = "a finite number of at least 0, or None"


def config() -> PopulationPPOConfig:
    return PopulationPPOConfig().environment(ClockWorld).communication(messages=None)


def with_value(key: str, value: Any) -> PopulationPPOConfig:
    """As users write it: a method of the config, and its keyword."""
    method, _, name = key.partition(".")
    own: PopulationPPOConfig = getattr(config(), method)(**{name: value})
    return own


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("env_runners.sample_timeout_s", -1, LIMIT),
        ("env_runners.sample_timeout_s", 0, LIMIT),
        ("env_runners.sample_timeout_s", float("inf"), LIMIT),
        ("env_runners.sample_timeout_s", "60", LIMIT),
        ("evaluation.evaluation_sample_timeout_s", -1.0, LIMIT),
        ("fault_tolerance.env_runner_health_probe_timeout_s", 0.0, LIMIT),
        ("reporting.min_time_s_per_iteration", -5, AMOUNT),
        ("reporting.min_time_s_per_iteration", float("inf"), AMOUNT),
        ("reporting.min_sample_timesteps_per_iteration", -1, AMOUNT),
        ("reporting.min_train_timesteps_per_iteration", "many", AMOUNT),
        ("evaluation.evaluation_unhealthy_workers_timeout_s", -1, AMOUNT),
        ("fault_tolerance.env_runner_restore_timeout_s", -1, AMOUNT),
        ("fault_tolerance.delay_between_env_runner_restarts_s", float("nan"), AMOUNT),
        ("evaluation.evaluation_num_env_runners", -1, "a whole number of at least 0"),
        ("evaluation.evaluation_num_env_runners", 1.5, "a whole number of at least 0"),
        ("evaluation.evaluation_num_env_runners", None, "a whole number of at least 0"),
        ("evaluation.evaluation_error_after_n_consecutive_skips", 0, "a whole number of at least 1"),
        ("env_runners.max_requests_in_flight_per_env_runner", 0, "a whole number of at least 1"),
        ("fault_tolerance.max_num_env_runner_restarts", -2, "a whole number of at least -1"),
        ("env_runners.num_cpus_per_env_runner", -1, "a finite number of at least 0"),
        ("env_runners.num_gpus_per_env_runner", True, "a finite number of at least 0"),
        ("learners.num_gpus_per_learner", -0.5, "a finite number of at least 0"),
        ("learners.num_cpus_per_learner", "all", "a finite number of at least 0, or 'auto'"),
        ("resources.num_cpus_for_main_process", -1, "a finite number of at least 0"),
    ],
)
def test_a_number_that_cannot_be_is_told_with_its_key_and_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(f'{key} is {value!r}, and must be {allowed}')}$"):
        with_value(key, value).validate()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, None) for key in (*LIMITS, *AMOUNTS, SKIPS)),
        *((key, 0) for key in (*AMOUNTS, *RESOURCES)),
        *((key, least) for key, least in COUNTS.items()),
        ("learners.num_cpus_per_learner", "auto"),
        ("learners.num_gpus_per_learner", 0.5),
        ("env_runners.sample_timeout_s", 0.5),
    ],
)
def test_numbers_that_can_be_are_let_through(key: str, value: Any) -> None:
    with_value(key, value).validate()


def numbers() -> list[str]:
    """The settings of RLlib's that are used and are numbers, or may be."""
    own, optional = config(), ("min_time_s_per_iteration", SKIPS.partition(".")[2], "evaluation_interval", "seed")
    known = [*READ.split(), *RLLIBS.split()]
    return [name for name in known if name in optional or type(getattr(own, name)) in (int, float)]


@pytest.mark.parametrize("name", numbers())
def test_no_number_of_rllibs_that_is_used_may_be_below_minus_one(name: str) -> None:
    own = config()
    setattr(own, name, -2)
    with pytest.raises(UserError, match=rf"\.{name} is -2, and must be "):
        own.validate()


def test_a_number_that_cannot_be_is_told_on_the_command_line_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    document = {"environment": {"env": "swarm_v0"}, "population": {"agent": "mlp"}, "stop": {"training_iteration": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    assert cli.main(["train", "run.yaml", "--run-dir", "r", "--set", "env_runners.sample_timeout_s=-1"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith(f"env_runners.sample_timeout_s is -1.0, and must be {LIMIT}")
    assert not (tmp_path / "r").exists()
