"""`popcomm list`: every name that a YAML file may use, with a line on each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from popcomm.agents import AGENTS
from popcomm.channels.broadcast.reflexes import DECISIONS, REFLEXES
from popcomm.channels.kinds import MESSAGE_KINDS
from popcomm.channels.topology import TOPOLOGIES
from popcomm.cli.documents import shipped
from popcomm.envs import WORLDS
from popcomm.envs.making import SOURCES
from popcomm.envs.vmas_scenarios import installed, scenario_modules
from popcomm.schedules import SCHEDULES


def print_listing(console: Console) -> None:
    """Print the tables of environments, agents, message kinds, topologies, reflexes and shipped configs."""
    for title, key, entries in _tables():
        table = Table(title=f"{title}  ({key})", title_justify="left", title_style="bold", show_header=False, box=None)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for name, line in entries.items():
            table.add_row(name, line)
        console.print(table, markup=False)
        console.print()


def _tables() -> list[tuple[str, str, dict[str, str]]]:
    return [
        ("environments", "environment.env", _documented(WORLDS) | _of_sources()),
        ("agents", "population.agent", _documented(AGENTS)),
        ("message kinds", "communication.messages.kind", _documented(MESSAGE_KINDS)),
        ("topologies", "communication.topology.kind", _documented(TOPOLOGIES)),
        ("reflexes of words", "communication.reflexes[].kind", _documented(REFLEXES)),
        ("who repeats a word", "communication.reflexes[].decision.kind", _documented(DECISIONS)),
        ("how a reflex fades", "communication.reflexes[].schedule.kind", _documented(SCHEDULES)),
        ("configs", "popcomm train NAME", {name: _first_comment(file) for name, file in shipped().items()}),
    ]


def _of_sources() -> dict[str, str]:
    """{"source:NAME": what it is}; the names of VMAS's scenarios too, where it is installed."""
    found = {f"{source}:NAME": what for source, (_, what) in SOURCES.items()}
    return found | ({"vmas:NAME": f"{found['vmas:NAME']}: {', '.join(scenario_modules())}"} if installed() else {})


def _documented(classes: Mapping[str, type]) -> dict[str, str]:
    return {name: (inspect.getdoc(cls) or "").partition("\n")[0] for name, cls in sorted(classes.items())}


def _first_comment(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")
