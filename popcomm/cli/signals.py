"""SIGTERM as Ctrl-C: job managers (`ray job stop`, Slurm, Kubernetes) end a run by it, and it is to end as by hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # exit codes as of a shell: 128 and the signal's number


@contextmanager
def handled(number: int, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within, a signal comes to the handler; afterwards to whoever had it before.

    In another thread than the main one, which signals do not reach, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


class Termination:
    """Whether SIGTERM came. It is passed on as SIGINT, to whoever listens to Ctrl-C at that moment."""

    def __init__(self) -> None:
        self.asked = False

    def as_ctrl_c(self) -> AbstractContextManager[None]:
        """Within, it is Ctrl-C."""
        return handled(signal.SIGTERM, self._pass_on)

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
