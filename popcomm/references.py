"""What the text "module:attribute" names: how a user's own class gets into a config without registration."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from popcomm.errors import UserError, nearest


def attribute(key: str, reference: str) -> Any:
    """What "module:attribute" names; modules of the working directory count, and the attribute may have dots.

    Args:
        key: what the reference was given for, named in errors.
        reference: e.g. "my_file:MyClass".

    Raises:
        UserError: no module and attribute, a module that cannot be imported, no such attribute in it.

    >>> attribute("speech", "popcomm.channels:Symbols").kind
    'symbols'
    """
    module_name, _, path = reference.partition(":")
    wrong = f"{key} '{reference}' cannot be imported"
    if not module_name or not path:
        raise UserError(f"{wrong}: it must be of the form module:attribute")
    try:
        found: Any = import_module(module_name)
    except ImportError as error:
        raise UserError(f"{wrong}: importing {module_name} says: {error}") from error
    except Exception as error:  # whatever a user's file raises when it runs
        raise UserError(f"{wrong}: importing {module_name} raises {type(error).__name__}: {error}") from error
    owner = module_name
    for part in path.split("."):
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            raise UserError(f"{wrong}: {owner} has no '{part}'; {nearest(part, names)}")
        found, owner = getattr(found, part), f"{owner}.{part}"
    return found
