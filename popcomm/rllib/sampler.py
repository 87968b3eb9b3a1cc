"""Sampler: fragments of a rollout, and what is counted, asked and written down of its steps."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popcomm.rllib.episodes import Episodes
from popcomm.rllib.fragment import Fragment
from popcomm.rllib.fragment_writer import FragmentWriter
from popcomm.rllib.language_metrics import LanguageMetrics, speaking_species
from popcomm.rllib.listening import Listening
from popcomm.rllib.plan import Plan
from popcomm.rllib.rollout_statistics import RolloutStatistics
from popcomm.rllib.settings import Settings
from popcomm.rllib.step_limit import StepLimit
from popcomm.rllib.transcript import Transcript
from popcomm.rollout import Rollout, seed_of
from popcomm.rollout.importance import IMPORTANCE_BRANCH, ImportanceSums


class Sampler:
    """Steps a rollout, T steps a time.

    Args:
        config: what is recorded, and T.
        plan: what follows from it.
        rollout: what is stepped.
        modules: {species: PopulationRLModule}.
        recorded: whether transcripts are kept, where something will be written at all.
        episodes: who follows them; None: nobody.
        limit: on the time of a step; None: there is none.

    Attributes:
        statistics, listening, transcript: of the rollout's steps.
    """

    def __init__(
        self,
        config: Settings,
        plan: Plan,
        rollout: Rollout,
        modules: Mapping[str, Any],
        recorded: bool,
        episodes: Episodes | None = None,
        limit: StepLimit | None = None,
    ) -> None:
        self.limit: AbstractContextManager[None] = limit or nullcontext()
        self.config, self.plan, self.rollout, self.modules, self.episodes = config, plan, rollout, modules, episodes
        players = rollout.players
        self.distributions = {name: actor.distribution for name, actor in players.actors.items()}
        self._foresees = {name: s.settings.gamma > 0 and s.spec.judged for name, s in plan.species.items()}
        self._previous_obs: dict[str, Tensor] = {}  # {species: [B, N_s, O]}, what was perceived one step before
        self._asks = recorded and bool(config.importance_every) and plan.message_kind is not None
        self.metrics: LanguageMetrics | None = None
        if recorded and config.language_metrics and plan.message_kind is not None and speaking_species(plan):
            self.metrics = LanguageMetrics(config, plan, rollout.world.label_attributes)
        recorded = recorded and config.run_dir is not None and bool(config.conversation_every or config.picture_every)
        self.transcript = Transcript(
            min(config.conversation_worlds, players.num_worlds) if recorded else 0,
            players.layout,
            players.channel,
            max(1, config.num_env_runners),
            taken=bool(config.conversation_every),
            attributes=rollout.world.label_attributes,
        )
        self.count_anew()

    def count_anew(self) -> None:
        """Forget what was counted: other episodes follow."""
        players = self.rollout.players
        members = {name: actor.members for name, actor in players.actors.items()}
        self.statistics = RolloutStatistics(players.layout, players.channel, members)
        self.listening = Listening(
            players.layout, players.channel, players.num_worlds, self.config.rollout_fragment_length
        )

    def begin(self, seed: int | None = None) -> None:
        """New episodes everywhere. seed: of the worlds; None: that of the rollout."""
        if self.episodes is not None:
            self.episodes.create()
        with self.limit:
            self.rollout.begin(seed)
        now = self.rollout.players.now
        assert now is not None
        self._previous_obs = {name: torch.zeros_like(values) for name, values in now.observations.items()}
        self.transcript.begin_episodes()
        if self.episodes is not None:
            self.episodes.begin()

    def sample(self) -> tuple[dict[str, Fragment[np.ndarray]], int]:
        """The next T steps: {species: arrays of `fragment.allocate`}, and how many steps all worlds made together."""
        players, writer = self.rollout.players, self._writer()
        writer.carried(players, self._previous_obs)
        self.listening.begin()
        importance = self._importance()
        for t in range(writer.length):
            if self.episodes is not None:
                self.episodes.create()
            with self.limit:
                turn, after = self.rollout.step()
            for act in turn.acts.values():
                self.statistics.listened(act.thought)
            self.listening.remember(t, turn.memories, turn.seatings)
            if importance is not None:
                importance.step(turn)
            writer.step(t, turn, after)
            self.transcript.step(turn, after)
            self.statistics.step(turn, after)
            if self.episodes is not None:
                self.episodes.step(turn, after)
            self._previous_obs = turn.seen.observations
            del turn, after  # else there would be two of them while the next step is made
        # Where gamma is 0, or nobody reads values, nothing is bootstrapped, which spares a step of the network.
        thoughts = players.foresee([name for name, foresees in self._foresees.items() if foresees])
        for thought in thoughts.values():
            self.statistics.listened(thought)
        writer.last(players, thoughts)
        self.transcript.end_fragment(players, thoughts)
        writer.check_numbers()
        labels = self.statistics.labels  # until they are counted
        stepped = self._count(writer.arrays)
        self.statistics.language |= {} if importance is None else importance.scalars()
        if self.metrics is not None:
            self.statistics.language |= self.metrics.measure(writer.arrays, labels, self.transcript.iteration)
        return writer.arrays, stepped

    def _importance(self) -> ImportanceSums | None:
        """What asks in this fragment whether messages matter; None: nobody does."""
        iteration = self.transcript.iteration
        if not self._asks or iteration % self.config.importance_every:
            return None
        seed = seed_of(self.config.seed or 0, IMPORTANCE_BRANCH, iteration)
        return ImportanceSums(self.rollout.players, self.config.conversation_worlds, seed)

    def _writer(self) -> FragmentWriter:
        players, config = self.rollout.players, self.config
        assert players.now is not None
        takes_turns = players.now.speaks is not None or (players.channel is not None and players.channel.takes_turns)
        return FragmentWriter(
            players,
            self.modules,
            config.rollout_fragment_length,
            self.plan.keeps_message_logp,
            takes_turns,
            supervised=config.learn_from == "answers",
            keeps_state=self.plan.reads_state,
        )

    def _count(self, fragments: dict[str, Fragment[np.ndarray]]) -> int:
        # Divisions between fragments do not count: a row in which a world only starts over is no step of it.
        stepped = int(np.any([a["alive"].any(2) for a in fragments.values()], axis=0).sum())
        self.statistics.count(stepped, fragments, self.rollout.world.metrics())
        self.statistics.follow(self.listening.moved(fragments, self.modules, self.distributions), fragments)
        return stepped

    # ---- checkpoints ----

    def get_state(self) -> dict[str, Any]:
        """What is kept of the steps so far, in a copy."""
        state: dict[str, Any] = {"transcript": self.transcript.get_state()}
        if self.rollout.started:
            state |= {
                "previous_obs": {name: values.cpu() for name, values in self._previous_obs.items()},
                "statistics": self.statistics.get_state(),
                "listening": self.listening.get_state(),
                "episodes": {} if self.episodes is None else self.episodes.get_state(),
            }
        return copy.deepcopy(state)

    def set_state(self, state: Mapping[str, Any], first_episode: int) -> None:
        """Go on from a `get_state`, after the rollout did.

        Args:
            first_episode: the number of the next one of each world, where the state is no transcript of theirs.
        """
        kept = ("transcript", "previous_obs", "statistics", "listening", "episodes")
        state = copy.deepcopy({key: state[key] for key in kept if key in state})  # it may be wanted again
        saved = state.get("transcript")  # older checkpoints have none
        if saved is not None and saved["worlds"] == self.transcript.worlds:
            self.transcript.set_state(saved)
        else:
            # Other worlds were recorded, or none.
            self.transcript.number_from(first_episode)
        if not self.rollout.started:
            return
        device = self.rollout.world.device
        self._previous_obs = {name: values.to(device) for name, values in state["previous_obs"].items()}
        self.statistics.set_state(state["statistics"])
        if "listening" in state:  # checkpoints of before it was measured have none
            self.listening.set_state(state["listening"])
        if self.episodes is not None:
            self.episodes.set_state(state.get("episodes", {}))
