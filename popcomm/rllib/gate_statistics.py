"""How open gates are, and how urgent messages: means of pairs of seats or, where seats are many, of species."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from popcomm.envs.layout import WorldLayout
from popcomm.rllib.fragment import Fragment
from popcomm.rollout import Turn


class GateStatistics:
    """Adds up what a rollout shows, until it is read.

    Args:
        layout: of the worlds.
    """

    def __init__(self, layout: WorldLayout) -> None:
        self.layout = layout
        self.names = list(layout.groups)
        group = [place for place, seats in enumerate(layout.groups.values()) for _ in range(seats.start, seats.stop)]
        self._group = torch.tensor(group)  # [N], the name of every seat
        self._sums: Tensor | None = None  # [2, names (sender), names (receiver)], openness and how many

    def step(self, turn: Turn) -> None:
        """Take in how open receivers' gates are in a step; nothing where they have none."""
        for name, act in turn.acts.items():
            openness = act.thought.output.aux.get("openness")  # [P, R, K]
            if openness is None or turn.mail is None:
                continue
            seats = self.layout.species[name].seats
            heard = turn.mail.mask[:, seats] & turn.seen.alive[:, seats].unsqueeze(-1)
            group = self._group.to(heard.device)
            size = len(self.names)
            receivers = group[seats].view(1, -1, 1)
            pair = (group[turn.mail.slots[:, seats]] * size + receivers).flatten()
            values = torch.stack([turn.seatings[name].to_worlds(openness) * heard, heard.float()])
            sums = torch.zeros(2, size * size, dtype=torch.float64, device=heard.device)
            sums.index_add_(1, pair, values.flatten(1).double())
            own = sums.view(2, size, size)
            self._sums = own if self._sums is None else self._sums + own

    def read(self, fragments: Mapping[str, Fragment[np.ndarray]], asks: tuple[bool, bool]) -> dict[str, float]:
        """What was seen since this was last called.

        Args:
            fragments: {species: arrays of `fragment.allocate`}.
            asks: whether senders have gates, and whether messages have priorities.

        Returns:
            {"receiver_gate": mean over messages, "receiver_gate/<sender>/<receiver>": of a pair, "sender_gate": share
            of the decisions to speak that were to, "sender_gate/<sender>", "priority", "priority/<sender>": of what was
            said}, each in [0, 1], as far as there is any.
        """
        found: dict[str, float] = {}
        if self._sums is not None:
            total, count = self._sums.cpu().numpy()
            self._sums = None
            if count.any():
                found["receiver_gate"] = float(total.sum() / count.sum())
            for row, column in np.argwhere(count > 0):
                pair = f"receiver_gate/{self.names[row]}/{self.names[column]}"
                found[pair] = float(total[row, column] / count[row, column])
        for key, asked in zip(("sender_gate", "priority"), asks, strict=True):
            if asked:
                found |= self._of_senders(key, fragments)
        return found

    def _of_senders(self, key: str, fragments: Mapping[str, Fragment[np.ndarray]]) -> dict[str, float]:
        sums, counts = (np.zeros(len(self.names)) for _ in range(2))
        for name, a in fragments.items():
            if "opens" not in a:
                continue
            there = a["opens"] >= 0 if key == "sender_gate" else a["opens"] > 0
            values = a["opens"] if key == "sender_gate" else 1 / (1 + np.exp(-a["haste"]))
            group = self._group.numpy()[self.layout.species[name].seats]
            sums += np.bincount(group, np.where(there, values, 0.0).sum((0, 1)), minlength=len(sums))
            counts += np.bincount(group, there.sum((0, 1)), minlength=len(sums))
        found = {f"{key}/{self.names[n]}": float(sums[n] / counts[n]) for n in np.flatnonzero(counts)}
        return {key: float(sums.sum() / counts.sum()), **found} if found else {}
