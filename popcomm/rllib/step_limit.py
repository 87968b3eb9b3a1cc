"""A limit on the time that worlds may take for a step: where they hang, an error says so, and in which line."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
from types import FrameType

logger = logging.getLogger(__name__)

EXIT_CODE = 75  # of a process that could not be interrupted; BSD's EX_TEMPFAIL
PATIENCE_SECONDS = 5.0  # at least, between the interruption and the end of the process


class StepTimeout(TimeoutError):
    """Worlds did not come back from a step."""


class StepLimit:
    """Within `with limit:` a step is interrupted when it takes too long.

    An alarm (SIGALRM) raises StepTimeout where the step hangs, so that its traceback names the line. Alarms are for a
    process's main thread and for Python code alone. Elsewhere, and where a step goes on nevertheless, all threads'
    lines go to stderr and the process ends: an env runner is then begun anew by Ray, a driver by `--resume`.

    Args:
        seconds: for one step of all worlds of an env runner.
        whose: what hangs, in words.
    """

    def __init__(self, seconds: float, whose: str) -> None:
        self.seconds = seconds
        self.told = f"{whose} took more than {seconds:g} s for a step (env_runners.step_timeout_s)"
        self._deadline = float("inf")
        self._watch: threading.Thread | None = None
        self._before: object = None
        self._interrupts = False

    def __enter__(self) -> None:
        self._deadline = time.monotonic() + self.seconds + max(PATIENCE_SECONDS, self.seconds)
        if self._watch is None:
            self._watch = threading.Thread(target=self._keep_watch, name="step_limit", daemon=True)
            self._watch.start()
        self._interrupts = threading.current_thread() is threading.main_thread()
        if self._interrupts:
            self._before = signal.signal(signal.SIGALRM, self._interrupt)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *error: object) -> None:
        if self._interrupts:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)  # type: ignore[arg-type]
        self._deadline = float("inf")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        raise StepTimeout(self.told)

    def _keep_watch(self) -> None:
        while time.monotonic() < self._deadline:
            time.sleep(min(1.0, self.seconds))
        logger.critical("%s, and cannot be interrupted: this process ends", self.told)
        faulthandler.dump_traceback()
        os._exit(EXIT_CODE)
