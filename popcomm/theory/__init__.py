"""Branching theory of repeated words: do they die out, how many transmissions they make, and what load a channel has.

A transmission is heard by agents, each of which sends it again with a probability of its own. Where all agents hear all
others, p [N] says everything; otherwise M [N, N], `next_generation_matrix`, and results are by starting agent.

They are imported when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from popcomm.loading import when_asked
from popcomm.theory.load_by_type import LoadByType, load_by_type  # now: a file has the name of a function

if TYPE_CHECKING:
    from popcomm.theory.by_type import (
        alive_by_type,
        extinction_by_type,
        next_generation_matrix,
        progeny_moments,
        spectral_radius,
    )
    from popcomm.theory.extinction import alive_probability, extinction_probability
    from popcomm.theory.gate import word_count
    from popcomm.theory.large_loads import load_variance, mean_load, radius_bound
    from popcomm.theory.load import StationaryLoad, stationary_load
    from popcomm.theory.offspring import offspring_moments, offspring_pmf
    from popcomm.theory.progeny import Borel, BorelTanner, Consul, TotalProgeny
    from popcomm.theory.rules import local_rule, repetition_threshold
    from popcomm.theory.words import word_probability

__all__ = [
    "Borel",
    "BorelTanner",
    "Consul",
    "LoadByType",
    "StationaryLoad",
    "TotalProgeny",
    "alive_by_type",
    "alive_probability",
    "extinction_by_type",
    "extinction_probability",
    "load_by_type",
    "load_variance",
    "local_rule",
    "mean_load",
    "next_generation_matrix",
    "offspring_moments",
    "offspring_pmf",
    "progeny_moments",
    "radius_bound",
    "repetition_threshold",
    "spectral_radius",
    "stationary_load",
    "word_count",
    "word_probability",
]

_MODULES = {
    "by_type": (
        "alive_by_type",
        "extinction_by_type",
        "next_generation_matrix",
        "progeny_moments",
        "spectral_radius",
    ),
    "extinction": (
        "alive_probability",
        "extinction_probability",
    ),
    "gate": ("word_count",),
    "large_loads": (
        "load_variance",
        "mean_load",
        "radius_bound",
    ),
    "load": (
        "StationaryLoad",
        "stationary_load",
    ),
    "offspring": (
        "offspring_moments",
        "offspring_pmf",
    ),
    "progeny": (
        "Borel",
        "BorelTanner",
        "Consul",
        "TotalProgeny",
    ),
    "rules": (
        "local_rule",
        "repetition_threshold",
    ),
    "words": ("word_probability",),
}
__getattr__ = when_asked(__name__, _MODULES)  # trainings begin without scipy


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
