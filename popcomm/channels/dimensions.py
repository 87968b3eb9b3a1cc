"""How large a channel of words is: the names that scripts import from here.

They live in `popcomm.channels.broadcast.dimensions`.
"""

from popcomm.channels.broadcast.dimensions import (
    DEVIATIONS,
    Dimensions,
    Load,
    _hears,
    dimensions,
    expected_load,
)

__all__ = [
    "DEVIATIONS",
    "Dimensions",
    "Load",
    "_hears",
    "dimensions",
    "expected_load",
]
