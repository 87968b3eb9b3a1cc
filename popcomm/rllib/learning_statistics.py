"""What a learner logs of an iteration: means of the losses, how good the values were, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from ray.rllib.core import ALL_MODULES
from ray.rllib.utils.metrics import NUM_ENV_STEPS_TRAINED, NUM_ENV_STEPS_TRAINED_LIFETIME
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from torch import Tensor

from popcomm.agents.graph import LearnedGraph
from popcomm.rllib.gradients import MemberGuard
from popcomm.rllib.ppo import Reduce, explained_variance
from popcomm.rllib.shares import Arrays

# {species: {name: one number of every update}}
Totals = dict[str, dict[str, list[Tensor]]]


def log_iteration(
    metrics: MetricsLogger,
    totals: Totals,
    arrays: Arrays,
    guards: Mapping[str, MemberGuard],
    updates: int,
    reduce: Reduce,
) -> None:
    """Log means over an iteration's updates under the species' names.

    Args:
        metrics: the learner's.
        totals: what the updates of this learner summed up.
        arrays: {species: its fragment, with what the learner added}.
        guards: {species: who counts the updates that were left out}; they begin to count anew.
        updates: how many there were.
        reduce: sum over the learners.
    """
    steps = lost = 0
    for name, sums in totals.items():
        means = torch.stack([torch.stack(values).mean() for values in sums.values()])
        # Each learner has its share of the sum that is a mean; RLlib will average over learners.
        whole = reduce(means)
        for key, value in zip(sums, whole.tolist(), strict=True):
            metrics.log_value((name, key), value, window=1)
        a = arrays[name]
        steps = max(steps, int(a["alive"].any(2).sum()))
        if "value_targets" in a:  # else nobody reads values
            known, values = a.get("known", a["alive"]), a["values"][:, :-1]
            explained = explained_variance(values, a["value_targets"], known, reduce)
            metrics.log_value((name, "vf_explained_var"), explained, window=1)
        left_out = guards[name].read()
        lost += left_out
        metrics.log_value((name, "num_non_finite_updates"), left_out, window=1)
    metrics.log_value((ALL_MODULES, "num_updates"), updates, window=1)
    metrics.log_value((ALL_MODULES, "num_non_finite_updates"), lost, window=1)
    metrics.log_value((ALL_MODULES, NUM_ENV_STEPS_TRAINED), steps, reduce="sum")
    metrics.log_value((ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), steps, reduce="lifetime_sum")


def log_measures(metrics: MetricsLogger, agents: Mapping[str, Any]) -> None:
    """Log what networks tell of themselves. agents: {species: network}, whose `measures` are {"group/name": number}."""
    for species, agent in agents.items():
        if hasattr(agent, "measures"):
            for name, value in agent.measures().items():
                metrics.log_value((species, name), value, window=1)


def log_graph(metrics: MetricsLogger, graph: LearnedGraph, names: Iterable[str]) -> None:
    """Log how strong the links into each species are. names: of the species."""
    for species in names:
        for name, value in graph.measures(species).items():
            metrics.log_value((species, name), value, window=1)
