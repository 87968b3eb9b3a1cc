"""Moments of recorded worlds as a table: a row for each living seat of each step, or of each round of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from popcomm.channels import Channel
from popcomm.channels.kinds import counted, voiced
from popcomm.envs.layout import WorldLayout
from popcomm.language.recording import heard_by, symbols_said


class Moment(NamedTuple):
    """One step of the recorded worlds, or one round of it; all arrays [W, N, ...]."""

    iteration: int
    env_steps: int  # of all runners together, this step included
    alive: np.ndarray
    episode: np.ndarray  # [W]
    step: np.ndarray  # [W]
    observations: dict[str, np.ndarray]
    actions: dict[str, np.ndarray]
    members: np.ndarray
    rewards: np.ndarray
    said: np.ndarray | None
    voiced: np.ndarray | None  # [W, N] bool, who may speak, where the world says so
    entropy: np.ndarray | None
    labels: np.ndarray | None
    positions: np.ndarray | None
    heard: Reception | None  # what became of what was said, one step later; None: not known yet
    round: int | None = None  # of the step, where messages are exchanged in rounds


class Reception(NamedTuple):
    """Who heard what one step after it was said, or in its round."""

    senders: np.ndarray | None  # [W, N, K]; None where nobody is linked to anybody
    mask: np.ndarray | None  # [W, N, K] bool
    attention: np.ndarray | None  # [W, N, K]


class Table:
    """Makes rows of moments.

    Args:
        worlds: W.
        layout: of all worlds.
        channel: None in silence.
        attributes: [num_labels, A] int64, what labels are made of; None: they are wholes.
    """

    def __init__(
        self, worlds: int, layout: WorldLayout, channel: Channel | None, attributes: np.ndarray | None = None
    ) -> None:
        self.worlds, self.layout, self.channel, self.attributes = worlds, layout, channel, attributes

    def of(self, moments: list[Moment]) -> dict[str, Any]:
        """Rows of living seats in the order of time; nothing where there are none."""
        if not moments:
            return {}

        def pick(name: str) -> np.ndarray | None:
            values = [getattr(moment, name) for moment in moments]
            return None if values[0] is None else _rows(np.concatenate(values))

        keep = np.concatenate([moment.alive for moment in moments]).ravel()
        if not keep.any():
            return {}
        worlds, seats, size = self.worlds, self.layout.num_agents, len(moments)
        name, said, heard = self._said(pick("said"), pick("voiced"))
        receivers, weights = self._receivers(moments)
        columns: dict[str, Any] = {
            "iteration": np.repeat([moment.iteration for moment in moments], worlds * seats),
            "env_steps": np.repeat([moment.env_steps for moment in moments], worlds * seats),
            "world": np.tile(np.repeat(np.arange(worlds), seats), size),
            "episode": np.repeat(np.concatenate([moment.episode for moment in moments]), seats),
            "step": np.repeat(np.concatenate([moment.step for moment in moments]), seats),
            "round": None if moments[0].round is None else np.repeat([m.round for m in moments], worlds * seats),
            "sender": np.tile(np.arange(seats), size * worlds),
            "species": np.tile([n for n, s in self.layout.species.items() for _ in range(s.num_seats)], size * worlds),
            "receivers": receivers,
            "weights": weights,
            "observation": self._per_species("observations", moments),
            "action": self._per_species("actions", moments),
            "member": pick("members"),
            "reward": pick("rewards"),
            "message_entropy": pick("entropy"),
            "label": pick("labels"),
            "position": pick("positions"),
            name: self._of_speakers(said, heard),
        }
        if columns["label"] is None:
            columns["label"] = np.full(len(keep), -1)
        columns["meaning"] = self._meaning(columns["label"])
        return {name: _kept(values, keep) for name, values in columns.items() if values is not None}

    def _said(self, said: np.ndarray | None, may: np.ndarray | None) -> tuple[str, Any, np.ndarray | None]:
        """The column of messages, what stands in it [R N, ...], and who may speak [R N] and did; None: all."""
        kind = None if self.channel is None else self.channel.messages
        if said is None or kind is None or kind.alphabet is None:
            return "vector", None if said is None else said.reshape(len(said), -1), may
        messages = torch.from_numpy(said)
        did = voiced(kind, messages).numpy()
        if not did.all():
            may = did if may is None else may & did
        return "symbols", symbols_said(counted(kind, messages).numpy()), may

    def _of_speakers(self, said: Any, voiced: np.ndarray | None) -> Any:
        """What was said [R N, ...]; as a list with None where a seat did not speak, if that happens. voiced: [R N]."""
        able = np.array([s.speaks for s in self.layout.species.values() for _ in range(s.num_seats)])
        if said is None or (able.all() and voiced is None):
            return said
        speaks = np.resize(able, len(said)) & (True if voiced is None else voiced)
        return [message if may else None for message, may in zip(said, speaks, strict=True)]

    def _meaning(self, labels: np.ndarray) -> list[np.ndarray | None] | None:
        """What each label is made of; None where there is none."""
        parts = self.attributes
        return None if parts is None else [parts[label] if label >= 0 else None for label in labels]

    def _receivers(self, moments: list[Moment]) -> tuple[Any, Any]:
        """For every seat of every moment: who heard it one step later, and with what attention."""
        heard = [moment.heard for moment in moments]
        known = next((h for h in heard if h is not None and h.senders is not None), None)
        if self.channel is None or known is None or known.senders is None:
            return None, None
        nobody = Reception(np.zeros_like(known.senders), np.zeros(known.senders.shape, bool), known.attention)
        whole = _as_wide([h or nobody for h in heard])
        attention = [h.attention for h in whole if h.attention is not None]
        return heard_by(
            np.concatenate([h.senders for h in whole if h.senders is not None]),
            np.concatenate([h.mask for h in whole if h.mask is not None]),
            np.concatenate(attention) if len(attention) == len(whole) else None,
        )

    def _per_species(self, name: str, moments: list[Moment]) -> list[np.ndarray]:
        """A list column over all seats, whose width differs between species."""
        return [
            np.atleast_1d(row)
            for moment in moments
            for w in range(self.worlds)
            for species in self.layout.species
            for row in getattr(moment, name)[species][w]
        ]


def _as_wide(heard: list[Reception]) -> list[Reception]:
    """With as many slots each, empty ones in place of those that a graph has lost meanwhile."""
    sizes = [h.senders.shape[-1] for h in heard if h.senders is not None]
    if len(set(sizes)) < 2:
        return heard
    return [
        Reception(*(None if v is None else np.pad(v, ((0, 0), (0, 0), (0, max(sizes) - v.shape[-1]))) for v in h))
        for h in heard
    ]


def _rows(values: np.ndarray) -> np.ndarray:
    """[R, N, ...] -> [R N, ...]."""
    return values.reshape(-1, *values.shape[2:])


def _kept(values: Any, keep: np.ndarray) -> Any:
    """Rows of living seats."""
    return values[keep] if isinstance(values, np.ndarray) else [v for v, k in zip(values, keep, strict=True) if k]
