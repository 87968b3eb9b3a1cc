"""Files of a population: population.json, and beside it a folder of safetensors and JSON for each species."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gymnasium.spaces import Space

import popcomm
from popcomm.agents.pretrained import in_a_line, kind_to_json, read_description
from popcomm.agents.seating import SeatingRule
from popcomm.channels import message_kind
from popcomm.envs.layout import WorldLayout
from popcomm.envs.space_json import space_from_json, space_to_json
from popcomm.envs.world import Species
from popcomm.errors import UserError
from popcomm.rollout.members import Members
from popcomm.rollout.recipes import ChannelRecipe, EnvRecipe
from popcomm.schedules import Clock

POPULATION = "population.json"
FORMAT, FORMAT_VERSION = "popcomm-population", 1


def write(
    folder: Path,
    members: Mapping[str, Members],
    layout: WorldLayout,
    channel: ChannelRecipe | None,
    env: EnvRecipe | None,
    seating: SeatingRule,
    clock: Clock,
    fades: list[Mapping[str, Any]],
    **numbers: int | None,
) -> None:
    """Write a population into a folder, population.json last: with it all is there.

    A population whose environment cannot be written down is written without, and the reason beside it.

    Raises:
        UserError: the folder's name is that of a file, or members or a channel that cannot be written down.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file, and a population is saved in a folder")
    folders = {name: name if re.fullmatch(r"[\w-]+", name) else f"species_{i}" for i, name in enumerate(members)}
    environment, reason = None, "it was made without one"
    seats = {} if env is None else env.seats()
    if env is not None:
        try:
            environment = env.to_json()
        except UserError as error:
            reason = str(error)
    about = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "popcomm": popcomm.__version__,
        "species": folders,
        "environment": environment,
        **({} if environment else {"no_environment": reason, "seats": seats}),
        "channel": None if channel is None else {"messages": kind_to_json(channel.messages), **channel.to_json()},
        "seating": {"how": seating.how, "communities": seating.communities, "mixing": seating.mixing},
        "clock": {"step": clock.step, "performance": dict(clock.performance)},
        "fades": list(fades),
        **numbers,
        "layout": layout_to_json(layout),
    }
    text = json.dumps(about, indent=2)
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in members.items():
        some.save(folder / folders[name])
    (folder / f".{POPULATION}").write_text(text + "\n")
    (folder / f".{POPULATION}").replace(folder / POPULATION)


def read(folder: Path, agent: Callable[[str], type | None]) -> dict[str, Any]:
    """What `write` was told, by name.

    Args:
        folder: where it lies.
        agent: the class of a species' members, where it is not the one that its folder names.

    Raises:
        UserError: no such folder, a damaged file or one of a later version, an agent that cannot be imported.
    """
    path = folder / POPULATION
    missing = f"{folder} holds no population (no {POPULATION})"
    about = read_description(path, FORMAT, FORMAT_VERSION, "a population", missing)
    try:
        told = _told(about)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {in_a_line(error)}") from error
    return told | {"members": {name: Members.load(folder / own, agent(name)) for name, own in about["species"].items()}}


def _told(about: Mapping[str, Any]) -> dict[str, Any]:
    """All but the members."""
    channel, environment = about["channel"], about["environment"]
    if channel is not None:
        channel = ChannelRecipe(**{**channel, "messages": message_kind(channel["messages"])})
    return {
        "layout": layout_from_json(about["layout"]),
        "channel": channel,
        "env": None if environment is None else EnvRecipe(**environment),
        "seats": about.get("seats", {}),
        "seating": SeatingRule(**about["seating"]),
        "clock": Clock(about["clock"]["step"], about["clock"]["performance"]),
        "fades": about["fades"],
        "num_worlds": about["num_worlds"],
        "seed": about["seed"],
    }


# ---- layouts ----


def layout_to_json(layout: WorldLayout) -> dict[str, Any]:
    """A layout as types that JSON has.

    Raises:
        UserError: a space that cannot be.
    """
    plain = {field.name: getattr(layout, field.name) for field in fields(layout)}
    species = [
        {field.name: _plain(getattr(one, field.name)) for field in fields(one)} for one in layout.species.values()
    ]
    spaces = [[name, space_to_json(observed), space_to_json(done)] for name, observed, done in layout.spaces]
    torus = None if layout.torus is None else list(layout.torus)
    return plain | {"species": species, "spaces": spaces, "torus": torus}


def layout_from_json(data: Mapping[str, Any]) -> WorldLayout:
    """The inverse of `layout_to_json`.

    Raises:
        KeyError, TypeError, ValueError: the data are no layout.
    """
    every = [Species(**{key: _rich(value) for key, value in one.items()}) for one in data["species"]]
    spaces = tuple((name, space_from_json(seen), space_from_json(done)) for name, seen, done in data["spaces"])
    torus = None if data["torus"] is None else tuple(data["torus"])
    return WorldLayout(**{**data, "species": {one.name: one for one in every}, "spaces": spaces, "torus": torus})


def _plain(value: Any) -> Any:
    if isinstance(value, Space):
        return {"space": space_to_json(value)}
    return list(value) if isinstance(value, tuple) else value


def _rich(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"space"}:
        return space_from_json(value["space"])
    return tuple(value) if isinstance(value, list) else value
