"""How a reflex fades: the names that scripts import from here. They live in `popcomm.schedules`."""

from popcomm.schedules import (
    SCHEDULES,
    Clock,
    Constant,
    Cosine,
    Exponential,
    Gated,
    Linear,
    LoadLinear,
    Schedule,
    make_schedule,
)

__all__ = [
    "SCHEDULES",
    "Clock",
    "Constant",
    "Cosine",
    "Exponential",
    "Gated",
    "Linear",
    "LoadLinear",
    "Schedule",
    "make_schedule",
]
