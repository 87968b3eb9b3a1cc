"""popcomm train, sweep, submit, jobs, report, watch, language, play, evaluate, export, channel, check-env and list.

A user's mistake is one sentence on stderr, exit code 2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import popcomm
from popcomm.cli import cluster_commands, planning_commands, run_commands, training_commands
from popcomm.cli.ray_session import prepare_environment
from popcomm.cli.signals import INTERRUPTED, Termination
from popcomm.errors import LostError, UserError, sentence

# Commands import what they need when they run: Ray and torch take seconds, and read the environment at import.

app = typer.Typer(
    name="popcomm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# typer's own base of usage mistakes (an unknown option or command, a missing argument); it has no public name.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
LOSS, USER_MISTAKE = 1, 2


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"popcomm {popcomm.__version__}")
        raise typer.Exit


@app.callback()
def _popcomm(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version, and end.")
    ] = False,
) -> None:
    """Train populations of small agents that learn to talk, and see what language emerged."""


# In this order they stand in the help.
app.command()(training_commands.train)
app.command()(training_commands.sweep)
app.command()(cluster_commands.submit)
app.add_typer(cluster_commands.jobs, name="jobs")
app.command()(run_commands.report)
app.command()(run_commands.watch)
app.command()(run_commands.language)
app.command()(run_commands.play)
app.command()(run_commands.evaluate)
app.command()(run_commands.export)
app.command()(planning_commands.channel)
app.command("check-env")(planning_commands.check_env)
app.command("list")(planning_commands.list_)


def main(args: list[str] | None = None) -> int:
    """Run the command line; returns its exit code.

    0, 1 for a failed trial or job, something wrong with an environment or a learner that was lost, 2 for a user's
    mistake, 3 for a stopped job, 130 after Ctrl-C, 143 after SIGTERM, which is treated as Ctrl-C.

    Any other exception is a defect of popcomm or of the user's own code, and keeps its traceback (exit code 1).
    """
    prepare_environment()
    _add_working_directory()
    termination = Termination()
    with termination.as_ctrl_c():
        return termination.exit_code(_run(args))


def _run(args: list[str] | None) -> int:
    try:
        return int(app(args=args, prog_name="popcomm", standalone_mode=False) or 0)
    except UserError as error:
        return _complain(sentence(error))
    except LostError as error:
        _complain(str(error))
        return LOSS
    except UsageError as error:
        return _complain(error.format_message())  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def _complain(text: str) -> int:
    if text:  # empty after the help that a bare `popcomm` prints
        print(f"popcomm: {' '.join(text.split())}", file=sys.stderr)
    return USER_MISTAKE


def _add_working_directory() -> None:
    """An installed script does not search the working directory, where a user's module:attribute is."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


if __name__ == "__main__":
    sys.exit(main())
