"""Options and arguments that several commands take, and what is checked of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from popcomm.errors import UserError

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value; may be given often."),
]
EnvOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="environment.env_config.KEY=VALUE", help="Other worlds: more seats, say; may be given often."
    ),
]
Greedy = Annotated[bool, typer.Option("--greedy", help="The likeliest actions and messages, instead of samples.")]
Population = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, a checkpoint, or what popcomm export wrote.")
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="With --resume: read pickles in its checkpoints, too. They can run code: know whose."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as popcomm train writes it.")]


def check_writable(file: Path, option: str, suffix: str) -> None:
    """Raises UserError: the file has another suffix, is a folder, or its own folder does not exist."""
    if file.suffix.lower() != suffix:
        raise UserError(f"{option} {file} does not end in {suffix}")
    if not file.parent.is_dir():
        raise UserError(f"{option} {file}: the folder {file.parent} does not exist")
    if file.is_dir():
        raise UserError(f"{option} {file} is a folder; name a file")
