"""Rules by which trials take over the population of another at the ends of generations: `tune.scheduler`, checked."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from popcomm.checks import at_least_zero, count, number, share
from popcomm.cli.documents import shown
from popcomm.cli.run_folder import OF_A_LIFE
from popcomm.cli.sweep_rule import KEY, Rule
from popcomm.errors import UserError
from popcomm.evolution import COPY, NOBODY, Strategy, Truncation, make_strategy, rehearse
from popcomm.evolution.generation import Ints

SAVED = "recording.checkpoint_every"
VARIED = ("training", "survival")  # sections of which a child has values of its own, unless keys are named
# Of these, what decides of which parts networks are made: a child that has others cannot take over a population.
OF_NETWORKS = ("survival.newborns", "survival.hyperparameters", "training.quality_coeff", "training.learn_from")


class BetweenRuns(Rule):
    """Survival between runs: every some iterations all wait, and some go on from another's population.

    What such a child learns with is its parent's, with `hyperparameters` of `param_space` varied. Weights, optimizer
    and all else are those of the parent's verified checkpoint.
    """

    named: ClassVar[str] = "hyperparameters"  # how a config calls what is varied
    timed: ClassVar[str] = "every"
    hyperparameters: Sequence[str] | None
    smoothing: float
    resample_probability: float
    factors: tuple[float, float]  # in either order

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

    def check(self, keys: Sequence[str], trials: int, sampler: str, iterations: float | None) -> None:
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
        if SAVED in keys:
            raise UserError(
                f"tune.param_space.{SAVED}: with {KEY} all trials save at the ends of generations, for children begin "
                "with checkpoints; leave it out"
            )
        for key in self.hyperparameters or ():
            if key not in keys:
                raise UserError(f"{KEY}.{self.named}: '{key}' is none of tune.param_space")
            if _among(key, OF_A_LIFE):
                raise UserError(f"{KEY}.{self.named}: {key} stays for the life of a run, and cannot be varied")

    def check_trial(self, iterations: float | None, checkpoint_every: int) -> None:
        super().check_trial(iterations, checkpoint_every)
        assert self.every is not None
        if not checkpoint_every or self.every % checkpoint_every:
            raise UserError(
                f"{SAVED} is {checkpoint_every}, and must divide the {self.every} iterations of a "
                f"generation of {KEY}: children begin with checkpoints"
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
        first, second = self.perturbation_factors
        return first, second

    def strategy_of(self, trials: int) -> Strategy:
        # At least one, and never half of them twice.
        replaced = min(max(1, round(self.quantile_fraction * trials)), trials // 2)
        return Truncation(elites=trials - replaced, share=replaced / trials)


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


def _check_keys(name: str, keys: Any) -> None:
    if keys is not None and (not isinstance(keys, (list, tuple)) or not all(isinstance(key, str) for key in keys)):
        raise UserError(
            f"{KEY}.{name} is {shown(keys)}, and must be a list of keys of tune.param_space, where their ranges are"
        )


def _among(key: str, kept: Iterable[str]) -> bool:
    """Whether a key is one of some, or in one, or holds one."""
    return any(f"{key}.".startswith(f"{one}.") or one.startswith(f"{key}.") for one in kept)
