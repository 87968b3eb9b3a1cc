"""The harvest of an iteration: what all env runners sampled, what failed in them, and whether it is enough."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from popcomm.errors import UserError
from popcomm.rllib.answers import Answer, Sampled, SamplingFailure, parted
from popcomm.rllib.attendance import Attendance
from popcomm.rllib.overlap import Ahead, Ask
from popcomm.rllib.settings import Settings
from popcomm.rllib.shares import LostFragments

logger = logging.getLogger(__name__)

STOP_SECONDS = 5.0  # for env runners to close their worlds


class NoSamplesError(RuntimeError):
    """Iteration after iteration brought no samples."""


class SamplingError(RuntimeError):
    """An environment or a network raised in an env runner; the text has the original traceback."""


class Harvest:
    """Asks env runners for their fragments, or takes those that they sampled ahead.

    Args:
        config: says how long runners are waited for, and what becomes of failures.
        attendance: is told which runners sampled.
        ahead: what they sampled ahead.

    Attributes:
        begun_anew: runners whose process Ray had begun anew before anybody missed the last one.
        restored: runners that RLlib has brought up to date since the last iteration.
    """

    def __init__(self, config: Settings, attendance: Attendance, ahead: Ahead) -> None:
        self.begun_anew: list[int] = []
        self.restored: set[int] = set()
        self.config, self.attendance, self.ahead = config, attendance, ahead
        self._empty_iterations = 0
        self._last_failure = ""
        self._raised: SamplingError | None = None

    def gather(self, group: Any, ask: Ask) -> list[Sampled]:
        """What all runners of a group sampled for this iteration; those that failed or are missing are left out.

        Raises:
            SamplingError: sampling failed in one of them, and its worlds are not to be made anew.
            UserError: what one of them sampled could not be kept.
        """
        self._last_failure, self._raised = "", None
        answers = self._answers(group, ask)
        for failure in (a for a in answers if isinstance(a, SamplingFailure)):
            if failure.sentence:
                raise UserError(failure.sentence)
            message = f"sampling failed in env runner {failure.worker_index}:\n{failure.traceback}"
            self._raised = SamplingError(message)
            if not self.config.restart_failed_sub_environments:
                raise self._raised
            logger.warning("%s\nIts worlds are made anew.", message)
            self._last_failure = message
        return [a for a in answers if isinstance(a, Sampled)]

    def _answers(self, group: Any, ask: Ask) -> Sequence[Answer]:
        """Of all runners that sampled, now or ahead of this iteration."""
        if self.config.num_env_runners == 0:
            return parted([ask(group.local_env_runner)])[0]
        answers, alive = self.ahead.take(group), self.ahead.alive
        begun_anew, self.ahead.newcomers = self.ahead.newcomers, []
        if answers is None:
            told = group.foreach_env_runner(ask, local_env_runner=False, timeout_seconds=self.config.sample_timeout_s)
            answers, newcomers = parted(told)
            begun_anew = [*begun_anew, *newcomers]
            alive = [runner for runner in group.healthy_env_runner_ids() if runner not in newcomers]
        lives = {answer.worker_index: answer.life for answer in answers if isinstance(answer, Sampled)}
        unmissed = self.attendance.take({answer.worker_index for answer in answers}, alive, lives)
        self.begun_anew = sorted({*begun_anew, *unmissed} - self.restored)
        self.restored = set()
        return answers

    def without_lost(self, sampled: Sequence[Sampled], lost: LostFragments) -> list[Sampled]:
        """What is left to learn from."""
        self._raised = None
        for place in lost.places:
            self._last_failure = f"what env runner {sampled[place].worker_index} sampled is lost with its process"
            logger.warning("%s", self._last_failure)
        return [answer for place, answer in enumerate(sampled) if place not in lost.places]

    def count_full(self) -> None:
        """There was enough to learn from."""
        self._empty_iterations = 0

    def count_empty(self) -> None:
        """There was not.

        Raises:
            NoSamplesError: nor was there for so many iterations in a row. Its cause is a SamplingError where it was an
                environment or a network that raised in the last of them.
        """
        self._empty_iterations += 1
        if self._empty_iterations >= self.config.max_empty_iterations:
            raise NoSamplesError(
                f"{self._empty_iterations} iterations in a row brought no samples, or not enough for every learner "
                f"(fault_tolerance.max_empty_iterations). {self._last_failure or self.attendance.reason}"
            ) from self._raised


def stop_remote(group: Any) -> None:
    """End the remote runners of a group; RLlib would wait for ever for one that hangs."""
    if group.num_remote_env_runners():
        group.foreach_env_runner(lambda runner: runner.stop(), local_env_runner=False, timeout_seconds=STOP_SECONDS)
        group.reset([])
