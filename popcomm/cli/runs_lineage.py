"""Survival between runs, as it is written down: who goes on from whose population, and with what."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from popcomm.cli.run_folder import CHECKPOINTS, CONFIG, checkpoint_path
from popcomm.evolution import Generation, lineage_file
from popcomm.evolution.lineage import COLUMNS
from popcomm.identity import identify
from popcomm.manifest import MANIFEST, verify
from popcomm.manifest import read as read_manifest

# The state lies in a folder of its own: *.json of the sweep's folder itself Tune copies when a sweep goes on, and puts
# the copies back later.
HEIRS, ORIGIN = "generations", "origin.json"
STATE = f"{HEIRS}/state.json"


@dataclass(frozen=True)
class Life:
    """What a trial is since the last generation at whose end it took over a population.

    Attributes:
        parameters: {"section.key": value}, inactive ones too; all that its document has of its own.
        source: the folder's name of the trial whose population it has; None: its own from the start.
        iteration: of the checkpoint that it began with, 0 of its own.
        generation: at whose beginning it began, 0 of its own.
    """

    parameters: Mapping[str, Any]
    source: str | None = None
    iteration: int = 0
    generation: int = 0


@dataclass(frozen=True)
class RunsAlive:
    """All of selection's state between runs, P trials in the order of their folders' names.

    Attributes:
        generation: who lives, by place; fitness is the larger the better.
        lives: {trial: what it is}.
        ended: rows of the lineage of generations that ended, see `written`.
    """

    generation: Generation
    lives: Mapping[str, Life]
    ended: tuple[dict[str, Any], ...] = ()

    @classmethod
    def first(cls, parameters: Mapping[str, Mapping[str, Any]]) -> RunsAlive:
        """The founders. parameters: {trial: its own}."""
        lives = {trial: Life(dict(parameters[trial])) for trial in sorted(parameters)}
        return cls(Generation.first(len(lives)), lives)

    @property
    def trials(self) -> list[str]:
        """[P], by place."""
        return list(self.lives)

    def after(self, generation: Generation, lives: Mapping[str, Life], rows: list[dict[str, Any]]) -> RunsAlive:
        """The next generation."""
        return replace(self, generation=generation, lives=lives, ended=(*self.ended, *rows))


def write(sweep_dir: Path, alive: RunsAlive, living: list[dict[str, Any]]) -> None:
    """Write the state, as a whole or not at all, and the lineage as a table. living: its rows of who lives."""
    content = {
        "generation": alive.generation.get_state(),
        "lives": {trial: asdict(life) for trial, life in alive.lives.items()},
        "ended": list(alive.ended),
    }
    (sweep_dir / HEIRS).mkdir(exist_ok=True)
    _replace(sweep_dir / STATE, json.dumps(content, indent=1, default=plain_number) + "\n")
    write_table(sweep_dir, [*alive.ended, *living])


def read(sweep_dir: Path) -> RunsAlive | None:
    """The state; None before the first generation has ended."""
    file = sweep_dir / STATE
    if not file.is_file():
        return None
    content = json.loads(file.read_text())
    lives = {trial: Life(**life) for trial, life in content["lives"].items()}
    return RunsAlive(Generation.of_state(content["generation"]), lives, tuple(content["ended"]))


def generation_end(sweep_dir: Path, every: int) -> int:
    """Iteration at which the present generation, of so many iterations, ends. It is asked at each report."""
    file = sweep_dir / STATE
    if not file.is_file():
        return every
    found = file.stat()
    return every * (1 + _number(file, found.st_mtime_ns, found.st_ino))


@lru_cache(maxsize=4)
def _number(file: Path, *version: int) -> int:
    """Of the generation in a state. version: of the file, which is replaced as a whole."""
    return int(json.loads(file.read_text())["generation"]["number"])


def life_of(sweep_dir: Path, trial: str) -> Life | None:
    """What a trial is; None as long as it is what it was drawn."""
    alive = read(sweep_dir)
    return None if alive is None else alive.lives.get(trial)


# ---- from one folder to another ----


def bequeath(sweep_dir: Path, generation: int, iteration: int, child: str, source: str) -> None:
    """Lay a copy of a run's checkpoint ready for a child, verified, so that the run may be replaced itself.

    Raises:
        CheckpointError: the checkpoint is not there, or not whole.
    """
    checkpoint = checkpoint_path(sweep_dir / source, iteration)
    verify(checkpoint)
    heir = _heir(sweep_dir, generation, child)
    shutil.rmtree(heir, ignore_errors=True)
    shutil.copytree(checkpoint, heir / checkpoint.name)
    shutil.copy(sweep_dir / source / CONFIG, heir / CONFIG)
    verify(heir / checkpoint.name)


def take_over(sweep_dir: Path, trial: str, life: Life) -> None:
    """Put the population that a trial has inherited into its folder, once; its own checkpoints from there on go."""
    if life.source is None:
        return
    run_dir = sweep_dir / trial
    origin = {"source": life.source, "iteration": life.iteration, "generation": life.generation}
    if (run_dir / ORIGIN).is_file() and json.loads((run_dir / ORIGIN).read_text()) == origin:
        return
    heir, target = _heir(sweep_dir, life.generation, trial), checkpoint_path(run_dir, life.iteration)
    for own in (run_dir / CHECKPOINTS).glob("checkpoint_*"):
        if own.name >= target.name:
            shutil.rmtree(own)
    half = target.with_name(f".{target.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(heir / target.name, half)
    shutil.copy(heir / CONFIG, run_dir / CONFIG)
    # From here on it is a checkpoint of this run; its files are the parent's to the last bit.
    manifest = read_manifest(half) | {"run": identify(run_dir), "inherited_from": life.source}
    _replace(half / MANIFEST, json.dumps(manifest, indent=1))
    os.replace(half, target)
    _replace(run_dir / ORIGIN, json.dumps(origin) + "\n")
    shutil.rmtree(heir)


def began_with(run_dir: Path) -> int:
    """Iteration of the checkpoint that a run's population began with in its folder; 0: it is its own."""
    origin = run_dir / ORIGIN
    return int(json.loads(origin.read_text())["iteration"]) if origin.is_file() else 0


def _heir(sweep_dir: Path, generation: int, child: str) -> Path:
    return sweep_dir / HEIRS / f"{generation:04d}" / child


# ---- the table ----


def write_table(sweep_dir: Path, rows: list[dict[str, Any]]) -> None:
    """lineage.parquet: a row for each trial of each generation. -1 and nan become null.

    Columns are those of `popcomm.evolution.COLUMNS`, species ("runs"), trial (its folder), source (the trial whose
    population it had; null: its own) and parameters (JSON).
    """
    table: dict[str, Any] = {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], kind)
        for name, (kind, _) in COLUMNS.items()
    }
    more = {name: pa.array([row[name] for row in rows], pa.string()) for name in ("trial", "source")}
    more["parameters"] = pa.array([json.dumps(row["parameters"], default=plain_number) for row in rows], pa.string())
    lineage_file.write(sweep_dir, {"species": np.array([row["species"] for row in rows], object), **table}, more)


def _replace(path: Path, text: str) -> None:
    half = path.with_name(f".{path.name}.half")
    with half.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(half, path)


def plain_number(value: Any) -> Any:
    """A number of numpy or pandas, which JSON does not know, as one of Python."""
    return value.item()
