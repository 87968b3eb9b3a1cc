"""Strategies by name."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from popcomm.errors import UserError
from popcomm.evolution.age_limit import AgeLimit
from popcomm.evolution.generation import NOBODY, Generation, Ints, check_sources, lived
from popcomm.evolution.novelty import Novelty
from popcomm.evolution.strategy import Strategy, Traits
from popcomm.evolution.top_k import TopK
from popcomm.evolution.tournament import Tournament
from popcomm.evolution.truncation import Truncation
from popcomm.references import made

STRATEGIES: dict[str, type] = {
    "top_k": TopK,
    "truncation": Truncation,
    "tournament": Tournament,
    "age_limit": AgeLimit,
    "novelty": Novelty,
}


def make_strategy(value: Any, members: int, key: str = "survival.strategy", of: str = "") -> Strategy:
    """The strategy that a config means, which can select among P members.

    Args:
        value: {"kind": name, **arguments}, a name, or a Strategy; names are those of STRATEGIES, or "module:Class".
        members: P.
        key: what errors call it.
        of: words that follow the key where it does not fit the members.

    Raises:
        UserError: none of these, arguments that do not fit, or members that cannot be selected.

    >>> make_strategy({"kind": "top_k", "k": 2}, 8)
    TopK(k=2)
    """
    strategy = made(key, value, STRATEGIES, "select")
    if not isinstance(strategy, Strategy):
        raise UserError(f"{key} is of class {type(strategy).__name__}, and must be a subclass of Strategy")
    if members < 2:
        raise UserError(f"{key}{of}: selection needs 2 members or more, and population.members is {members}")
    strategy.check(members, f"{key}{of}")
    return strategy


def chosen(
    strategy: Strategy, generation: Generation, traits: Traits, rng: np.random.Generator, groups: int = 1
) -> Ints:
    """What the strategy says, within each of some equal groups of consecutive places, [P] int64, checked.

    Raises:
        UserError: the strategy's answer is no generation.
    """
    who = f"survival.strategy {type(strategy).__name__}"
    parts = np.arange(generation.members).reshape(groups, -1)
    found = []
    for places in parts:
        own = {name: values[places] for name, values in traits.items()}
        answer = check_sources(strategy.select(generation.part(places), own, rng), len(places), who)
        found.append(np.where(answer == NOBODY, NOBODY, places[answer]))
    return np.concatenate(found)


def rehearse(strategy: Strategy, members: int, groups: int = 1) -> Ints:
    """What a strategy says of P made-up members, [P] int64, so that an answer that is none is told before work starts.

    Their fitness is 0 to P - 1, and nothing is known of what they did. A copy is asked, which may remember it.

    Raises:
        UserError: as `chosen`.
    """
    generation = lived(Generation.first(members), np.arange(members, dtype=float))
    traits = {name: np.full((members, 1), np.nan) for name in strategy.traits}
    return chosen(copy.deepcopy(strategy), generation, traits, np.random.default_rng(0), groups)
