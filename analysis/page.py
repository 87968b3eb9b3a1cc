"""One HTML page that needs nothing but itself: pictures inside, no scripts, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_CSS = """
:root { --page: #f3f3f0; --card: #fcfcfa; --ink: #24272b; --muted: #5f666e; --line: #dcdedb;
        --mark: #0072b2; --dim: 1; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171a; --card: #1e2125; --ink: #e6e7e3; --muted: #a3aab1; --line: #34393f;
          --mark: #56b4e9; --dim: .9; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 6px; }
.path { color: var(--muted); margin: 0 0 24px; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
          padding: 20px 22px; margin: 0 0 20px; }
img { display: block; width: 100%; height: auto; border-radius: 6px; filter: brightness(var(--dim)); }
.narrow { max-width: 760px; margin: 0 auto; }
p { margin: 10px 0; max-width: 78ch; }
.look { color: var(--muted); }
.missing { border-left: 3px solid var(--mark); padding-left: 12px; }
ul { margin: 6px 0; padding-left: 20px; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: 8px 40px; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; font-size: .92rem; align-self: start; }
caption { text-align: left; font-weight: 600; padding-bottom: 4px; }
th, td { text-align: left; vertical-align: top; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 400; width: 44%; overflow-wrap: anywhere; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; color: var(--muted); }
"""


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


def page(
    title: str, subtitle: str, tables: Mapping[str, Mapping[str, str]], sections: Sequence[Section], config: str
) -> str:
    """The whole page; all texts are escaped here.

    Args:
        tables: {caption: {name: value}}, side by side.
        config: the run's configuration, folded away.
    """
    headlines = [section.headline for section in sections if section.headline]
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>",
        f'<h1>{escape(title)}</h1>\n<p class="path">{escape(subtitle)}</p>',
        _headlines(headlines) if headlines else "",
        '<section><h2>The run</h2>\n<div class="tables">',
        *(_table(caption, rows) for caption, rows in tables.items()),
        "</div>",
        f"<details><summary>Whole configuration</summary><pre>{escape(config)}</pre></details>" if config else "",
        "</section>",
        *(_section(section) for section in sections),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _headlines(texts: Sequence[str]) -> str:
    return (
        "<section><h2>In short</h2>\n<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul></section>"
    )


def _table(caption: str, rows: Mapping[str, str]) -> str:
    cells = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items()
    )
    return f"<table><caption>{escape(caption)}</caption>{cells}</table>"


def _section(section: Section) -> str:
    body = [f'<section id="{section.name}"><h2>{escape(section.title)}</h2>']
    if section.picture is not None:
        data = base64.b64encode(section.picture).decode()
        narrow = ' class="narrow"' if section.name == "topology" else ""
        body.append(f'<img{narrow} alt="{escape(section.title)}" src="data:image/png;base64,{data}">')
    if section.missing:
        body.append(f'<p class="missing">{escape(section.missing)}</p>')
    body += [f"<p>{escape(text)}</p>" for text in section.findings]
    if section.picture is not None:
        body.append(f'<p class="look">{escape(section.look)}</p>')
    return "\n".join([*body, "</section>"])
