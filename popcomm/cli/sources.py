"""Classes read from their sources: what they are made from and what is said of it, without importing them.

Importing a world or a network brings in torch, which takes seconds; a list of names must not.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import popcomm
from popcomm.errors import UserError

ROOT = Path(popcomm.__file__).parent
# What popcomm itself passes to a World or an agent, and a generator, which no YAML can hold.
SUPPLIED = {"num_worlds", "device", "spec", "generator"}


class ClassSource(NamedTuple):
    """A class as it is written down."""

    module: str
    node: ast.ClassDef

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.node) or ""


class Argument(NamedTuple):
    """What a constructor takes, as it is written down."""

    name: str
    annotation: str
    default: str | None  # None: there is none, and it must be given
    told: str  # what the docstring says of it


def table(module: str, name: str) -> dict[str, ClassSource]:
    """The classes of a table {name: class} of a module, which may have it from another, or parts of it.

    Raises:
        LookupError: there is no such table, or it does not name its classes.
    """
    for node in tree_of(module).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if ast.unparse(target) == name:
                return _entries(module, node.value)
        if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names}:
            return table(node.module, name)
    raise LookupError(f"{module} has no table {name}")


def _entries(module: str, written: ast.Dict) -> dict[str, ClassSource]:
    found: dict[str, ClassSource] = {}
    for key, value in zip(written.keys, written.values, strict=True):
        if key is None:  # {**another table}
            found |= table(module, ast.unparse(value))
        else:
            found[ast.literal_eval(key)] = class_source(module, ast.unparse(value))
    return found


def class_source(module: str, name: str) -> ClassSource:
    """A class by the name that it has in a module, which may have it from another.

    Raises:
        LookupError: there is none.
    """
    found = find_class(module, name)
    if found is None:
        raise LookupError(f"{module} has no class {name}")
    return found


def find_class(module: str, name: str) -> ClassSource | None:
    """As `class_source`; None where it is not found."""
    for node in tree_of(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return ClassSource(module, node)
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return find_class(node.module, alias.name)
    return None


def arguments(found: ClassSource) -> list[Argument]:
    """What the class is made from, in order; the generator of its start and the like included."""
    told = _told(found)
    return [Argument(name, kind, default, told.get(name, "")) for name, kind, default in _parameters(found).values()]


def first_sentence(text: str) -> str:
    """The first sentence of a text, on one line."""
    flat = " ".join(text.partition("\n\n")[0].split())
    end = re.search(r"(?<!e\.g)(?<!i\.e)[.:](?= [A-Z({]|$)", flat)
    return flat if end is None else flat[: end.start()] + "."


@cache
def tree_of(module: str) -> ast.Module:
    """What a module's file says; nothing of one that has none.

    Raises:
        UserError: the file is no Python.
    """
    file = file_of(module)
    if file is None:
        return ast.parse("")
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(f"{file}{where}: is no Python ({getattr(error, 'msg', error)})") from error


def file_of(module: str) -> Path | None:
    """The file of a module; None where there is no such module, or it is written in no Python.

    Raises:
        UserError: a package that it is in has a file that is no Python.
    """
    if module.partition(".")[0] == popcomm.__name__:
        path = ROOT.joinpath(*module.split(".")[1:])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        return file if file.is_file() else None
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    try:
        spec = find_spec(module)
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: is no Python ({error.msg})") from error
    except (ImportError, ValueError):  # the package around it is none, or has no file
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _bases(found: ClassSource) -> Iterator[ClassSource]:
    for base in found.node.bases:
        source = find_class(found.module, ast.unparse(base))
        if source is not None:
            yield source


def _parameters(found: ClassSource) -> dict[str, tuple[str, str, str | None]]:
    """{name: (name, annotation, default)}."""
    for node in found.node.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _of_function(found.module, node.args)
    inherited = next((given for given in map(_parameters, _bases(found)) if given), {})
    if not any("dataclass" in ast.unparse(decorator) for decorator in found.node.decorator_list):
        return inherited
    own = {}
    for node in found.node.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            kind, name = ast.unparse(node.annotation), node.target.id
            if not kind.startswith("ClassVar") and "init=False" not in ast.unparse(node):
                own[name] = (name, kind, None if node.value is None else _shown(found.module, node.value))
    return {**inherited, **own}


def _of_function(module: str, given: ast.arguments) -> dict[str, tuple[str, str, str | None]]:
    places = given.args[1:]
    defaults: list[ast.expr | None] = [None] * (len(places) - len(given.defaults)) + list(given.defaults)
    pairs = [*zip(places, defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return {
        place.arg: (
            place.arg,
            "" if place.annotation is None else ast.unparse(place.annotation),
            None if default is None else _shown(module, default),
        )
        for place, default in pairs
    }


def _shown(module: str, value: ast.expr) -> str:
    """A default as a YAML file has it; a constant of the module by its value."""
    if isinstance(value, ast.Name):
        for node in tree_of(module).body:
            if isinstance(node, ast.Assign) and any(ast.unparse(target) == value.id for target in node.targets):
                return _shown(module, node.value)
            if isinstance(node, ast.ImportFrom) and node.module and value.id in {alias.name for alias in node.names}:
                return _shown(node.module, value)
    if isinstance(value, ast.Constant) and isinstance(value.value, bool | None):
        return "null" if value.value is None else str(value.value).lower()
    return str(value.value) if isinstance(value, ast.Constant) else ast.unparse(value)


def _told(found: ClassSource) -> dict[str, str]:
    """{argument: its first sentence} of the docstring's "Args:"; of the classes above where it has none."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", inspect.cleandoc(found.docstring), re.MULTILINE)
    told = {}
    for base in _bases(found):
        told.update(_told(base))
    if section is not None:
        entries = re.split(r"^    (?=\S)", section[1], flags=re.MULTILINE)
        for entry in entries:
            names, _, text = entry.partition(":")
            for name in names.split(","):
                told[name.strip()] = first_sentence(text.strip())
    return told
