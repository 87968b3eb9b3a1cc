"""File of a config: settings as JSON, and code by the name that it has in a module; nothing of it is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from popcomm.agents.pretrained import kind_to_json, read_description
from popcomm.errors import UserError
from popcomm.references import attribute, reference_to
from popcomm.rllib.settings import Settings
from popcomm.rllib.unsupported import same_setting
from popcomm.rollout.recipes import as_json

CONFIG = "config.json"
FORMAT, FORMAT_VERSION = "popcomm-config", 1
# What follows from the others, or is said apart; of `.rl_module` there is where weights were once loaded from.
NOT_SETTINGS = ("_is_frozen", "_layout", "_per_module_overrides", "_rl_module_spec", "algo_class", "class", "filled_in")


def write(folder: Path, config: Settings) -> None:
    """Write a config into a folder; the reason why not, where part of it has no name, as a lambda."""
    about: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
    try:
        about |= {
            "config": _named("the config's class", type(config)),
            "algorithm": _named("the algorithm's class", config.algo_class),
            "settings": _settings(config),
        }
    except UserError as error:
        about["not_written"] = str(error)
    (folder / CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> Settings:
    """The config that was written, not validated.

    Raises:
        UserError: it is not there or damaged; it could not be written down, or names what no file can name.
    """
    path = folder / CONFIG
    about = read_description(path, FORMAT, FORMAT_VERSION, "a config", f"there is no {path}")
    if "not_written" in about:
        raise UserError(
            f"the config of {folder.parent} could not be written down: {about['not_written']}; give it: "
            "from_checkpoint(path, config=config)"
        )
    try:
        cls, algorithm = (attribute(str(path), str(about[key])) for key in ("config", "algorithm"))
        settings = {name: _value(name, told) for name, told in about["settings"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Settings)):
        raise UserError(f"{path} names {cls!r}, which is no config of a population")
    config = cls(algo_class=algorithm)
    # A setting that came later is what it was before it did.
    for name in [name for name in vars(config) if hasattr(Settings, name) and name not in settings]:
        delattr(config, name)
    for name, value in settings.items():
        object.__setattr__(config, name, value)
    return config


def _settings(config: Settings) -> dict[str, Any]:
    """{name: value as JSON has it} of all but what is code as by default."""
    default, found = vars(type(config)()), {}
    for name, value in vars(config).items():
        if name in NOT_SETTINGS or (name in config.filled_in and same_setting(value, config.filled_in[name])):
            continue
        try:
            found[name] = _plain(name, value)
        except UserError:
            if not (name in default and same_setting(value, default[name])):
                found[name] = _told(name, value)
    return found


def _plain(name: str, value: Any) -> Any:
    """Data as JSON has them; tuples, sets and mappings are objects with one key that says so."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is list:
        return [_plain(name, part) for part in value]
    if isinstance(value, tuple | frozenset | set) and not hasattr(value, "_fields"):
        return {"set" if not isinstance(value, tuple) else "tuple": [_plain(name, part) for part in _in_order(value)]}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(name, key), _plain(name, part)] for key, part in value.items()]}
    raise UserError(f"{name} is {value!r}, which JSON does not have")


def _in_order(value: Any) -> list[Any]:
    """The parts of a tuple in its order, and of a set in one that is always the same."""
    return list(value) if isinstance(value, tuple) else sorted(value, key=repr)


def _told(name: str, value: Any) -> Any:
    """A value with code in it: classes and functions by name, and what popcomm makes of mappings as the mapping."""
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [_told(name, part) for part in value]
    if isinstance(value, Mapping):
        return {"dict": [[_plain(name, key), _told(name, part)] for key, part in value.items()]}
    if name == "messages":
        return _plain(name, kind_to_json(value))
    if callable(value):
        return {"code": _named(name, value)}
    try:
        return _plain(name, value)
    except UserError:
        return _plain(name, as_json(name, value))


def _named(name: str, value: Any) -> str:
    reference = reference_to(value)
    if reference is None:
        raise UserError(f"{name} is {value!r}, which no module:attribute names")
    return reference


def _value(name: str, told: Any) -> Any:
    """What was told."""
    if isinstance(told, list):
        return [_value(name, part) for part in told]
    if not isinstance(told, dict):
        return told
    [(tag, content)] = told.items()
    if tag == "code":
        return attribute(name, content)
    if tag == "dict":
        return {_value(name, key): _value(name, part) for key, part in content}
    return {"tuple": tuple, "set": frozenset}[tag](_value(name, part) for part in content)
