"""Rollouts need no Ray: neither this folder nor what it imports knows of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import popcomm

ROOT = Path(popcomm.__file__).parent


def at_import(tree: ast.AST) -> Iterator[ast.stmt]:
    """The import statements that run when a module is imported: not those in functions, or for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not checking and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import(node)


def imported(file: Path) -> set[str]:
    """Full names of the modules (and of what may be modules) that a file imports."""
    names = set()
    for node in at_import(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def files_of(module: str) -> list[Path]:
    """What Python runs to import a module of popcomm: its packages and itself; nothing for other names."""
    parts = module.split(".")
    if parts[0] != "popcomm":
        return []
    paths = [ROOT.joinpath(*parts[1:i]) for i in range(1, len(parts) + 1)]
    found = [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]
    return [file for file in found if file.exists()]


def reached(start: list[Path]) -> dict[Path, set[str]]:
    """{file: what it imports} of all files of popcomm that are run by importing some."""
    known: dict[Path, set[str]] = {}
    waiting = list(start)
    while waiting:
        file = waiting.pop()
        if file not in known:
            known[file] = imported(file)
            waiting += [inner for name in known[file] for inner in files_of(name)]
    return known


def test_no_file_that_a_rollout_needs_imports_ray_or_the_trainer() -> None:
    found = reached([*(ROOT / "rollout").glob("*.py")])
    assert {"rollout", "agents", "channels", "envs"} <= {file.parent.name for file in found}
    for file, names in found.items():
        unwanted = {n for n in names if n.split(".")[0] == "ray" or n.startswith(("popcomm.rllib", "popcomm.cli"))}
        assert not unwanted, f"{file} imports {unwanted}"


def test_this_search_would_find_ray() -> None:
    found = reached(files_of("popcomm.rllib.env_runner"))
    assert any(name.split(".")[0] == "ray" for names in found.values() for name in names)
    assert ROOT / "rollout" / "players.py" in found
