"""What members spend of the privacy of those whose observations they tell of: counts of messages, and their epsilon.

A runner counts in `MessageCounts`; the algorithm adds up in a `Ledger`, which checkpoints keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from popcomm.channels import Channel
from popcomm.channels.privacy import Privacy
from popcomm.envs.layout import WorldLayout
from popcomm.rollout import Turn

Counts = NDArray[np.int64]
# {species: {"life": [P], messages of the longest life yet, "all": [P], of all lives}}
Read = dict[str, dict[str, Counts]]
OWN = ("life", "all")


def privacy_in(channel: Channel | None) -> Privacy | None:
    """The mechanism of a channel's messages; None: they have none."""
    return None if channel is None else getattr(channel.messages, "mechanism", None)


class MessageCounts:
    """How many private messages members sent, in the lives on their seats and in all.

    A message to many is one, for all hear the same. Nothing is counted where messages are not private.

    Args:
        layout: of the worlds.
        channel: None in silence.
        members: {species: P}.
    """

    def __init__(self, layout: WorldLayout, channel: Channel | None, members: Mapping[str, int]) -> None:
        speaking = {name: count for name, count in members.items() if layout.species[name].speaks}
        self._members = speaking if privacy_in(channel) is not None else {}
        self._layout = layout
        self._lives: Tensor | None = None  # [B, N] int64, messages since the life on the seat began
        self._new = self._none()

    def _none(self) -> Read:
        return {name: {key: np.zeros(count, np.int64) for key in OWN} for name, count in self._members.items()}

    def step(self, turn: Turn) -> None:
        """Take in one step: who sent how many messages."""
        if not self._members:
            return
        voices = [each.voice for each in turn.rounds] or [turn.voice]
        sent = torch.stack(voices).sum(0) * turn.seen.alive  # [B, N]
        before = torch.zeros_like(sent) if self._lives is None else self._lives
        self._lives = torch.where(turn.seen.first, 0, before) + sent
        now, lives = sent.cpu().numpy(), self._lives.cpu().numpy()
        for name, new in self._new.items():
            seats, who = self._layout.species[name].seats, turn.members[name]
            np.add.at(new["all"], who, now[:, seats])
            np.maximum.at(new["life"], who, lives[:, seats])

    def read(self) -> Read:
        """What was counted since this was last called."""
        read, self._new = self._new, self._none()
        return read

    def get_state(self) -> dict[str, Any]:
        """The running lives' messages."""
        return {} if self._lives is None else {"lives": self._lives}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `get_state`, or a checkpoint of before there was one."""
        self._lives = state.get("lives")


class Ledger:
    """What members spent since the training began. A place's account goes on when selection gives it to a newborn.

    Args:
        privacy: of their messages; None: nothing is spent, nor told.
    """

    def __init__(self, privacy: Privacy | None) -> None:
        self._privacy = privacy
        self._counts: Read = {}

    def take(self, read: Iterable[Read]) -> None:
        """Add what runners counted."""
        for told in read:
            for name, new in told.items():
                if name not in self._counts:
                    self._counts[name] = {key: np.zeros_like(new[key]) for key in OWN}
                own = self._counts[name]
                own["all"] += new["all"]
                np.maximum(own["life"], new["life"], out=own["life"])

    def spent(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """{species: {"epsilon": [P], of the longest life of a member, "epsilon_all": [P], of all it ever sent}}.

        Both at the delta of the config, which is that of the whole, however long.
        """
        if self._privacy is None:
            return {}
        return {
            name: {"epsilon": self._privacy.spent(own["life"]), "epsilon_all": self._privacy.spent(own["all"])}
            for name, own in self._counts.items()
        }

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """{privacy/<species>/epsilon: [P], privacy/<species>/epsilon_all: [P]}."""
        return {f"privacy/{name}/{key}": v for name, own in self.spent().items() for key, v in own.items()}

    def scalars(self) -> dict[str, float]:
        """privacy/<name>: epsilons of the member that spent most, delta, and sigma, the noise on every number."""
        spent = self.spent()
        if self._privacy is None or not spent:
            return {}
        most = {
            f"privacy/{key}": max(float(own[key].max()) for own in spent.values()) for key in spent[next(iter(spent))]
        }
        return {**most, "privacy/delta": self._privacy.delta, "privacy/sigma": self._privacy.sigma}

    def get_state(self) -> dict[str, Any]:
        """A copy of all counts."""
        return {name: {key: v.copy() for key, v in own.items()} for name, own in self._counts.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `get_state`."""
        self._counts = {name: {key: np.array(own[key], np.int64) for key in OWN} for name, own in state.items()}
