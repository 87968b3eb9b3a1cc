"""Folders that are whole or not there: a manifest of sizes and SHA-256, written last and verified before use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
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
        raise CheckpointError(f"there is no checkpoint at {folder}")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        dict(manifest["files"])
    except FileNotFoundError:
        raise CheckpointError(f"the checkpoint {folder} has no {MANIFEST}: it was not completely written") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"the checkpoint {folder} has a damaged {MANIFEST}") from None
    return manifest


def newest_first(folder: str | Path) -> Iterator[Path]:
    """The checkpoints under `folder` that have a manifest, by the iteration in it; whether they hold is not known."""
    found = []
    for candidate in Path(folder).glob("*/" + MANIFEST):
        try:
            found.append((read(candidate.parent)["iteration"], candidate.parent))
        except (CheckpointError, KeyError):
            continue
    for _, checkpoint in sorted(found, reverse=True):
        yield checkpoint


def latest_valid(folder: str | Path, under: str = "") -> Path | None:
    """The newest checkpoint under `folder` that verifies, by the iteration in its manifest; None without any."""
    for checkpoint in newest_first(folder):
        try:
            verify(checkpoint, under)
        except CheckpointError:
            continue
        return checkpoint
    return None


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
