"""Transcript: what was said, heard and done in the first worlds of a runner, as rows of a table, each of them once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput
from popcomm.agents.seating import Seating
from popcomm.channels import Channel
from popcomm.channels.kinds import counted, voiced
from popcomm.channels.mail import Mail
from popcomm.channels.messages import told
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import WorldStep
from popcomm.language.recording import heard_by, symbols_said
from popcomm.rollout import Players, Thought, Turn

# Steps of each world that are kept until they are written; the oldest are dropped where writing is more seldom.
STEPS_KEPT = 256


class _Moment(NamedTuple):
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
    heard: _Reception | None  # what became of what was said, one step later; None: not known yet
    round: int | None = None  # of the step, where messages are exchanged in rounds


class _Reception(NamedTuple):
    """Who heard what one step after it was said, or in its round."""

    senders: np.ndarray | None  # [W, N, K]; None where nobody is linked to anybody
    mask: np.ndarray | None  # [W, N, K] bool
    attention: np.ndarray | None  # [W, N, K]


class Transcript:
    """Keeps what happens in the first `worlds` worlds until it is taken, every step once; with 0 it does nothing.

    Args:
        worlds: W.
        layout: of all worlds.
        channel: None in silence.
        runners: that sample as this one does, so that a step here is one of each of them.
        taken: whether somebody takes what is kept. Otherwise only the running fragment is, for pictures.
        attributes: [num_labels, A] int64, what labels are made of; None: they are wholes.
    """

    def __init__(
        self,
        worlds: int,
        layout: WorldLayout,
        channel: Channel | None,
        runners: int = 1,
        taken: bool = True,
        attributes: Tensor | None = None,
    ) -> None:
        self.attributes = None if attributes is None else _array(attributes)
        self.worlds, self.layout, self.channel, self.runners, self.taken = worlds, layout, channel, runners, taken
        rounds = 0 if channel is None else channel.rounds
        self.moments: deque[_Moment] = deque(maxlen=STEPS_KEPT * max(1, rounds))
        self.episode = np.full(worlds, -1)
        self.clock = np.zeros(worlds, int)
        self.iteration = self.env_steps = 0
        self._opens = True  # whether the next step opens episodes everywhere
        self._attends = False  # whether there is attention to be waited for

    def begin_fragment(self, iteration: int, env_steps: int) -> None:
        """The steps to come belong to an iteration, and come after `env_steps` of all runners."""
        self.iteration, self.env_steps = iteration, env_steps
        if not self.taken:
            self.moments.clear()

    def begin_episodes(self) -> None:
        """The worlds were reset: the next step opens an episode in each of them."""
        self._opens = True

    def number_from(self, episode: int) -> None:
        """Number the next episode of each world so, where this is not the first transcript of a training."""
        self.episode = np.full(self.worlds, episode - 1)
        self._opens = True

    def step(self, turn: Turn, after: WorldStep) -> None:
        """Remember one step, and what came of it."""
        if not self.worlds:
            return
        w, seen = self.worlds, turn.seen
        outputs = {name: act.thought.output for name, act in turn.acts.items()}
        self.env_steps += self.runners * int(seen.alive.any(1).sum())
        opened = turn.reopened[:w] | self._opens
        self._opens = False
        there = seen.alive[:w].cpu().numpy() & ~opened[:, None]
        self._arrived(turn.mail, there, self._attention(outputs, turn.seatings))
        self.episode = self.episode + opened
        self.clock = np.where(opened, 0, self.clock)
        moment = _Moment(
            self.iteration,
            self.env_steps,
            _array(seen.alive[:w]),
            self.episode,
            self.clock,
            {k: _array(self.layout.species[k].glimpse(v[:w])) for k, v in seen.observations.items()},
            {k: _array(v[:w]) for k, v in turn.bounded.items()},
            np.concatenate([m[:w] for m in turn.members.values()], 1).copy(),
            _array(after.rewards[:w]),
            None if turn.sent is None else _array(turn.sent[:w]),
            self._may_speak(turn),
            self._entropy(outputs, turn.seatings),
            None if seen.labels is None else _array(seen.labels[:w]),
            None if seen.positions is None else _array(seen.positions[:w]),
            None,
        )
        self.moments.extend(self._rounds(moment, turn) if turn.rounds else [moment])
        self.clock = self.clock + seen.alive[:w].any(1).cpu().numpy()

    def _rounds(self, moment: _Moment, turn: Turn) -> Iterator[_Moment]:
        """The moment of a step once for every round of it, each with what was said in it and who heard that."""
        there = turn.seen.alive[: self.worlds].cpu().numpy()
        outputs = [one.outputs for one in turn.rounds]
        listeners = [*outputs[1:], {name: act.thought.output for name, act in turn.acts.items()}]
        for number, (one, spoken, listening) in enumerate(zip(turn.rounds, outputs, listeners, strict=True)):
            yield moment._replace(
                round=number,
                said=_array(one.sent[: self.worlds]),
                voiced=moment.voiced if moment.voiced is None else _array(one.voice[: self.worlds]),
                entropy=self._entropy(spoken, turn.seatings),
                heard=self._reception(one.mail, there, self._attention(listening, turn.seatings)),
            )

    def _may_speak(self, turn: Turn) -> np.ndarray | None:
        """[W, N] bool; None where all may, always."""
        # A word whose turn a reflex took was not said.
        taken = self.channel is not None and self.channel.takes_turns
        speaks = turn.voice if taken else turn.seen.speaks
        return None if speaks is None else _array(speaks[: self.worlds])

    def end_fragment(self, players: Players, thoughts: dict[str, Thought]) -> None:
        """Who hears what was said last, so that it need not wait for the next fragment.

        Where attention matters and this step's is not known yet, it does wait.

        Args:
            players: at the step after the fragment.
            thoughts: what species make of it; those that were not asked are missing.
        """
        assert players.now is not None
        attends = bool(self.moments) and self._attends
        if self.worlds and not (attends and len(thoughts) < len(self.layout.species)):
            there = players.now.alive[: self.worlds].cpu().numpy()
            outputs = {name: thought.output for name, thought in thoughts.items()}
            self._arrived(players.mail, there, self._attention(outputs, players.seatings) if attends else None)

    def _arrived(self, mail: Mail | None, there: np.ndarray, attention: np.ndarray | None) -> None:
        """Complete the last moment by who heard it. there: [W, N] bool, who lives to hear it in the same episode."""
        self._attends = attention is not None
        if not self.moments or self.moments[-1].heard is not None:
            return
        self.moments[-1] = self.moments[-1]._replace(heard=self._reception(mail, there, attention))

    def _reception(self, mail: Mail | None, there: np.ndarray, attention: np.ndarray | None) -> _Reception:
        if mail is None or mail.hears is not None:  # without inboxes all hear all
            return _Reception(None, None, None)
        links = mail.links
        mask = _array(links.mask[: self.worlds]) & there[:, :, None]
        return _Reception(_array(links.senders[: self.worlds]), mask, attention)

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
                said = None if output.said is None else seatings[name].to_worlds(output.said)[: self.worlds]
                params = seatings[name].to_worlds(output.message)[: self.worlds]
                parts.append(kind.entropy(params, **told(kind, said)).cpu())
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

    def take(self, until: int | None = None) -> dict[str, Any]:
        """The rows of all steps since the last call, or of the last STEPS_KEPT; each is handed out once.

        A step waits for the next call if it is not known yet who heard what was said in it.

        Args:
            until: the last iteration whose steps are taken; those that were sampled ahead of it wait. None: all.
        """
        last = self.iteration if until is None else until
        known = [moment for moment in self.moments if moment.heard is not None and moment.iteration <= last]
        waiting = [moment for moment in self.moments if moment.heard is None or moment.iteration > last]
        self.moments = deque(waiting, maxlen=self.moments.maxlen)
        return self._table(known)

    def rows(self) -> dict[str, Any]:
        """One row per agent-step that is kept, column by column."""
        return self._table(list(self.moments))

    def _table(self, moments: list[_Moment]) -> dict[str, Any]:
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

    def _receivers(self, moments: list[_Moment]) -> tuple[Any, Any]:
        """For every seat of every moment: who heard it one step later, and with what attention."""
        heard = [moment.heard for moment in moments]
        known = next((h for h in heard if h is not None and h.senders is not None), None)
        if self.channel is None or known is None or known.senders is None:
            return None, None
        nobody = _Reception(np.zeros_like(known.senders), np.zeros(known.senders.shape, bool), known.attention)
        whole = _as_wide([h or nobody for h in heard])
        attention = [h.attention for h in whole if h.attention is not None]
        return heard_by(
            np.concatenate([h.senders for h in whole if h.senders is not None]),
            np.concatenate([h.mask for h in whole if h.mask is not None]),
            np.concatenate(attention) if len(attention) == len(whole) else None,
        )

    def _per_species(self, name: str, moments: list[_Moment]) -> list[np.ndarray]:
        """A list column over all seats, whose width differs between species."""
        return [
            np.atleast_1d(row)
            for moment in moments
            for w in range(self.worlds)
            for species in self.layout.species
            for row in getattr(moment, name)[species][w]
        ]

    def get_state(self) -> dict[str, Any]:
        """What was not taken yet, and where the episodes stand."""
        moments = [{**m._asdict(), "heard": None if m.heard is None else tuple(m.heard)} for m in self.moments]
        return {"worlds": self.worlds, "moments": moments, "episode": self.episode, "clock": self.clock}

    def set_state(self, state: dict[str, Any]) -> None:
        """Raises ValueError: it is the state of a transcript of other worlds."""
        if state["worlds"] != self.worlds:
            raise ValueError(f"a transcript of {state['worlds']} worlds cannot go on with {self.worlds}")
        moments = [_Moment(**{**m, "heard": m["heard"] and _Reception(*m["heard"])}) for m in state["moments"]]
        self.moments = deque(moments, maxlen=self.moments.maxlen)
        self.episode, self.clock, self._opens = state["episode"], state["clock"], False


def _as_wide(heard: list[_Reception]) -> list[_Reception]:
    """With as many slots each, empty ones in place of those that a graph has lost meanwhile."""
    sizes = [h.senders.shape[-1] for h in heard if h.senders is not None]
    if len(set(sizes)) < 2:
        return heard
    return [
        _Reception(*(None if v is None else np.pad(v, ((0, 0), (0, 0), (0, max(sizes) - v.shape[-1]))) for v in h))
        for h in heard
    ]


def _rows(values: np.ndarray) -> np.ndarray:
    """[R, N, ...] -> [R N, ...]."""
    return values.reshape(-1, *values.shape[2:])


def _kept(values: Any, keep: np.ndarray) -> Any:
    """Rows of living seats."""
    return values[keep] if isinstance(values, np.ndarray) else [v for v, k in zip(values, keep, strict=True) if k]


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().copy()
