"""Attendance: which of the remote env runners sampled, told in the log where that changes and in lines of progress."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from popcomm.rllib.settings import Settings

logger = logging.getLogger(__name__)


class Attendance:
    """Of the env runners 1 to R of a training; there is nothing to tell where the driver itself samples.

    Attributes:
        reason: why some were missing in the last iteration, a sentence each; empty where none were.
    """

    def __init__(self, config: Settings) -> None:
        self.config = config
        self.reason = ""
        self._runners = range(1, config.num_env_runners + 1)
        self._missing: dict[int, str] = {}
        self._present = len(self._runners)
        self._lives: dict[int, str] = {}
        self._restarts = 0

    def take(
        self, answered: Collection[int], alive: Collection[int], lives: Mapping[int, str] | None = None
    ) -> list[int]:
        """An iteration's. Returns who sampled in a new process before anybody missed the last one.

        Args:
            answered: who did, with samples or an error.
            alive: whose process is known to be there.
            lives: {runner: of the process that sampled}; "" and None: it is not known which.
        """
        unmissed = self._take_lives(lives or {})
        missing = {r: self._hangs(r) if r in alive else self._is_lost(r) for r in self._runners if r not in answered}
        for runner, told in missing.items():
            if self._missing.get(runner) != told:
                logger.warning("%s; %d of %d sample", told, len(answered), len(self._runners))
        for runner in self._missing.keys() - missing.keys():
            logger.warning("env runner %d samples again", runner)
        self._missing, self._present = missing, len(self._runners) - len(missing)
        self.reason = "; ".join(missing.values())
        return unmissed

    def _take_lives(self, lives: Mapping[int, str]) -> list[int]:
        known = {runner: life for runner, life in lives.items() if life}
        begun_anew = [runner for runner, life in known.items() if self._lives.get(runner, life) != life]
        unmissed = [runner for runner in begun_anew if runner not in self._missing]  # of the others the return is told
        for runner in unmissed:
            logger.warning("env runner %d was begun anew between two fragments: its process had ended", runner)
        self._restarts += len(begun_anew)
        self._lives |= known
        return unmissed

    def _is_lost(self, runner: int) -> str:
        again = self.config.restart_failed_env_runners
        what = "it is begun anew" if again else "it stays away (fault_tolerance.restart_failed_env_runners is off)"
        return f"env runner {runner} is lost: its process ended, and {what}"

    def _hangs(self, runner: int) -> str:
        seconds, limit = self.config.sample_timeout_s, self.config.step_timeout_s
        hint = (
            "does its environment hang? env_runners.step_timeout_s would tell where" if limit is None else "it is slow"
        )
        return f"env runner {runner} gave no samples in {seconds:g} s (env_runners.sample_timeout_s); {hint}"

    def scalars(self, result: Mapping[str, Any]) -> dict[str, float]:
        """charts/env_runners: how many sampled; charts/env_runner_restarts: how often one was begun anew.

        RLlib knows of those that never sampled again, and not of those that nobody missed.
        """
        if not self._runners:
            return {}
        restarts = max(self._restarts, result.get("fault_tolerance", {}).get("num_remote_worker_restarts", 0))
        return {"charts/env_runners": self._present, "charts/env_runner_restarts": restarts}
