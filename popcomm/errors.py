"""The one exception for a user's mistake; the command line prints it and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What others call what is called otherwise here; by its letters alone none would be found.
ALSO_CALLED = {"learning_rate": "lr", "num_envs": "num_worlds_per_env_runner", "hidden_size": "hidden_dim"}


class UserError(ValueError):
    """A mistake in what the user asked for, said in one sentence and raised before any work starts."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint that names the valid word nearest to `name`, or the whole list when nothing is near.

    >>> nearest("symbls", ["symbols", "vectors"])
    "did you mean 'symbols'?"
    >>> nearest("learning_rate", ["lr", "learner_class"])
    "did you mean 'lr'?"
    """
    words = sorted(map(str, allowed))
    if ALSO_CALLED.get(name) in words:
        return f"did you mean '{ALSO_CALLED[name]}'?"
    close = difflib.get_close_matches(str(name), words, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(words)}"


def unknown(what: str, name: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest one that does."""
    return UserError(f"{what} '{name}' does not exist; {nearest(name, allowed)}")
