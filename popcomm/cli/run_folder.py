"""A run's folder as the command line sees it: whether it is free, what it holds, and what resuming may change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from popcomm.cli.documents import dump, load, shown
from popcomm.errors import UserError
from popcomm.language import progress
from popcomm.manifest import latest_valid

CONFIG, PROGRESS, CHECKPOINTS = "config.yaml", "progress.jsonl", "checkpoints"
RESUMABLE = ("stop",)  # sections that may differ from the run that is resumed


def default_run_dir(name: str) -> Path:
    """runs/<config name>-<date-time>."""
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def check_run_dir(run_dir: Path, document: Mapping[str, Any], resume: bool) -> None:
    """Whether a run can begin in the folder, or the one in it can be resumed with this document.

    Raises:
        UserError: a run is there and `resume` is not asked for, or none is and it is, or its config differs.
    """
    config = run_dir / CONFIG
    if resume:
        if not config.is_file():
            raise UserError(f"--resume: {run_dir} holds no run (no {CONFIG})")
        _same_but_for_stop(document, load(config), config)
    elif any((run_dir / name).exists() for name in (CONFIG, PROGRESS, CHECKPOINTS)):
        raise UserError(f"--run-dir {run_dir} holds a run already; add --resume to continue it, or name another folder")


def open_run_dir(run_dir: Path, document: dict[str, Any]) -> None:
    """Make the folder, with its config.yaml.

    Raises:
        UserError: it cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        dump(document, run_dir / CONFIG)
    except OSError as error:
        raise UserError(f"--run-dir {run_dir} cannot be written: {error.strerror}") from error


def checkpoint_path(run_dir: Path, iteration: int) -> Path:
    return run_dir / CHECKPOINTS / f"checkpoint_{iteration:06d}"


def newest_checkpoint(run_dir: Path) -> Path:
    """The newest checkpoint whose manifest holds.

    Raises:
        UserError: there is none.
    """
    found = latest_valid(run_dir / CHECKPOINTS)
    if found is None:
        raise UserError(f"{run_dir / CHECKPOINTS} holds no valid checkpoint")
    return found


def existing_run(run_dir: Path) -> Path:
    """The folder itself, if a run has written into it.

    Raises:
        UserError: it has not.
    """
    if not (run_dir / CONFIG).is_file():
        raise UserError(f"{run_dir} holds no run (no {CONFIG}); name a folder that popcomm train has written")
    return run_dir


def seconds_until(run_dir: Path, iteration: int) -> float:
    """Training seconds that the run had taken, over all its processes, when it reached an iteration."""
    table = progress.read(run_dir / PROGRESS)
    if table.empty:
        return 0.0
    clock = table.loc[table["iteration"] <= iteration, "time_s"].to_numpy(float)
    # Each process counts from its own start, so a clock that falls has begun again at 0.
    steps = np.diff(clock, prepend=0.0)
    return float(np.where(steps < 0, clock, steps).sum())


def _same_but_for_stop(document: Mapping[str, Any], before: Mapping[str, Any], config: Path) -> None:
    now, then = _flat(document), _flat(before)
    for key in sorted(now.keys() | then.keys()):
        if key.partition(".")[0] not in RESUMABLE and now.get(key) != then.get(key):
            raise UserError(
                f"--resume: {key} is {shown(now.get(key))}, and was {shown(then.get(key))} in {config}; "
                "only stop may change"
            )


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
