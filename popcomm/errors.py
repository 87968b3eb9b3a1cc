"""The one exception for a user's mistake; the command line prints it and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user asked for, said in one sentence and raised before any work starts."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint that names the valid word nearest to `name`, or the whole list when nothing is near.

    >>> nearest("symbls", ["symbols", "vectors"])
    "did you mean 'symbols'?"
    """
    words = sorted(map(str, allowed))
    close = difflib.get_close_matches(str(name), words, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(words)}"


def unknown(what: str, name: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest one that does."""
    return UserError(f"{what} '{name}' does not exist; {nearest(name, allowed)}")
