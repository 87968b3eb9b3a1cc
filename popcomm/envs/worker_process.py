"""WorkerProcess: one process of `ProcessWorlds` as its parent sees it: started, asked, waited for, and ended."""

from __future__ import annotations

import logging
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle

from popcomm.checks import number
from popcomm.errors import UserError

CHILD = "popcomm.envs.process_child"
NOTE_SIZE = 24  # of `process_child.NOTE`, three int64
CLOSING = 10.0  # seconds that environments have to close
TOLD = 2.0  # seconds that a hanging process has to say where it hangs
LONGEST = 10**6  # seconds that an answer may be waited for; the system's clocks count no further than a few times 10^9


def timeout_of(key: str, value: Any) -> float:
    """Seconds after which a process that does not answer counts as hanging. Raises UserError."""
    return number(key, value, f"be above 0, and at most {LONGEST} seconds", above=0.0, most=LONGEST)


class ChildError(Exception):
    """An error inside a process; its text is the process's own traceback."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class WorkerProcess:
    """A Python of its own that holds some worlds.

    It is started anew and imports what it needs: nothing is inherited from this process but the search path of modules,
    the working directory and the environment's variables, and `__main__` does not run again. It is in a session of its
    own, so that Ctrl-C in a terminal reaches this process alone.

    Args:
        number: of the process.
        worlds: numbers of its worlds.
        setting: by which users give it more time, as errors say it.
    """

    def __init__(self, number: int, worlds: range, setting: str) -> None:
        self.number, self.worlds, self._setting = number, worlds, setting
        ours, theirs = socket.socketpair()
        self._notes = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._notes.truncate(NOTE_SIZE)
        paths = [path or os.getcwd() for path in sys.path]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", CHILD, str(theirs.fileno()), str(self._notes.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), self._notes.fileno()),
            env=variables,
            start_new_session=True,
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        self.end = weakref.finalize(self, _end, [self._process], [self._connection])

    @property
    def pid(self) -> int:
        return self._process.pid

    def __str__(self) -> str:
        first, last = self.worlds[0], self.worlds[-1]
        whose = f"world {first}" if first == last else f"worlds {first} to {last}"
        return f"process {self.number} (pid {self.pid}, {whose})"

    def ask(self, command: str, arguments: dict[str, Any], patience: float) -> None:
        """Send a command, which `answers` waits for. Raises RuntimeError: the process is gone."""
        # What was seen of an environment may have classes that are known by value alone.
        dumps = cloudpickle.dumps if command == "adopt" else pickle.dumps
        try:
            self._connection.send_bytes(dumps((command, arguments, patience), pickle.HIGHEST_PROTOCOL))
        except (OSError, ValueError) as error:
            raise RuntimeError(self._lost(command)) from error

    def _receive(self, command: str) -> tuple[str, Any]:
        try:
            return pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise RuntimeError(self._lost(command)) from error

    def _lost(self, command: str) -> str:
        try:
            status = self._process.wait(CLOSING)
        except subprocess.TimeoutExpired:
            status = 0
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"{self} {how} when it was to {_SAID[command]}{self._at_work()}"

    def _at_work(self) -> str:
        """Which world was at work, in words."""
        world, step, seed = memoryview(mmap.mmap(self._notes.fileno(), NOTE_SIZE)).cast("q").tolist()
        return "" if world < 0 else f"; at work was world {world}, in step {step} of the episode with seed {seed}"

    def _hangs(self, command: str, patience: float) -> RuntimeError:
        """What is said of a process that does not answer; it is ended."""
        where = self._where()
        sentence = (
            f"{self} did not {_SAID[command]} within {patience:g} s{self._at_work()}. It was ended. Where environments "
            f"may take longer, set {self._setting}"
        )
        self.kill()
        error = RuntimeError(sentence)
        error.__cause__ = ChildError(f"where it hung:\n{where}") if where else None
        return error

    def _where(self) -> str:
        """The stack of the process, innermost call first; "" where it cannot be had."""
        notes = self._notes.fileno()
        os.lseek(notes, NOTE_SIZE, os.SEEK_SET)  # the process writes where this points to
        self._process.send_signal(signal.SIGUSR1)
        told, until = b"", time.monotonic() + TOLD
        while time.monotonic() < until:
            time.sleep(0.05)
            before, told = told, os.pread(notes, 1 << 16, NOTE_SIZE)
            if told and told == before:
                break
        return told.decode(errors="replace")

    def kill(self) -> None:
        """End it at once, and what it started."""
        _kill(self._process)
        self.end()


_SAID = {
    "make": "make its worlds",
    "adopt": "make its worlds",
    "open_all": "open episodes",
    "step_all": "make a step",
    "save": "save its worlds",
    "load": "restore its worlds",
    "render": "draw a picture",
    "look": "tell how things stand",
}


def answers(workers: Sequence[WorkerProcess], command: str, patience: float) -> list[Any]:
    """What workers answer to what they were asked, in their order; all are waited for, also where one fails.

    Raises:
        UserError, ValueError: that of the first worker with an error, as in this process.
        RuntimeError: any other error inside a worker, with its traceback as the cause; one that is gone; one that gives
            no answer within so many seconds, which is ended, with where it hung as the cause.
    """
    waiting = {worker._connection: worker for worker in workers}
    told: dict[int, tuple[str, Any]] = {}
    until = time.monotonic() + patience
    lost: RuntimeError | None = None
    while waiting:
        ready = wait(list(waiting), max(0.0, until - time.monotonic()))
        if not ready:
            raise next(iter(waiting.values()))._hangs(command, patience)
        for connection in ready:
            worker = waiting.pop(connection)  # type: ignore[call-overload]
            try:
                told[worker.number] = worker._receive(command)
            except RuntimeError as error:
                lost = lost or error
    if lost is not None:
        raise lost
    for worker in workers:
        if told[worker.number][0] == "error":
            raise _raised(*told[worker.number][1])
    return [told[worker.number][1] for worker in workers]


def _raised(kind: str, sentence: str, trace: str) -> Exception:
    error = {"user": UserError, "value": ValueError, "other": RuntimeError}[kind](sentence)
    error.__cause__ = ChildError(trace)
    return error


def log_level() -> int:
    """What environments may log here."""
    return logging.getLogger("popcomm.envs").getEffectiveLevel()


def close_all(workers: Sequence[WorkerProcess]) -> None:
    """Let all close their environments at the same time, and end those that do not."""
    for worker in workers:
        worker._connection.close()
    for worker in workers:
        worker.end()


def _end(processes: list[subprocess.Popen[bytes]], connections: list[Connection]) -> None:
    """Hang up, wait until the processes have closed their environments, and kill those that take too long.

    Called when a worker is closed or forgotten, and when this process exits.
    """
    for connection in connections:
        connection.close()
    for process in processes:
        try:
            process.wait(CLOSING)
        except subprocess.TimeoutExpired:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
        process.wait()
