"""The scenarios of VMAS by name, and the arguments that each of them takes."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from popcomm.errors import UserError, unknown
from popcomm.references import attribute

KEY = "environment.env 'vmas:{}'"
MADE_WITH = "make_world"


def installed() -> bool:
    """Whether VMAS is there; it is not imported, which would take a second."""
    return find_spec("vmas") is not None


def scenario_files() -> dict[str, Path]:
    """{name of a scenario: its file}, sorted; empty where VMAS is not installed."""
    spec = find_spec("vmas") if installed() else None
    if spec is None or not spec.submodule_search_locations:
        return {}
    root = Path(next(iter(spec.submodule_search_locations)))
    files = (file for file in (root / "scenarios").rglob("*.py") if file.stem != "__init__")
    return {file.stem: file for file in sorted(files, key=lambda file: file.stem)}


def scenario_file(name: str) -> Path:
    """The file of a scenario of VMAS's.

    Raises:
        UserError: VMAS is not installed, or has no such scenario.
    """
    _check_installed(name)
    files = scenario_files()
    if name not in files:
        raise unknown("environment.env: the VMAS scenario", name, files)
    return files[name]


def _check_installed(name: str) -> None:
    if not installed():
        raise UserError(f"{KEY.format(name)} needs VMAS, which is not installed: pip install 'popcomm[vmas]'")


def scenario_class(scenario: Any) -> type:
    """The class of a scenario, by VMAS's name or as "module:Class"; a class is itself.

    Raises:
        UserError: VMAS is not installed, or there is no such scenario.
    """
    name = scenario if isinstance(scenario, str) else getattr(scenario, "__name__", repr(scenario))
    _check_installed(name)
    if isinstance(scenario, str):
        if ":" not in scenario:
            parts = scenario_file(scenario).with_suffix("").parts
            inside = len(parts) - parts[::-1].index("scenarios") - 1
            return import_module(".".join(("vmas", *parts[inside:]))).Scenario
        scenario = attribute("environment.env: the VMAS scenario", scenario)
    if not (isinstance(scenario, type) and issubclass(scenario, _base())):
        raise UserError(f"{KEY.format(name)} is {scenario!r}, and must be a scenario of VMAS: a class of BaseScenario")
    return scenario


def _base() -> type:
    return import_module("vmas.simulator.scenario").BaseScenario


def arguments_of(scenario: type) -> dict[str, str] | None:
    """{argument: its default, as it is written}, read from the source; None where the source does not tell them all.

    A scenario of VMAS takes `**kwargs` and takes out of them what it knows; what is left over it ignores.
    """
    found: dict[str, str] = {}
    for cls in scenario.__mro__:
        if cls is _base() or not issubclass(cls, _base()):
            continue
        try:
            told = _arguments_in(ast.parse(textwrap.dedent(inspect.getsource(cls))))
        except (OSError, TypeError, SyntaxError):
            return None
        if told is None:
            return None
        found = {**told, **found}
    return found


def arguments_in_file(file: Path) -> dict[str, str] | None:
    """`arguments_of` the scenario in a file of VMAS's, without importing it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return next((_arguments_in(n) for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Scenario"), None)


def _arguments_in(tree: ast.AST) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.args.kwarg is not None:
            read = _Reader(function.args.kwarg.arg)
            read.visit(function)
            if read.uses != read.understood:
                return None
            found = {**_named(function), **read.arguments, **found}
    return found


def _named(function: ast.FunctionDef) -> dict[str, str]:
    """The arguments of `make_world` that stand in its own list."""
    if function.name != MADE_WITH:
        return {}
    takes = function.args
    given = [*takes.args, *takes.kwonlyargs]
    defaults = [None] * (len(takes.args) - len(takes.defaults)) + [*takes.defaults, *takes.kw_defaults]
    named = {a.arg: ast.unparse(d) if d else "" for a, d in zip(given, defaults, strict=True)}
    return {name: default for name, default in named.items() if name not in {"self", "batch_dim", "device"}}


class _Reader(ast.NodeVisitor):
    """Which keys a function takes out of its keyword arguments, and whether that is all that it does with them."""

    def __init__(self, kwargs: str) -> None:
        self.kwargs, self.arguments = kwargs, dict[str, str]()
        self.uses = self.understood = 0

    def visit_Name(self, node: ast.Name) -> None:
        self.uses += node.id == self.kwargs

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        if isinstance(called, ast.Attribute):
            if self._is(called.value) and called.attr in {"pop", "get"} and isinstance(node.args[0], ast.Constant):
                default = ast.unparse(node.args[1]) if len(node.args) > 1 else ""
                self._take(str(node.args[0].value), default)
            elif called.attr == "check_kwargs_consumed":
                self.understood += sum(map(self._is, node.args))
            elif _of_itself(called.value):
                self.understood += sum(k.arg is None and self._is(k.value) for k in node.keywords)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._is(node.value) and isinstance(node.slice, ast.Constant):
            self._take(str(node.slice.value), "")
        self.generic_visit(node)

    def _is(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id == self.kwargs

    def _take(self, name: str, default: str) -> None:
        self.arguments.setdefault(name, default)
        self.understood += 1


def _of_itself(node: ast.AST) -> bool:
    """Whether a method of the same object is called, whose own keyword arguments are read too."""
    return (isinstance(node, ast.Name) and node.id == "self") or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    )


def check_arguments(name: str, scenario: type, given: Iterable[str], others: Iterable[str]) -> None:
    """Raises UserError for an argument that the scenario would ignore. others: what may be given beside its own."""
    allowed = arguments_of(scenario)
    if allowed is None:
        return
    for argument in given:
        if argument not in allowed:
            raise unknown(f"environment.env_config of {name}: the argument", argument, [*allowed, *others])
