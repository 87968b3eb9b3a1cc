"""What scenarios of VMAS tell in their infos, as means for the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


class InfoMeans:
    """Sums of the numbers in infos, over agents and the worlds that acted; what is not finite is left out."""

    def __init__(self) -> None:
        # {names of the columns: [2, C] float64, their sums and how many were added}
        self._sums: dict[tuple[str, ...], Tensor] = {}

    def count(self, infos: Sequence[dict[str, Any]], acting: Tensor) -> None:
        """Add one step.

        Args:
            infos: of every agent, with tensors [B, ...] in it, and dicts of them.
            acting: [B] bool.
        """
        told = [entry for info in infos for entry in _entries(info, len(acting))]
        if not told:
            return
        names = tuple(name for name, value in told for _ in range(value.shape[1]))
        columns = torch.cat([value for _, value in told], 1).double()  # [B, C]
        counted = acting.unsqueeze(1) & columns.isfinite()
        added = torch.stack((columns.masked_fill(~counted, 0.0).sum(0), counted.sum(0)))
        self._sums[names] = self._sums[names] + added if names in self._sums else added

    def take(self) -> dict[str, float]:
        """{name: mean} since this was last called, of what was counted: over agents, and over the numbers of a name."""
        totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for names, sums in self._sums.items():
            for name, total, count in zip(names, *sums.tolist(), strict=True):
                totals[name][0] += total
                totals[name][1] += count
        self._sums = {}
        return {name: total / count for name, (total, count) in totals.items() if count}

    def get_state(self) -> dict[tuple[str, ...], Tensor]:
        return {names: sums.clone() for names, sums in self._sums.items()}

    def set_state(self, state: dict[tuple[str, ...], Tensor]) -> None:
        self._sums = {names: sums.clone() for names, sums in state.items()}


def _entries(info: dict[str, Any], worlds: int, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, [B, k]) of every tensor of numbers by world; those of a dict have its name before their own."""
    for key, value in info.items():
        if isinstance(value, dict):
            yield from _entries(value, worlds, f"{prefix}{key}_")
        elif isinstance(value, Tensor) and value.dim() and len(value) == worlds and not value.is_complex():
            yield f"{prefix}{key}", value.reshape(worlds, -1)
