"""Which trials of a sweep end early, and which take over the population of another: `tune.scheduler`, checked."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from popcomm.checks import count, number
from popcomm.cli.between_runs import PBT, PopulationSurvival
from popcomm.cli.documents import shown
from popcomm.cli.sweep_rule import KEY, Rule
from popcomm.errors import UserError, nearest
from popcomm.references import build_from_config

SAMPLERS = ("random", "optuna")


@dataclass(frozen=True)
class ASHA(Rule):
    """Asynchronous successive halving, as in Tune: of the trials that got to a rung, the best 1 / f go on.

    (Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning.) Rungs are grace_period, f grace_period,
    f^2 grace_period ... iterations.

    Args:
        grace_period: iterations before any trial is ended.
        reduction_factor: f.
        max_t: the last iteration in which there can be a rung; trials that are not ended by one go on to a bound of
            `stop`. None: stop.training_iteration, of the longest trial.

    Raises:
        UserError: numbers that are none of these.
    """

    grace_period: int = 1
    reduction_factor: float = 4
    max_t: int | None = None
    timed: ClassVar[str] = "grace_period"

    def __post_init__(self) -> None:
        count(f"{KEY}.grace_period", self.grace_period, 1)
        must = "be a finite number above 1"
        number(f"{KEY}.reduction_factor", self.reduction_factor, must, above=1, below=math.inf)
        if self.max_t is not None:
            count(f"{KEY}.max_t", self.max_t, self.grace_period)

    def longest(self, iterations: float | None) -> int:
        """max_t, chosen or not. iterations: of the longest trial, if they bound all.

        Raises:
            UserError: neither is there.
        """
        found = self.max_t or iterations
        if found is None:
            raise UserError(f"{KEY}.max_t is missing: how many iterations a trial has, or name stop.training_iteration")
        return math.ceil(found)

    def check(self, keys: Sequence[str], trials: int, sampler: str, iterations: float | None) -> None:
        self.longest(iterations)


@dataclass(frozen=True)
class MedianStopping(Rule):
    """A trial ends whose best is below the median of the others' means so far, as in Tune.

    (Golovin et al. 2017, Google Vizier.)

    Args:
        grace_period: iterations before any trial is ended.
        min_samples_required: other trials that must have got as far.

    Raises:
        UserError: numbers that are none of these, or (`check`) more trials than there are.
    """

    grace_period: int = 1
    min_samples_required: int = 3
    timed: ClassVar[str] = "grace_period"

    def __post_init__(self) -> None:
        count(f"{KEY}.grace_period", self.grace_period, 1)
        count(f"{KEY}.min_samples_required", self.min_samples_required, 1)

    def check(self, keys: Sequence[str], trials: int, sampler: str, iterations: float | None) -> None:
        if self.min_samples_required >= trials:
            raise UserError(
                f"{KEY}.min_samples_required is {self.min_samples_required}, and the sweep has {trials} "
                "trials, so that it would end none"
            )


RULES: dict[str, type] = {
    "asha": ASHA,
    "median_stopping": MedianStopping,
    "pbt": PBT,
    "population_survival": PopulationSurvival,
}


def make_rule(value: Any) -> Rule | None:
    """The rule that `tune.scheduler` means: {"kind": name, **arguments} or a name.

    Raises:
        UserError: no such rule, or arguments that do not fit.

    >>> make_rule({"kind": "asha", "grace_period": 2})
    ASHA(grace_period=2, reduction_factor=4, max_t=None)
    """
    if value is None:
        return None
    asked = {"kind": value} if isinstance(value, str) else value
    if not isinstance(asked, dict):
        raise UserError(f"{KEY} is {shown(value)}, and must be one of {', '.join(RULES)}, with its arguments")
    if isinstance(asked.get("kind"), str) and asked["kind"] not in RULES:
        raise UserError(f"{KEY}.kind '{asked['kind']}' does not exist; {nearest(asked['kind'], RULES)}")
    found = build_from_config(KEY, asked, RULES)
    assert isinstance(found, Rule)
    return found


def make_sampler(value: Any) -> str:
    """How `tune.search` draws: "random" (None) or "optuna".

    Raises:
        UserError: neither, or Optuna is not installed.
    """
    if value is None:
        return "random"
    if value not in SAMPLERS:
        hint = nearest(value, SAMPLERS) if isinstance(value, str) else f"allowed: {', '.join(SAMPLERS)}"
        raise UserError(f"tune.search is {shown(value)}; {hint}")
    if value == "optuna" and importlib.util.find_spec("optuna") is None:
        raise UserError("tune.search optuna needs the package optuna: pip install 'popcomm[optuna]'")
    return str(value)
