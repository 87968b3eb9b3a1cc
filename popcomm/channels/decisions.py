"""With which probability a word is sent again: the names that scripts import from here.

They live in `popcomm.channels.broadcast.decisions`.
"""

from popcomm.channels.broadcast.decisions import (
    DECISIONS,
    HIGHEST_TARGET,
    Bernoulli,
    Controlled,
    CountMin,
    Decision,
    LocalRule,
    PerAgent,
    make_decision,
)

__all__ = [
    "DECISIONS",
    "HIGHEST_TARGET",
    "Bernoulli",
    "Controlled",
    "CountMin",
    "Decision",
    "LocalRule",
    "PerAgent",
    "make_decision",
]
