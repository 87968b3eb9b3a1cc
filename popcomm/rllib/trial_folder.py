"""Where a trial of Tune's records: in its own folder."""

from __future__ import annotations

from typing import Any, TypeVar

from pyarrow.fs import LocalFileSystem

Config = TypeVar("Config", bound=Any)


def in_folder_of_trial(config: Config, storage: Any, process_folder: str) -> Config:
    """The config whose `run_dir`, if it has one, is the trial's own folder: one with a name would be the same for all.

    Args:
        config: frozen or not; it stays as it is.
        storage: Tune's StorageContext; None: there is no trial.
        process_folder: of the trial's process, for what Tune keeps elsewhere than on a disk.
    """
    if config.run_dir is None or storage is None:
        return config
    local = isinstance(storage.storage_filesystem, LocalFileSystem)
    config = config.copy(copy_frozen=False)
    config.recording(run_dir=storage.trial_fs_path if local else process_folder)
    config.freeze()
    return config
