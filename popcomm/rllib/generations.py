"""What is written down of members and generations: scalars and arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from popcomm.rllib.member_statistics import statistics_of
from popcomm.rllib.plan import Plan

# Members up to which a line of progress has the numbers of each.
MEMBERS_IN_LINES = 128

Array = NDArray[Any]


def measured(plan: Plan, counted: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Array]]:
    """{species of several members: {measure: [P]}}. counted: of each runner, {species: sums of its members}."""
    pooled = statistics_of({name: species.members for name, species in plan.species.items()})
    for told in counted:
        for name, state in told.items():
            pooled[name].merge(state)
    return {name: own.measures() for name, own in pooled.items()}


def scalars(selected: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """survival/<name> of the species that is selected; survival/<species>/<name> where there are several.

    Args:
        selected: {species: {name: number}}, empty where no generation ended.
    """
    if len(selected) == 1:
        return {f"survival/{name}": value for told in selected.values() for name, value in told.items()}
    return {f"survival/{species}/{name}": value for species, told in selected.items() for name, value in told.items()}


def arrays(members: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """{member/<species>/<measure>: [P]}. members: {species: {measure: [P]}}."""
    return {f"member/{name}/{key}": values for name, measures in members.items() for key, values in measures.items()}


def in_lines(told: Mapping[str, Array]) -> dict[str, Array]:
    """Those that are short enough for a line of progress.jsonl."""
    return {name: values for name, values in told.items() if len(values) <= MEMBERS_IN_LINES}
