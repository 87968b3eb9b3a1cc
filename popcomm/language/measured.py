"""A number and what belongs beside it: how sure it is, what chance gives, and why it may say nothing."""

from __future__ import annotations

import math
from typing import Any

from popcomm.language.intervals import UNKNOWN, Interval


class Measured(float):
    """A float, with what it takes to read it; nan, and an interval of nan: not asked for.

    >>> found = Measured(0.5, p_value=0.01)
    >>> found == 0.5, found.p_value, found.note
    (True, 0.01, '')
    """

    interval: Interval = UNKNOWN  # 95 %
    p_value: float = math.nan
    chance: float = math.nan  # the mean over the controls
    note: str = ""  # a sentence, where the value is a limit and not a measurement

    def __new__(cls, value: float, **beside: Any) -> Measured:
        found = super().__new__(cls, value)
        found.__dict__.update(beside)
        return found


class Bits(Measured):
    """Mutual information in bits."""

    plug_in: float = math.nan  # of relative frequencies, biased upwards when samples are few
    most: float = math.nan  # the lower of the two entropies, above which information cannot be
    samples: int = 0  # pairs that were counted

    @property
    def bits(self) -> float:
        return float(self)
