"""popcomm submit, and popcomm jobs list | logs | stop: trainings on a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ADDRESS = "http://127.0.0.1:8265"  # as in popcomm.cli.jobs

jobs = typer.Typer(no_args_is_help=True, help="Jobs that popcomm submit has started: list, logs, stop.")

Address = Annotated[
    str, typer.Option("--address", metavar="URL", help="The cluster's job server; by a tunnel if it is elsewhere.")
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="As popcomm submit and popcomm jobs list name it.")]


def submit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A YAML file, or the name of a shipped one: swarm.")],
    address: Address = ADDRESS,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value; may be given often."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=0, help="Learners, with a GPU each (default: as the file says).")] = 0,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="The run folder: a path on storage that all nodes share (default: in its POPCOMM_RUNS)."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in --run-dir from the newest checkpoint.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="With --resume: read pickles in checkpoints, too.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--detach", help="Print its log until it ends, or leave it.")] = True,
) -> int:
    """Train on a Ray cluster: a job with one trial of Ray Tune, or a sweep where the file has tune:.

    Exit code 0 when it succeeded, 1 when it failed, 3 when it was stopped. Ctrl-C leaves the job to itself.
    """
    from popcomm.cli.submitting import submit

    return submit(file, overrides or [], address, gpus, run_dir, resume, follow, typer.echo, trust)


@jobs.command("list")
def list_(address: Address = ADDRESS) -> None:
    """What runs, and what has run."""
    from popcomm.cli.jobs import connect, rows

    for row in rows(connect(address), address):
        typer.echo("  ".join(row))


@jobs.command()
def logs(
    job: Job,
    address: Address = ADDRESS,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until it ends; exit code as of submit.")] = False,
) -> int:
    """What a job has printed."""
    from popcomm.cli import jobs as of_jobs

    client = of_jobs.connect(address)
    if follow:
        return of_jobs.follow(client, address, job, typer.echo)
    typer.echo(of_jobs.logs(client, address, job), nl=False)
    return of_jobs.SUCCEEDED


@jobs.command()
def stop(job: Job, address: Address = ADDRESS) -> None:
    """End a job; checkpoints that it saved stay, and popcomm submit --resume goes on from them."""
    from popcomm.cli import jobs as of_jobs

    typer.echo(f"job {job}: {of_jobs.stop(of_jobs.connect(address), address, job).lower()}")
