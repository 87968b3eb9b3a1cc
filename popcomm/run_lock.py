"""A run folder belongs to one training at a time: a lock file with owner and time, held until its end, or its death."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import IO

from popcomm.errors import UserError

LOCK = "run.lock"
POLL_SECONDS = 1.0
# File systems that know no locks (some object stores that are mounted): the folder is then used without.
NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)
# Folders that the command around has taken, for what it trains.
_lent: ContextVar[frozenset[Path]] = ContextVar("_lent", default=frozenset())


class RunLock:
    """A run folder, which is made if it is not there, taken until it is released.

    The kernel holds the lock, not the file: it ends with a process that is killed, and no lock is ever stale.

    Args:
        patience: seconds to wait for it, where another has it.
        named: what the user calls it.

    Raises:
        UserError: another has it, or it cannot be written.
    """

    def __init__(self, run_dir: Path, patience: float = 0.0, named: str = "--run-dir") -> None:
        self._file = run_dir.absolute() / LOCK  # wherever the process goes until then
        self._made = _make(run_dir, named)
        try:
            self._stream: IO[str] | None = _lock(run_dir, time.monotonic() + patience, named)
        except UserError:
            _remove_empty(self._made)
            raise

    def release(self) -> None:
        """Give it up; the folder is removed if it was made and is still empty. A second time does nothing."""
        if self._stream is None:
            return
        if _still_there(self._stream, self._file):  # else somebody has removed the folder, and another may be in it
            self._file.unlink(missing_ok=True)
        self._stream.close()
        self._stream = None
        _remove_empty(self._made)


def take(run_dir: Path, named: str) -> RunLock | None:
    """Take a folder; None where a command has taken it around us (see `taken`), and so for us. See `RunLock`."""
    return None if run_dir.resolve() in _lent.get() else RunLock(run_dir, named=named)


@contextmanager
def taken(run_dir: Path, patience: float = 0.0) -> Iterator[None]:
    """The folder of a command is taken inside, and what the command trains records in it. See `RunLock`."""
    lock = RunLock(run_dir, patience)
    before = _lent.set(_lent.get() | {run_dir.resolve()})
    try:
        yield
    finally:
        _lent.reset(before)
        lock.release()


def _make(run_dir: Path, named: str) -> list[Path]:
    """Make the folder; returns those that were not there, the innermost first."""
    place = run_dir.absolute()
    missing = [folder for folder in (place, *place.parents) if not folder.exists()]
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(run_dir, named, error) from error
    return missing


def _lock(run_dir: Path, deadline: float, named: str) -> IO[str]:
    """The lock file, open and locked. deadline: how long to try, a time of the monotonic clock."""
    file = run_dir / LOCK
    while True:
        try:
            stream = open(file, "a+", encoding="utf-8")  # noqa: SIM115 (it stays open as long as the folder is taken)
        except OSError as error:
            raise _not_writable(run_dir, named, error) from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return stream
            stream.seek(0)
            owner = _told(stream.read())
            stream.close()
            if time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                continue
            raise UserError(f"{named} {run_dir} is in use by {owner}") from None
        if _still_there(stream, file):
            break
        stream.close()  # its owner removed it between our opening and locking it
    try:
        stream.truncate(0)
        stream.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}) + "\n")
        stream.flush()
    except OSError as error:
        file.unlink(missing_ok=True)
        with suppress(OSError):  # what could not be written cannot be flushed either
            stream.close()
        raise _not_writable(run_dir, named, error) from error
    return stream


def _still_there(stream: IO[str], file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _told(text: str) -> str:
    """The owner in words, and what can be done."""
    wait = "name another folder, or wait until it ends"
    try:
        told = json.loads(text)
        if (told["host"], told["pid"]) == (socket.gethostname(), os.getpid()):
            wait = "stop() the algorithm that has it, or name another folder"
        return f"the process {told['pid']} on {told['host']} since {told['since']}; {wait}"
    except (ValueError, KeyError, TypeError):  # it is just being written
        return f"another process; {wait}"


def _now() -> str:
    return datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # something is in it
            return


def _not_writable(run_dir: Path, named: str, error: OSError) -> UserError:
    return UserError(f"{named} {run_dir} cannot be written: {error.strerror}")
