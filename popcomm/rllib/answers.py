"""What env runners answer when they are asked for a fragment, and what it comes to over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import ray
from ray.rllib.policy.sample_batch import MultiAgentBatch

# A batch, or where it lies.
Batch: TypeAlias = MultiAgentBatch | ray.ObjectRef


class Sampled(NamedTuple):
    """What a runner answers."""

    batch: Batch
    rows: int  # worlds
    metrics: Any
    steps: int  # environment steps, all worlds together
    performance: Mapping[str, float]  # measures of these steps, which fades may follow
    fades: list[dict[str, Any]]  # what the schedules of reflexes remember
    members: dict[str, dict[str, Any]]  # {species: sums of its members} of these steps (`MemberStatistics`)
    worker_index: int = 0
    private: dict[str, dict[str, np.ndarray]] | None = None  # messages of these steps (`privacy.MessageCounts.read`)
    life: str = ""  # of the process that sampled: another one has another


class Newcomer(NamedTuple):
    """What it answers where Ray began its process anew before anybody missed the last: it has learned nothing yet."""

    worker_index: int


class SamplingFailure(NamedTuple):
    """What it answers when sampling raised."""

    worker_index: int
    traceback: str
    sentence: str = ""  # instead, where what was sampled could not be kept


# Of a runner that is in step with the training.
Answer: TypeAlias = Sampled | SamplingFailure


def parted(answers: Iterable[Answer | Newcomer]) -> tuple[list[Answer], list[int]]:
    """Answers of runners that are in step, and the indices of those that are not."""
    in_step: list[Answer] = []
    newcomers = []
    for answer in answers:
        if isinstance(answer, Newcomer):
            newcomers.append(answer.worker_index)
        else:
            in_step.append(answer)
    return in_step, newcomers


def pooled(sampled: Sequence[Sampled]) -> dict[str, float]:
    """Means of what runners measured, weighted by their steps; a measure counts where it was made."""
    pooled = {}
    for name in dict.fromkeys(name for answer in sampled for name in answer.performance):
        told = [(a.performance[name], a.steps) for a in sampled if math.isfinite(a.performance.get(name, math.nan))]
        if told:
            pooled[name] = sum(value * steps for value, steps in told) / sum(steps for _, steps in told)
    return pooled
