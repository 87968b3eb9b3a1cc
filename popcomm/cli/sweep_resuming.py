"""What a sweep that goes on may do otherwise: Ray Tune keeps its searcher, its scheduler and who has ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from popcomm.cli.search_space import Search
from popcomm.cli.sweep_rules import ASHA
from popcomm.cli.sweep_table import REPORT
from popcomm.errors import UserError

ITERATIONS = "stop.training_iteration"


def check_resumed(
    sweep_dir: Path, wanted: Search, changed: Mapping[str, str], max_concurrent: int | None
) -> tuple[str, ...]:
    """Whether a sweep can go on like this, and what is to be said of it: other bounds are those of unended trials.

    Args:
        sweep_dir: its folder.
        wanted: the sweep.
        changed: {key: "is ..., and was ..."} of its document, of `stop` alone.
        max_concurrent: trials at a time that were asked for now.

    Raises:
        UserError: something would have no effect.
    """
    from ray import tune

    if not tune.Tuner.can_restore(str(sweep_dir.resolve())):
        return ()  # it had not begun
    began_with = wanted.max_concurrent_trials
    if max_concurrent not in (None, began_with):
        was = "as many as there were CPUs for" if began_with is None else str(began_with)
        raise UserError(f"--max-concurrent is {max_concurrent}, and stays {was}, as the sweep began; leave it out")
    stops = [f"{key} {told}" for key, told in changed.items() if key.partition(".")[0] == "stop"]
    if not stops:
        return ()
    for key in changed:
        if key in wanted.param_space and not wanted.param_space[key].when:
            raise UserError(f"--resume: {key} {changed[key]}, and has no effect: trials have it of tune.param_space")
    if ITERATIONS in changed and isinstance(wanted.rule, ASHA) and wanted.rule.max_t is None:
        raise UserError(
            f"--resume: {ITERATIONS} {changed[ITERATIONS]}, of which the rungs of tune.scheduler asha were made, and "
            "cannot change; tune.scheduler.max_t, named when a sweep begins, leaves it free"
        )
    ended = ended_trials(sweep_dir)
    if len(ended) >= wanted.num_trials:
        raise UserError(
            f"--resume: {', '.join(stops)}, and all {len(ended)} trials have ended, and stay as they are; popcomm "
            f"train --run-dir {sweep_dir / ended[0]} --resume, with the same --set, goes on with one"
        )
    return (f"these trials have ended, and stay as they are: {', '.join(ended)}",) if ended else ()


def ended_trials(sweep_dir: Path) -> list[str]:
    """Folders' names of the trials that are done, or that a scheduler has ended."""
    from popcomm.cli.tune_schedulers import stopped

    # The last thing that a training writes.
    return sorted(stopped(sweep_dir) | {report.parent.name for report in sweep_dir.glob(f"*/{REPORT}")})
