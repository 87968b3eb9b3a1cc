"""Folders that are whole or not there: a manifest of sizes and SHA-256, written last and verified before use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from popcomm.errors import UserError

MANIFEST = "manifest.json"


class CheckpointError(UserError):
    """A checkpoint that must not be used, and why."""


def verify(folder: Path, under: str = "") -> dict[str, Any]:
    """The manifest, if all files are there and unchanged. Nothing of the checkpoint is unpickled before this.

    Args:
        folder: a checkpoint.
        under: only what lies in this folder of it is looked at; "": all.

    Raises:
        CheckpointError: with the reason.
    """
    manifest = read(folder)
    listed: Mapping[str, Any] = manifest["files"]
    for name, expected in listed.items():
        if under and not name.startswith(f"{under}/"):
            continue
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"the checkpoint {folder} lacks the file {name}")
        if file.stat().st_size != expected["size"] or _sha256(file) != expected["sha256"]:
            raise CheckpointError(f"in the checkpoint {folder} the file {name} is not the one that was saved")
    return manifest


def read(folder: Path) -> dict[str, Any]:
    """The manifest as it was written; whether the files are those that it tells of is not looked at.

    Raises:
        CheckpointError: there is none, or one that cannot be read.
    """
    if not folder.is_dir():
        older = _replaced(folder)
        rest = f"; the one that it was to replace is {older}" if older.is_dir() else ""
        raise CheckpointError(f"there is no checkpoint at {folder}{rest}")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"the checkpoint {folder} has no {MANIFEST}: it was not completely written") from None
    except OSError as error:
        raise CheckpointError(f"the checkpoint {folder} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        manifest = None
    if not _is_manifest(manifest):
        raise CheckpointError(f"the checkpoint {folder} has a damaged {MANIFEST}")
    return dict(manifest)


def is_checkpoint(folder: Path) -> bool:
    """Whether it is the folder of a checkpoint, whole or not: others have files of that name, too."""
    try:
        read(folder)
    except CheckpointError:
        return False
    return True


def _is_manifest(value: Any) -> bool:
    """Whether JSON has the shape of a manifest, and names only files within its folder."""
    if not isinstance(value, dict) or not isinstance(value.get("files"), dict):
        return False
    if type(value.get("iteration")) is not int:
        return False
    return all(_is_within(name) and _is_entry(entry) for name, entry in value["files"].items())


def _is_within(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and "\0" not in name and not path.is_absolute() and ".." not in path.parts


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("size")) is int and isinstance(value.get("sha256"), str)


@dataclass(frozen=True)
class Found:
    """What a look through checkpoints came to.

    path: the newest one that may be used; None where there is none.
    refused: why newer ones may not, a sentence each, the newest first.
    """

    path: Path | None
    refused: tuple[str, ...] = ()


def find(folder: str | Path, under: str = "", run: str | None = None) -> Found:
    """The newest checkpoint under `folder` that verifies, by the iteration in its manifest.

    Args:
        folder: that of the checkpoints. Folders of theirs that begin with a dot are half written, and none.
        under: as of `verify`.
        run: the id of the run that it must be of (`popcomm.identity`); None, and checkpoints without one: of any.
    """
    refused, known = [], []
    for candidate in _folders(folder):
        try:
            known.append((read(candidate)["iteration"], candidate))
        except CheckpointError as error:
            refused.append(str(error))  # and whether a newer one or not, nobody can tell
    for _, checkpoint in sorted(known, reverse=True):
        try:
            check_run(verify(checkpoint, under), checkpoint, run)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        return Found(checkpoint, tuple(refused))
    return Found(None, tuple(refused))


def check_run(manifest: Mapping[str, Any], folder: Path, run: str | None) -> None:
    """Raises CheckpointError where a checkpoint says that it is of another run."""
    told = manifest.get("run")
    of = told.get("id") if isinstance(told, dict) else None
    if run is not None and of is not None and of != run:
        raise CheckpointError(f"the checkpoint {folder} is of another run (its id is {of}, and this run's {run})")


def newest_first(folder: str | Path) -> Iterator[Path]:
    """The checkpoints under `folder` that have a manifest, by the iteration in it; whether they hold is not known."""
    found = []
    for candidate in _folders(folder):
        try:
            found.append((read(candidate)["iteration"], candidate))
        except CheckpointError:
            continue
    for _, checkpoint in sorted(found, reverse=True):
        yield checkpoint


def latest_valid(folder: str | Path, under: str = "") -> Path | None:
    """The newest checkpoint under `folder` that verifies, by the iteration in its manifest; None without any."""
    return find(folder, under).path


def prune(folder: str | Path, keep: int, run: str | None = None) -> None:
    """Remove a run's checkpoints under `folder` but the newest `keep` and, where none of those verifies, the last that
    does.

    One is renamed before it is removed, so that a process that dies here leaves no half of it under its own name.
    """
    found = [checkpoint for checkpoint in newest_first(folder) if _is_of(checkpoint, run)]
    kept, rest = found[:keep], found[keep:]
    if rest and not any(map(_holds, kept)):
        last = next(filter(_holds, rest), None)
        rest = [checkpoint for checkpoint in rest if checkpoint != last]
    for checkpoint in rest:
        doomed = checkpoint.with_name(f".{checkpoint.name}.pruned")
        checkpoint.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def put_in_place(new: Path, folder: Path) -> None:
    """Give a whole checkpoint its name. One that has it keeps its files, under another, until the new one has it."""
    older = _replaced(folder)
    if folder.exists():
        shutil.rmtree(older, ignore_errors=True)
        os.replace(folder, older)
    os.replace(new, folder)
    shutil.rmtree(older, ignore_errors=True)


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def clear_leftovers(folder: str | Path) -> None:
    """Remove what processes that died have left half written or half removed, and give a checkpoint its name back that
    was to be replaced by one that never came. Nobody may be writing there."""
    for older in Path(folder).glob(".*.replaced"):
        name = older.with_name(older.name.removeprefix(".").removesuffix(".replaced"))
        if not name.exists() and _holds(older):
            os.replace(older, name)
    for leftover in Path(folder).glob(".*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)


def _is_of(checkpoint: Path, run: str | None) -> bool:
    try:
        check_run(read(checkpoint), checkpoint, run)
    except CheckpointError:
        return False
    return True


def _holds(checkpoint: Path) -> bool:
    try:
        verify(checkpoint)
    except CheckpointError:
        return False
    return True


def _folders(folder: str | Path) -> list[Path]:
    return [path for path in sorted(Path(folder).glob("*")) if path.is_dir() and not path.name.startswith(".")]


def files_of(folder: Path) -> dict[str, dict[str, int | str]]:
    """{relative path: {size, sha256}} of all files under a folder, but the manifest."""
    return {
        file.relative_to(folder).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _by_blocks(stream)
        )


def _by_blocks(stream: BinaryIO) -> str:
    """Python 3.10 has no file_digest."""
    result = hashlib.sha256()
    while block := stream.read(1 << 20):
        result.update(block)
    return result.hexdigest()
