"""Templates of pages and of the report: one way to set Jinja2 up."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates(folder: Path, autoescape: bool) -> Environment:
    """The templates of a folder. What is missing in one is an error; lines that hold a block alone leave no line.

    Args:
        autoescape: whether texts become HTML.
    """
    return Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
