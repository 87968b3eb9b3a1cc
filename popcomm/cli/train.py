"""The training loop of the command line: Ray up, iterate until `stop`, checkpoint on the way, report at the end."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from popcomm import manifest
from popcomm.channels import message_kind
from popcomm.cli import schema
from popcomm.cli.progress import Display, Status
from popcomm.cli.ray_session import quiet_ray, ray_session
from popcomm.cli.run_folder import (
    CHECKPOINTS,
    check_run_dir,
    checkpoint_path,
    newest_checkpoint,
    open_run_dir,
    run_folder_told,
    seconds_until,
)
from popcomm.cli.signals import handled
from popcomm.errors import UserError
from popcomm.identity import run_id
from popcomm.run_lock import taken


class Interruption:
    """Ctrl-C or SIGTERM asks for an end after the running iteration; a second one raises KeyboardInterrupt at once."""

    def __init__(self, display: Display) -> None:
        self.asked = False
        self._display = display

    def watched(self) -> AbstractContextManager[None]:
        """Within, Ctrl-C asks for the end."""
        return handled(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._display.say("interrupted: finishing this iteration, then saving (Ctrl-C again stops at once)")


def run(
    document: dict[str, Any],
    run_dir: Path,
    resume: bool,
    display: Display,
    notes: Sequence[str] = (),
    anew: bool = False,
    patience: float = 0.0,
    trust: bool = False,
) -> dict[str, Any]:
    """Train as the document says, into the run folder, until a bound of `stop` is reached or Ctrl-C.

    Args:
        document: {section: {key: value}} as `schema.load` returns it.
        run_dir: the run's folder; made if it is not there.
        resume: go on from the newest valid checkpoint in it.
        display: where progress goes.
        notes: what to say before, too.
        anew: what is resumed begins new episodes, as another run's heir does.
        patience: seconds to wait for a folder that another process has.
        trust: read pickles of what is resumed, too (`PopulationPPO.from_checkpoint`).

    Returns:
        The last Status' numbers by RLlib's names, with "checkpoint" (path or None), "report" (path or None) and
        "interrupted" (bool).

    Raises:
        UserError: a mistake in the document, a folder that does not fit or that another process has; before any work
            starts.
    """
    with taken(run_dir, patience):
        return _run(document, run_dir, resume, display, notes, anew, trust)


def _run(
    document: dict[str, Any],
    run_dir: Path,
    resume: bool,
    display: Display,
    notes: Sequence[str],
    anew: bool,
    trust: bool,
) -> dict[str, Any]:
    changed = check_run_dir(run_dir, document, resume)
    bounds, config = schema.stop_bounds(document), checked_config(document)
    config.recording(run_dir=str(run_dir.resolve()))
    checkpoint = None
    if resume:
        manifest.clear_leftovers(run_dir / CHECKPOINTS)
        checkpoint, refused = newest_checkpoint(run_dir)
        notes = [*notes, *(f"passed over: {reason}" for reason in refused)]
        notes = [*notes, *(f"changed: {key} {told}" for key, told in changed.items())]
    summary = _trained(document, config, run_dir, bounds, checkpoint, display, notes, anew, trust)
    gc.collect()  # a trainer is a cycle, and of many members it is gigabytes, which the report does not need
    with run_folder_told(run_dir):
        summary["report"] = None if summary["interrupted"] else _report(run_dir)
    _conclude(summary, run_dir, display)
    return summary


def _trained(
    document: dict[str, Any],
    config: Any,
    run_dir: Path,
    bounds: Mapping[str, float],
    checkpoint: Path | None,
    display: Display,
    notes: Sequence[str],
    anew: bool,
    trust: bool,
) -> dict[str, Any]:
    """Build the trainer, from a checkpoint if there is one, and iterate; with the end of this nobody holds it."""
    with ray_session(config):
        algo = config.build_algo()
        try:
            if checkpoint:
                algo.restore_from_path(str(checkpoint.resolve()), trust=trust)
                if anew:
                    algo.start_anew()
            # Only now: a mistake that the build finds must not leave a folder that looks like a run, nor one that the
            # checkpoint shows a config that the run in there never had.
            open_run_dir(run_dir, document)
            for note in notes:
                display.say(note)
            _introduce(document, algo, run_dir, checkpoint, display)
            with run_folder_told(run_dir):
                return _iterate(algo, config, run_dir, bounds, checkpoint, display)
        finally:
            algo.stop()


def checked_config(document: Mapping[str, Any], elsewhere: bool = False) -> Any:
    """The PopulationPPOConfig of a document that a run can begin with, validated; it does not record yet.

    Args:
        document: {section: {key: value}} as `schema.load` returns it.
        elsewhere: it is to run on other machines, so how many GPUs this one has does not matter.

    Raises:
        UserError: a mistake in the document, `stop` is missing, or it names the run folder.
    """
    from popcomm.rllib import PopulationPPOConfig  # takes seconds, so after what can be told at once

    if "run_dir" in document.get("recording", {}):
        raise UserError("recording.run_dir belongs on the command line: --run-dir")
    quiet_ray()
    config = schema.apply(document, PopulationPPOConfig())
    if not schema.stop_bounds(document):
        raise UserError(f"stop is missing; name a bound for at least one of {', '.join(schema.STOP_KEYS)}")
    _validate(config, elsewhere)
    return config


def _validate(config: Any, elsewhere: bool) -> None:
    """RLlib's own checks, said as a user's mistake, and the GPUs of this machine."""
    try:
        config.validate()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(" ".join(str(error).split())) from error
    if config.num_gpus_per_learner and not (elsewhere or os.environ.get("RAY_ADDRESS")):
        import ray
        import torch

        if ray.is_initialized():
            return  # as in a trial of a cluster: learners are placed where the GPUs are
        there = torch.cuda.device_count()
        wanted = config.num_gpus_per_learner * max(1, config.num_learners)
        if wanted > there:
            raise UserError(f"learners.num_gpus_per_learner asks for {wanted:g} GPUs, and this machine has {there}")


def _iterate(
    algo: Any, config: Any, run_dir: Path, bounds: Mapping[str, float], checkpoint: Path | None, display: Display
) -> dict[str, Any]:
    began = time.monotonic() - (seconds_until(run_dir, algo.iteration) if checkpoint else 0.0)
    so_far = {"env_runners": algo.metrics.peek(("env_runners",), default={})} if checkpoint else {}
    status = Status.of(so_far, algo.iteration, time.monotonic() - began)
    saved, interruption = checkpoint, Interruption(display)
    with interruption.watched():
        display.start(run_dir.name, status, bounds)
        try:
            while not (status.reached(bounds) or interruption.asked):
                result = algo.train()
                status = Status.of(result, algo.iteration, time.monotonic() - began)
                every = config.checkpoint_every
                if every and status.training_iteration % every == 0:
                    saved = _save(algo, run_dir)
                display.iteration(status)
        except KeyboardInterrupt:
            display.say(f"stopped; the last checkpoint is {saved}" if saved else "stopped before the first checkpoint")
            raise
        finally:
            display.stop()
        if status.training_iteration and saved != checkpoint_path(run_dir, status.training_iteration):
            saved = _save(algo, run_dir)
    return {**asdict(status), "checkpoint": saved, "interrupted": interruption.asked}


def _save(algo: Any, run_dir: Path) -> Path:
    path = checkpoint_path(run_dir, algo.iteration)
    algo.save_to_path(str(path.resolve()))
    if algo.config.keep_checkpoints is not None:
        manifest.prune(path.parent, algo.config.keep_checkpoints, run_id(run_dir))
    return path


def _report(run_dir: Path) -> Path:
    from popcomm.analysis.report import write_report  # type: ignore[import-not-found]

    return Path(write_report(run_dir))


def _introduce(
    document: Mapping[str, Any], algo: Any, run_dir: Path, checkpoint: Path | None, display: Display
) -> None:
    kind = message_kind(document.get("communication", {}).get("messages"))
    display.say(f"messages: {kind.rule() if kind else 'none, the agents are silent'}")
    for line in _population(algo):
        display.say(line)
    if document.get("tune"):
        display.say("tune: not used by popcomm train")
    if document.get("evaluation") and algo.config.evaluation_interval is None:
        display.say("evaluation: nothing is evaluated, for evaluation.evaluation_interval is missing")
    display.say(f"resumed from {checkpoint} (iteration {algo.iteration})" if checkpoint else f"run folder: {run_dir}")


def _population(algo: Any) -> list[str]:
    """A line per species: seats, members, weights."""
    weights = next(iter(algo.learner_group.foreach_learner(count_weights))).get()
    return [
        f"species {name}: {_counted(species.num_seats, 'seat')} in each world, {_counted(members, 'member')}, "
        f"{_counted(count, 'weight')}"
        for name, species in algo.config.layout.species.items()
        for members, count in [weights[name]]
    ]


def count_weights(learner: Any) -> dict[str, tuple[int, int]]:
    """{species: (members, trained numbers of all of them)}; runs where the learner is."""
    return {
        name: (network.spec.members, sum(p.numel() for p in network.parameters()))
        for name, network in learner.networks.items()
    }


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _conclude(summary: Mapping[str, Any], run_dir: Path, display: Display) -> None:
    if summary["checkpoint"]:
        display.say(f"checkpoint: {summary['checkpoint']}")
    if summary["interrupted"]:
        display.say(f"interrupted; popcomm train --run-dir {run_dir} --resume goes on from there")
    else:
        display.say(f"report:     {summary['report']}")
    display.say(f"curves:     tensorboard --logdir {run_dir}")
