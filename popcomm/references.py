"""From what a config says to objects: {"kind": name, **arguments}, where a name may be "module:attribute" of one's own.

So a user's own class gets into a config without registration.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from popcomm import manifest
from popcomm.errors import UserError, nearest, unknown
from popcomm.identity import IDENTITY

# What files may name in installed packages: PettingZoo's way to make an environment, and classes of these families.
ENV_FUNCTIONS = ("env", "parallel_env", "raw_env")
# What a module of popcomm names in a tuple of this name, as an experiment the functions of its configurations.
FOR_FILES = "FOR_FILES"
FAMILIES = ("popcomm", "pettingzoo", "gymnasium", "vmas", "torch.nn", "ray.rllib.callbacks", "ray.rllib.core")
# What is in a folder of a population, and in a run folder that of checkpoints: see `popcomm.rollout.loading`.
POPULATION, CHECKPOINTS = "population.json", "checkpoints"
RECORDS = (IDENTITY, "progress.jsonl")  # a run has one of them at least
PACKAGES = ("site-packages", "dist-packages")


def attribute(key: str, reference: str) -> Any:
    """What "module:attribute" names; modules of the working directory count, and the attribute may have dots.

    Args:
        key: what the reference was given for, named in errors.
        reference: e.g. "my_file:MyClass".

    Raises:
        UserError: no module and attribute, a module that cannot be imported or that lies in a checkpoint, an export or
            a run, no such attribute in it; a function or a class of an installed package that is none of those in which
            agents live, or of which they are made.

    >>> attribute("speech", "popcomm.channels:Symbols").kind
    'symbols'
    """
    module_name, _, path = reference.partition(":")
    wrong = f"{key} '{reference}' cannot be imported"
    if not module_name or not path:
        raise UserError(f"{wrong}: it must be of the form module:attribute")
    try:
        found: Any = imported(f"{key} '{reference}'", module_name)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{wrong}: importing {module_name} says: {error}") from error
    except Exception as error:  # whatever a user's file raises when it runs
        raise UserError(f"{wrong}: importing {module_name} raises {type(error).__name__}: {error}") from error
    owner = module_name
    for part in path.split("."):
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            raise UserError(f"{wrong}: {owner} has no '{part}'; {nearest(part, names)}")
        if isinstance(found, ModuleType):
            module_name = found.__name__
        found, owner = getattr(found, part), f"{owner}.{part}"
    if callable(found) and is_installed(module_name) and not _is_meant(found, part, module_name):
        raise UserError(
            f"{key} '{reference}' is a {'class' if isinstance(found, type) else 'function'} of an installed package, "
            f"of which a file can name environments (classes, and functions called {', '.join(ENV_FUNCTIONS)}) and "
            "networks alone; wrap it in a function of a module of your own, and name that"
        )
    return found


def imported(what: str, module_name: str) -> ModuleType:
    """The module of that name; nothing runs of one that came with what it is asked for by.

    A checkpoint may be a stranger's and name code beside itself, which Python finds where its folder lies below the
    working directory. So each package on the way is looked up before it is imported.

    Args:
        what: what names it, for errors.
        module_name: with dots.

    Raises:
        UserError: it lies in a checkpoint, an export or a run.
        ImportError: there is none.
        Exception: whatever the module raises.
    """
    parts = module_name.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        if name in sys.modules:
            continue
        spec = find_spec(name)
        if spec is None or not spec.has_location:
            import_module(name)
            continue
        saved = _saved_around(Path(str(spec.origin)))
        if saved is not None:
            raise UserError(
                f"{what} is not imported: {spec.origin} lies in {saved}, a checkpoint, an export or a run, which may "
                "hold no code; if it is your own, move it out of that folder"
            )
        import_module(name)
    return import_module(module_name)


def _saved_around(file: Path) -> Path | None:
    """The folder of a checkpoint, an export or a run in which a module lies; None where it lies in none."""
    packages = [Path(entry) for entry in sys.path if Path(entry).name in PACKAGES]
    if any(file.is_relative_to(folder) for folder in packages):
        return None  # a virtual environment may lie in a user's folder of any kind
    around = [*file.absolute().parents, *file.resolve().parents]
    return next((folder for folder in around if _is_saved(folder)), None)


def _is_saved(folder: Path) -> bool:
    if (folder / POPULATION).is_file() or manifest.is_checkpoint(folder):
        return True
    # A folder of one's own may have checkpoints in it, too; a run has its records beside them.
    checkpoints = folder / CHECKPOINTS
    recorded = any((folder / name).is_file() for name in RECORDS)
    return recorded and checkpoints.is_dir() and any(map(manifest.is_checkpoint, checkpoints.iterdir()))


def is_installed(module_name: str) -> bool:
    """Whether a module that was imported is Python's own, of an installed package or of popcomm, and not the user's.

    >>> is_installed("shutil")
    True
    """
    module = sys.modules[module_name]
    file = getattr(module, "__file__", None)
    if module_name.partition(".")[0] == "popcomm":
        return True
    if file is None:  # built in; or a folder, which is a package without a file
        return not hasattr(module, "__path__")
    path = Path(file).resolve()
    if set(PACKAGES) & set(path.parts):
        return True
    return any(path.is_relative_to(Path(sysconfig.get_path(kind)).resolve()) for kind in ("stdlib", "platstdlib"))


def _is_meant(found: Any, name: str, module_name: str) -> bool:
    """Whether it is something that an installed package has for those who name it in a file."""
    if not isinstance(found, type):
        own = module_name.partition(".")[0] == "popcomm"
        return name in ENV_FUNCTIONS or (own and name in getattr(sys.modules[module_name], FOR_FILES, ()))
    families = [f"{base.__module__}." for base in found.__mro__]
    return any(base.startswith(f"{family}.") for base in families for family in FAMILIES)


def reference_to(thing: Any) -> str | None:
    """The "module:attribute" that names a class or a function; None where none does, as for a lambda.

    >>> reference_to(UserError)
    'popcomm.errors:UserError'
    """
    module, path = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not module or not path:
        return None
    reference = f"{module}:{path}"
    try:
        found = attribute("it", reference)
    except UserError:
        return None
    same = found is thing or (isinstance(thing, type) and found in thing.__mro__)
    return reference if same else None


def named(key: str, name: str, known: Mapping[str, Any]) -> Any:
    """What a name means: one of those that are known here, or "module:attribute" of the user's own.

    Raises:
        UserError: neither.
    """
    if name in known:
        return known[name]
    if ":" not in name:
        raise unknown(key, name, known)
    return attribute(key, name)


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
    found = named(f"{key}.kind", name, classes)
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
