"""Which trials of a sweep end early, and which take over the population of another: `tune.scheduler`, checked."""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from popcomm.checks import at_least_zero, count, number, share
from popcomm.cli.documents import shown
from popcomm.cli.run_folder import OF_A_LIFE
from popcomm.errors import UserError, nearest
from popcomm.evolution import COPY, NOBODY, Strategy, Truncation, make_strategy, rehearse
from popcomm.evolution.generation import Ints
from popcomm.references import build_from_config

KEY = "tune.scheduler"
SAMPLERS = ("random", "optuna")
VARIED = ("training", "survival")  # sections of which a child has values of its own, unless keys are named
# Of these, what decides of which parts networks are made: a child that has others cannot take over a population.
OF_NETWORKS = ("survival.newborns", "survival.hyperparameters", "training.quality_coeff", "training.learn_from")


class Rule(ABC):
    """A `tune.scheduler`. Times are iterations of training.

    Attributes:
        every: iterations of a generation, at whose end all trials wait for one another; None: they do not.
    """

    every: int | None = None

    @abstractmethod
    def check(self, document: Mapping[str, Any], keys: Sequence[str], trials: int, sampler: str) -> None:
        """Raises UserError where the sweep is not one that it can rule.

        Args:
            document: what it says of `stop` and `recording`, with converted values.
            keys: of its `param_space`.
            trials: as many as it has.
            sampler: that draws them.
        """


@dataclass(frozen=True)
class ASHA(Rule):
    """Asynchronous successive halving, as in Tune: of the trials that got to a rung, the best 1 / f go on.

    (Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning.) Rungs are grace_period, f grace_period,
    f^2 grace_period ... iterations.

    Args:
        grace_period: iterations before any trial is ended.
        reduction_factor: f.
        max_t: the last iteration in which there can be a rung; trials that are not ended by one go on to a bound of
            `stop`. None: stop.training_iteration.

    Raises:
        UserError: numbers that are none of these.
    """

    grace_period: int = 1
    reduction_factor: float = 4
    max_t: int | None = None

    def __post_init__(self) -> None:
        count(f"{KEY}.grace_period", self.grace_period, 1)
        must = "be a finite number above 1"
        number(f"{KEY}.reduction_factor", self.reduction_factor, must, above=1, below=math.inf)
        if self.max_t is not None:
            count(f"{KEY}.max_t", self.max_t, self.grace_period)

    def longest(self, iterations: float | None) -> int:
        """max_t, chosen or not. iterations: of a trial, if they bound it.

        Raises:
            UserError: neither is there.
        """
        found = self.max_t or iterations
        if found is None:
            raise UserError(f"{KEY}.max_t is missing: how many iterations a trial has, or name stop.training_iteration")
        return math.ceil(found)

    def check(self, document: Mapping[str, Any], keys: Sequence[str], trials: int, sampler: str) -> None:
        self.longest(document["stop"].get("training_iteration"))
        _check_acts("grace_period", self.grace_period, document)


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

    def __post_init__(self) -> None:
        count(f"{KEY}.grace_period", self.grace_period, 1)
        count(f"{KEY}.min_samples_required", self.min_samples_required, 1)

    def check(self, document: Mapping[str, Any], keys: Sequence[str], trials: int, sampler: str) -> None:
        _check_acts("grace_period", self.grace_period, document)
        if self.min_samples_required >= trials:
            raise UserError(
                f"{KEY}.min_samples_required is {self.min_samples_required}, and the sweep has {trials} "
                "trials, so that it would end none"
            )


class BetweenRuns(Rule):
    """Survival between runs: every some iterations all wait, and some go on from another's population.

    What such a child learns with is its parent's, with `hyperparameters` of `param_space` varied. Weights, optimizer
    and all else are those of the parent's verified checkpoint.
    """

    named: ClassVar[str] = "hyperparameters"  # how a config calls what is varied ...
    timed: ClassVar[str] = "every"  # ... and the iterations of a generation
    hyperparameters: Sequence[str] | None
    smoothing: float
    resample_probability: float
    factors: tuple[float, float]

    @abstractmethod
    def strategy_of(self, trials: int) -> Strategy:
        """Who has children. trials: as many as there are.

        Raises:
            UserError: among so many, none can be selected.
        """

    def varied(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Keys of `param_space` that differ between parent and child: those asked for, or all of VARIED sections but
        those OF_NETWORKS."""
        if self.hyperparameters is not None:
            return tuple(self.hyperparameters)
        return tuple(key for key in keys if key.partition(".")[0] in VARIED and not _among(key, OF_NETWORKS))

    def check(self, document: Mapping[str, Any], keys: Sequence[str], trials: int, sampler: str) -> None:
        if trials < 2:
            raise UserError(f"{KEY}: selection needs 2 trials or more; raise tune.num_samples")
        if sampler != "random":
            raise UserError(f"tune.search is {sampler}, and with {KEY} children's values come from their parents")
        strategy = self.strategy_of(trials)
        check_parents(strategy, rehearse(strategy, trials))
        if self.hyperparameters is None and not self.varied(keys):
            raise UserError(
                f"{KEY}: nothing of tune.param_space is of {' or '.join(VARIED)} and leaves networks the parts that "
                "they have, so that children would differ from their parents in nothing; name what is varied, or [] "
                f"for nothing, in {KEY}.{self.named}"
            )
        for key in self.hyperparameters or ():
            if key not in keys:
                raise UserError(f"{KEY}.{self.named}: '{key}' is none of tune.param_space")
            if _among(key, OF_A_LIFE):
                raise UserError(f"{KEY}.{self.named}: {key} stays for the life of a run, and cannot be varied")
        assert self.every is not None
        _check_acts(self.timed, self.every, document)
        saved = document["recording"].get("checkpoint_every")
        if saved is not None and (not saved or self.every % saved):
            raise UserError(
                f"recording.checkpoint_every is {saved}, and must divide the {self.every} iterations of a generation "
                f"of {KEY}: children begin with checkpoints"
            )


@dataclass(frozen=True)
class PopulationSurvival(BetweenRuns):
    """The populations of the best runs seed the next.

    Args:
        strategy: who has children: {"kind": "truncation", ...}, as `survival.strategy` takes it, with runs in place of
            members.
        every: iterations of a generation.
        hyperparameters: keys of `param_space` that are varied; None: those of training and survival
            but OF_NETWORKS.
        perturbation: factor above 1, by which a child's numbers are above or below its parent's; of what is chosen from
            a list the one beside.
        resample_probability: with which a value is drawn anew instead.
        smoothing: of fitness over generations, in [0, 1).

    Raises:
        UserError: numbers that are none of these.
    """

    strategy: Any
    every: int = 10
    hyperparameters: Sequence[str] | None = None
    perturbation: float = 1.2
    resample_probability: float = 0.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        count(f"{KEY}.every", self.every, 1)
        must = "be a finite number of at least 1"
        number(f"{KEY}.perturbation", self.perturbation, must, least=1, below=math.inf)
        share(f"{KEY}.resample_probability", self.resample_probability)
        number(f"{KEY}.smoothing", self.smoothing, "be at least 0 and below 1", least=0, below=1)
        _check_keys(self.named, self.hyperparameters)

    @property
    def factors(self) -> tuple[float, float]:  # type: ignore[override]
        return self.perturbation, 1 / self.perturbation

    def strategy_of(self, trials: int) -> Strategy:
        found = make_strategy(self.strategy, trials, f"{KEY}.strategy")
        if found.traits or found.newborns != COPY:
            raise UserError(
                f"{KEY}.strategy {type(found).__name__} cannot select runs, of which nothing but tune.metric is known; "
                "use top_k, truncation or tournament"
            )
        return found


@dataclass(frozen=True)
class PBT(BetweenRuns):
    """Population based training of whole populations, synchronous, with the arguments of Tune's.

    The worst runs go on from a population of the best, with hyper-parameters that are perturbed or drawn anew.
    (Jaderberg et al. 2017, Population Based Training of Neural Networks.)

    Args:
        perturbation_interval: iterations of a generation.
        quantile_fraction: share of the runs that are the best, and of those that are the worst, above 0, at most 0.5.
        resample_probability: with which a value is drawn anew.
        perturbation_factors: by one of which it is multiplied otherwise; of what is chosen from a list the one beside.
        hyperparam_mutations: keys of `param_space` that are varied; None: those of training and survival
            but OF_NETWORKS.

    Raises:
        UserError: numbers that are none of these.
    """

    perturbation_interval: int = 10
    quantile_fraction: float = 0.25
    resample_probability: float = 0.25
    perturbation_factors: Sequence[float] = (1.2, 0.8)
    hyperparam_mutations: Sequence[str] | None = None
    named: ClassVar[str] = "hyperparam_mutations"
    timed: ClassVar[str] = "perturbation_interval"
    smoothing = 0.0

    def __post_init__(self) -> None:
        count(f"{KEY}.perturbation_interval", self.perturbation_interval, 1)
        number(f"{KEY}.quantile_fraction", self.quantile_fraction, "be above 0 and at most 0.5", above=0, most=0.5)
        share(f"{KEY}.resample_probability", self.resample_probability)
        if not isinstance(self.perturbation_factors, (list, tuple)) or len(self.perturbation_factors) != 2:
            raise UserError(
                f"{KEY}.perturbation_factors is {shown(self.perturbation_factors)}, and must be two factors"
            )
        for factor in self.perturbation_factors:
            at_least_zero(f"{KEY}.perturbation_factors", factor)
        _check_keys(self.named, self.hyperparam_mutations)

    @property
    def every(self) -> int:  # type: ignore[override]
        return self.perturbation_interval

    @property
    def hyperparameters(self) -> Sequence[str] | None:  # type: ignore[override]
        return self.hyperparam_mutations

    @property
    def factors(self) -> tuple[float, float]:  # type: ignore[override]
        high, low = self.perturbation_factors
        return high, low

    def strategy_of(self, trials: int) -> Strategy:
        # At least one, and never half of them twice.
        replaced = min(max(1, round(self.quantile_fraction * trials)), trials // 2)
        return Truncation(elites=trials - replaced, share=replaced / trials)


RULES: dict[str, type] = {
    "asha": ASHA,
    "median_stopping": MedianStopping,
    "pbt": PBT,
    "population_survival": PopulationSurvival,
}


def check_parents(strategy: Strategy, sources: Ints) -> Ints:
    """sources [P] int64, as they are.

    Raises:
        UserError: the strategy wants some to be made anew, and a run goes on from a population that is there.
    """
    if (sources == NOBODY).any():
        raise UserError(
            f"{KEY}.strategy {type(strategy).__name__} returned {NOBODY}, one that is made anew, and must return "
            f"places of 0 to {len(sources) - 1}: a run lives on, or goes on from another's population"
        )
    return sources


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


def _check_acts(name: str, first: int, document: Mapping[str, Any]) -> None:
    """Raises UserError: trials have ended at the first iteration after which a rule may act."""
    iterations = document["stop"].get("training_iteration")
    if iterations is not None and first >= iterations:
        raise UserError(
            f"{KEY}.{name} is {first}, and a trial has {iterations:g} iterations, so that {KEY} would never act"
        )


def _check_keys(name: str, keys: Any) -> None:
    if keys is not None and (not isinstance(keys, (list, tuple)) or not all(isinstance(key, str) for key in keys)):
        raise UserError(
            f"{KEY}.{name} is {shown(keys)}, and must be a list of keys of tune.param_space, where their ranges are"
        )


def _among(key: str, kept: Iterable[str]) -> bool:
    """Whether a key is one of some, or in one, or holds one."""
    return any(f"{key}.".startswith(f"{one}.") or one.startswith(f"{key}.") for one in kept)
