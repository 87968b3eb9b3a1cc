"""`popcomm list`: every name that a YAML file may use, or what one of them is made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from popcomm.cli.documents import shipped
from popcomm.cli.sources import (
    SUPPLIED,
    Argument,
    ClassSource,
    arguments,
    class_source,
    file_of,
    find_class,
    first_sentence,
    table,
)
from popcomm.envs.vmas_scenarios import arguments_in_file, scenario_file, scenario_files
from popcomm.errors import UserError, unknown
from popcomm.sources import SOURCES, of_a_source


class Names(NamedTuple):
    """A table of names, where a YAML file says one, and where it says what that is made from."""

    title: str
    key: str
    arguments: str
    module: str
    table: str


REFLEX = "communication.reflexes[]"
KINDS = (
    Names("environments", "environment.env", "environment.env_config", "popcomm.envs.names", "WORLDS"),
    Names("agents", "population.agent", "population.agent_config", "popcomm.agents", "AGENTS"),
    Names(
        "message kinds",
        "communication.messages.kind",
        "communication.messages",
        "popcomm.channels.kinds",
        "MESSAGE_KINDS",
    ),
    Names(
        "topologies",
        "communication.topology.kind",
        "communication.topology",
        "popcomm.channels.topology",
        "TOPOLOGIES",
    ),
    Names("reflexes of words", f"{REFLEX}.kind", REFLEX, "popcomm.channels.broadcast.reflexes", "REFLEXES"),
    Names(
        "who repeats a word",
        f"{REFLEX}.decision.kind",
        f"{REFLEX}.decision",
        "popcomm.channels.broadcast.decisions",
        "DECISIONS",
    ),
    Names("who survives", "survival.strategy.kind", "survival.strategy", "popcomm.evolution.making", "STRATEGIES"),
    Names("how a reflex fades", f"{REFLEX}.schedule.kind", f"{REFLEX}.schedule", "popcomm.schedules", "SCHEDULES"),
)


def print_listing(console: Console) -> None:
    """Print the tables of environments, agents, message kinds, topologies, reflexes and shipped configs."""
    for kind in KINDS:
        lines = {name: found.docstring.partition("\n")[0] for name, found in sorted(classes(kind).items())}
        if kind.key == "environment.env":
            lines |= {f"{source}:NAME": line for source, line in SOURCES.items()}
            lines["vmas:NAME"] += "".join(f", {name}" for name in scenario_files()).replace(",", ":", 1)
        _print_lines(console, kind.title, kind.key, lines)
    _print_lines(
        console, "configs", "popcomm train NAME", {name: _first_comment(file) for name, file in shipped().items()}
    )


def print_name(console: Console, name: str) -> None:
    """Print what everything of that name is, and what it is made from; "module:Class" is looked up in its file.

    Raises:
        UserError: there is nothing of that name.
    """
    if of_a_source(name):
        _print_of_source(console, name)
        return
    found = list(_named(name))
    for kind, source in found:
        console.print(f"[bold]{name}[/bold]  ({kind.key})", markup=True)
        console.print(first_sentence(source.docstring), markup=False)
        _print_arguments(console, kind.arguments, [one for one in arguments(source) if one.name not in SUPPLIED])
    if name in shipped():
        console.print(f"[bold]{name}[/bold]  (popcomm train {name})")
        console.print(shipped()[name].read_text(encoding="utf-8"), markup=False)
    elif not found:
        known = [*(each for kind in KINDS for each in classes(kind)), *shipped()]
        raise unknown("the name", name, known)


def _print_of_source(console: Console, name: str) -> None:
    """An environment of others, and what it is made from as far as its source tells."""
    source, _, what = name.partition(":")
    given: list[Argument] = []
    if source == "vmas":
        told = arguments_in_file(scenario_file(what)) or {}
        own = arguments(class_source("popcomm.envs.vmas_world", "VmasWorld"))
        given = [Argument(key, "", default or None, "of the scenario") for key, default in told.items()]
        given += [one for one in own if one.name not in {*SUPPLIED, "scenario"}]
    console.print(f"[bold]{name}[/bold]  (environment.env)")
    console.print(SOURCES[source], markup=False)
    if given:
        _print_arguments(console, "environment.env_config", given)
    else:
        console.print("environment.env_config: what gymnasium.make takes for it")


def classes(kind: Names) -> dict[str, ClassSource]:
    """{name: class} of a table."""
    return table(kind.module, kind.table)


def _named(name: str) -> Iterator[tuple[Names, ClassSource]]:
    module, colon, attribute = name.partition(":")
    if colon:
        if file_of(module) is None:
            raise UserError(f"'{name}': the module '{module}' does not exist, or is not written in Python")
        found = find_class(module, attribute)
        if found is None:
            raise UserError(f"'{name}' is no class in the file of {module}")
        yield Names("", "a class of your own", "arguments", module, ""), found
        return
    for kind in KINDS:
        there = classes(kind)
        if name in there:
            yield kind, there[name]


def _print_lines(console: Console, title: str, key: str, lines: dict[str, str]) -> None:
    shown = Table(title=f"{title}  ({key})", title_justify="left", title_style="bold", show_header=False, box=None)
    shown.add_column(style="cyan", no_wrap=True)
    shown.add_column()
    for name, line in lines.items():
        shown.add_row(name, line)
    console.print(shown, markup=False)
    console.print()


def _print_arguments(console: Console, where: str, given: list[Argument]) -> None:
    shown = Table(title=where, title_justify="left", title_style="", show_header=False, box=None)
    shown.add_column(style="cyan", no_wrap=True)
    for _ in range(3):
        shown.add_column()
    for one in given:
        shown.add_row(one.name, "required" if one.default is None else f"= {one.default}", one.annotation, one.told)
    console.print(shown if given else f"{where}: nothing", markup=False)
    console.print()


def _first_comment(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")
