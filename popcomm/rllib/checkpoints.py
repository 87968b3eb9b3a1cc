"""Checkpoints that are whole or not there: a manifest of files and weights, written last, verified before use.

RLlib's own files are in them for what reads those. They are pickles, and nothing is restored from them: all of the
state is in the folder `state`, and the population in `population`, as safetensors and JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE
from ray.tune import Checkpoint

import popcomm
from popcomm.errors import UserError
from popcomm.identity import identify
from popcomm.manifest import MANIFEST, CheckpointError, files_of, latest_valid, put_in_place, verify
from popcomm.rllib import config_file, state_files
from popcomm.rllib.memory import give_back
from popcomm.rllib.state_files import FOLDER
from popcomm.rollout.loading import UNDER

__all__ = [
    "MANIFEST",
    "CheckpointError",
    "PathLike",
    "check_weights",
    "digest",
    "has_state",
    "latest_valid",
    "local_path",
    "read_config",
    "read_state",
    "save",
    "verify",
    "versions",
    "weight_digest",
]

PathLike: TypeAlias = str | os.PathLike[str] | Checkpoint


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
    # Not by mkdtemp, whose folders nobody else may read, on storage that others share neither.
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    give_back()  # what updates left; states are copied, and of many members a copy is gigabytes
    try:
        write(str(temporary), **kwargs)
        weights = _state(algorithm, temporary / FOLDER)
        config_file.write(temporary / FOLDER, algorithm.config)
        manifest = {
            **_population(algorithm, temporary / UNDER),
            "files": files_of(temporary),
            "weights": weights,
            "modules": sorted(algorithm.config.layout.species),
            "iteration": algorithm.training_iteration,
            **_run(algorithm.config.run_dir),
            "versions": versions(),
        }
        _write_json(temporary / MANIFEST, manifest)
        put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return str(folder)


def read_state(path: Path, trust: bool) -> tuple[dict[str, Any], list[str]]:
    """The state in a checkpoint, and which parts of it are pickles that were left out.

    Args:
        path: the checkpoint, or the folder of one of RLlib's components in it: the state of that is returned.
        trust: read what was pickled, too.

    Raises:
        CheckpointError: damaged, from before states were written without pickles, or no such component.
    """
    folder = path.absolute()
    parts: list[str] = []
    while not (folder / MANIFEST).is_file() and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    if not (folder / FOLDER).is_dir():
        raise CheckpointError(
            f"the checkpoint {path} is of an earlier popcomm or of RLlib, and its state is in pickles, which can run "
            "code when they are read; where you know who wrote it, say trust=True (on the command line --trust), and "
            "save it anew"
        )
    if parts:  # of a whole checkpoint everything was verified
        verify(folder, FOLDER)
    state, left_out = state_files.read(folder / FOLDER, trust)
    for part in parts:
        if not isinstance(state.get(part), dict):
            raise CheckpointError(f"the checkpoint {folder} has no state of {'/'.join(parts)}")
        state = state[part]
    return state, left_out


def read_config(path: Path) -> Any:
    """The config of a checkpoint that was not saved by an earlier popcomm; see `read_state`."""
    if not has_state(path):
        read_state(path, trust=False)
    return config_file.read(path / FOLDER)


def has_state(path: Path) -> bool:
    """Whether a checkpoint, or a component in one, can be restored without RLlib's pickles."""
    return any((folder / FOLDER / state_files.STATE).is_file() for folder in (path, *path.absolute().parents))


def _run(run_dir: str | None) -> dict[str, Any]:
    """Whose checkpoint it is, where the run has a folder."""
    return {} if run_dir is None else {"run": identify(run_dir)}


def _state(algorithm: Algorithm, folder: Path) -> str:
    """Write the state, and let it go: its copies may be gigabytes. Returns the digest of the weights in it."""
    state = algorithm.get_state()
    state_files.write(folder, state)
    return digest(state[COMPONENT_LEARNER_GROUP][COMPONENT_LEARNER][COMPONENT_RL_MODULE])


def _population(algorithm: Algorithm, folder: Path) -> dict[str, str]:
    """Write what `popcomm.load` reads; the reason why not, where it cannot be written down."""
    try:
        algorithm.population().save_pretrained(folder)
    except UserError as error:
        shutil.rmtree(folder, ignore_errors=True)
        return {"no_population": str(error)}
    return {}


def check_weights(manifest: Mapping[str, Any], digest: str, folder: Path) -> None:
    """Raises CheckpointError unless the restored weights are those that were saved."""
    if manifest["weights"] != digest:
        raise CheckpointError(f"the weights restored from {folder} are not those that were saved")


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


def versions() -> dict[str, str]:
    """Versions that a later reader may want to know."""
    return {
        "popcomm": popcomm.__version__,
        "ray": ray.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _write_json(file: Path, value: object) -> None:
    with file.open("w") as stream:
        json.dump(value, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
