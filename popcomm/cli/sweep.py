"""`popcomm sweep`: Ray Tune over a YAML file. Every trial is a `popcomm train`, with a run folder of its own.

Trials are Tune's function trainables around the training loop of `popcomm train`, and no PopulationPPO under Tune, so
that a trial is made from its document by the same code, keeps popcomm's verified checkpoints, and its folder is one for
`popcomm report` and `popcomm play`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from popcomm.cli import train
from popcomm.cli.progress import PLAIN_EVERY, Status
from popcomm.cli.ray_session import cpus, quiet_ray, ray_session
from popcomm.cli.run_folder import CHECKPOINTS, CONFIG, PROGRESS, check_run_dir, open_run_dir
from popcomm.cli.run_lock import taken
from popcomm.cli.search_space import Search, search, with_parameters
from popcomm.errors import UserError, nearest
from popcomm.language import progress

RESULTS_CSV, RESULTS_JSON, REPORT = "results.csv", "results.json", "report.html"
DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
LONGEST_NAME, LONGEST_REASON = 120, 300  # characters
# Read by Tune. Trials stay in the working directory, where a user's module:attribute and relative paths are; and Tune
# writes no logs of its own beside those of the run folders, and no banner.
TUNE_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run(
    document: dict[str, Any], sweep_dir: Path, resume: bool, max_concurrent: int | None, console: Console
) -> list[str]:
    """Train every trial of the document's `tune:` section and write the table of them into the sweep's folder.

    Args:
        document: {section: {key: value}} as `schema.load` returns it.
        sweep_dir: made if it is not there; each trial has a run folder in it.
        resume: go on with the sweep in it: trials that are done stay, others go on from their newest checkpoints.
        max_concurrent: trials at a time; None is what the document says, or as many as there are CPUs for.
        console: where progress goes.

    Returns:
        "done", "failed" or "interrupted" of every trial.

    Raises:
        UserError: a mistake in the document or in the configuration of any trial, or a folder that does not fit, before
            any work starts; afterwards only for a metric that no trial has recorded.
    """
    with taken(sweep_dir):
        return _run(document, sweep_dir, resume, max_concurrent, console)


def _run(
    document: dict[str, Any], sweep_dir: Path, resume: bool, max_concurrent: int | None, console: Console
) -> list[str]:
    check_run_dir(sweep_dir, document, resume, only_stop=True)
    wanted = search(document)
    largest = _check_trials(document, wanted)
    at_once = max_concurrent or wanted.max_concurrent_trials or _affordable(largest)
    os.environ.update({name: os.environ.get(name, value) for name, value in TUNE_ENVIRONMENT.items()})
    with ray_session(largest, copies=min(at_once or wanted.num_trials, wanted.num_trials)):
        open_run_dir(sweep_dir, document)
        console.print(f"sweep folder: {sweep_dir}", markup=False, soft_wrap=True)
        results = _tuner(document, wanted, sweep_dir, resume, at_once).fit()
    rows = [_row(result, wanted.metric) for result in results]
    write_results(sweep_dir, rows, wanted)
    _print_table(rows, wanted, console)
    console.print(f"table: {sweep_dir / RESULTS_CSV}", markup=False, soft_wrap=True)
    if INTERRUPTED in (row["status"] for row in rows):
        hint = f"interrupted; popcomm sweep --run-dir {sweep_dir} --resume goes on from there"
        console.print(hint, markup=False, soft_wrap=True)
    _check_metric(sweep_dir, rows, wanted.metric)
    return [row["status"] for row in rows]


# ---- before any work ----


def _check_trials(document: Mapping[str, Any], wanted: Search) -> Any:
    """The config of the trial that wants most CPUs, after a look at all that stand for the rest.

    Raises:
        UserError: the first mistake, and where in the search space it is.
    """
    configs = []
    for point in wanted.points():
        try:
            config = train.checked_config(with_parameters(document, point))
            _check_networks(config)
        except UserError as error:
            raise UserError(f"{_spelled(point)}: {error}") from error
        configs.append(config)
    return max(configs, key=cpus)


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


# ---- Tune ----


def _tuner(document: dict[str, Any], wanted: Search, sweep_dir: Path, resume: bool, at_once: int | None) -> Any:
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    quiet_ray()
    trainable = tune.with_resources(
        tune.with_parameters(_trial, document=document), lambda parameters: _resources(document, parameters)
    )
    folder = sweep_dir.resolve()
    if resume and tune.Tuner.can_restore(str(folder)):
        return tune.Tuner.restore(str(folder), trainable, resume_unfinished=True, resume_errored=True)
    return tune.Tuner(
        trainable,
        param_space={key: space.for_tune() for key, space in wanted.param_space.items()},
        tune_config=tune.TuneConfig(
            num_samples=wanted.num_samples,
            # What is drawn is a function of the seed, as all else is.
            search_alg=BasicVariantGenerator(
                max_concurrent=at_once or 0, random_state=document.get("debugging", {}).get("seed")
            ),
            trial_dirname_creator=trial_name,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            callbacks=[_announcer(wanted.num_trials)],
        ),
    )


def _trial(parameters: dict[str, Any], document: dict[str, Any]) -> None:
    """One trial, in a process of its own: `popcomm train` with the parameters put in, new or from its checkpoint."""
    from ray import tune

    from popcomm.rllib.checkpoints import latest_valid

    run_dir = Path(tune.get_context().get_trial_dir())
    resume = (run_dir / CONFIG).is_file() and latest_valid(run_dir / CHECKPOINTS) is not None
    if not resume:
        shutil.rmtree(run_dir, ignore_errors=True)
    train.run(with_parameters(document, parameters), run_dir, resume, _Reports())


def _resources(document: dict[str, Any], parameters: dict[str, Any]) -> Any:
    """What RLlib would ask of Tune for this trial: a bundle for the driver, each env runner and each learner."""
    config = train.checked_config(with_parameters(document, parameters))
    return config.algo_class.default_resource_request(config.to_dict())


class _Reports:
    """A Display that tells Tune, as seldom as lines are printed elsewhere: each report waits for Tune's driver."""

    def __init__(self) -> None:
        self._status, self._reported = Status(), -math.inf

    def start(self, name: str, status: Status, bounds: Mapping[str, float]) -> None:
        self._status = status

    def iteration(self, status: Status) -> None:
        self._status = status
        if time.monotonic() - self._reported >= PLAIN_EVERY:
            self._report()

    def say(self, text: str) -> None:
        """Nobody reads along; what is said is in the run folder."""

    def stop(self) -> None:
        self._report()

    def _report(self) -> None:
        from ray import tune

        tune.report({"env_steps": self._status.num_env_steps_sampled_lifetime})
        self._reported = time.monotonic()


def _announcer(count: int) -> Any:
    """Tune's callback that prints a line for every trial that ends."""
    from ray import tune

    class Announcer(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self._say(trials, f"{trial_name(trial)}: {DONE}")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self._say(trials, f"{trial_name(trial)}: {FAILED}")

        def _say(self, trials: list[Any], text: str) -> None:
            # Tune has not noted the end of this one yet.
            ended = 1 + sum(trial.status in ("TERMINATED", "ERROR") for trial in trials)
            # A plain print: Tune pickles its callbacks, which a Console is not made for.
            print(f"[{ended} of {count}] {text}", flush=True)

    return Announcer()


def trial_name(trial: Any) -> str:
    """The folder of one of Tune's trials: its number and its parameters, e.g. 00003_hidden_dim=16,depth=2."""
    number = trial.trial_id.rpartition("_")[2]
    # In the order of the file; what is drawn comes first in Tune's own.
    parameters = {key: trial.evaluated_params[key] for key in trial.config}
    spelled = re.sub(r"[^\w=,.+-]+", "-", _spelled(parameters))
    return f"{number}_{spelled}"[:LONGEST_NAME]


def _spelled(parameters: Mapping[str, Any]) -> str:
    """{"training.lr": 0.1} -> "lr=0.1"; keys whose last words are the same are told apart by more words."""
    return ",".join(
        f"{name}={_shown(value)}" for name, value in zip(_short(parameters), parameters.values(), strict=True)
    )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(keys: Iterable[str]) -> list[str]:
    """The last words of dotted keys, as many as tell them apart."""
    paths = [key.split(".") for key in keys]
    for count in range(1, max(map(len, paths), default=1) + 1):
        names = [".".join(path[-count:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


# ---- the table ----


def _row(result: Any, metric: str | None) -> dict[str, Any]:
    """One of Tune's results and its run folder -> a row of the table."""
    run_dir = Path(result.path)
    table = progress.read(run_dir / PROGRESS)
    last = {key: None if table.empty else table[key].iloc[-1] for key in ("iteration", "env_steps", "time_s")}
    # The last thing that a training writes; Tune forgets what was done before a resumption.
    done = (run_dir / REPORT).is_file()
    return {
        "trial": run_dir.name,
        **result.config,
        **({} if metric is None else {metric: _last_value(table, metric)}),
        "status": FAILED if result.error else DONE if done else INTERRUPTED,
        **last,
        "reason": "" if result.error is None else reason(result.error),
    }


def _last_value(table: pd.DataFrame, metric: str) -> float | None:
    """The last number of a column; None where there is none."""
    if metric not in table:
        return None
    values = table[metric].dropna()
    return float(values.iloc[-1]) if len(values) else None


def reason(error: BaseException) -> str:
    """An error in a line: what it is and what it says, of a long text the beginning and the end."""
    # What Ray brings from another process prints as a traceback, and keeps the error itself as its cause.
    cause = getattr(error, "cause", None) or error
    lines = [" ".join(line.split()) for line in str(cause).splitlines() if line.strip()]
    text = " ... ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))
    text = text if isinstance(cause, UserError) else f"{type(cause).__name__}: {text}"
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 3]}..."


def ranked(rows: Sequence[dict[str, Any]], wanted: Search) -> list[dict[str, Any]]:
    """The best first, those without the metric last; in the order of the trials where there is no metric."""
    ordered, metric = sorted(rows, key=lambda row: row["trial"]), wanted.metric
    if metric is None:
        return ordered
    sign = -1 if wanted.mode == "max" else 1

    def place(row: dict[str, Any]) -> float:
        value = row[metric]
        return math.inf if value is None else sign * value

    return sorted(ordered, key=place)


def write_results(sweep_dir: Path, rows: Sequence[dict[str, Any]], wanted: Search) -> None:
    """results.csv and results.json: a row for each trial, the best first."""
    table = ranked(rows, wanted)
    pd.DataFrame(table).to_csv(sweep_dir / RESULTS_CSV, index=False)
    content = {"metric": wanted.metric, "mode": wanted.mode, "trials": table}
    (sweep_dir / RESULTS_JSON).write_text(json.dumps(content, indent=1, allow_nan=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """Numbers of numpy and pandas for JSON."""
    return value.item()


def _print_table(rows: Sequence[dict[str, Any]], wanted: Search, console: Console) -> None:
    keys = list(wanted.param_space)
    table = Table(box=None)
    for title in (*_short(keys), *([wanted.metric] if wanted.metric else []), "status", "reason"):
        table.add_column(title, overflow="fold")
    for row in ranked(rows, wanted):
        metric = [] if wanted.metric is None else [_measured(row[wanted.metric])]
        table.add_row(*(_shown(row[key]) for key in keys), *metric, row["status"], row["reason"])
    console.print(table, markup=False)


def _measured(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _check_metric(sweep_dir: Path, rows: Sequence[dict[str, Any]], metric: str | None) -> None:
    """Raises UserError where trials have recorded numbers, and not this one."""
    if metric is None or any(row[metric] is not None for row in rows):
        return
    names = {str(name) for row in rows for name in progress.read(sweep_dir / row["trial"] / PROGRESS)}
    if names:
        raise UserError(f"tune.metric '{metric}' was recorded by no trial; {nearest(metric, names)}")
