"""A run's folder as the command line sees it: whether it is free, what it holds, and what resuming may change."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from popcomm.cli.documents import dump, load, shown
from popcomm.errors import LostError, UserError
from popcomm.identity import CONFIG, identify, run_id
from popcomm.language import progress
from popcomm.manifest import find

PROGRESS, CHECKPOINTS = "progress.jsonl", "checkpoints"
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
# What a run keeps for its life: its weights have the shapes of these, and its records speak of these.
OF_A_LIFE = (
    "environment.env",
    "environment.species",
    "environment.agent_id",
    "population.agent",
    "population.agent_config",
    "population.members",
    "population.critic",
    "communication.messages",
)


def default_run_dir(name: str) -> Path:
    """runs/<config name>-<date-time>."""
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def resumed_document(run_dir: Path | None, overrides: Sequence[str]) -> tuple[dict[str, Any], Path]:
    """The run's own config with overrides put in, and the file that it is in.

    Raises:
        UserError: no folder is named, or it holds no run.
    """
    if run_dir is None:
        raise UserError("--resume needs --run-dir, the folder of the run or sweep to go on with")
    config = _config_in(run_dir)
    return load(config, list(overrides)), config


def _config_in(run_dir: Path) -> Path:
    config = run_dir / CONFIG
    if not config.is_file():
        raise UserError(f"--resume: {run_dir} holds no run (no {CONFIG})")
    return config


def not_as_in(file: str, run_dir: Path, overrides: Sequence[str]) -> list[str]:
    """A line that tells where a run's own config, which stands, differs from a file that was named; none if nowhere."""
    ours, theirs = flat(load(run_dir / CONFIG)), flat(load(file))
    given = {override.partition("=")[0].strip() for override in overrides}
    keys = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key) and key not in given]
    told = [f"{key} {shown(ours.get(key))} (not {shown(theirs.get(key))})" for key in keys]
    return (
        [f"not as in {file}, the run's own settings stand, unless changed by --set: {', '.join(told)}"] if told else []
    )


def changes(run_dir: Path, document: Mapping[str, Any]) -> dict[str, str]:
    """{key: "is ..., was ..."} of what a document has otherwise than the run in the folder."""
    now, then = flat(document), flat(load(_config_in(run_dir)))
    keys = [key for key in sorted(now.keys() | then.keys()) if now.get(key) != then.get(key)]
    return {key: f"is {shown(now.get(key))}, and was {shown(then.get(key))}" for key in keys}


def check_run_dir(run_dir: Path, document: Mapping[str, Any], resume: bool, only_stop: bool = False) -> dict[str, str]:
    """Whether a run can begin in the folder, or the one in it can be resumed with this document.

    Args:
        only_stop: of the config of what is resumed, nothing but `stop` may have changed.

    Returns:
        The `changes` of what is resumed.

    Raises:
        UserError: a run is there and `resume` is not asked for, or none is and it is, or its config differs in what
            cannot change.
    """
    if resume:
        changed = changes(run_dir, document)
        _check_changes(changed, run_dir / CONFIG, only_stop)
        return changed
    if any((run_dir / name).exists() for name in (CONFIG, PROGRESS, CHECKPOINTS)):
        raise UserError(f"--run-dir {run_dir} holds a run already; add --resume to continue it, or name another folder")
    return {}


def open_run_dir(run_dir: Path, document: dict[str, Any]) -> None:
    """Make the folder, with its config.yaml, and its identity where it has none.

    Raises:
        UserError: it cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        dump(document, run_dir / CONFIG)
        identify(run_dir)
    except OSError as error:
        raise UserError(f"--run-dir {run_dir} cannot be written: {error.strerror}") from error


def check_trust(trust: bool, resume: bool) -> None:
    """Raises UserError: pickles would be read, and nothing is resumed that could hold any."""
    if trust and not resume:
        raise UserError("--trust is of what is resumed; add --resume, or leave it out")


@contextmanager
def run_folder_told(run_dir: Path) -> Iterator[None]:
    """Within, a disk that is full or gone is told in a sentence, and what was lost with how to go on.

    Raises:
        UserError: the disk is.
        LostError: something was lost.
    """
    try:
        yield
    except LostError as error:
        saved = find(run_dir / CHECKPOINTS, run=run_id(run_dir)).path
        hint = (
            f"popcomm train --run-dir {run_dir} --resume goes on from {saved.name}"
            if saved
            else f"no checkpoint was saved yet (recording.checkpoint_every), so {run_dir} has nothing to go on from"
        )
        raise type(error)(f"{error}; {hint}") from error
    except Exception as error:
        reason = _of_the_disk(error)
        if reason is None:
            raise
        raise UserError(
            f"--run-dir {run_dir} cannot be written any more: {reason}; what was saved is there, and popcomm train "
            f"--run-dir {run_dir} --resume goes on from it when there is room"
        ) from error


def _of_the_disk(error: BaseException) -> str | None:
    """What an error says of a disk; None where it is of something else. Libraries in C and Rust say it in words."""
    for number in OF_DISKS:
        reason = os.strerror(number)
        if getattr(error, "errno", None) == number or reason in str(error) or f"os error {number})" in str(error):
            return reason
    return None


def checkpoint_path(run_dir: Path, iteration: int) -> Path:
    return run_dir / CHECKPOINTS / f"checkpoint_{iteration:06d}"


def newest_checkpoint(run_dir: Path) -> tuple[Path, tuple[str, ...]]:
    """The newest checkpoint of this run whose manifest holds, and why newer ones are passed over, a sentence each.

    Raises:
        UserError: there is none.
    """
    found = find(run_dir / CHECKPOINTS, run=run_id(run_dir))
    if found.path is None:
        raise UserError("; ".join((f"{run_dir / CHECKPOINTS} holds no valid checkpoint", *found.refused)))
    return found.path, found.refused


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
    return trained_seconds(table.loc[table["iteration"] <= iteration, "time_s"].to_numpy(float))


def trained_seconds(clock: np.ndarray) -> float:
    """Of all processes of a run, from the column time_s of its progress [I].

    Each process counts from its own start, so a clock that falls has begun again at 0.
    """
    steps = np.diff(clock, prepend=0.0)
    return float(np.where(steps < 0, clock, steps).sum())


def _check_changes(changed: Mapping[str, str], config: Path, only_stop: bool) -> None:
    for key, told in changed.items():
        if only_stop and key.partition(".")[0] != "stop":
            raise UserError(f"--resume: {key} {told} in {config}; only stop may change")
        if any(f"{key}.".startswith(f"{kept}.") for kept in OF_A_LIFE):
            raise UserError(f"--resume: {key} {told} in {config}; this stays for the life of a run")


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"method.key": value} of a configuration, mappings in it opened."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
