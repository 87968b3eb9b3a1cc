"""A run folder belongs to one process at a time: a lock file with owner and time, held until it ends or dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from popcomm.errors import UserError

LOCK = "run.lock"
POLL_SECONDS = 1.0
# File systems that know no locks (some object stores that are mounted): the folder is then used without.
NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


@contextmanager
def taken(run_dir: Path, patience: float = 0.0) -> Iterator[None]:
    """The folder is this process's inside. It is made if it is not there, and removed if it is still empty afterwards.

    The kernel holds the lock, not the file: it ends with a process that is killed, and no lock is ever stale.

    Args:
        patience: seconds to wait for it, where another process has it.

    Raises:
        UserError: another process has it, or it cannot be written.
    """
    made = _make(run_dir)
    try:
        stream = _lock(run_dir, time.monotonic() + patience)
    except UserError:
        _remove_empty(made)
        raise
    try:
        yield
    finally:
        (run_dir / LOCK).unlink(missing_ok=True)
        stream.close()
        _remove_empty(made)


def _make(run_dir: Path) -> list[Path]:
    """Make the folder; returns those that were not there, the innermost first."""
    missing = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(run_dir, error) from error
    return missing


def _lock(run_dir: Path, deadline: float) -> IO[str]:
    """The lock file, open and locked. deadline: how long to try, a time of the monotonic clock."""
    file = run_dir / LOCK
    while True:
        try:
            stream = open(file, "a+", encoding="utf-8")  # noqa: SIM115 (it stays open as long as the folder is taken)
        except OSError as error:
            raise _not_writable(run_dir, error) from error
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
            raise UserError(
                f"--run-dir {run_dir} is in use by {owner}; name another folder, or wait until it ends"
            ) from None
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
        raise _not_writable(run_dir, error) from error
    return stream


def _still_there(stream: IO[str], file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _told(text: str) -> str:
    """The owner in words."""
    try:
        told = json.loads(text)
        return f"the process {told['pid']} on {told['host']} since {told['since']}"
    except (ValueError, KeyError, TypeError):  # it is just being written
        return "another process"


def _now() -> str:
    return datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # something is in it
            return


def _not_writable(run_dir: Path, error: OSError) -> UserError:
    return UserError(f"--run-dir {run_dir} cannot be written: {error.strerror}")
