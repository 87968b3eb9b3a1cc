"""Numbers that RLlib itself reads: how long it waits, how often it tries, what it asks Ray for; RLlib takes any."""

from __future__ import annotations

import math

from popcomm.checks import count, number
from popcomm.rllib.settings import Settings

# {key: the least}; Ray begins a process anew as often as it takes where that is -1.
COUNTS = {
    "env_runners.max_requests_in_flight_per_env_runner": 1,
    "evaluation.evaluation_num_env_runners": 0,
    "fault_tolerance.max_num_env_runner_restarts": -1,
}
# Seconds after which nobody is waited for any more: with 0 nobody would ever have answered. None: no limit.
LIMITS = (
    "env_runners.sample_timeout_s",
    "evaluation.evaluation_sample_timeout_s",
    "fault_tolerance.env_runner_health_probe_timeout_s",
)
# Seconds and steps of which 0 is none. None: none, or no limit.
AMOUNTS = (
    "evaluation.evaluation_unhealthy_workers_timeout_s",
    "fault_tolerance.delay_between_env_runner_restarts_s",
    "fault_tolerance.env_runner_restore_timeout_s",
    "reporting.min_sample_timesteps_per_iteration",
    "reporting.min_time_s_per_iteration",
    "reporting.min_train_timesteps_per_iteration",
)
# CPUs and GPUs of each process, of which a part is allowed.
RESOURCES = (
    "env_runners.num_cpus_per_env_runner",
    "env_runners.num_gpus_per_env_runner",
    "learners.num_cpus_per_learner",
    "learners.num_gpus_per_learner",
    "resources.num_cpus_for_main_process",
)
SKIPS, LEARNERS_CPUS = "evaluation.evaluation_error_after_n_consecutive_skips", "learners.num_cpus_per_learner"


def check_rllib_numbers(settings: Settings) -> None:
    """Raises UserError for the first number of RLlib's that cannot be."""
    for key, least in COUNTS.items():
        count(key, _value(settings, key), least)
    if _value(settings, SKIPS) is not None:
        count(SKIPS, _value(settings, SKIPS), 1)
    for key in LIMITS:
        if _value(settings, key) is not None:
            must = "be a finite number of seconds above 0, or None: no limit"
            number(key, _value(settings, key), must, above=0.0, below=math.inf)
    for key in AMOUNTS:
        if _value(settings, key) is not None:
            number(key, _value(settings, key), "be a finite number of at least 0, or None", least=0.0, below=math.inf)
    for key in RESOURCES:
        if key == LEARNERS_CPUS and _value(settings, key) == "auto":
            continue
        also = ", or 'auto'" if key == LEARNERS_CPUS else ""
        number(key, _value(settings, key), f"be a finite number of at least 0{also}", least=0.0, below=math.inf)


def _value(settings: Settings, key: str) -> object:
    return getattr(settings, key.rpartition(".")[2])
