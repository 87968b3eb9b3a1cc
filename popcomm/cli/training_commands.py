"""popcomm train | sweep: a training on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from popcomm.cli.options import Overrides, Trust
from popcomm.cli.signals import INTERRUPTED
from popcomm.errors import UserError
from popcomm.loading import uncollected

FAILED = 1  # exit code of a sweep with a trial that failed


def train(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A YAML file, or the name of a shipped one: swarm. Not with --resume."),
    ] = None,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where everything goes (default: runs/<config name>-<date-time>).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --run-dir, as its own config says, from the newest checkpoint.")
    ] = False,
    trust: Trust = False,
) -> int:
    """Train a population as a YAML file says."""
    from popcomm.cli import documents, run_folder

    given = overrides or []
    document, source, folder = _wanted(file, given, run_dir, resume, trust)
    notes = run_folder.not_as_in(file, folder, given) if resume and file else []
    from popcomm.cli.progress import display

    with uncollected():
        from popcomm.cli.train import run

    with documents.naming(source, given):
        summary = run(document, folder, resume, display(), notes, trust=trust)
    return INTERRUPTED if summary["interrupted"] else 0


def _wanted(
    file: str | None, overrides: list[str], run_dir: Path | None, resume: bool, trust: bool
) -> tuple[dict[str, Any], str, Path]:
    """What to do: the document, where it is from, and the folder. Told at once: neither torch nor Ray is loaded."""
    from popcomm.cli import documents, run_folder
    from popcomm.cli.ray_session import check_address

    run_folder.check_trust(trust, resume)
    if resume:
        document, config = run_folder.resumed_document(run_dir, overrides)
        source, folder = str(config), config.parent
    elif file is None:
        raise UserError("FILE is missing: a YAML file, or the name of a shipped one; or --run-dir and --resume")
    else:
        document, source = documents.load(file, overrides), file
        folder = run_dir or run_folder.default_run_dir(Path(file).stem)
    check_address()
    return document, source, folder


def sweep(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A YAML file with a section tune: model_size_sweep. Not with --resume."),
    ] = None,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where everything goes (default: runs/<config name>-<date-time>).")
    ] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time (default: what the file says, or the CPUs allow).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in --run-dir: the trials that are not done.")
    ] = False,
    trust: Trust = False,
) -> int:
    """Train a population for each point of a search space, with Ray Tune. Exit code 1 if a trial failed."""
    from rich.console import Console

    from popcomm.cli import documents

    given = overrides or []
    document, source, folder = _wanted(file, given, run_dir, resume, trust)

    with uncollected():
        from popcomm.cli.sweep import run

    with documents.naming(source, given):
        statuses = run(document, folder, resume, max_concurrent, Console(highlight=False), trust)
    if "interrupted" in statuses:
        return INTERRUPTED
    return FAILED if "failed" in statuses else 0
