"""What `popcomm submit` and rayjob.yaml run on a cluster: a driver on the head, and the training as a trial of Tune.

Tune puts the training where there are CPUs and GPUs for it, off the head, and begins it again where a node or a process
was lost; it goes on from the newest checkpoint that verifies. An error that an environment, an agent or the config
raised, which another attempt would meet again, ends it. A document with a section `tune:` is a sweep.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import traceback
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from popcomm.cli.ray_session import prepare_environment

if __name__ == "__main__":
    prepare_environment()  # before Ray and torch are imported below

from rich.console import Console

from popcomm import manifest
from popcomm.cli import documents, submitting, sweep, train
from popcomm.cli.progress import PlainDisplay
from popcomm.cli.ray_session import quiet_ray, ray_session
from popcomm.cli.run_folder import CHECKPOINTS, CONFIG, PROGRESS, check_run_dir, check_trust, newest_checkpoint
from popcomm.cli.submitting import Job
from popcomm.errors import UserError, sentence
from popcomm.identity import IDENTITY, run_id

RUNS = "POPCOMM_RUNS"  # of the cluster: the folder for runs on the storage that its nodes share
TUNE = "tune"  # Tune's own folder, in the run folder; it is gone after a success
BEGUN = "begun"  # there, once a training of this job has begun
ERROR = "error.txt"  # there, with the traceback, where what is trained raised an error
RETRIES = 3
# A lock on shared storage outlives its node: of a client that is lost, NFS forgets it after a minute and a half.
LOCK_SECONDS = 180.0
SUCCEEDED, FAILED, MISTAKE = 0, 1, 2


def main(args: Sequence[str] | None = None) -> int:
    """Do what the command line says, or popcomm_job.json in the working directory; returns the exit code."""
    os.environ.update({name: os.environ.get(name, value) for name, value in sweep.TUNE_ENVIRONMENT.items()})
    try:
        return run(_job(args))
    except UserError as error:
        print(f"popcomm: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return MISTAKE


def _job(args: Sequence[str] | None) -> Job:
    parser = argparse.ArgumentParser(prog="python -m popcomm.cli.job", description=__doc__)
    parser.add_argument("file", nargs="?", metavar="FILE", help="a YAML file, or the name of a shipped one")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--run-dir", help="the run folder, on storage that all nodes share")
    parser.add_argument("--resume", action="store_true", help="go on in --run-dir from the newest checkpoint")
    parser.add_argument("--trust", action="store_true", help="of what is resumed, read pickles, too")
    asked = parser.parse_args(args)
    if asked.file is None:
        return submitting.told(Path())
    if asked.run_dir is None:
        raise UserError("--run-dir is missing: the run folder, on storage that all nodes share")
    check_trust(asked.trust, asked.resume)
    document = documents.load(asked.file, asked.overrides)
    return Job(asked.file, document, asked.run_dir, asked.run_dir, asked.resume, asked.trust)


def run(job: Job) -> int:
    """Train on the cluster of RAY_ADDRESS.

    Raises:
        UserError: a mistake in the document, or a run folder that does not fit or that not all nodes see.
    """
    run_dir = _run_dir(job)
    print(f"run folder: {run_dir}", flush=True)
    if "tune" in job.document:
        return _sweep(job, run_dir)
    check_run_dir(run_dir, job.document, job.resume)
    if job.resume:
        newest_checkpoint(run_dir)
    config = train.checked_config(job.document, elsewhere=True)
    with ray_session(config):
        check_shared(run_dir)
        result = _tuner(job, run_dir, config.algo_class.default_resource_request(config.to_dict())).fit()[0]
    if result.error is not None:
        print(f"failed: {sweep.reason(result.error)}", flush=True)
        print(f"all of it: {run_dir / TUNE}/*/error.txt", flush=True)
        return FAILED
    told = result.metrics or {}
    if told.get("raised"):
        print(
            f"failed, and not tried again: an environment, an agent or the config raised {told['raised']}", flush=True
        )
        print(f"all of it: {run_dir / TUNE / ERROR}", flush=True)
        return FAILED
    shutil.rmtree(run_dir / TUNE, ignore_errors=True)
    if told.get("mistake"):
        raise UserError(told["mistake"])
    return SUCCEEDED


def _run_dir(job: Job) -> Path:
    if job.run_dir is not None:
        return Path(job.run_dir)
    runs = os.environ.get(RUNS)
    return Path(runs) / Path(job.fallback).name if runs else Path(job.fallback)


def _sweep(job: Job, run_dir: Path) -> int:
    import ray

    ray.init(log_to_driver=False, logging_level="ERROR")
    try:
        check_shared(run_dir)
        statuses = sweep.run(job.document, run_dir, job.resume, None, Console(highlight=False, width=120), job.trust)
    finally:
        ray.shutdown()
    return FAILED if set(statuses) != {sweep.DONE} else SUCCEEDED


def check_shared(run_dir: Path) -> None:
    """Look whether every node of the cluster sees what this process writes into the folder, which is made.

    Raises:
        UserError: it cannot be written, or some do not see it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    marker = run_dir / f".{uuid.uuid4().hex}"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise UserError(f"--run-dir {run_dir} cannot be written on the head: {error.strerror}") from error
    look = ray.remote(num_cpus=0)(os.path.isfile)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    try:
        seen = ray.get(
            [
                look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                    str(marker)
                )
                for node in nodes
            ]
        )
    finally:
        marker.unlink(missing_ok=True)
    blind = [node["NodeManagerAddress"] for node, sees in zip(nodes, seen, strict=True) if not sees]
    if blind:
        raise UserError(
            f"--run-dir {run_dir} is not on storage that the cluster shares: {', '.join(blind)} "
            f"{'does' if len(blind) == 1 else 'do'} not see what the head writes there; name a folder on a volume that "
            f"all nodes mount, or set {RUNS} on the cluster"
        )


def _tuner(job: Job, run_dir: Path, resources: Any) -> Any:
    """Tune with one trial, which asks for what RLlib asks for."""
    from ray import tune

    quiet_ray()
    shutil.rmtree(run_dir / TUNE, ignore_errors=True)
    trainable = tune.with_parameters(
        _trial, document=job.document, run_dir=str(run_dir), resume=job.resume, trust=job.trusted
    )
    return tune.Tuner(
        tune.with_resources(trainable, resources),
        run_config=tune.RunConfig(
            name=TUNE,
            storage_path=str(run_dir),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[_teller()],
        ),
    )


def _trial(parameters: dict[str, Any], document: dict[str, Any], run_dir: str, resume: bool, trust: bool) -> None:
    """One attempt at the training, on some node: new, or from the newest checkpoint of the attempts before.

    Tune begins it again after an error that leaves it, and after nothing else.
    """
    from ray import tune

    from popcomm.cli import failures

    folder = Path(run_dir)
    retry = (folder / TUNE / BEGUN).is_file()
    (folder / TUNE / BEGUN).touch()
    if retry and not resume:
        saved = manifest.find(folder / CHECKPOINTS, run=run_id(folder)).path
        resume = (folder / CONFIG).is_file() and saved is not None
        if not resume:
            _forget(folder)
    try:
        train.run(document, folder, resume, Relay(), patience=LOCK_SECONDS if retry else 0.0, trust=trust)
    except UserError as error:
        # Another attempt would make the same mistake.
        tune.report({"mistake": sentence(error)})
    except Exception as error:
        if not failures.is_loss(error):
            (folder / TUNE / ERROR).write_text(traceback.format_exc(), encoding="utf-8")
            tune.report({"raised": failures.last_line(error)})
            return
        if failures.says_what_is_lost(error):
            tune.report({"line": str(error), "why": True})
        raise


def _forget(folder: Path) -> None:
    """Remove what an attempt has left that came to no checkpoint."""
    for name in (CONFIG, PROGRESS, IDENTITY):
        (folder / name).unlink(missing_ok=True)
    for name in (CHECKPOINTS, "tensorboard", "conversations"):
        shutil.rmtree(folder / name, ignore_errors=True)


class Relay(PlainDisplay):
    """The lines of `popcomm train`, told to the job's driver, whose output is the job's log."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))

    def say(self, text: str) -> None:
        from ray import tune

        tune.report({"line": text})


def _teller() -> Any:
    """Tune's callback that prints what the trial says, and that it begins again."""
    from ray import tune

    class Teller(tune.Callback):
        told_why = False  # by the attempt itself, before it failed

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if result.get("line"):
                print(result["line"], flush=True)
            self.told_why = bool(result.get("why"))

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            why = "" if self.told_why else "lost a process or a node; "
            count, self.told_why = f"{trial.num_failures} of {RETRIES}", False
            print(f"{why}begins again from the newest checkpoint (retry {count})", flush=True)

    return Teller()


if __name__ == "__main__":
    sys.exit(main())
