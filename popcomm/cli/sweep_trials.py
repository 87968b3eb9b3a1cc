"""One trial of a sweep, in a process of its own: `popcomm train`, its name, and what it tells Tune on the way."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from popcomm.cli import runs_lineage, train
from popcomm.cli.progress import PLAIN_EVERY, Status
from popcomm.cli.run_folder import CHECKPOINTS, CONFIG, PROGRESS
from popcomm.cli.runs_lineage import Life
from popcomm.cli.search_space import SEED, Search, search, with_parameters
from popcomm.errors import nearest
from popcomm.identity import run_id
from popcomm.manifest import find
from popcomm.rollout import seed_of

LONGEST_NAME = 120  # characters
LOCK_SECONDS = 60.0  # until a process in which the trial was before has ended
# Iterations without an end of any episode, after which a metric that is not there is taken to be none.
PATIENCE = 50
EPISODES_ENDED = "charts/episodic_return"
SAMPLES_BRANCH = 21  # of the seed: trials of the same settings


def trial(parameters: dict[str, Any], document: dict[str, Any], sweep_dir: str, trust: bool = False) -> None:
    """Train with the parameters put in, new or from the newest checkpoint, or with a population that was inherited.

    Args:
        parameters: {"section.key": value}, as Tune drew them.
        document: of the sweep.
        sweep_dir: its folder. Tune's own folder of a trial is a temporary one, which is copied now and then.
        trust: read pickles in checkpoints of the trials, too.
    """
    from ray import tune

    from popcomm.cli.tune_schedulers import stopped

    run_dir, wanted = Path(sweep_dir, Path(tune.get_context().get_trial_dir()).name), search(document)
    if run_dir.name in stopped(run_dir.parent):
        return
    life = runs_lineage.life_of(run_dir.parent, run_dir.name) or Life(parameters)
    own = document_of(document, wanted, {**own_seed(wanted, run_dir.name), **life.parameters})
    runs_lineage.take_over(run_dir.parent, run_dir.name, life)
    newest = find(run_dir / CHECKPOINTS, run=run_id(run_dir)).path if (run_dir / CONFIG).is_file() else None
    if newest is None:
        shutil.rmtree(run_dir, ignore_errors=True)
    inherited = life.source is not None and newest is not None and newest.name.endswith(f"_{life.iteration:06d}")
    due = None if wanted.generation is None else runs_lineage.generation_end(run_dir.parent, wanted.generation)
    reports = Reports(run_dir, wanted, _patience(own), due)
    train.run(own, run_dir, newest is not None, reports, anew=inherited, patience=LOCK_SECONDS, trust=trust)
    reports.final()


def own_seed(wanted: Search, name: str) -> dict[str, int]:
    """{"debugging.seed": that of a trial} where settings are repeated, else nothing: the document's own stands.

    It is a function of the document's seed and the number of the sample, so that a trial that goes on has the same; the
    first sample has the document's own, and so has every sample where there is none.

    Args:
        name: the trial's folder, see `trial_name`.
    """
    # The grid is gone through once for each sample.
    sample = int(name.partition("_")[0]) // wanted.grid_points
    if wanted.seed is None or sample == 0 or not wanted.repeats:
        return {}
    return {SEED: seed_of(wanted.seed, SAMPLES_BRANCH, sample) % 2**31}


def document_of(document: Mapping[str, Any], wanted: Search, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a trial. parameters: {"section.key": value}, of which those that are not active are left out."""
    own = with_parameters(document, wanted.active(parameters))
    if wanted.generation is not None:
        recording = own["recording"] = own.get("recording") or {}
        recording.setdefault("checkpoint_every", wanted.generation)
    return own


def _patience(document: Mapping[str, Any]) -> int:
    """Iterations after which all has been measured once, but for what waits for an episode's end."""
    config = train.checked_config(document)
    survival = config.survival_every if config.survival_strategy is not None else 1
    return max(1, config.evaluation_interval or 1, survival)


class Reports:
    """A Display that tells Tune: as seldom as lines are printed elsewhere, since each report waits for Tune's driver.

    A scheduler that compares trials is told of each iteration, or of the end of each generation.

    Args:
        run_dir: the trial's.
        wanted: the sweep.
        patience: iterations after which a metric that is not there is taken to be none.
        due: the iteration at which the present generation ends.
    """

    def __init__(self, run_dir: Path, wanted: Search, patience: int, due: int | None) -> None:
        self.run_dir, self.wanted, self.patience, self.due = run_dir, wanted, patience, due
        self._each = wanted.rule is not None and wanted.generation is None
        self._bounds: Mapping[str, float] = {}
        self._status, self._reported, self._said_missing = Status(), -math.inf, False
        self._lines = Lines(run_dir / PROGRESS)

    def start(self, name: str, status: Status, bounds: Mapping[str, float]) -> None:
        self._status, self._bounds = status, bounds
        # Of one that had got there before it was interrupted, the scheduler does not know.
        if status.training_iteration and status.training_iteration == self.due and not status.reached(bounds):
            self._report()

    def iteration(self, status: Status) -> None:
        self._status = status
        if status.reached(self._bounds):
            return  # it is saved first, and told as the last
        self._lines.read()
        now = status.training_iteration
        told = self._each or (self.due is not None and now >= self.due)
        if told or self._lacks(now) or time.monotonic() - self._reported >= PLAIN_EVERY:
            self._report()

    def say(self, text: str) -> None:
        """Nobody reads along; what is said is in the run folder."""

    def stop(self) -> None:
        """The last report waits until all is saved."""

    def final(self) -> None:
        """All is saved."""
        self._report(final=True)

    def _lacks(self, iteration: int) -> bool:
        """Whether the metric is one that this run will never measure, and that was not said yet."""
        metric, names = self.wanted.metric, self._lines.names
        waited = iteration >= self.patience and (EPISODES_ENDED in names or iteration >= PATIENCE)
        return metric is not None and metric not in names and waited and not self._said_missing

    def _report(self, final: bool = False) -> None:
        from ray import tune

        self._lines.read()
        now = self._status
        told: dict[str, Any] = {"iteration": now.training_iteration, "env_steps": now.num_env_steps_sampled_lifetime}
        metric = self.wanted.metric
        if metric in self._lines.last:
            told["value"] = self._lines.last[metric]
        elif metric is not None and (
            self._lacks(now.training_iteration) or (final and metric not in self._lines.names)
        ):
            told["missing"] = f"'{metric}' is not measured; {nearest(metric, self._lines.names)}"
            self._said_missing = True
        if final:
            told["final"] = True
        tune.report(told)
        self._reported = time.monotonic()


class Lines:
    """What a growing progress.jsonl has told so far.

    Attributes:
        names: of all that it measures.
        last: {name: its last number}.
    """

    def __init__(self, path: Path) -> None:
        self.names: set[str] = set()
        self.last: dict[str, float] = {}
        self._path, self._read = path, 0

    def read(self) -> None:
        """Take in the lines that were added, whole ones alone."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            added = file.read()
        whole = added.rfind(b"\n") + 1
        self._read += whole
        for line in added[:whole].splitlines():
            row = json.loads(line)
            self.names.update(row)
            self.last |= {
                key: float(value)
                for key, value in row.items()
                if isinstance(value, (int, float)) and math.isfinite(value)
            }


# ---- names ----


def trial_name(trial: Any, wanted: Search | None = None) -> str:
    """The folder of one of Tune's trials: its number and its parameters, e.g. 00003_hidden_dim=16,depth=2.

    Args:
        trial: with id, tag and parameters.
        wanted: the sweep, which knows which parameters are active; None: all.
    """
    _, counted, number = trial.trial_id.rpartition("_")
    if not counted:  # of a search algorithm, which counts from 1 in the tag
        number = f"{int(trial.experiment_tag.partition('_')[0]) - 1:05d}"
    # In the order of the file; what is drawn comes first in Tune's own.
    parameters = {key: trial.evaluated_params.get(key, trial.config[key]) for key in trial.config}
    parameters = parameters if wanted is None else wanted.active(parameters)
    text = re.sub(r"[^\w=,.+-]+", "-", spelled(parameters))
    return f"{number}_{text}"[:LONGEST_NAME]


def spelled(parameters: Mapping[str, Any]) -> str:
    """{"training.lr": 0.1} -> "lr=0.1"; keys whose last words are the same are told apart by more words."""
    return ",".join(
        f"{name}={shown_short(value)}" for name, value in zip(short(parameters), parameters.values(), strict=True)
    )


def shown_short(value: Any) -> str:
    """A parameter in a few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def short(keys: Iterable[str]) -> list[str]:
    """The last words of dotted keys, as many as tell them apart."""
    paths = [key.split(".") for key in keys]
    names: list[str] = []
    for count in range(1, max(map(len, paths), default=1) + 1):
        names = [".".join(path[-count:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names
