"""From what a config says to the parts of a channel: {"kind": name, **arguments} -> object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from inspect import signature
from numbers import Integral
from typing import Any

from popcomm.errors import UserError, unknown
from popcomm.references import attribute


def whole(key: str, value: Any, at_least: int) -> int:
    """The value, which must be a whole number.

    Raises:
        UserError: it is something else, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{key} is {value!r}, and must be a whole number")
    if value < at_least:
        raise UserError(f"{key} is {value}, and must be at least {at_least}")
    return int(value)


def not_negative(key: str, value: Any) -> float:
    """The value, which must be a finite number, at least 0.

    Raises:
        UserError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"{key} is {value!r}, and must be a number that is not negative")
    return float(value)


def made(key: str, value: Any, classes: Mapping[str, type], method: str) -> Any:
    """The object that a config means: {"kind": name, **arguments}, a bare name, or an object that has the method.

    The name is one of `classes`, or "module:Class" for a class of the user's own.

    Raises:
        UserError: none of these.
    """
    if isinstance(value, str):
        value = {"kind": value}
    built = build_from_config(key, dict(value), classes) if isinstance(value, Mapping) else value
    if not hasattr(built, method):
        if built is not value:
            raise UserError(f"{key}.kind '{value['kind']}' gives {built!r}, which has no '{method}'")
        raise UserError(
            f"{key} is {value!r}, and must be a mapping with 'kind' ({', '.join(sorted(classes))}) or an object"
        )
    return built


def class_of(key: str, name: Any, classes: Mapping[str, type]) -> type:
    """The class that a kind's name means: one of `classes`, or "module:Class".

    Raises:
        UserError: neither.
    """
    if not isinstance(name, str):
        raise UserError(f"{key}.kind is {name!r}, and must be a text; allowed: {', '.join(sorted(classes))}")
    if name in classes:
        return classes[name]
    if ":" not in name:
        raise unknown(f"{key}.kind", name, classes)
    found = attribute(f"{key}.kind", name)
    if not isinstance(found, type):
        raise UserError(f"{key}.kind '{name}' names {found!r}, and must name a class")
    return found


def build_from_config(key: str, value: dict[str, Any], classes: Mapping[str, type]) -> Any:
    """An object from {"kind": name, **arguments}, with errors in the user's words.

    Raises:
        UserError: no kind, one that does not exist, or arguments that do not fit it.
    """
    arguments = dict(value)
    name = arguments.pop("kind", None)
    if name is None:
        raise UserError(f"{key} has no 'kind'; allowed: {', '.join(sorted(classes))}")
    made_from = class_of(key, name, classes)
    takes = signature(made_from).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        for argument in arguments:
            if argument not in takes:
                raise unknown(f"{key} of kind '{name}': the argument", argument, takes or ["(none)"])
    try:
        return made_from(**arguments)
    except TypeError as error:
        raise UserError(f"{key} of kind '{name}': {str(error).split('__init__() ')[-1]}") from error
