"""Runs of an experiment: in processes of their own, few at a time, and none of them twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from popcomm.cli import documents
from popcomm.cli.ray_session import ray_session
from popcomm.cli.run_folder import CHECKPOINTS, CONFIG, PROGRESS, check_run_dir
from popcomm.language import progress

# Nobody looks at the pictures and conversations of most experiments.
LEAN = ("recording.picture_every=0", "recording.conversation_every=0")
LOG_TAIL = 15  # lines of a failed run's log that its error shows


class TrainingError(RuntimeError):
    """A training failed; the text has the end of its log."""


class Trainable(Protocol):
    """What `train_all` needs of a run."""

    @property
    def name(self) -> str: ...

    def is_complete(self) -> bool:
        """Whether all of it is there.

        Raises:
            UserError: what is there is another run's.
        """
        ...

    def train(self) -> None:
        """Make it, in a process of its own.

        Raises:
            TrainingError: it failed.
        """
        ...


@dataclass(frozen=True)
class Run:
    """One training: a config with overrides, and the folder where it goes.

    Args:
        path: the run folder; its log is beside it, `path` with the suffix .log.
        file: the YAML file, or the name of a shipped one.
        overrides: "section.key=value" each, as for `popcomm train --set`.
        env_steps: where it ends.
    """

    path: Path
    file: str
    overrides: tuple[str, ...]
    env_steps: int

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def settings(self) -> list[str]:
        return [*self.overrides, f"stop={{num_env_steps_sampled_lifetime: {self.env_steps}}}"]

    @property
    def document(self) -> dict[str, Any]:
        """The configuration, {section: {key: value}}."""
        return documents.load(self.file, self.settings)

    @property
    def log(self) -> Path:
        return self.path.with_name(self.path.name + ".log")

    @property
    def table(self) -> pd.DataFrame:
        """progress.jsonl, one row per iteration."""
        return progress.read(self.path / PROGRESS)

    def is_complete(self) -> bool:
        """Whether the folder holds all of this run.

        Raises:
            UserError: it holds a run with another configuration.
        """
        if not (self.path / CONFIG).is_file():
            return False
        check_run_dir(self.path, self.document, resume=True, only_stop=True)
        table = self.table
        return not table.empty and int(table["env_steps"].iloc[-1]) >= self.env_steps

    def command(self) -> list[str]:
        """What trains it: from the start, or from its newest valid checkpoint. A part without any is removed."""
        options = ["--run-dir", str(self.path)]
        for setting in self.settings:
            options += ["--set", setting]
        if (self.path / CONFIG).is_file():
            from popcomm.rllib.checkpoints import latest_valid  # imports Ray, which takes seconds

            if latest_valid(self.path / CHECKPOINTS):
                options.append("--resume")
            else:
                shutil.rmtree(self.path)
        return [sys.executable, "-m", "popcomm.cli.main", "train", self.file, *options]

    def train(self) -> None:
        """Run the command to its end.

        Raises:
            TrainingError: it failed.
        """
        run_logged(self.name, self.command(), self.log)


def runs_of(out: Path, file: str, arms: Mapping[str, Sequence[str]], seeds: Sequence[int], env_steps: int) -> list[Run]:
    """One for each arm and seed, seeds outermost, so that a first look is fair. arms: {name: overrides of the file}."""
    return [
        Run(out / "runs" / f"{arm}-seed{seed}", file, (*changes, f"debugging.seed={seed}"), env_steps)
        for seed in seeds
        for arm, changes in arms.items()
    ]


@contextmanager
def algorithm_of(config: Any) -> Iterator[Any]:
    """The algorithm of a PopulationPPOConfig, with Ray under it; both are gone afterwards."""
    with ray_session(config):
        algorithm = config.build_algo()
        try:
            yield algorithm
        finally:
            algorithm.stop()


def run_logged(name: str, command: Sequence[str], log: Path) -> None:
    """Run a command on one thread to its end; what it prints is added to the log.

    Raises:
        TrainingError: its exit code is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
    if code:
        tail = log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
        raise TrainingError(f"{name} ended with exit code {code}; the end of {log}:\n" + "\n".join(tail))


def train_all(runs: Sequence[Trainable], jobs: int = 2, say: Callable[[str], None] = print) -> None:
    """Train those that are not complete, `jobs` at a time.

    Raises:
        UserError: a folder holds a run with another configuration; told before anything is trained.
        TrainingError: one failed; those under way are finished, and no other is begun.
    """
    wanted = [run for run in runs if not run.is_complete()]
    say(f"{len(runs)} runs, {len(runs) - len(wanted)} of them complete already")
    began = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run.train): run for run in wanted}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                minutes = (time.monotonic() - began) / 60
                say(f"{futures[future].name} is trained ({done} of {len(wanted)}, {minutes:.1f} min)")
        finally:
            pool.shutdown(cancel_futures=True)
