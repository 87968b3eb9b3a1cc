"""Schedulers as Ray Tune calls them, which go on where they were after the driver's death: Tune keeps none of them.

A scheduler that looks at results as they come keeps a journal of them in the sweep's folder; one that lets all trials
wait for a generation keeps its state there.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.stopper import Stopper

from popcomm.cli import runs_lineage
from popcomm.cli.between_runs import BetweenRuns, check_parents
from popcomm.cli.exploring import explored
from popcomm.cli.run_folder import PROGRESS, checkpoint_path
from popcomm.cli.runs_lineage import Life, RunsAlive
from popcomm.cli.search_space import Search
from popcomm.cli.sweep_rules import ASHA, MedianStopping
from popcomm.evolution import NOBODY, Generation, chosen, lived, succeeded
from popcomm.evolution.lineage import rows as lineage_rows
from popcomm.language import progress
from popcomm.manifest import MANIFEST, CheckpointError
from popcomm.rollout import seed_of

ITERATION, VALUE, FINAL, MISSING = "iteration", "value", "final", "missing"  # of a report of a trial
JOURNAL = "decisions.jsonl"
RUNS_BRANCH = 20  # of the seed: selection between runs


def make_scheduler(search: Search) -> TrialScheduler | None:
    """Tune's scheduler for the sweep's rule; None without one."""
    rule, by = search.rule, {"time_attr": ITERATION, "metric": VALUE, "mode": search.mode}
    if isinstance(rule, ASHA):
        return Remembering(
            AsyncHyperBandScheduler(
                max_t=rule.longest(search.iterations),
                grace_period=rule.grace_period,
                reduction_factor=rule.reduction_factor,
                stop_last_trials=False,  # who is at its end saves and reports first
                **by,
            )
        )
    if isinstance(rule, MedianStopping):
        return Remembering(
            MedianStoppingRule(
                grace_period=rule.grace_period,
                min_samples_required=rule.min_samples_required,
                min_time_slice=math.inf,  # nobody waits for the others
                **by,
            )
        )
    if not isinstance(rule, BetweenRuns):
        return None
    return Generations(rule, search, search.seed)


def folder_of(trial: Any) -> Path:
    """The run folder of one of Tune's trials."""
    # Tune's own `trial.path` is there only once the trial has begun.
    return Path(str(trial.storage.experiment_fs_path)) / str(trial.custom_dirname)


def read_journal(sweep_dir: Path) -> list[dict[str, Any]]:
    """What trials reported, and what was decided: {"trial", "iteration", "value", "decision"}, whole lines alone."""
    file = sweep_dir / JOURNAL
    lines = file.read_bytes().split(b"\n")[:-1] if file.is_file() else []
    return [json.loads(line) for line in lines]


def stopped(sweep_dir: Path) -> set[str]:
    """Trials that a scheduler has ended early."""
    return {line["trial"] for line in read_journal(sweep_dir) if line["decision"] == TrialScheduler.STOP}


def stop_without_metric() -> Stopper:
    """What ends a sweep whose trials do not measure what they are compared by."""
    return WithoutMetric()


class WithoutMetric(Stopper):
    """Ends all as soon as a trial says that it will never measure the metric, and none has measured it so far."""

    def __init__(self) -> None:
        self._found = self._missing = False

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        self._found |= VALUE in result
        self._missing |= MISSING in result
        return MISSING in result and not self._found

    def stop_all(self) -> bool:
        return self._missing and not self._found


class Remembering(FIFOScheduler):
    """One of Tune's schedulers that decide at once, and the journal of what it decided.

    Args:
        inner: the scheduler.
    """

    def __init__(self, inner: TrialScheduler) -> None:
        super().__init__()
        self.inner = inner
        self._known: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial begins, or goes on after the driver's death or its own: what it reported before is told again."""
        self.inner.on_trial_add(tune_controller, trial)
        folder = folder_of(trial)
        if folder.name in self._known:
            return
        self._known.add(folder.name)
        for line in read_journal(folder.parent):
            if line["trial"] == folder.name:
                self._tell_again(tune_controller, trial, {ITERATION: line[ITERATION], VALUE: line[VALUE]})

    def _tell_again(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if isinstance(self.inner, MedianStoppingRule):
            self.inner._results[trial].append(result)  # its decision would depend on who is back already
        else:
            self.inner.on_trial_result(tune_controller, trial, result)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        if VALUE not in result or not math.isfinite(result[VALUE]):
            return str(TrialScheduler.CONTINUE)
        told = {ITERATION: result[ITERATION], VALUE: result[VALUE]}
        decision = str(self.inner.on_trial_result(tune_controller, trial, told))
        folder = folder_of(trial)
        line = json.dumps({"trial": folder.name, **told, "decision": decision})
        with open(folder.parent / JOURNAL, "a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        return decision


class Generations(FIFOScheduler):
    """Survival between runs: at the end of a generation all trials wait, and children take over from their parents.

    Its state is `runs_lineage.RunsAlive` in the sweep's folder, and fitness is read from the run folders, so that a
    sweep whose driver died goes on with the same selections.

    Args:
        rule: when, and who has children.
        search: of the sweep.
        seed: of all that is random; None: fresh entropy.
    """

    def __init__(self, rule: BetweenRuns, search: Search, seed: int | None) -> None:
        super().__init__()
        self.rule, self.search, self.seed = rule, search, seed
        self.strategy = rule.strategy_of(search.num_trials)
        self._sign = 1.0 if search.mode == "max" else -1.0  # fitness is the larger the better
        self._trials: dict[str, Any] = {}
        self._waiting: set[str] = set()
        self._ended: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        name = folder_of(trial).name
        self._trials[name] = trial
        self._ended.discard(name)
        if trial.status in (Trial.TERMINATED, Trial.ERROR):
            self._ended.add(name)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        folder = folder_of(trial)
        if result.get(FINAL) or result[ITERATION] < self._end(folder.parent):
            return str(TrialScheduler.CONTINUE)
        self._waiting.add(folder.name)
        # What it goes on from is in its folder: Tune keeps nothing of it.
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return str(TrialScheduler.NOOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        self._ended.add(folder_of(trial).name)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._ended.add(folder_of(trial).name)  # until it is added again

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._ended.add(folder_of(trial).name)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        going = self._trials.keys() - self._ended
        if len(self._trials) == self.search.num_trials and self._waiting and going <= self._waiting:
            self._end_generation(folder_of(next(iter(self._trials.values()))).parent)
            self._waiting.clear()
        for trial in tune_controller.get_trials():
            waits = folder_of(trial).name in self._waiting
            if trial.status == Trial.PENDING or (trial.status == Trial.PAUSED and not waits):
                return trial
        return None

    # ---- a generation ends ----

    def _end(self, sweep_dir: Path) -> int:
        """Iteration at which the present generation ends."""
        assert self.rule.every is not None
        return runs_lineage.generation_end(sweep_dir, self.rule.every)

    def _end_generation(self, sweep_dir: Path) -> None:
        alive = runs_lineage.read(sweep_dir)
        if alive is None:
            alive = RunsAlive.first({name: dict(trial.config) for name, trial in self._trials.items()})
        alive = self.selected(sweep_dir, alive, self._end(sweep_dir))
        runs_lineage.write(sweep_dir, alive, self._rows(alive, alive.generation, np.arange(len(alive.trials)), None))

    def selected(self, sweep_dir: Path, alive: RunsAlive, iteration: int) -> RunsAlive:
        """Who lives on, and who goes on from whose population; their checkpoints are laid ready.

        Args:
            sweep_dir: with the run folders of all P trials.
            alive: the generation that ends.
            iteration: at which it ends.
        """
        before = self._lived(sweep_dir, alive, iteration)
        rng = np.random.default_rng(seed_of(self.seed, RUNS_BRANCH, before.number))
        sources = check_parents(self.strategy, chosen(self.strategy, before, {}, rng))
        for place, name in enumerate(alive.trials):
            parent = int(sources[place])
            if parent != place and not self._inherits(
                sweep_dir, before.number + 1, iteration, name, alive.trials[parent]
            ):
                sources[place] = place
        after = succeeded(before, sources)
        lives = {
            name: self._life(alive, after, place, int(sources[place]), iteration)
            for place, name in enumerate(alive.trials)
        }
        return alive.after(after, lives, self._rows(alive, before, sources, iteration))

    def _lived(self, sweep_dir: Path, alive: RunsAlive, iteration: int) -> Generation:
        """The generation that ends, with its fitness; nothing is known of those from whom nobody could go on."""
        metric = self.search.metric
        assert metric is not None
        # Of a run that has ended before there is a last value for ever, and no population of this generation.
        gone = np.array(
            [not (checkpoint_path(sweep_dir / name, iteration) / MANIFEST).is_file() for name in alive.lives]
        )
        worth = np.array(
            [
                self._sign * value_at(sweep_dir / name, metric, iteration, life.iteration)
                for name, life in alive.lives.items()
            ]
        )
        present = replace(alive.generation, fitness=np.where(gone, np.nan, alive.generation.fitness))
        return lived(present, np.where(gone, np.nan, worth), self.rule.smoothing)

    def _inherits(self, sweep_dir: Path, generation: int, iteration: int, child: str, source: str) -> bool:
        """Lay a child's checkpoint ready, where it is one that still learns, and its parent's is whole."""
        if child in self._ended:
            return False
        try:
            runs_lineage.bequeath(sweep_dir, generation, iteration, child, source)
        except CheckpointError as error:
            print(f"{child} keeps its own population: {error}", flush=True)
            return False
        return True

    def _life(self, alive: RunsAlive, after: Generation, place: int, parent: int, iteration: int) -> Life:
        trials = alive.trials
        if parent == place:
            return alive.lives[trials[place]]
        rule = self.rule
        seed = seed_of(self.seed, RUNS_BRANCH, after.number, 1 + place)
        parameters = explored(
            alive.lives[trials[parent]].parameters,
            self.search.param_space,
            rule.varied(self.search.param_space),
            rule.factors,
            rule.resample_probability,
            np.random.default_rng(seed),
        )
        # Two children of one parent would do the same with the same seed.
        parameters["debugging.seed"] = seed % 2**31
        return Life(parameters, trials[parent], iteration, after.number)

    def _rows(
        self, alive: RunsAlive, before: Generation, sources: np.ndarray, iteration: int | None
    ) -> list[dict[str, Any]]:
        """Of the lineage, [P]. iteration: at which the generation ended; None: it goes on."""
        columns = lineage_rows(before, sources, NOBODY if iteration is None else iteration)
        columns["fitness"] = self._sign * columns["fitness"]
        rows = []
        for place, (name, life) in enumerate(alive.lives.items()):
            own = {key: _number(values[place]) for key, values in columns.items()}
            told = {"species": "runs", "trial": name, "source": life.source}
            rows.append({**told, **own, "parameters": self.search.active(life.parameters)})
        return rows


def value_at(run_dir: Path, metric: str, iteration: int, since: int) -> float:
    """The last number of a metric that a run had recorded at an iteration; nan where there is none.

    Args:
        since: iteration of the checkpoint that its population began with; what was measured up to it is of another.
    """
    table = progress.read(run_dir / PROGRESS)
    own = table[(table["iteration"] > since) & (table["iteration"] <= iteration)] if len(table) else table
    found = progress.last(own, metric)
    return math.nan if found is None else found


def _number(value: Any) -> Any:
    """For JSON: a plain number, None where it is not known."""
    plain = value.item()
    return None if isinstance(plain, float) and math.isnan(plain) else plain
