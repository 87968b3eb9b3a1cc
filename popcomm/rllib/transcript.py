"""Transcript: what was said, heard and done in the first worlds of a runner, as rows of a table, each of them once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput
from popcomm.agents.seating import Seating
from popcomm.channels import Channel
from popcomm.channels.mail import Mail
from popcomm.channels.messages import told
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import WorldStep
from popcomm.rllib.transcript_table import Moment, Reception, Table
from popcomm.rollout import Players, Thought, Turn

# Steps of each world that are kept until they are written; the oldest are dropped where writing is more seldom.
STEPS_KEPT = 256


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
        self.table = Table(worlds, layout, channel, None if attributes is None else _array(attributes))
        self.worlds, self.layout, self.channel, self.runners, self.taken = worlds, layout, channel, runners, taken
        rounds = 0 if channel is None else channel.rounds
        self.moments: deque[Moment] = deque(maxlen=STEPS_KEPT * max(1, rounds))
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
        moment = Moment(
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

    def _rounds(self, moment: Moment, turn: Turn) -> Iterator[Moment]:
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

    def _reception(self, mail: Mail | None, there: np.ndarray, attention: np.ndarray | None) -> Reception:
        if mail is None or mail.hears is not None:  # without inboxes all hear all
            return Reception(None, None, None)
        links = mail.links
        mask = _array(links.mask[: self.worlds]) & there[:, :, None]
        return Reception(_array(links.senders[: self.worlds]), mask, attention)

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
        return self.table.of(known)

    def rows(self) -> dict[str, Any]:
        """One row per agent-step that is kept, column by column."""
        return self.table.of(list(self.moments))

    def get_state(self) -> dict[str, Any]:
        """What was not taken yet, and where the episodes stand."""
        moments = [{**m._asdict(), "heard": None if m.heard is None else tuple(m.heard)} for m in self.moments]
        return {"worlds": self.worlds, "moments": moments, "episode": self.episode, "clock": self.clock}

    def set_state(self, state: dict[str, Any]) -> None:
        """Raises ValueError: it is the state of a transcript of other worlds."""
        if state["worlds"] != self.worlds:
            raise ValueError(f"a transcript of {state['worlds']} worlds cannot go on with {self.worlds}")
        moments = [Moment(**{**m, "heard": m["heard"] and Reception(*m["heard"])}) for m in state["moments"]]
        self.moments = deque(moments, maxlen=self.moments.maxlen)
        self.episode, self.clock, self._opens = state["episode"], state["clock"], False


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().copy()
