"""SIGTERM as Ctrl-C: job managers (`ray job stop`, Slurm, Kubernetes) end a run by it, and it is to end as by hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # exit codes as of a shell: 128 and the signal's number


class Termination:
    """Whether SIGTERM came. It is passed on as SIGINT, to whoever listens to Ctrl-C at that moment."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def as_ctrl_c(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # which signals do not reach
            return
        before = signal.signal(signal.SIGTERM, self._pass_on)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def exit_code(self, code: int) -> int:
        """The exit code of what ended with `code`."""
        return TERMINATED if self.asked and code == INTERRUPTED else code

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what it starts in the background
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Ray puts a handler of its own in place, which ends the process; afterwards the one from before stands again."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
