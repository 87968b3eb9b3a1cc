"""Transcript: what was said, heard and done in the first worlds of a runner, as rows of a table."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput
from popcomm.agents.seating import Seating
from popcomm.channels import Channel, Links
from popcomm.channels.kinds import voiced
from popcomm.envs.world import WorldStep
from popcomm.language.recording import heard_by
from popcomm.rllib.worlds import WorldLayout

# Steps kept: an episode longer than this is recorded by its end.
STEPS_KEPT = 256


class _Moment(NamedTuple):
    """One step of the recorded worlds; all arrays [W, N, ...]."""

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
    senders: np.ndarray | None  # who was heard in this step, [W, N, K]
    heard: np.ndarray | None  # [W, N, K] bool
    attention: np.ndarray | None  # [W, N, K]
    labels: np.ndarray | None
    positions: np.ndarray | None


class Transcript:
    """Keeps the latest steps of the first `worlds` worlds; with 0 it does nothing."""

    def __init__(self, worlds: int, layout: WorldLayout, channel: Channel | None) -> None:
        self.worlds, self.layout, self.channel = worlds, layout, channel
        self.moments: deque[_Moment] = deque(maxlen=STEPS_KEPT)
        self.episode = np.full(worlds, -1)
        self.clock = np.zeros(worlds, int)

    def step(
        self,
        step: WorldStep,
        following: WorldStep,
        actions: dict[str, Tensor],
        sent: Tensor | None,
        outputs: dict[str, AgentOutput],
        seatings: dict[str, Seating],
        members: dict[str, np.ndarray],
        links: Links | None,
        reopened: np.ndarray,
    ) -> None:
        """Remember one step.

        Args:
            actions: {species: [B, N_s, ...]}.
            sent: [B, N, ...], what was said; None in silence.
            outputs: {species: the networks' outputs, member-major}.
            links: who was heard in this step.
            reopened: [B] bool, worlds whose episode starts with this step.
        """
        if not self.worlds:
            return
        w = self.worlds
        opened = reopened[:w]
        self.episode += opened | (self.episode < 0)
        self.clock = np.where(opened, 0, self.clock)
        self.moments.append(
            _Moment(
                _array(step.alive[:w]),
                self.episode.copy(),
                self.clock.copy(),
                {k: _array(v[:w]) for k, v in step.observations.items()},
                {k: _array(v[:w]) for k, v in actions.items()},
                np.concatenate([m[:w] for m in members.values()], 1).copy(),
                _array(following.rewards[:w]),
                None if sent is None else _array(sent[:w]),
                None if step.speaks is None else _array(step.speaks[:w]),
                self._entropy(outputs, seatings),
                None if links is None else _array(links.senders[:w]),
                None if links is None else _array(links.mask[:w]),
                self._attention(outputs, seatings),
                None if step.labels is None else _array(step.labels[:w]),
                None if step.positions is None else _array(step.positions[:w]),
            )
        )
        self.clock = self.clock + step.alive[:w].any(1).cpu().numpy()

    def _entropy(self, outputs: dict[str, AgentOutput], seatings: dict[str, Seating]) -> np.ndarray | None:
        if self.channel is None:
            return None
        kind = self.channel.messages
        parts = []
        for name, output in outputs.items():
            seats = self.layout.species[name].num_seats
            if output.message is None:  # a species that never speaks
                parts.append(torch.zeros(self.worlds, seats))
            else:
                parts.append(kind.entropy(seatings[name].to_worlds(output.message)[: self.worlds]).cpu())
        return _array(torch.cat(parts, 1))

    def _attention(self, outputs: dict[str, AgentOutput], seatings: dict[str, Seating]) -> np.ndarray | None:
        hearing = {name: o for name, o in outputs.items() if self.layout.species[name].hears}
        if self.channel is None or not hearing or any("attention" not in o.aux for o in hearing.values()):
            return None
        parts = []
        for name, species in self.layout.species.items():
            if name in hearing:
                parts.append(seatings[name].to_worlds(outputs[name].aux["attention"])[: self.worlds].cpu())
            else:
                parts.append(torch.zeros(self.worlds, species.num_seats, self.channel.inbox_size))
        return _array(torch.cat(parts, 1))

    def rows(self) -> dict[str, Any]:
        """One row per agent-step of each world's latest whole episode (or what there is of it), column by column.

        Receivers and their attention come from the step after a message; a message of the last step has none.
        """
        moments, chosen = list(self.moments), self._latest_episodes()
        place = [(i, w) for i, m in enumerate(moments) for w in np.flatnonzero(m.episode == chosen).tolist()]
        if not place:
            return {}

        def pick(name: str) -> np.ndarray | None:
            values = [getattr(moments[i], name) for i, _ in place]
            return None if values[0] is None else np.stack([v[w] for v, (_, w) in zip(values, place, strict=True)])

        alive = np.stack([moments[i].alive[w] for i, w in place])
        keep = alive.reshape(-1)
        name, said, heard = self._said(_rows(pick("said")), _rows(pick("voiced")))
        receivers, weights = self._receivers(moments, place)
        columns: dict[str, Any] = {
            "world": np.repeat([w for _, w in place], alive.shape[1]),
            "episode": np.repeat([moments[i].episode[w] for i, w in place], alive.shape[1]),
            "step": np.repeat([moments[i].step[w] for i, w in place], alive.shape[1]),
            "sender": np.tile(np.arange(alive.shape[1]), len(place)),
            "species": np.tile([n for n, s in self.layout.species.items() for _ in range(s.num_seats)], len(place)),
            "receivers": receivers,
            "weights": weights,
            "observation": self._per_species("observations", moments, place),
            "action": self._per_species("actions", moments, place),
            "member": _rows(pick("members")),
            "reward": _rows(pick("rewards")),
            "message_entropy": _rows(pick("entropy")),
            "label": _rows(pick("labels")),
            "position": _rows(pick("positions")),
            name: self._of_speakers(said, heard),
        }
        if columns["label"] is None:
            columns["label"] = np.full(len(keep), -1)
        return {name: _kept(values, keep) for name, values in columns.items() if values is not None}

    def _said(
        self, said: np.ndarray | None, may: np.ndarray | None
    ) -> tuple[str, np.ndarray | None, np.ndarray | None]:
        """The column of messages [R N, ...], what stands in it, and who may speak [R N] and did; None: all."""
        kind = None if self.channel is None else self.channel.messages
        if said is None or kind is None or kind.alphabet is None:
            return "vector", said, may
        messages = torch.from_numpy(said)
        did = voiced(kind, messages).numpy()
        if not did.all():
            may = did if may is None else may & did
        return "symbols", kind.as_symbols(messages).numpy(), may

    def _of_speakers(self, said: np.ndarray | None, voiced: np.ndarray | None) -> Any:
        """What was said [R N, ...]; as a list with None where a seat did not speak, if that happens. voiced: [R N]."""
        able = np.array([s.speaks for s in self.layout.species.values() for _ in range(s.num_seats)])
        if said is None or (able.all() and voiced is None):
            return said
        speaks = np.resize(able, len(said)) & (True if voiced is None else voiced)
        return [message if may else None for message, may in zip(said, speaks, strict=True)]

    def _latest_episodes(self) -> np.ndarray:
        """[W] the episode to write: the last that is complete, else the running one."""
        if not self.moments:
            return self.episode
        oldest = self.moments[0]
        complete_from = np.where(oldest.step == 0, oldest.episode, oldest.episode + 1)
        return np.where(self.episode - 1 >= complete_from, self.episode - 1, self.episode)

    def _receivers(self, moments: list[_Moment], place: list[tuple[int, int]]) -> tuple[Any, Any]:
        """For every seat of every chosen moment: who heard it one step later, and with what attention."""
        if self.channel is None or moments[0].senders is None:
            return None, None
        senders, masks, weights = [], [], []
        for i, w in place:
            after = moments[min(i + 1, len(moments) - 1)]
            assert after.senders is not None
            assert after.heard is not None
            follows = i + 1 < len(moments) and after.episode[w] == moments[i].episode[w]
            senders.append(after.senders[w])
            masks.append(after.heard[w] & after.alive[w][:, None] & follows)
            weights.append(None if after.attention is None else after.attention[w])
        attention = None if any(w is None for w in weights) else np.stack([w for w in weights if w is not None])
        return heard_by(np.stack(senders), np.stack(masks), attention)

    def _per_species(self, name: str, moments: list[_Moment], place: list[tuple[int, int]]) -> list[np.ndarray]:
        """A list column over all seats, whose width differs between species."""
        return [
            np.atleast_1d(row)
            for i, w in place
            for species in self.layout.species
            for row in getattr(moments[i], name)[species][w]
        ]


def _rows(values: np.ndarray | None) -> np.ndarray | None:
    """[R, N, ...] -> [R N, ...]."""
    return None if values is None else values.reshape(-1, *values.shape[2:])


def _kept(values: Any, keep: np.ndarray) -> Any:
    """Rows of living seats."""
    return values[keep] if isinstance(values, np.ndarray) else [v for v, k in zip(values, keep, strict=True) if k]


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().copy()
