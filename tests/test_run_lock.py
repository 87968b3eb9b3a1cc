"""Who has a run folder: one training at a time, until it ends, however it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popcomm.errors import UserError
from popcomm.run_lock import LOCK, RunLock, take, taken


def test_a_folder_that_is_taken_is_refused_with_its_owner_and_the_time(tmp_path: Path) -> None:
    with taken(tmp_path):
        since = json.loads((tmp_path / LOCK).read_text())["since"]
        with (
            pytest.raises(UserError, match=rf"is in use by the process {os.getpid()} on .* since") as caught,
            taken(tmp_path),
        ):
            pass
        assert since in str(caught.value)
        assert (tmp_path / LOCK).is_file()  # the refused one leaves it alone


def test_a_folder_is_free_afterwards_and_shows_nothing_of_it(tmp_path: Path) -> None:
    for _ in range(2):
        with taken(tmp_path):
            (tmp_path / "config.yaml").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_folders_that_were_made_for_nothing_are_gone(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), taken(tmp_path / "runs" / "one"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    def dies() -> None:
        with taken(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    in_child(dies)
    assert (tmp_path / LOCK).is_file()
    with taken(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def in_child(act: Callable[[], None]) -> None:
    child = os.fork()
    if not child:
        try:
            act()
        finally:
            os._exit(1)
    os.waitpid(child, 0)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file/run cannot be written: Not a directory"),
        taken(tmp_path / "file" / "run"),
    ):
        pass


def test_a_disk_that_is_full_is_told_and_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("popcomm.run_lock.json.dumps", refuse)  # what writes the line
    with pytest.raises(UserError, match=r"--run-dir .* cannot be written: No space left on device"), taken(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_somebody_else_has_by_now_is_left_to_them(tmp_path: Path) -> None:
    """The folder of a training was removed under it, and another one has begun there."""
    first = RunLock(tmp_path / "run")
    (tmp_path / "run" / LOCK).unlink()
    second = RunLock(tmp_path / "run")
    first.release()
    assert (tmp_path / "run" / LOCK).is_file()
    with pytest.raises(UserError, match="is in use by the process"):
        RunLock(tmp_path / "run")
    second.release()
    second.release()
    assert not (tmp_path / "run" / LOCK).exists()


def test_what_a_command_trains_uses_the_folder_that_the_command_has(tmp_path: Path) -> None:
    with taken(tmp_path / "run"):
        assert take(tmp_path / "run", "recording.run_dir") is None
        other = take(tmp_path / "other", "recording.run_dir")
        assert other is not None
        other.release()
    own = take(tmp_path / "run", "recording.run_dir")
    assert own is not None
    with pytest.raises(
        UserError, match=r"recording\.run_dir .*run is in use by the process \d+ on .*; stop\(\) the algo"
    ):
        take(tmp_path / "run", "recording.run_dir")
    own.release()
    assert list(tmp_path.iterdir()) == []
