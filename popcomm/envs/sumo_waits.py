"""How long vehicles have waited on the lanes before a light, as sumo-rl counts it for its reward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class Waits:
    """Waiting times of one episode.

    A vehicle's accumulated waiting time (SUMO's, of the last 1,000 s) is divided among the lanes where it was looked
    at: a lane has what the vehicle has now, less what the other lanes have.
    """

    def __init__(self) -> None:
        self._shares: dict[str, dict[int, float]] = {}  # {vehicle: {lane: seconds}}
        self._totals: dict[str, float] = {}  # {vehicle: sum of them}
        self._last: np.ndarray | float = 0.0

    def on(self, lane: int, vehicles: tuple[str, ...], seconds_of: Callable[[str], float]) -> float:
        """Seconds of all vehicles that are on a lane now. seconds_of: libsumo's getAccumulatedWaitingTime."""
        waited, totals = 0.0, self._totals
        for vehicle in vehicles:
            now, shares = seconds_of(vehicle), self._shares.setdefault(vehicle, {})
            share = now - totals.get(vehicle, 0.0) + shares.get(lane, 0.0)
            totals[vehicle], shares[lane] = now, share
            waited += share
        return waited

    def less(self, waited: np.ndarray) -> np.ndarray:
        """[N] seconds before each light -> by how many hundreds they are fewer than when this was last asked."""
        now = waited / 100.0
        fewer = self._last - now
        self._last = now
        return fewer
