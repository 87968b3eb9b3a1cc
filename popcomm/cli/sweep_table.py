"""The table of a sweep: a row for each trial, the best first, as CSV, JSON and on the screen."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from popcomm.cli.run_folder import PROGRESS
from popcomm.cli.runs_lineage import began_with, plain_number
from popcomm.cli.search_space import Search
from popcomm.cli.sweep_trials import short, shown_short
from popcomm.errors import UserError, nearest
from popcomm.language import progress

RESULTS_CSV, RESULTS_JSON, REPORT = "results.csv", "results.json", "report.html"
DONE, STOPPED, FAILED, INTERRUPTED = "done", "stopped", "failed", "interrupted"
LONGEST_REASON = 300  # characters


def row(result: Any, parameters: Mapping[str, Any], metric: str | None, ended_early: bool) -> dict[str, Any]:
    """One of Tune's results and its run folder -> a row of the table.

    Args:
        result: of one trial.
        parameters: {"section.key": value}, with which it trained last.
        metric: a name in progress.jsonl.
        ended_early: whether a scheduler has ended it.
    """
    run_dir = Path(result.path)
    table = progress.read(run_dir / PROGRESS)
    last = {key: None if table.empty else table[key].iloc[-1] for key in ("iteration", "env_steps", "time_s")}
    # The last thing that a training writes; Tune forgets what was done before a resumption.
    done = (run_dir / REPORT).is_file()
    return {
        "trial": run_dir.name,
        **parameters,
        **({} if metric is None else {metric: _last(run_dir, table, metric)}),
        "status": FAILED if result.error else DONE if done else STOPPED if ended_early else INTERRUPTED,
        **last,
        "reason": "" if result.error is None else reason(result.error),
    }


def _last(run_dir: Path, table: pd.DataFrame, metric: str) -> float | None:
    """The last number of a metric that a run measured of the population that it has now; None where there is none."""
    own = table if table.empty else table[table["iteration"] > began_with(run_dir)]
    return progress.last(own, metric)


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
    (sweep_dir / RESULTS_JSON).write_text(json.dumps(content, indent=1, allow_nan=False, default=plain_number) + "\n")


def print_table(rows: Sequence[dict[str, Any]], wanted: Search, console: Console) -> None:
    keys = list(wanted.param_space)
    table = Table(box=None)
    for title in (*short(keys), *([wanted.metric] if wanted.metric else []), "status", "reason"):
        table.add_column(title, overflow="fold")
    for row in ranked(rows, wanted):
        metric = [] if wanted.metric is None else [_told(row[wanted.metric])]
        table.add_row(*(shown_short(row.get(key)) for key in keys), *metric, row["status"], row["reason"])
    console.print(table, markup=False)


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def check_metric(sweep_dir: Path, rows: Sequence[dict[str, Any]], metric: str | None) -> None:
    """Raises UserError where trials have recorded numbers, and not this one."""
    if metric is None or any(row[metric] is not None for row in rows):
        return
    tables = [progress.read(sweep_dir / row["trial"] / PROGRESS) for row in rows]
    names = {str(name) for table in tables for name in table}
    # Heirs that have measured nothing yet since they took over have no number in their row.
    if names and all(progress.last(table, metric) is None for table in tables):
        raise UserError(f"tune.metric '{metric}' was recorded by no trial; {nearest(metric, names)}")
