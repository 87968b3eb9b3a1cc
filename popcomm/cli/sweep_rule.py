"""What a rule of trials is, `tune.scheduler`; see `popcomm.cli.sweep_rules`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from popcomm.errors import UserError

KEY = "tune.scheduler"


class Rule(ABC):
    """A `tune.scheduler`. Times are iterations of training.

    Attributes:
        every: iterations of a generation, at whose end all trials wait for one another; None: they do not.
        timed: how a config calls the iterations after which it first acts.
    """

    every: int | None = None
    timed: ClassVar[str]

    @abstractmethod
    def check(self, keys: Sequence[str], trials: int, sampler: str, iterations: float | None) -> None:
        """Raises UserError where the sweep is not one that it can rule.

        Args:
            keys: of its `param_space`.
            trials: as many as it has.
            sampler: that draws them.
            iterations: of the longest trial; None: not all trials bound them.
        """

    def check_trial(self, iterations: float | None, checkpoint_every: int) -> None:
        """Raises UserError where it could do nothing with one of the trials, whose own values `param_space` may hold.

        Args:
            iterations: of the trial, stop.training_iteration; None: other bounds end it.
            checkpoint_every: of its recording.
        """
        first = getattr(self, self.timed)
        if iterations is not None and first >= iterations:
            raise UserError(
                f"{KEY}.{self.timed} is {first}, and a trial has {iterations:g} iterations, so that {KEY} would never "
                "act"
            )
