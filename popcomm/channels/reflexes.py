"""Reflexes, what happens on a channel without the agents' doing: the names that scripts import from here.

They live in `popcomm.channels.broadcast.reflexes`.
"""

from popcomm.channels.broadcast.reflexes import (
    DECISIONS,
    REFLEXES,
    Bernoulli,
    Controlled,
    CountMin,
    Decision,
    ImmediateFeedback,
    LocalRule,
    PerAgent,
    Publishing,
    Reflex,
    SensoryDeprivation,
    WordRepetition,
    make_reflex,
)

__all__ = [
    "DECISIONS",
    "REFLEXES",
    "Bernoulli",
    "Controlled",
    "CountMin",
    "Decision",
    "ImmediateFeedback",
    "LocalRule",
    "PerAgent",
    "Publishing",
    "Reflex",
    "SensoryDeprivation",
    "WordRepetition",
    "make_reflex",
]
