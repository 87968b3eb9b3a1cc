"""One HTML page that needs nothing but itself: pictures inside, no scripts, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from popcomm.analysis.templating import templates

TEMPLATES = templates(Path(__file__).with_name("templates"), autoescape=True)
TEMPLATES.filters["base64"] = lambda data: base64.b64encode(data).decode()


@dataclass(frozen=True)
class Mark:
    """A bar of a chart, with the words that are shown where one points at it."""

    left: int
    row: int
    width: int
    colour: str
    text: str


@dataclass(frozen=True)
class Chart:
    """Bars on a grid that can be looked into without scripts."""

    columns: int
    rows: int
    marks: Sequence[Mark]
    across: str  # what goes from left to right
    down: str  # what goes from the top down
    caption: str


@dataclass(frozen=True)
class Section:
    """A picture and what it says of this run."""

    name: str  # the picture is pictures/<name>.png
    title: str  # a question that the picture answers
    look: str  # what to look for, in any run
    findings: Sequence[str] = ()  # this run's numbers, one sentence or two each
    headline: str = ""  # the finding that goes to the top of the page
    missing: str = ""  # why there is no picture
    picture: bytes | None = None  # PNG
    chart: Chart | None = None  # under the picture


def page(
    title: str,
    subtitle: str,
    tables: Mapping[str, Mapping[str, str]],
    sections: Sequence[Section],
    config: str,
    about: str = "The run",
) -> str:
    """The whole page; all texts are escaped.

    Args:
        tables: {caption: {name: value}}, side by side.
        config: the run's configuration, folded away.
        about: what the tables tell of.
    """
    return TEMPLATES.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        tables=tables,
        sections=sections,
        config=config,
        about=about,
        headlines=[section.headline for section in sections if section.headline],
    )
