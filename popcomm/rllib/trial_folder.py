"""Where a training records: in the folder that its config names, in that of its trial of Tune's, or nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from pyarrow.fs import LocalFileSystem

Config = TypeVar("Config", bound=Any)
_nowhere: ContextVar[bool] = ContextVar("_nowhere", default=False)


@contextmanager
def nowhere() -> Iterator[None]:
    """What is made inside records nowhere, whatever its config says: the run folder is the original's, which may go
    on."""
    before = _nowhere.set(True)
    try:
        yield
    finally:
        _nowhere.reset(before)


def where_it_records(config: Config, storage: Any, process_folder: str) -> Config:
    """The config whose `run_dir`, if it has one, is that of this training.

    In a trial it is the trial's own folder: one with a name would be the same for all.

    Args:
        config: frozen or not; it stays as it is.
        storage: Tune's StorageContext; None: there is no trial.
        process_folder: of the trial's process, for what Tune keeps elsewhere than on a disk.
    """
    if config.run_dir is None or (storage is None and not _nowhere.get()):
        return config
    folder = None
    if not _nowhere.get():
        local = isinstance(storage.storage_filesystem, LocalFileSystem)
        folder = storage.trial_fs_path if local else process_folder
    config = config.copy(copy_frozen=False)
    config.recording(run_dir=folder)
    config.freeze()
    return config
