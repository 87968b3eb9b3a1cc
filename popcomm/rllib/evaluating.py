"""Evaluating: RLlib's `evaluate` and `evaluation_interval`, by episodes of a released population."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import ray
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
    EVALUATION_RESULTS,
    NUM_ENV_STEPS_SAMPLED,
    NUM_EPISODES,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from popcomm.rllib.release import released
from popcomm.rllib.rollout_statistics import SEATS_WITH_METRICS
from popcomm.rollout import seed_of
from popcomm.rollout.evaluation import Evaluation, joined

RUNNER_BRANCH = 9
# The bounds of the 95 % interval of the mean return.
RETURN_LOW, RETURN_HIGH = "episode_return_mean_low", "episode_return_mean_high"


def here(algorithm: Any) -> Evaluation:
    """`evaluation_duration` episodes in this process."""
    return released(algorithm).evaluate(algorithm.config.evaluation_duration, **_how(algorithm))


def by_runners(algorithm: Any) -> Evaluation | None:
    """`evaluation_duration` episodes, shared out to the evaluation runners; None if none of them answers in time."""
    group, config = algorithm.eval_env_runner_group, algorithm.config
    runners = group.healthy_worker_ids()
    least, more = divmod(config.evaluation_duration, len(runners))
    shares = {runner: least + (place < more) for place, runner in enumerate(runners)}
    population, seed = ray.put(released(algorithm)), config.seed or 0
    answers = group.foreach_env_runner(
        partial(_share, population, shares, seed, _how(algorithm)),
        local_env_runner=False,
        timeout_seconds=config.evaluation_sample_timeout_s,
    )
    found = [answer for answer in answers if isinstance(answer, Evaluation)]
    return joined(found) if found else None


def _share(
    population: ray.ObjectRef, shares: Mapping[int, int], seed: int, how: Mapping[str, Any], runner: Any
) -> Evaluation | None:
    """What a runner does, in its own process."""
    episodes = shares.get(runner.worker_index, 0)
    if not episodes:
        return None
    return ray.get(population).evaluate(episodes, seed=seed_of(seed, RUNNER_BRANCH, runner.worker_index), **how)


def _how(algorithm: Any) -> dict[str, Any]:
    told = algorithm.config.evaluation_config or {}
    return {"greedy": not told.get("explore", True), "env_config": told.get("env_config")}


def log(metrics: MetricsLogger, found: Evaluation | None) -> tuple[None, int, int, list[object]]:
    """Put an evaluation among an algorithm's metrics, by RLlib's names; returns what its `evaluate` wants."""
    if found is None:
        return None, 0, 0, []
    told = MetricsLogger()
    totals = found.returns.sum(1)
    values: dict[Any, float] = {
        EPISODE_RETURN_MEAN: found.return_mean,
        RETURN_LOW: found.return_interval.low,
        RETURN_HIGH: found.return_interval.high,
        EPISODE_RETURN_MIN: float(totals.min()),
        EPISODE_RETURN_MAX: float(totals.max()),
        EPISODE_LEN_MEAN: found.length_mean,
    }
    values |= {("module_episode_returns_mean", name): one.mean for name, one in found.per_species.items()}
    values |= {("world", name): one.mean for name, one in found.scores.items()}
    # Of more seats than this, species stand for them, as in training.
    few = len(found.per_agent) <= SEATS_WITH_METRICS
    seats = found.per_agent if few else found.per_species
    values |= {("agent_episode_returns_mean", name): one.mean for name, one in seats.items()}
    for name, value in values.items():
        told.log_value(name, value, window=1)
    steps = int(found.lengths.sum())
    told.log_value(NUM_EPISODES, found.episodes, reduce="sum")
    told.log_value(NUM_ENV_STEPS_SAMPLED, steps, reduce="sum")
    metrics.aggregate([told.reduce()], key=(EVALUATION_RESULTS, ENV_RUNNER_RESULTS))
    return None, steps, steps * found.returns.shape[1], []


def scalars(result: Mapping[str, Any]) -> dict[str, float]:
    """evaluation/<name>, of an iteration in which there was one; CleanRL's names, as those of training."""
    told = result.get(EVALUATION_RESULTS, {}).get(ENV_RUNNER_RESULTS, {})
    if EPISODE_RETURN_MEAN not in told:
        return {}
    names = {
        "episodic_return": EPISODE_RETURN_MEAN,
        "episodic_return_low": RETURN_LOW,
        "episodic_return_high": RETURN_HIGH,
        "episodic_length": EPISODE_LEN_MEAN,
    }
    found = {f"evaluation/{name}": float(told[key]) for name, key in names.items()}
    return found | {f"evaluation/world/{name}": float(value) for name, value in told.get("world", {}).items()}
