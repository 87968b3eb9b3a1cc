"""One HTML page that needs nothing but itself: pictures and scripts inside, light and dark, for phones as well."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from popcomm.analysis.templating import templates

FOLDER = Path(__file__).with_name("templates")
TEMPLATES = templates(FOLDER, autoescape=True)
TEMPLATES.filters["base64"] = lambda data: base64.b64encode(data).decode()
# Of what stands in a page for its scripts. (Jinja's filter tojson escapes what could end the element that it is in.)
TEMPLATES.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
# In this order; the first has what the others use, the last begins.
SCRIPTS = ("dom", "curves", "conversation", "symbol", "exchanges", "pair", "live", "start")
MOST_SENTENCES = 8  # of the summary
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


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
class Table:
    """What stands on the page as text: the caption, names of columns, and rows of as many cells."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Arrow:
    """Of a graph: SVG path data, how strong it is (0 ... 1), and what is said where one points at it."""

    path: str
    strength: float
    text: str


@dataclass(frozen=True)
class Node:
    """Of a graph: where it stands in a square of 100, its name, and what is said where one points at it."""

    x: float
    y: float
    name: str
    text: str


@dataclass(frozen=True)
class Graph:
    """Nodes and arrows that can be looked into."""

    nodes: Sequence[Node]
    arrows: Sequence[Arrow]
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
    computed: str = ""  # how it was computed
    change: str = ""  # what would change the headline
    widget: str = ""  # the script that makes a picture to look into of the page's data; its name is a file's
    table: Table | None = None  # what stands in the widget's place without scripts
    graph: Graph | None = None


def page(
    title: str,
    subtitle: str,
    tables: Mapping[str, Mapping[str, str]],
    sections: Sequence[Section],
    config: str,
    about: str = "The run",
    data: Mapping[str, Any] | None = None,
    live: bool = False,
) -> str:
    """The whole page; all texts are escaped.

    Args:
        tables: {caption: {name: value}}, side by side.
        config: the run's configuration, folded away.
        about: what the tables tell of.
        data: {name: what widgets draw}, as JSON takes it.
        live: whether the page asks its server for what is new.
    """
    script = scripts()
    return TEMPLATES.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        tables=tables,
        sections=sections,
        config=config,
        about=about,
        summary=summary(sections),
        data=data or {},
        live=live,
        script=Markup(script),
        hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def scripts() -> str:
    """The page's own, one after the other."""
    return "\n" + "".join((FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)


def summary(sections: Sequence[Section]) -> list[tuple[str, str, str]]:
    """(section, sentences, what would change them): the headlines in their order, MOST_SENTENCES sentences at most.

    >>> summary([Section("a", "", "", headline="One. Two.", change="more seeds")])
    [('a', 'One. Two.', 'more seeds')]
    """
    found: list[tuple[str, str, str]] = []
    room = MOST_SENTENCES
    for section in sections:
        sentences = SENTENCE.split(section.headline) if section.headline else []
        if sentences and room:
            found.append((section.name, " ".join(sentences[:room]), section.change))
            room -= min(room, len(sentences))
    return found
