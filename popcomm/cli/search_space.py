"""The `tune:` section of a YAML file: what is tried, how often, and which trial is the best."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from popcomm.cli.documents import shown
from popcomm.cli.types import convert
from popcomm.errors import UserError, nearest

# In progress.jsonl, in every run; others of these groups depend on the network and the world.
METRICS = (
    "env_steps",
    "time_s",
    "charts/SPS",
    "charts/agent_SPS",
    "charts/reward",
    "charts/episodic_return",
    "charts/episodic_length",
    "charts/agent_episodic_return",
)
METRIC_GROUPS = ("losses/", "language/", "world/")
MODES = {"max": "the larger the better", "min": "the smaller the better"}
LISTS = ("grid_search", "choice")
SPACES = (*LISTS, "uniform", "loguniform", "randint")  # as in ray.tune
EXAMPLE = "for example {grid_search: [16, 32]}"


@dataclass(frozen=True)
class Space:
    """One search space, by the name of the function of `ray.tune` that makes it.

    Args:
        kind: one of SPACES.
        arguments: the list to choose from, or [low, high].
    """

    kind: str
    arguments: tuple[Any, ...]

    def corners(self) -> list[Any]:
        """Values that stand for all: every one of a list, or the two ends of a range."""
        if self.kind in LISTS:
            return list(self.arguments)
        low, high = self.arguments
        return [low, high - 1] if self.kind == "randint" else [low, high]

    def for_tune(self) -> Any:
        """The object that Tune takes."""
        from ray import tune

        make: Callable[..., Any] = getattr(tune, self.kind)
        return make(list(self.arguments)) if self.kind in LISTS else make(*self.arguments)


@dataclass(frozen=True)
class Search:
    """The `tune:` section.

    Args:
        param_space: {"section.key": Space}, the keys as of `--set`.
        num_samples: how often the grid is gone through, with other values drawn anew each time.
        metric: a name in progress.jsonl, by whose last value trials are ranked.
        mode: "max" or "min".
        max_concurrent_trials: trials at a time; None: as many as there are CPUs for.
    """

    param_space: dict[str, Space]
    num_samples: int = 1
    metric: str | None = None
    mode: str = "max"
    max_concurrent_trials: int | None = None

    @property
    def num_trials(self) -> int:
        return self.num_samples * math.prod(
            len(s.arguments) for s in self.param_space.values() if s.kind == "grid_search"
        )

    def points(self) -> Iterator[dict[str, Any]]:
        """Parameters that stand for all trials: every point of the grid, with the rest at their first corner; then the
        other corners of the rest, one at a time, at the first point of the grid."""
        values = {key: space.corners() for key, space in self.param_space.items()}
        grid = {key: values[key] for key, space in self.param_space.items() if space.kind == "grid_search"}
        base = {key: corners[0] for key, corners in values.items()}
        for point in itertools.product(*grid.values()):
            yield {**base, **dict(zip(grid, point, strict=True))}
        for key in values.keys() - grid.keys():
            for value in values[key][1:]:
                yield {**base, key: value}


def search(document: Mapping[str, Mapping[str, Any]]) -> Search:
    """The document's `tune:` section, checked.

    Raises:
        UserError: it is missing, or holds an unknown key, search space or value.
    """
    section = document.get("tune")
    if not section:
        raise UserError(f"tune is missing; name a search space: tune.param_space.<section.key>, {EXAMPLE}")
    takes: dict[str, Any] = {
        "num_samples": int,
        "metric": str | None,
        "mode": str,
        "max_concurrent_trials": int | None,
    }
    for key in section:
        if key != "param_space" and key not in takes:
            raise UserError(f"tune.{key} does not exist; {nearest(key, ['param_space', *takes])}")
    values = {key: convert(f"tune.{key}", section[key], takes[key]) for key in takes if key in section}
    _check_settings(values)
    return Search(_param_space(section.get("param_space")), **values)


def with_parameters(document: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The document of one trial: without `tune`, and with its parameters {"section.key": value} put in.

    Raises:
        UserError: a key that leads through something that has no keys.
    """
    result = copy.deepcopy({section: content for section, content in document.items() if section != "tune"})
    for key, value in parameters.items():
        *path, last = key.split(".")
        place: Any = result
        for depth, part in enumerate(path, start=1):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
            if not isinstance(place, dict):
                raise UserError(f"tune.param_space.{key}: {'.'.join(path[:depth])} is {shown(place)}, and has no keys")
        # Numbers of numpy, which Tune draws, are none of YAML's.
        place[last] = value.item() if hasattr(value, "item") else copy.deepcopy(value)
    return result


def _check_settings(values: Mapping[str, Any]) -> None:
    for key in ("num_samples", "max_concurrent_trials"):
        if values.get(key) is not None and values[key] < 1:
            raise UserError(f"tune.{key} is {values[key]}, and must be at least 1")
    if values.get("mode", "max") not in MODES:
        raise UserError(f"tune.mode is {shown(values['mode'])}, and must be 'max' or 'min'")
    metric = values.get("metric")
    if metric is not None and metric not in METRICS and not metric.startswith(METRIC_GROUPS):
        raise UserError(
            f"tune.metric is {shown(metric)}, which is not in progress.jsonl; {nearest(metric, METRICS)}, "
            f"or one of {', '.join(group + '...' for group in METRIC_GROUPS)}"
        )


def _param_space(given: Any) -> dict[str, Space]:
    if not isinstance(given, dict) or not given:
        raise UserError(
            f"tune.param_space is {shown(given)}, and must map keys of this file to search spaces, {EXAMPLE}"
        )
    return {str(key): _space(str(key), value) for key, value in given.items()}


def _space(key: str, given: Any) -> Space:
    name = f"tune.param_space.{key}"
    section, dot, rest = key.partition(".")
    if not dot or not all(rest.split(".")) or section == "tune":
        raise UserError(f"{name} is no key of this file, such as training.lr")
    if not isinstance(given, dict) or len(given) != 1:
        raise UserError(f"{name} is {shown(given)}, and must be one search space, {EXAMPLE}")
    ((kind, arguments),) = given.items()
    if kind not in SPACES:
        raise UserError(f"{name}: the search space {shown(kind)} does not exist; {nearest(str(kind), SPACES)}")
    if not isinstance(arguments, list):
        raise UserError(f"{name}.{kind} is {shown(arguments)}, and must be a list")
    return Space(kind, _listed(name, arguments) if kind in LISTS else _range(name, kind, arguments))


def _listed(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if not values:
        raise UserError(f"{name} is an empty list, and must hold at least one value")
    return tuple(values)


def _range(name: str, kind: str, ends: Sequence[Any]) -> tuple[Any, ...]:
    if len(ends) != 2:
        raise UserError(f"{name}.{kind} is {shown(list(ends))}, and must be [low, high]")
    number = int if kind == "randint" else float
    low, high = (convert(f"{name}.{kind}", end, number) for end in ends)
    if not -math.inf < low < high < math.inf:
        raise UserError(f"{name}.{kind} is {shown(list(ends))}, and low must be below high")
    if kind == "loguniform" and low <= 0:
        raise UserError(f"{name}.{kind} is {shown(list(ends))}, and must be above 0")
    return low, high
