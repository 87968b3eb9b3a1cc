"""Schedules: from the training's clock to a strength in [0, 1], of whatever fades or rises while training goes on.

Reflexes, losses, mutation, the pressure of selection, curricula of topologies and vocabularies follow them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

from popcomm.checks import between, finite, number, true_or_false, whole
from popcomm.errors import UserError
from popcomm.references import made


class Clock(NamedTuple):
    """How far training is."""

    step: int  # environment steps so far, all worlds and runners together: the x axis of TensorBoard
    performance: Mapping[str, float] = {}  # latest measures, e.g. {"agreement": 0.7}; empty where unknown


class Schedule(ABC):
    """What is asked how strong something is now. A schedule of your own is a subclass with the one method `strength`.

    The strength is a pure function of the clock and of what was observed. The other methods have defaults that suit
    every schedule without memory.
    """

    @abstractmethod
    def strength(self, clock: Clock) -> float:
        """Share of what it drives that there is now, in [0, 1]."""

    def of_repetition(self, clock: Clock, target: float) -> float:
        """The factor R(t) / R0 of a word repetition whose reproduction number R0 is `target`: the strength."""
        return self.strength(clock)

    def observe(self, clock: Clock) -> None:
        """Take note of the latest measures; called once per training result. Without memory: nothing."""
        return None

    def get_state(self) -> dict[str, Any]:
        """The memory, for a checkpoint: plain numbers. Without memory: empty."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take the memory back from `get_state`.

        Raises:
            UserError: the state is that of another kind of schedule.
        """
        self._same_memory(state)

    def _same_memory(self, state: Mapping[str, Any]) -> None:
        expected, found = sorted(self.get_state()), sorted(state)
        if expected != found:
            raise UserError(
                f"the checkpoint's schedule remembers {', '.join(found) or 'nothing'}, and {type(self).__name__} "
                f"remembers {', '.join(expected) or 'nothing'}; restore it with the schedule that it was saved with"
            )


@dataclass(frozen=True)
class Constant(Schedule):
    """The same strength for ever; Constant(0) switches off what it drives.

    Raises:
        UserError: a value outside [0, 1].
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        _share("schedule.value", self.value)

    def strength(self, clock: Clock) -> float:
        return float(self.value)


@dataclass(frozen=True)
class Linear(Schedule):
    """`start` up to the step `begin`, `stop` from the step `end` on, a straight line between.

    Steps are environment steps (see `Clock`). With begin = end it is a step: `start` before, `stop` from there on.

    Raises:
        UserError: begin or end that is no whole number of steps, an end before the begin, start or stop outside [0, 1].
    """

    begin: int
    end: int
    start: float = 1.0
    stop: float = 0.0

    def __post_init__(self) -> None:
        _interval(self.begin, self.end)
        _share("schedule.start", self.start)
        _share("schedule.stop", self.stop)

    def strength(self, clock: Clock) -> float:
        return _between(self.start, self.stop, _progress(clock.step, self.begin, self.end))


@dataclass(frozen=True)
class Cosine(Linear):
    """As `Linear`, along half a cosine: slow at both ends, 1.57 times as fast in the middle.

    stop + (start - stop) (1 + cos(pi x)) / 2 for the share x of the interval that has passed (Loshchilov and Hutter
    2017, SGDR, eq. 5, one period).
    """

    def strength(self, clock: Clock) -> float:
        passed = _progress(clock.step, self.begin, self.end)
        return _between(self.start, self.stop, (1 - math.cos(math.pi * passed)) / 2)


@dataclass(frozen=True)
class Exponential(Schedule):
    """`start` up to the step `begin`; then the distance to `stop` halves every `half_life` steps.

    It comes as near to `stop` as one likes and gets there only at `end`, if one is given: from that step on the
    strength is exactly `stop` (a jump of 0.1 % of the way after ten half-lives).

    Raises:
        UserError: a half-life that is not above 0, else as `Linear`.
    """

    begin: int
    half_life: float
    end: int | None = None
    start: float = 1.0
    stop: float = 0.0

    def __post_init__(self) -> None:
        finite("schedule.half_life", self.half_life)
        number("schedule.half_life", self.half_life, "be above 0 steps", above=0)
        _interval(self.begin, self.begin if self.end is None else self.end)
        _share("schedule.start", self.start)
        _share("schedule.stop", self.stop)

    def strength(self, clock: Clock) -> float:
        if self.end is not None and clock.step >= self.end:
            return float(self.stop)
        lives = max(clock.step - self.begin, 0) / self.half_life
        return _between(self.stop, self.start, 0.5**lives)  # not 1 - 0.5**lives, which is 1 after 54 lives


@dataclass(frozen=True)
class LoadLinear(Schedule):
    """Fade of word repetition in load: the repetitions that a word causes fall on a straight line, R0 itself does not.

    With nu new words a step the channel carries L = nu / (1 - R0) transmissions a step. From R0 = 0.9 to 0.8, a ninth
    of the way, L already halves: a fade that is linear in R0 takes the channel away from the agents in its first
    steps and then idles. Here L(t) falls linearly from nu / (1 - R0) at `begin` to nu at `end`, and
    R(t) = 1 - nu / L(t).

    The factor depends on R0, so this schedule is for word repetition, and for a vocabulary that grows, where it has a
    meaning of its own (`popcomm.channels.vocabulary`); all else refuses it. `strength` is the share of the extra load
    L - nu that is left.

    Raises:
        UserError: begin or end that is no whole number of steps, or an end before the begin.
    """

    begin: int
    end: int

    def __post_init__(self) -> None:
        _interval(self.begin, self.end)

    def strength(self, clock: Clock) -> float:
        return 1.0 - _progress(clock.step, self.begin, self.end)

    def of_repetition(self, clock: Clock, target: float) -> float:
        """R(t) / R0 for R0 = `target`, where 1 / (1 - R(t)) = 1 + s (1 / (1 - R0) - 1) and s is the strength.

        Solved for R(t) / R0 this is s / (1 - R0 (1 - s)), which needs no division by R0.

        Raises:
            UserError: a target outside [0, 1): from R0 = 1 on there is no finite load to fade.
        """
        key = "the target R0 of word repetition"
        finite(key, target)
        number(key, target, "be at least 0 and below 1 to fade", least=0, below=1)
        left = self.strength(clock)
        return left / (1 - target * (1 - left))


@dataclass
class Gated(Schedule):
    """Fade by performance: full strength while the smoothed measure is below `begin`, none from `end` on.

    Between them the strength is linear.
    `observe` smooths the measure, m <- smoothing m + (1 - smoothing) x, from the first value on (which counts as it
    is); a clock without the measure, or with one that is not finite, changes nothing, and neither does a second look at
    the same step (several reflexes may share one schedule). With `ratchet` the strength never rises again, however
    the measure falls. `strength` reads the memory only.

    Raises:
        UserError: begin that is not below end, smoothing outside [0, 1), a measure without a name.
    """

    measure: str = "agreement"
    begin: float = 0.5
    end: float = 0.9
    smoothing: float = 0.9
    ratchet: bool = True
    _smoothed: float | None = field(default=None, init=False)
    _lowest: float = field(default=1.0, init=False)
    _step: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.measure, str) or not self.measure:
            raise UserError(f"schedule.measure is {self.measure!r}, and must be the name of a measure")
        if finite("schedule.begin", self.begin) >= finite("schedule.end", self.end):
            raise UserError(f"schedule.begin is {self.begin}, and must be below schedule.end = {self.end}")
        finite("schedule.smoothing", self.smoothing)
        number("schedule.smoothing", self.smoothing, "be at least 0 and below 1", least=0, below=1)
        true_or_false("schedule.ratchet", self.ratchet)

    def observe(self, clock: Clock) -> None:
        value = clock.performance.get(self.measure, math.nan)
        if not math.isfinite(value) or clock.step == self._step:
            return
        before = value if self._smoothed is None else self._smoothed
        self._smoothed = float(before + (1 - self.smoothing) * (value - before))
        self._lowest = min(self._lowest, self._now())
        self._step = int(clock.step)

    def strength(self, clock: Clock) -> float:
        return self._lowest if self.ratchet else self._now()

    def get_state(self) -> dict[str, Any]:
        return {"smoothed": self._smoothed, "lowest": self._lowest, "step": self._step}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._same_memory(state)
        self._smoothed, self._lowest, self._step = state["smoothed"], state["lowest"], state["step"]

    def _now(self) -> float:
        """The strength for the smoothed measure as it is, without the ratchet."""
        return 1.0 if self._smoothed is None else 1.0 - _progress(self._smoothed, self.begin, self.end)


SCHEDULES: dict[str, type] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "load_linear": LoadLinear,
    "gated": Gated,
}

# Kinds whose strength follows from the environment steps alone.
BY_STEPS = (Constant, Linear, Cosine, Exponential, LoadLinear)


def make_schedule(value: Any, key: str = "schedule") -> Schedule:
    """The schedule that a config means: None (full strength), a strength, {"kind": name, **arguments} or a Schedule.

    The kind is one of SCHEDULES or "module:Class" for a subclass of Schedule of your own.
    `key` is what errors call the value.

    Raises:
        UserError: none of these, or arguments that do not fit the kind.

    >>> make_schedule({"kind": "linear", "begin": 100, "end": 300}).strength(Clock(150))
    0.75
    """
    if value is None:
        return Constant()
    if isinstance(value, Real) and not isinstance(value, bool):
        return Constant(float(value))
    schedule = made(key, value, SCHEDULES, "strength")
    if not isinstance(schedule, Schedule):
        raise UserError(f"{key} is of class {type(schedule).__name__}, and must be a subclass of Schedule")
    return schedule


def refuse_load(schedule: Schedule, key: str) -> Schedule:
    """The schedule of something that causes no load.

    Raises:
        UserError: it is one of load.
    """
    if isinstance(schedule, LoadLinear):
        raise UserError(
            f"{key} has the schedule 'load_linear', which is for word_repetition and for the vocabulary; use 'linear'"
        )
    return schedule


def _progress(now: float, begin: float, end: float) -> float:
    """Share of the way from begin to end, exactly 0 before and exactly 1 from `end` on."""
    if now >= end:
        return 1.0
    return (now - begin) / (end - begin) if now > begin else 0.0


def _between(start: float, stop: float, share: float) -> float:
    """The point at `share` of the way; rounding carries it neither past the ends nor off them."""
    if share >= 1:
        return float(stop)
    low, high = min(start, stop), max(start, stop)
    return float(min(max(start + share * (stop - start), low), high))


def _share(key: str, value: Any) -> None:
    finite(key, value)
    between(key, value, 0, 1)


def _interval(begin: Any, end: Any) -> None:
    whole("schedule.begin", begin, 0)
    whole("schedule.end", end, 0)
    if end < begin:
        raise UserError(f"schedule.end is {end}, before schedule.begin = {begin}")
