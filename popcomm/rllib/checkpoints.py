"""Checkpoints that are whole or not there: a manifest of files and weights, written last, verified before use."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.tune import Checkpoint

import popcomm
from popcomm.errors import UserError

MANIFEST = "manifest.json"

PathLike: TypeAlias = str | os.PathLike[str] | Checkpoint


class CheckpointError(UserError):
    """A checkpoint that must not be used, and why."""


def local_path(path: PathLike) -> Path:
    """The folder of a checkpoint given as a path or as Tune's Checkpoint."""
    return Path(str(getattr(path, "path", path)).removeprefix("file://"))


def save(algorithm: Algorithm, write: Callable[..., str], path: PathLike | None = None, **kwargs: object) -> str:
    """Write a checkpoint by `write` into a temporary folder beside `path`, add the manifest, and rename it.

    An empty folder (Tune makes them) or an older checkpoint at `path` is replaced.

    Raises:
        CheckpointError: the folder holds something else, which must not be lost.
    """
    folder = Path(tempfile.mkdtemp(prefix="popcomm_")) / "checkpoint" if path is None else local_path(path).absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} holds something that is no checkpoint; name a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(str(temporary), **kwargs)
        manifest = {
            "files": files_of(temporary),
            "weights": weight_digest(algorithm),
            "modules": sorted(algorithm.config.layout.species),
            "iteration": algorithm.training_iteration,
            "versions": versions(),
        }
        _write_json(temporary / MANIFEST, manifest)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return str(folder)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest, if all files are there and unchanged. Nothing of the checkpoint is unpickled before this.

    Raises:
        CheckpointError: with the reason.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint at {folder}")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        listed: Mapping[str, Any] = manifest["files"]
    except FileNotFoundError:
        raise CheckpointError(f"the checkpoint {folder} has no {MANIFEST}: it was not completely written") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"the checkpoint {folder} has a damaged {MANIFEST}") from None
    for name, expected in listed.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"the checkpoint {folder} lacks the file {name}")
        if file.stat().st_size != expected["size"] or _sha256(file) != expected["sha256"]:
            raise CheckpointError(f"in the checkpoint {folder} the file {name} is not the one that was saved")
    return manifest


def check_weights(manifest: Mapping[str, Any], digest: str, folder: Path) -> None:
    """Raises CheckpointError unless the restored weights are those that were saved."""
    if manifest["weights"] != digest:
        raise CheckpointError(f"the weights restored from {folder} are not those that were saved")


def latest_valid(folder: str | Path) -> Path | None:
    """The newest checkpoint under `folder` that verifies, by the iteration in its manifest; None without any."""
    found = []
    for candidate in Path(folder).glob("*/" + MANIFEST):
        try:
            found.append((verify(candidate.parent)["iteration"], candidate.parent))
        except CheckpointError:
            continue
    return max(found)[1] if found else None


def weight_digest(algorithm: Algorithm) -> str:
    """sha256 over names, shapes and bytes of all weights and buffers of the learner's modules."""
    weights = algorithm.learner_group.get_state(components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}")
    return digest(weights[COMPONENT_LEARNER][COMPONENT_RL_MODULE])


def digest(weights: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """sha256 of {module: {name: array}}."""
    result = hashlib.sha256()
    for module in sorted(weights):
        for name in sorted(weights[module]):
            array = np.ascontiguousarray(weights[module][name])
            result.update(f"{module}/{name}/{array.shape}/{array.dtype}".encode())
            result.update(array.tobytes())
    return result.hexdigest()


def files_of(folder: Path) -> dict[str, dict[str, int | str]]:
    """{relative path: {size, sha256}} of all files under a folder, but the manifest."""
    return {
        file.relative_to(folder).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }


def versions() -> dict[str, str]:
    """Versions that a later reader may want to know."""
    return {
        "popcomm": popcomm.__version__,
        "ray": ray.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
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


def _write_json(file: Path, value: object) -> None:
    with file.open("w") as stream:
        json.dump(value, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
