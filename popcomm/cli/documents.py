"""A YAML file and its `--set` overrides -> one mapping, with every mistake told by file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from popcomm.errors import UserError, nearest

SHIPPED = "popcomm.rllib_configs"
MERGE = "tag:yaml.org,2002:merge"
DOTTED = ["tune", "param_space"]  # what is in it has keys with dots


def _text(key: yaml.Node) -> Any:
    """By which a key is told from others: its text; of one that is none, which is refused later, itself."""
    return key.value if isinstance(key, yaml.ScalarNode) else key


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but a key stands once only, what is merged replaces nothing, and 3e-4 is a number as in YAML 1.2."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As it is written: later, what is merged (<<) has been put among the node's own keys."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if _text(key) in seen:
                problem = f"the key '{key.value}' stands twice"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            seen.add(_text(key))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """What a text stands for; one that looks like a date or is tagged as a number may be none."""
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, KeyError, IndexError, OverflowError) as error:
            problem = f"'{node.value}' is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put what is merged before the node's own keys, which it does not replace; of several mappings the first
        counts. (PyYAML's own tells keys apart by the identity of their texts, so that either may win.)"""
        written = node.value
        node.value = own = [pair for pair in written if pair[0].tag != MERGE]
        taken, merged = {_text(key) for key, _ in own}, []
        for given in [value for key, value in written if key.tag == MERGE]:
            for source in given.value if isinstance(given, yaml.SequenceNode) else [given]:
                if not isinstance(source, yaml.MappingNode):
                    problem = "<< takes a mapping, or a list of them"
                    raise yaml.constructor.ConstructorError(None, None, problem, source.start_mark)
                self.flatten_mapping(source)
                new = [pair for pair in source.value if _text(pair[0]) not in taken]
                taken |= {_text(key) for key, _ in new}
                merged += new
        node.value = merged + own
        super().flatten_mapping(node)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """The document {section: {key: value}} of a YAML file, or of a shipped one by its bare name, with overrides put in.

    Args:
        path: a file, or "swarm" / "swarm.yaml" for one that ships with popcomm.
        overrides: "section.key=value" each, the value in YAML.

    Raises:
        UserError: no such file, no valid YAML, a key that stands twice, or a section that is no mapping.
    """
    source = find(path)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from error
    document = _parse(text, str(path))
    if not isinstance(document, dict):
        raise UserError(f"{path}: holds {shown(document)}, and must hold sections such as 'environment:'")
    with naming(path):
        document = {str(section): _section(section, content) for section, content in document.items()}
        for override in overrides or []:
            put(document, override)
    return document


@contextmanager
def naming(path: str | Path, overrides: list[str] | None = None) -> Iterator[None]:
    """Put the file's name, and the overrides there were, in front of any UserError raised inside."""
    try:
        yield
    except UserError as error:
        given = "".join(f" --set {override}" for override in overrides or [])
        # What Ray brings back from another process prints as a traceback, and keeps the error itself as its cause.
        raise UserError(f"{path}{given}: {getattr(error, 'cause', error)}") from error


def shipped() -> dict[str, Path]:
    """{name: file} of the configs that come with popcomm."""
    return {file.stem: file for file in sorted(Path(str(resources.files(SHIPPED))).glob("*.yaml"))}


def find(path: str | Path) -> Path:
    """The file of that path, or else the shipped one of that name.

    Raises:
        UserError: there is neither.
    """
    if Path(path).is_file():
        return Path(path)
    known = shipped()
    name = str(path).removesuffix(".yaml")
    if name in known:
        return known[name]
    siblings = [str(f) for f in Path(path).parent.glob("*.yaml")]
    raise UserError(f"the file '{path}' does not exist; {nearest(str(path), [*known, *siblings])}")


def dump(document: dict[str, Any], path: Path) -> None:
    """Write a document so that `load` reads it back."""
    path.write_text(text_of(document), encoding="utf-8")


def text_of(document: dict[str, Any]) -> str:
    """A document as YAML."""
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def _parse(text: str, name: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{name}: {where}{error.problem or 'no valid YAML'}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{name}: no valid YAML ({' '.join(str(error).split())})") from error


def _section(name: Any, content: Any) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"the section '{name}' is {shown(content)}, and must be a mapping of keys to values")
    return {str(key): value for key, value in content.items()}


def put(document: dict[str, Any], override: str) -> None:
    """Put "section.key=value" into a document, the value in YAML. What follows tune.param_space. is one key.

    Raises:
        UserError: not of that form, or a key within what is no mapping.
    """
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise UserError(f"--set {override}: not of the form section.key=value, for example training.lr=3e-4")
    if path[:2] == DOTTED and len(path) > 2:
        path = [*DOTTED, ".".join(path[2:])]
    value = _parse(text, f"--set {override}")
    if len(path) == 1:
        document[path[0]] = _section(path[0], value)
        return
    place: Any = document
    for depth, part in enumerate(path[:-1], start=1):
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            where = ".".join(path[:depth])
            raise UserError(f"--set {override}: {where} is {shown(place)}, and has no key '{path[depth]}'")
    place[path[-1]] = value


def shown(value: Any) -> str:
    """A value as its author wrote it, cut to a few words."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
