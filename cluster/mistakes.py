"""Mistakes in a cluster file: which key, what is wrong with it, what is allowed; schemas are held against it here."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from popcomm.errors import UserError, nearest

Schema = dict[str, Any]
SOME = 8  # bits that addresses of one network have in common, at least; private ones are no larger
UNPINNED = re.compile(r"(^[^:@]+$)|:latest$")  # of an image


class ClusterMistake(UserError):
    """A cluster file that would not work, or not safely."""


def mapping(required: Sequence[str] = (), **properties: Any) -> Schema:
    """The JSON schema of a mapping that has these keys and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {name.removesuffix("_"): schema for name, schema in properties.items()},
    }


def hold(value: Any, schema: Schema, where: str = "") -> None:
    """Hold a value against a JSON schema.

    Raises:
        ClusterMistake: where it differs, with the nearest key or value that is allowed.
    """
    import jsonschema

    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(value), key=lambda error: list(error.path))
    if errors:
        raise ClusterMistake(_sentence(errors[0], where))


def _sentence(error: Any, where: str) -> str:
    key = _path([*([where] if where else []), *error.path])
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        name = next(name for name in error.instance if name not in known)
        return f"{_path([key, name])} does not exist; {nearest(str(name), known)}"
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        return f"{_path([key, missing])} is missing"
    if error.validator in ("enum", "const"):
        allowed = error.validator_value if error.validator == "enum" else [error.validator_value]
        return f"{key} is {error.instance!r}; {nearest(str(error.instance), map(str, allowed))}"
    return f"{key}: {error.message}"


def _path(parts: Sequence[object]) -> str:
    """["spec", "groups", 0, "name"] -> "spec.groups[0].name"."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}" if part != "" else ""
    return text


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values within a document, with their paths."""
    yield path, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from walk(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, f"{path}[{index}]")


def check_images(document: Any) -> None:
    """Raises ClusterMistake for an image that may be another one tomorrow."""
    for path, value in walk(document):
        key = path.rpartition(".")[2]
        if (key == "image" or key.endswith("_image")) and isinstance(value, str) and UNPINNED.search(value):
            raise ClusterMistake(f"{path} is '{value}', and must have a version: 'popcomm:0.1.0-cpu', or a digest")


def check_no_token(document: Any) -> None:
    """Raises ClusterMistake for a token that is written down in the file."""
    for path, value in walk(document):
        named = isinstance(value, Mapping) and value.get("name") == "RAY_AUTH_TOKEN" and "value" in value
        if named or (isinstance(value, str) and "RAY_AUTH_TOKEN=" in value):
            raise ClusterMistake(f"{path} holds a token; it belongs in a Secret, or in ~/.ray/auth_token")


def check_auth_mode(document: Any) -> None:
    """Raises ClusterMistake for a variable that asks for another way in than by token, wherever it stands."""
    for path, value in walk(document):
        named = isinstance(value, Mapping) and value.get("name") == "RAY_AUTH_MODE" and "value" in value
        texts = re.findall(r"RAY_AUTH_MODE=(\S*)", value) if isinstance(value, str) else []
        modes = [str(value["value"])] if named else texts
        for mode in modes:
            if mode.strip("'\"") != "token":
                raise ClusterMistake(
                    f"{path} sets RAY_AUTH_MODE to '{mode}', which lets in who has no token; use token"
                )


def is_everywhere(network: object) -> bool:
    """Whether it is the internet, or a good part of it: fewer than SOME bits are given."""
    try:
        return ipaddress.ip_network(str(network), strict=False).prefixlen < SOME
    except ValueError:
        return False


def check_bounds(where: str, least_key: str, most_key: str, values: Mapping[str, Any]) -> None:
    """Raises ClusterMistake where a minimum is above its maximum."""
    least, most = values.get(least_key, 0), values.get(most_key)
    if most is not None and least > most:
        raise ClusterMistake(f"{where}.{least_key} is {least}, and {most_key} only {most}")
