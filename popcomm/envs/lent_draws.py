"""Random numbers for simulators that draw from the global generators: generators of their own, lent while they run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class LentDraws:
    """The states of torch's, NumPy's and Python's generators for one simulator.

    While `lent`, the global generators are in these states; afterwards they are as they were, whatever happened.

    Args:
        seed: of all of them; as `torch.manual_seed(seed)`, `np.random.seed(seed)` and `random.seed(seed)` would.
        device: whose torch generator is lent beside the CPU's.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        self._states: dict[str, Any] = {
            "torch": torch.Generator().manual_seed(seed).get_state(),
            "numpy": np.random.RandomState(seed).get_state(),
            "python": random.Random(seed).getstate(),
        }
        if device.type == "cuda":
            self._states["cuda"] = torch.Generator(device).manual_seed(seed).get_state()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The block draws from these."""
        outside = self._read()
        self._write(self._states)
        try:
            yield
        finally:
            self._states = self._read()
            self._write(outside)

    def get_state(self) -> dict[str, Any]:
        return dict(self._states)

    def set_state(self, state: dict[str, Any]) -> None:
        self._states = dict(state)

    def _read(self) -> dict[str, Any]:
        states = {
            "torch": torch.random.get_rng_state(),
            "numpy": np.random.get_state(),  # noqa: NPY002 - the global one is what they draw from
            "python": random.getstate(),
        }
        return states | ({"cuda": torch.cuda.get_rng_state(self._device)} if self._device.type == "cuda" else {})

    def _write(self, states: dict[str, Any]) -> None:
        torch.random.set_rng_state(states["torch"])
        np.random.set_state(states["numpy"])  # noqa: NPY002 - as above
        random.setstate(states["python"])
        if "cuda" in states and self._device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self._device)
