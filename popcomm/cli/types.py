"""Values of a YAML file against the annotations of the parameters they are meant for."""

from __future__ import annotations

import inspect
import math
import re
import types
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator, StrictBool, TypeAdapter, ValidationError

from popcomm.cli.documents import shown
from popcomm.errors import UserError
from popcomm.references import attribute

REFERENCE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "null",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}
LISTS = (Sequence, Collection, Iterable, Set)  # what a list of YAML may stand for
PLURALS = {bool: "booleans", int: "whole numbers", float: "numbers", str: "texts", list: "lists", dict: "mappings"}


@dataclass(frozen=True)
class Parameters:
    """What a function takes: {name: annotation}, and whether it takes other names too."""

    annotations: dict[str, Any]
    takes_more: bool


def parameters(owner: type, method: str) -> Parameters:
    """Keyword parameters of a method; through `**kwargs` also those of the classes above.

    RLlib's deprecated parameters (no annotation, -1 for a default) are left out.
    """
    found: dict[str, Any] = {}
    takes_more = False
    for cls in owner.__mro__[:-1]:
        function = vars(cls).get(method)
        if function is None:
            continue
        given = list(inspect.signature(function).parameters.values())[1:]
        for p in given:
            deprecated = p.annotation is p.empty and p.default == -1
            if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and not deprecated:
                found.setdefault(p.name, _resolved(p.annotation, function))
        takes_more = any(p.kind is p.VAR_KEYWORD for p in given)
        if not takes_more:
            break
    return Parameters(found, takes_more)


def _resolved(annotation: Any, function: Any) -> Any:
    """The annotation as an object; Any where it names something that only a type checker sees."""
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, function.__globals__)
    except (NameError, AttributeError, TypeError):
        return Any


def convert(name: str, value: Any, annotation: Any) -> Any:
    """The value as the parameter wants it: "3e-4" for a float becomes 0.0003, "module:attribute" what it names.

    Annotations that YAML cannot fill (classes, functions) accept a "module:attribute" text; those that hold nothing
    else are not checked.

    Raises:
        UserError: the value is of another type, or names something that cannot be imported.
    """
    members = _members(annotation)
    checkable = [m for m in members if _is_plain(m)]
    opaque = len(checkable) < len(members)
    if opaque and isinstance(value, str) and REFERENCE.match(value):
        return attribute(name, value)
    if not checkable:
        return value
    try:
        converted = TypeAdapter(_union(map(_guarded, checkable))).validate_python(value)
    except ValidationError as error:
        reference = " or a module:attribute" if opaque else ""
        raise UserError(f"{name} is {shown(value)}, and must be {describe(checkable)}{reference}") from error
    if isinstance(converted, float) and math.isnan(converted):
        raise UserError(f"{name} is {shown(value)}, and must be {describe(checkable)}")
    return converted


def describe(members: Sequence[Any]) -> str:
    """The members of a union in words, e.g. "a number or null"."""
    kept = [m for m in members if not (m is int and float in members)]
    return " or ".join(dict.fromkeys(_word(m) for m in kept))


def _word(member: Any) -> str:
    if get_origin(member) is Literal:
        return " or ".join(repr(choice) for choice in get_args(member))
    origin = get_origin(member) or member
    word = next(word for kind, word in WORDS.items() if origin is kind or _is_abstract(origin, kind))
    items = _members(get_args(member)[0]) if get_args(member) else []
    kinds = {PLURALS.get(get_origin(item) or item) for item in items}
    return f"{word} of {kinds.pop()}" if word == "a list" and len(kinds) == 1 and None not in kinds else word


def _is_abstract(origin: Any, kind: type) -> bool:
    return (origin is Mapping and kind is dict) or (origin in LISTS and kind is list)


def _members(annotation: Any) -> list[Any]:
    """The members of a union, nested ones and Annotated opened; [annotation] where it is none."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [type(None)] if annotation is None else [annotation]


def _is_plain(member: Any) -> bool:
    """Whether YAML can hold such a value."""
    origin = get_origin(member) or member
    return origin is Literal or origin in (Mapping, *LISTS) or origin in WORDS


def _guarded(member: Any) -> Any:
    """The member for pydantic, so that true is no number, 1 is not true, and the unknowable is let through."""
    if member is bool:
        return StrictBool
    if member in (int, float):
        return Annotated[member, BeforeValidator(_no_boolean)]
    origin, arguments = get_origin(member), get_args(member)
    if member in LISTS or (origin in LISTS and origin is not Sequence):
        return types.GenericAlias(list, (_inside(arguments[0]),)) if arguments else list
    if origin is None or origin is Literal:
        return member
    inner = tuple(a if a is Ellipsis else _inside(a) for a in arguments)
    return origin[inner] if inner else member


def _inside(annotation: Any) -> Any:
    members = _members(annotation)
    return _union(map(_guarded, members)) if all(map(_is_plain, members)) else Any


def _union(members: Iterable[Any]) -> Any:
    return Union[tuple(members)]  # noqa: UP007 - the members are known at run time only


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value
