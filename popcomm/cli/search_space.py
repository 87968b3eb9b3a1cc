"""The `tune:` section of a YAML file: what is tried, how often, which trial is the best, and which end early."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from popcomm.cli import schema
from popcomm.cli.documents import shown
from popcomm.cli.sweep_rule import Rule
from popcomm.cli.sweep_rules import make_rule, make_sampler
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
METRIC_GROUPS = ("losses/", "language/", "world/", "evaluation/", "survival/", "channel/", "env_runners/")
MODES = {"max": "the larger the better", "min": "the smaller the better"}
GRID, WHEN = "grid_search", "when"
LISTS = (GRID, "choice")
RANGES = ("uniform", "loguniform", "randint", "lograndint")  # [low, high]
STEPPED = ("quniform", "qloguniform", "qrandint", "qlograndint")  # [low, high, step]
BELLS = ("randn", "qrandn")  # [mean, deviation], and a step
SPACES = (*LISTS, *RANGES, *STEPPED, *BELLS)  # as in ray.tune
CONTINUOUS = ("uniform", "loguniform", "randn")  # of which no value is drawn twice
WHOLE = ("randint", "lograndint", "qrandint", "qlograndint")
EXCLUSIVE = ("randint", "lograndint")  # whose upper end is none of their values
FAR = 3  # deviations from the mean that stand for all draws of a bell
SEED, LARGEST_SEED = "debugging.seed", 2**32 - 1  # of the generators that Tune draws with
EXAMPLE = "for example {grid_search: [16, 32]}"


@dataclass(frozen=True)
class Space:
    """One search space, by the name of the function of `ray.tune` that makes it.

    Args:
        kind: one of SPACES.
        arguments: the list to choose from, or what the function takes: [low, high], [low, high, step].
        when: {another key: its values} for which this one is set at all.
    """

    kind: str
    arguments: tuple[Any, ...]
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def corners(self) -> list[Any]:
        """Values that stand for all: every one of a list, or the two ends of a range."""
        if self.kind in LISTS:
            return list(self.arguments)
        if self.kind in BELLS:
            mean, deviation = self.arguments[:2]
            return [mean - FAR * deviation, mean + FAR * deviation]
        low, high = self.arguments[:2]
        return [low, high - 1] if self.kind in EXCLUSIVE else [low, high]

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
        max_failures: how often a trial that fails is taken up again from its newest verified checkpoint.
        rule: which trials end early, or take over another's population; None: none.
        sampler: "random", or "optuna" for draws that follow what earlier trials came to.
        seed: of the draws and of the selection between runs, debugging.seed; None: fresh entropy.
        iterations: of the longest trial, stop.training_iteration; None: not all trials bound them.
    """

    param_space: dict[str, Space]
    num_samples: int = 1
    metric: str | None = None
    mode: str = "max"
    max_concurrent_trials: int | None = None
    max_failures: int = 0
    rule: Rule | None = None
    sampler: str = "random"
    seed: int | None = None
    iterations: float | None = None

    @property
    def generation(self) -> int | None:
        """Iterations of a generation, at whose end trials wait for one another; None: they do not."""
        return None if self.rule is None else self.rule.every

    @property
    def grid_points(self) -> int:
        return math.prod(len(s.arguments) for s in self.param_space.values() if s.kind == GRID)

    @property
    def num_trials(self) -> int:
        return self.num_samples * self.grid_points

    @property
    def repeats(self) -> bool:
        """Whether trials may have the same settings, so that only a seed of their own makes them differ."""
        drawn_anew = any(space.kind in CONTINUOUS and not space.when for space in self.param_space.values())
        return self.num_samples > 1 and SEED not in self.param_space and not drawn_anew

    def points(self) -> Iterator[dict[str, Any]]:
        """Parameters that stand for all trials: every point of the grid, with the rest at their first corner; then the
        other corners of the rest, one at a time, at the first point of the grid."""
        values = {key: space.corners() for key, space in self.param_space.items()}
        grid = {key: values[key] for key, space in self.param_space.items() if space.kind == GRID}
        base = {key: corners[0] for key, corners in values.items()}
        for point in itertools.product(*grid.values()):
            yield self.active({**base, **dict(zip(grid, point, strict=True))})
        for key in [key for key in values if key not in grid]:
            needed = self._needed(key)
            for value in values[key][0 if needed else 1 :]:
                yield self.active({**base, **needed, key: value})

    def active(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Those parameters that are set: the others' conditions do not hold, and what the file says stands.

        >>> one = Space("choice", (1, 2)), Space("choice", (3, 4), when={"a.x": (2,)})
        >>> Search({"a.x": one[0], "a.y": one[1]}).active({"a.x": 1, "a.y": 3})
        {'a.x': 1}
        """
        kept: dict[str, Any] = {}
        for key, value in parameters.items():
            conditions = self.param_space[key].when if key in self.param_space else {}
            if all(other in kept and kept[other] in values for other, values in conditions.items()):
                kept[key] = value
        return kept

    def _needed(self, key: str) -> dict[str, Any]:
        """Values of other keys with which this one is set."""
        needed: dict[str, Any] = {}
        for other, values in self.param_space[key].when.items():
            needed |= {**self._needed(other), other: values[0]}
        return needed


def search(document: Mapping[str, Mapping[str, Any]]) -> Search:
    """The document's `tune:` section, checked, with what it needs of the others.

    Raises:
        UserError: it is missing, or holds an unknown key, search space or value, or what it needs of another section is
            of the wrong type.
    """
    section = document.get("tune")
    if not section:
        raise UserError(f"tune is missing; name a search space: tune.param_space.<section.key>, {EXAMPLE}")
    takes: dict[str, Any] = {
        "num_samples": int,
        "metric": str | None,
        "mode": str,
        "max_concurrent_trials": int | None,
        "max_failures": int,
    }
    objects = ("param_space", "scheduler", "search")
    for key in section:
        if key not in objects and key not in takes:
            raise UserError(f"tune.{key} does not exist; {nearest(key, [*objects, *takes])}")
    values = {key: convert(f"tune.{key}", section[key], takes[key]) for key in takes if key in section}
    _check_settings(values)
    rule, sampler = make_rule(section.get("scheduler")), make_sampler(section.get("search"))
    from popcomm.rllib import PopulationPPOConfig  # takes seconds, so after what can be told at once

    space = _param_space(section.get("param_space"))
    seed = schema.converted(document, PopulationPPOConfig, "debugging").get("seed")
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"{SEED} is {seed}, and must be a whole number between 0 and {LARGEST_SEED}")
    found = Search(space, **values, rule=rule, sampler=sampler, seed=seed)
    found = dataclasses.replace(found, iterations=_longest(document, found))
    _check_together(found)
    return found


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


def _longest(document: Mapping[str, Mapping[str, Any]], found: Search) -> float | None:
    """stop.training_iteration of the longest trial; None where one of them has none."""
    stop = {"stop": document.get("stop")}
    own = ({key: value for key, value in point.items() if key.startswith("stop.")} for point in found.points())
    lengths = [schema.stop_bounds(with_parameters(stop, one)).get("training_iteration") for one in own]
    known = [length for length in lengths if length is not None]
    return max(known) if len(known) == len(lengths) else None


def _check_together(found: Search) -> None:
    needs = [name for name, given in (("scheduler", found.rule), ("search", found.sampler == "optuna")) if given]
    if needs and found.metric is None:
        raise UserError(f"tune.metric is missing: tune.{needs[0]} goes by it, for example charts/reward")
    if found.sampler == "optuna":
        for key, space in found.param_space.items():
            if space.kind == GRID or space.kind in BELLS:
                raise UserError(
                    f"tune.param_space.{key} is a {space.kind}, which tune.search optuna cannot draw from; "
                    f"{nearest(space.kind, [kind for kind in SPACES if kind != GRID and kind not in BELLS])}"
                )
    if found.rule is not None:
        found.rule.check(list(found.param_space), found.num_trials, found.sampler, found.iterations)


def _check_settings(values: Mapping[str, Any]) -> None:
    if values.get("max_failures", 0) < 0:
        raise UserError(f"tune.max_failures is {values['max_failures']}, and must be at least 0")
    for key in ("num_samples", "max_concurrent_trials"):
        if values.get(key) is not None and values[key] < 1:
            raise UserError(f"tune.{key} is {values[key]}, and must be at least 1")
    if values.get("mode", "max") not in MODES:
        raise UserError(f"tune.mode is {shown(values['mode'])}, and must be 'max' or 'min'")
    metric = values.get("metric")
    if "mode" in values and metric is None:
        raise UserError("tune.mode says which end of tune.metric is the better one, and tune.metric is missing")
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
    found: dict[str, Space] = {}
    for key, value in given.items():
        found[str(key)] = _space(str(key), value, found)
    return found


def _space(key: str, given: Any, before: Mapping[str, Space]) -> Space:
    name = f"tune.param_space.{key}"
    section, dot, rest = key.partition(".")
    if not dot or not all(rest.split(".")) or section == "tune":
        raise UserError(f"{name} is no key of this file, such as training.lr")
    asked = {kind: value for kind, value in given.items() if kind != WHEN} if isinstance(given, dict) else {}
    if len(asked) != 1:
        raise UserError(f"{name} is {shown(given)}, and must be one search space, {EXAMPLE}")
    ((kind, arguments),) = asked.items()
    if kind not in SPACES:
        raise UserError(f"{name}: the search space {shown(kind)} does not exist; {nearest(str(kind), SPACES)}")
    if not isinstance(arguments, list):
        raise UserError(f"{name}.{kind} is {shown(arguments)}, and must be a list")
    when = _conditions(f"{name}.{WHEN}", kind, given[WHEN], before) if WHEN in given else {}
    return Space(kind, _listed(name, kind, arguments) if kind in LISTS else _numbers(name, kind, arguments), when)


def _conditions(name: str, kind: str, given: Any, before: Mapping[str, Space]) -> dict[str, tuple[Any, ...]]:
    """{key: values}, of keys whose values are listed."""
    if kind == GRID:
        raise UserError(f"{name}: a grid is gone through whole, and has no condition; use choice")
    if not isinstance(given, dict) or not given:
        raise UserError(f"{name} is {shown(given)}, and must map keys of tune.param_space to their values")
    found = {}
    for key, value in given.items():
        listed = {other: space.arguments for other, space in before.items() if space.kind in LISTS}
        if key not in listed:
            raise UserError(
                f"{name}.{key} is none of the keys before it whose values are listed: {', '.join(listed) or 'none'}"
            )
        values = tuple(value) if isinstance(value, list) else (value,)
        for one in values:
            if one not in listed[key]:
                raise UserError(f"{name}.{key} is {shown(one)}, and {key} is one of {shown(list(listed[key]))}")
        if not values:
            raise UserError(f"{name}.{key} is an empty list, and must hold at least one value")
        found[key] = values
    return found


def _listed(name: str, kind: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if not values:
        raise UserError(f"{name} is an empty list, and must hold at least one value")
    twice = [one for place, one in enumerate(values) if repr(one) in map(repr, values[:place])]
    if kind == GRID and twice:  # trials with the same seed, too; what is drawn from may have weights
        raise UserError(f"{name}.{kind} has {shown(twice[0])} twice; tune.num_samples repeats settings")
    return tuple(values)


def _numbers(name: str, kind: str, given: Sequence[Any]) -> tuple[Any, ...]:
    """What the function of Tune takes, checked."""
    form = ["mean", "deviation"] if kind in BELLS else ["low", "high"]
    form += ["step"] if kind in STEPPED or kind == "qrandn" else []
    if len(given) != len(form):
        raise UserError(f"{name}.{kind} is {shown(list(given))}, and must be [{', '.join(form)}]")
    numbers = tuple(convert(f"{name}.{kind}", one, int if kind in WHOLE else float) for one in given)
    said = f"{name}.{kind} is {shown(list(given))}, and"
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"{said} must hold finite numbers")
    if kind in BELLS:
        if numbers[1] <= 0:
            raise UserError(f"{said} deviation must be above 0")
    elif numbers[0] >= numbers[1]:
        raise UserError(f"{said} low must be below high")
    if "log" in kind and numbers[0] <= 0:
        raise UserError(f"{said} must be above 0")
    if len(form) == 3:
        _check_step(said, kind, numbers)
    return numbers


def _check_step(said: str, kind: str, numbers: Sequence[float]) -> None:
    """Tune's own rule: both ends of a range are whole steps."""
    step = numbers[2]
    if step <= 0:
        raise UserError(f"{said} step must be above 0")
    off = [end for end in numbers[:2] if not math.isclose(end / step, round(end / step))]
    if kind in STEPPED and off:
        raise UserError(f"{said} {off[0]:g} must be a whole number of steps")
