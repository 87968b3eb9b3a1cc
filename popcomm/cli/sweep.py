"""`popcomm sweep`: Ray Tune over a YAML file. Every trial is a `popcomm train`, with a run folder of its own.

Trials are Tune's function trainables around the training loop of `popcomm train`, and no PopulationPPO under Tune, so
that a trial is made from its document by the same code, keeps popcomm's verified checkpoints, and its folder is one for
`popcomm report` and `popcomm play`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from popcomm.checks import count
from popcomm.cli import runs_lineage, schema, train
from popcomm.cli.ray_session import cpus, quiet_ray, ray_session
from popcomm.cli.run_folder import check_run_dir, open_run_dir
from popcomm.cli.search_space import SEED, Search, search
from popcomm.cli.sweep_resuming import check_resumed
from popcomm.cli.sweep_storage import check_storage
from popcomm.cli.sweep_table import (
    DONE,
    FAILED,
    INTERRUPTED,
    REPORT,
    RESULTS_CSV,
    RESULTS_JSON,
    STOPPED,
    check_metric,
    print_table,
    ranked,
    reason,
    row,
    write_results,
)
from popcomm.cli.sweep_trials import document_of, spelled, trial, trial_name
from popcomm.errors import UserError
from popcomm.run_lock import taken

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "REPORT",
    "RESULTS_CSV",
    "RESULTS_JSON",
    "STOPPED",
    "ranked",
    "reason",
    "run",
    "trial_name",
    "write_results",
]

# Read by Tune. Trials stay in the working directory, where a user's module:attribute and relative paths are; Tune
# writes no logs of its own beside those of the run folders, and no banner; and reports without a metric are no mistake:
# some are measured when an episode ends. A trial that another one follows in its process has a minute to end.
TUNE_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
}


def run(
    document: dict[str, Any],
    sweep_dir: Path,
    resume: bool,
    max_concurrent: int | None,
    console: Console,
    trust: bool = False,
) -> list[str]:
    """Train every trial of the document's `tune:` section and write the table of them into the sweep's folder.

    Args:
        document: {section: {key: value}} as `schema.load` returns it.
        sweep_dir: made if it is not there; each trial has a run folder in it.
        resume: go on with the sweep in it: trials that are done stay, others go on from their newest checkpoints.
        max_concurrent: trials at a time; None is what the document says, or as many as there are CPUs for.
        console: where progress goes.
        trust: read pickles of what is resumed, too (`PopulationPPO.from_checkpoint`).

    Returns:
        "done", "stopped" (by the scheduler), "failed" or "interrupted" of every trial.

    Raises:
        UserError: a mistake in the document or in the configuration of any trial, or a folder that does not fit, before
            any work starts; afterwards only for a metric that no trial records, as soon as one could have.
    """
    with taken(sweep_dir):
        return _run(document, sweep_dir, resume, max_concurrent, console, trust)


def _run(
    document: dict[str, Any], sweep_dir: Path, resume: bool, max_concurrent: int | None, console: Console, trust: bool
) -> list[str]:
    changed = check_run_dir(sweep_dir, document, resume, only_stop=True)
    wanted = search(document)
    notes = check_resumed(sweep_dir, wanted, changed, max_concurrent) if resume else ()
    document = at_a_time(document, max_concurrent)
    wanted = search(document)
    largest = max(checked_trials(document, wanted), key=cpus)
    at_once = wanted.max_concurrent_trials or _affordable(largest)
    os.environ.update({name: os.environ.get(name, value) for name, value in TUNE_ENVIRONMENT.items()})
    _check_concurrency(wanted)
    with ray_session(largest, copies=min(at_once or wanted.num_trials, wanted.num_trials)):
        check_storage(sweep_dir)
        open_run_dir(sweep_dir, document)
        for line in (f"sweep folder: {sweep_dir}", *notes):
            console.print(line, markup=False, soft_wrap=True)
        # What is in the folder of a new sweep, this one wrote.
        results = _tuner(document, wanted, sweep_dir, resume, at_once, trust or not resume).fit()
    rows = _rows(results, wanted, sweep_dir)
    write_results(sweep_dir, rows, wanted)
    print_table(rows, wanted, console)
    console.print(f"table: {sweep_dir / RESULTS_CSV}", markup=False, soft_wrap=True)
    if INTERRUPTED in (one["status"] for one in rows):
        hint = f"interrupted; popcomm sweep --run-dir {sweep_dir} --resume goes on from there"
        console.print(hint, markup=False, soft_wrap=True)
    check_metric(sweep_dir, rows, wanted.metric)
    console.print(f"report: {_report(sweep_dir)}", markup=False, soft_wrap=True)
    return [one["status"] for one in rows]


def _rows(results: Any, wanted: Search, sweep_dir: Path) -> list[dict[str, Any]]:
    from popcomm.cli.tune_schedulers import stopped

    early, rows = stopped(sweep_dir), []
    for result in results:
        name = Path(result.path).name
        life = runs_lineage.life_of(sweep_dir, name)
        parameters = result.config if life is None else life.parameters
        own = {key: value for key, value in wanted.active(parameters).items() if key in wanted.param_space}
        rows.append(row(result, {key: own.get(key) for key in wanted.param_space}, wanted.metric, name in early))
    return rows


def _report(sweep_dir: Path) -> Path:
    from popcomm.analysis.sweep_report import write_sweep_report  # type: ignore[import-not-found]

    return Path(write_sweep_report(sweep_dir))


# ---- before any work ----


def checked_trials(document: Mapping[str, Any], wanted: Search, elsewhere: bool = False) -> list[Any]:
    """The configs of the trials that stand for all, after a look at each.

    Args:
        elsewhere: they are to run on other machines, see `train.checked_config`.

    Raises:
        UserError: the first mistake, and where in the search space it is.
    """
    configs = []
    for point in wanted.points():
        try:
            own = document_of(document, wanted, point)
            config = train.checked_config(own, elsewhere)
            if config.seed is not None:
                count(SEED, config.seed, 0)
            if wanted.rule is not None:
                iterations = schema.stop_bounds(own).get("training_iteration")
                wanted.rule.check_trial(iterations, config.checkpoint_every)
            _check_networks(config)
        except UserError as error:
            raise UserError(f"{spelled(point)}: {error}") from error
        configs.append(config)
    return configs


def _check_networks(config: Any) -> None:
    """Construct the networks without memory for weights: sizes that do not fit together are told by constructors.

    Raises:
        UserError: what a network's own constructor says.
    """
    import torch

    with torch.device("meta"):
        plan = config.plan
        for species in plan.species.values():
            try:
                species.agent_class(species.spec, **species.agent_config)
            except (NotImplementedError, RuntimeError):
                # A user's network may need real numbers in its constructor; then only the trial can tell.
                return


def _affordable(config: Any) -> int | None:
    """Trials that this machine's CPUs can hold at a time, at least one; None leaves that to the cluster."""
    if os.environ.get("RAY_ADDRESS"):
        return None
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // cpus(config))


def at_a_time(document: Mapping[str, Any], max_concurrent: int | None) -> dict[str, Any]:
    """The document with what --max-concurrent asks for, which a sweep keeps for its life."""
    if max_concurrent is None:
        return dict(document)
    return {**document, "tune": {**document["tune"], "max_concurrent_trials": max_concurrent}}


def _check_concurrency(wanted: Search) -> None:
    """Trials that wait for one another's generation cannot be counted as running ones on a cluster."""
    asked = wanted.max_concurrent_trials
    if asked and wanted.generation is not None and os.environ.get("RAY_ADDRESS"):
        raise UserError(
            f"{asked} trials at a time were asked for, and with this tune.scheduler a cluster runs as many as it has "
            "CPUs for: leave tune.max_concurrent_trials and --max-concurrent out"
        )


# ---- Tune ----


def _tuner(
    document: dict[str, Any], wanted: Search, sweep_dir: Path, resume: bool, at_once: int | None, trust: bool
) -> Any:
    from ray import tune

    from popcomm.cli.tune_schedulers import make_scheduler, stop_without_metric
    from popcomm.cli.tune_search import make_searcher

    quiet_ray()
    folder = sweep_dir.resolve()
    trainable = tune.with_resources(
        tune.with_parameters(trial, document=document, sweep_dir=str(folder), trust=trust),
        lambda parameters: _resources(document, wanted, parameters),
    )
    if resume and tune.Tuner.can_restore(str(folder)):
        return tune.Tuner.restore(str(folder), trainable, resume_unfinished=True, resume_errored=True)
    return tune.Tuner(
        trainable,
        param_space={key: space.for_tune() for key, space in wanted.param_space.items()},
        tune_config=tune.TuneConfig(
            num_samples=wanted.num_samples,
            search_alg=make_searcher(wanted, at_once),
            scheduler=make_scheduler(wanted),
            reuse_actors=True,  # processes: what they train is made anew
            trial_dirname_creator=functools.partial(trial_name, wanted=wanted),
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            stop=stop_without_metric(),
            failure_config=tune.FailureConfig(max_failures=wanted.max_failures),
            callbacks=[_announcer(wanted)],
        ),
    )


def _resources(document: dict[str, Any], wanted: Search, parameters: dict[str, Any]) -> Any:
    """What RLlib would ask of Tune for this trial: a bundle for the driver, each env runner and each learner."""
    config = train.checked_config(document_of(document, wanted, parameters))
    return config.algo_class.default_resource_request(config.to_dict())


def _announcer(wanted: Search) -> Any:
    """Tune's callback that prints a line for every trial that ends."""
    from ray import tune

    from popcomm.cli.tune_schedulers import folder_of, stopped

    class Announcer(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            folder = folder_of(trial)
            done = (folder / REPORT).is_file() or folder.name not in stopped(folder.parent)
            self._say(trials, f"{folder.name}: {DONE if done else STOPPED}")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self._say(trials, f"{folder_of(trial).name}: {FAILED}")

        def _say(self, trials: list[Any], text: str) -> None:
            # Tune has not noted the end of this one yet.
            ended = 1 + sum(trial.status in ("TERMINATED", "ERROR") for trial in trials)
            # A plain print: Tune pickles its callbacks, which a Console is not made for.
            print(f"[{ended} of {wanted.num_trials}] {text}", flush=True)

    return Announcer()
