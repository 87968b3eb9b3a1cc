"""What an env runner counts while it samples: returns, lengths, steps, and the basics of the language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from torch import Tensor

from popcomm.channels import Channel, MessageKind
from popcomm.channels.kinds import counted, told_apart, voiced
from popcomm.channels.trips import fetched
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import Species, WorldStep
from popcomm.language.agreement import jargon_agreement
from popcomm.language.basics import USED_SHARE, entropy, label_information, perplexity, symbol_counts, vocabulary_used
from popcomm.rllib.fragment import Fragment, joined, open_symbols, said_in
from popcomm.rllib.gate_statistics import GateStatistics
from popcomm.rllib.listening import Moved
from popcomm.rllib.lives import Lives
from popcomm.rllib.member_statistics import MemberStatistics
from popcomm.rllib.privacy import MessageCounts
from popcomm.rllib.speaking import speaking
from popcomm.rollout import Thought, Turn

# Above this many seats a metric per seat would cost more than the step; then species stand for their seats.
SEATS_WITH_METRICS = 128
# Symbols of one iteration that the language metrics look at.
LANGUAGE_SAMPLE = 4096
# Messages of one iteration that agreement is counted in.
AGREEMENT_SAMPLE = 65536
# Controls whose mean is the chance level of the mutual information.
SHUFFLES = 5


class RolloutStatistics:
    """Running sums over one runner's worlds, and what is logged once an iteration.

    Args:
        layout: of the worlds.
        channel: None in silence.
        members: {species: P}; of several members each has sums of its own.

    Attributes:
        lives: these sums.
    """

    def __init__(self, layout: WorldLayout, channel: Channel | None, members: Mapping[str, int]) -> None:
        self.layout, self.channel = layout, channel
        self.lives = Lives(layout, None if channel is None else channel.messages, members)
        self._counts = dict(members)
        self.returns: Tensor | None = None  # [B, N], of the running episodes
        self.lengths: Tensor | None = None  # [B]
        self.finished: list[tuple[np.ndarray, np.ndarray]] = []  # returns [E, N], lengths [E]
        self.labels: list[Tensor] = []
        self.gates = GateStatistics(layout)
        self.private = MessageCounts(layout, channel, members)
        self.attention: list[Tensor] = []  # of steps: weights of top neighbours, added up, and how many listened
        self.counts: dict[str, Any] = {}
        self.language: dict[str, float] = {}
        self.world: dict[str, float] = {}
        self.earned: Tensor | float = 0.0  # the world's rewards since the last count
        self.performance: dict[str, float] = {}  # of the last fragment: what fades by performance look at

    def step(self, turn: Turn, following: WorldStep) -> None:
        """Take in one step: rewards, and episodes that ended."""
        step = turn.seen
        if self.returns is None or self.lengths is None:
            self.returns = torch.zeros_like(following.rewards)
            self.lengths = torch.zeros(len(self.returns), device=self.returns.device)
        self.returns += following.rewards
        acted = step.alive.any(1)
        self.lengths += acted
        self.earned = self.earned + (following.rewards * step.alive).sum()
        over = acted & ~following.alive.any(1)
        if self.channel is not None and step.labels is not None:
            self.labels.append(step.labels)
        ended, *earned = fetched(over, *((following.rewards, step.alive) if self.members else ()))
        if earned:
            self.lives.step(turn, *earned)
        self.gates.step(turn)
        self.private.step(turn)
        if ended.any():
            returns, lengths = fetched(self.returns[over], self.lengths[over])
            self.finished.append((returns, lengths))
            self.lives.end(turn.members, ended, returns)
            self.returns[over] = 0.0
            self.lengths[over] = 0.0

    def follow(self, moved: Moved | None, fragments: Mapping[str, Fragment[np.ndarray]]) -> None:
        """Take in whose actions followed whose messages, of those who were asked in a fragment; None: nobody was."""
        if moved is not None:
            self.language |= moved.measures()
            self.lives.follow(moved, fragments)

    @property
    def members(self) -> dict[str, MemberStatistics]:
        """{species: what its members came to since `read_members`}, of those that have several."""
        return self.lives.members

    def read_members(self) -> dict[str, dict[str, Any]]:
        """{species: state of its MemberStatistics}, of what was counted since this was last called."""
        return self.lives.read()

    def listened(self, thought: Thought) -> None:
        """Remember the mean weight of each listener's top neighbour, of those who attend to what they hear."""
        weights = thought.output.aux.get("attention")  # [P, R, K]
        if thought.inbox is None or weights is None:
            return
        heard = thought.inbox.mask.any(-1)
        # Looked at when the fragment is over: no synchronisation in every step.
        self.attention.append(torch.stack([(weights.amax(-1) * heard).sum(), heard.sum()]))

    def count(self, env_steps: int, fragments: Mapping[str, Fragment[np.ndarray]], world: Mapping[str, float]) -> None:
        """Take in a whole fragment: steps, the language spoken in it, and the world's own metrics."""
        self.world = dict(world)
        per_seat = np.concatenate([a["alive"].sum((0, 1)) for a in fragments.values()])
        self.counts = {
            "env_steps": env_steps,
            "seats": per_seat,
            "reward": float(self.earned) / max(per_seat.sum(), 1),
        }
        self.earned = 0.0
        self.lives.count(fragments)
        self.performance, self.language = {"reward": self.counts["reward"]}, {}
        if self.channel is not None and self.channel.messages.alphabet is not None:
            self.language |= self._language(fragments, self.channel.messages)
            self._count_agreement(fragments, self.channel.messages)
            if self._speakers():
                self.language |= speaking(fragments, self._speakers(), self.labels, self.channel.messages)
        if self.channel is not None:
            asks = self.channel.gates.sender, self.channel.budget.ranks
            self.language |= self.gates.read(fragments, asks)
        if self.attention:
            total, listeners = torch.stack(self.attention, 1).double()
            if bool((listeners > 0).any()):
                self.language["top_attention"] = float((total / listeners)[listeners > 0].mean())
        self.labels, self.attention = [], []

    def _language(self, fragments: Mapping[str, Fragment[np.ndarray]], kind: MessageKind) -> dict[str, float]:
        # Whole worlds, evenly spaced: a copy of all symbols would be as large as they are.
        worlds, length = next(iter(fragments.values()))["alive"].shape[:2]
        enough = -(-LANGUAGE_SAMPLE // (length * self.layout.num_agents))
        rows = np.unique(np.linspace(0, worlds - 1, min(worlds, 2 * enough)).astype(int))
        speakers = {s.name: fragments[s.name] for s in self._speakers()}
        if not speakers:
            return {}
        # Who is dead, or may not speak, says nothing; nor does a word that was not transmitted.
        said = joined([said_in(a)[rows] for a in speakers.values()])
        alive = np.concatenate([(a["alive"] & a.get("voiced", True))[rows] for a in speakers.values()], 2)
        # [B', N, T, ...]: the messages of a seat one after another.
        said, alive = said.swapaxes(1, 2), alive.swapaxes(1, 2)
        alive &= voiced(kind, torch.from_numpy(said)).numpy()
        if not alive.any():
            return {}
        spoken, size = counted(kind, torch.from_numpy(said[alive])).numpy(), kind.alphabet
        del said  # the largest there is here
        assert size is not None
        # A vocabulary that grows is as large as it is by now.
        size = open_symbols(next(iter(fragments.values()))) or size
        sample = spoken[np.linspace(0, len(spoken) - 1, min(len(spoken), LANGUAGE_SAMPLE)).astype(int)]
        used = symbol_counts(sample, size).sum(0)
        result = {
            "symbol_entropy": float(entropy(used)),
            "vocabulary_used": vocabulary_used(sample, size, USED_SHARE / size),
            "vocabulary_effective": float(perplexity(used)) / size,
        }
        if self.labels:
            seats = np.concatenate([np.arange(s.start, s.stop) for s in self._speakers()])
            labels = torch.stack([step[rows][:, seats] for step in self.labels], 2).cpu().numpy()[alive]
            told = label_information(
                spoken, labels, shuffles=SHUFFLES, cap=LANGUAGE_SAMPLE, streams=np.nonzero(alive)[0]
            )
            result["mutual_information"] = told.adjusted
        return {key: value for key, value in result.items() if np.isfinite(value)}

    def _count_agreement(self, fragments: Mapping[str, Fragment[np.ndarray]], kind: MessageKind) -> None:
        """Do members call what they perceive by the same words? Of whole messages, where there are labels.

        One network agrees with itself: where there is no other, that is no measure of the language.
        """
        speakers = self._speakers()
        length = told_apart(kind)
        if not self.labels or not speakers or length is None:
            return
        worlds, steps = next(iter(fragments.values()))["alive"].shape[:2]
        enough = -(-AGREEMENT_SAMPLE // (steps * self.layout.num_agents))
        rows = np.unique(np.linspace(0, worlds - 1, min(worlds, enough)).astype(int))
        seats = np.concatenate([np.arange(s.start, s.stop) for s in speakers])
        labels = torch.stack([step[rows][:, seats] for step in self.labels], 1).cpu().numpy()
        arrays = [fragments[s.name] for s in speakers]
        alive = np.concatenate([(a["alive"] & a.get("voiced", True))[rows] for a in arrays], 2) & (labels >= 0)
        if not alive.any():
            return
        said = joined([said_in(a)[rows] for a in arrays])[alive]
        # Members of different species are different.
        offsets = np.cumsum([0, *(self._counts[s.name] for s in speakers)])
        members = np.concatenate([a["members"][rows] + o for a, o in zip(arrays, offsets, strict=False)], 2)[alive]
        words = said
        if kind.shape:
            words = kind.as_symbols(torch.from_numpy(said)).numpy() @ (kind.alphabet or 0) ** np.arange(length) + 1
        told = jargon_agreement(words, labels[alive], members, self.layout.num_labels)
        self.language["distinct_modal_words"] = float(told.distinct)
        right = words == told.words[labels[alive]]
        counts = np.broadcast_to(self.lives.whole_in(rows, seats), alive.shape)[alive]
        for species, offset in zip(speakers, offsets, strict=False):
            own = self.members.get(species.name)
            if own is not None:
                own_rows = counts & (members >= offset) & (members < offset + own.members)
                own.agreed(members[own_rows] - offset, right[own_rows])
        if offsets[-1] > 1:
            self.language |= {"agreement": told.mean, "agreement_least": float(np.nanmin(told.per_label))}
        # One word for everything is agreed on, and says nothing.
        jargon = told.mean * told.distinct / self.layout.num_labels
        self.performance |= {"agreement": told.mean, "jargon": jargon}

    def _speakers(self) -> list[Species]:
        return [s for s in self.layout.species.values() if s.speaks]

    def log(self, metrics: MetricsLogger) -> None:
        """Log into a runner's MetricsLogger, with RLlib's names."""
        if not self.counts:
            return
        env_steps, seats = self.counts["env_steps"], self.counts["seats"]
        metrics.log_value(NUM_ENV_STEPS_SAMPLED, env_steps, reduce="sum")
        metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, env_steps, reduce="lifetime_sum", with_throughput=True)
        for name, steps in self._by_name(seats, np.sum).items():
            metrics.log_value((NUM_AGENT_STEPS_SAMPLED, name), steps, reduce="sum")
            metrics.log_value((NUM_AGENT_STEPS_SAMPLED_LIFETIME, name), steps, reduce="lifetime_sum")
        for name, species in self.layout.species.items():
            steps = int(seats[species.seats].sum())
            metrics.log_value((NUM_MODULE_STEPS_SAMPLED, name), steps, reduce="sum")
            metrics.log_value((NUM_MODULE_STEPS_SAMPLED_LIFETIME, name), steps, reduce="lifetime_sum")
        metrics.log_value("reward_mean", self.counts["reward"], window=1)
        for name, value in self.language.items():
            metrics.log_value(("language", name), value, window=1)
        for name, value in self.world.items():
            metrics.log_value(("world", name), value, window=1)
        self._log_episodes(metrics)
        self.counts = {}

    def _by_name(self, per_seat: np.ndarray, pool: Callable[[np.ndarray], np.generic]) -> dict[str, float]:
        """Values per seat under the seats' names, or pooled per species where there are too many seats."""
        if self.layout.num_agents <= SEATS_WITH_METRICS:
            return {name: v.item() for name, v in zip(self.layout.agents, per_seat, strict=True)}
        return {name: pool(per_seat[s.seats]).item() for name, s in self.layout.species.items()}

    def _log_episodes(self, metrics: MetricsLogger) -> None:
        """Nothing but their number where no episode ended: what is not measured has no value."""
        metrics.log_value(NUM_EPISODES, sum(len(lengths) for _, lengths in self.finished), reduce="sum")
        if not self.finished:
            return
        returns = np.concatenate([r for r, _ in self.finished])
        lengths = np.concatenate([n for _, n in self.finished])
        self.finished = []
        totals = returns.sum(1)
        metrics.log_value(EPISODE_RETURN_MEAN, float(totals.mean()), window=1)
        metrics.log_value(EPISODE_RETURN_MIN, float(totals.min()), reduce="min", window=1)
        metrics.log_value(EPISODE_RETURN_MAX, float(totals.max()), reduce="max", window=1)
        metrics.log_value(EPISODE_LEN_MEAN, float(lengths.mean()), window=1)
        metrics.log_value(NUM_EPISODES_LIFETIME, len(totals), reduce="lifetime_sum")
        for name, value in self._by_name(returns.mean(0), np.mean).items():
            metrics.log_value(("agent_episode_returns_mean", name), value, window=1)
        for name, species in self.layout.species.items():
            value = float(returns[:, species.seats].mean())
            metrics.log_value(("module_episode_returns_mean", name), value, window=1)

    def get_state(self) -> dict[str, Any]:
        """The running episodes' sums."""
        return {
            "returns": self.returns,
            "lengths": self.lengths,
            "performance": dict(self.performance),
            "whole": self.lives.whole,
            "lived": self.lives.lived,
            "private": self.private.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.returns, self.lengths = state["returns"], state["lengths"]
        self.performance = state.get("performance", {})
        # Checkpoints of before there was selection have none, and those of before seats could be empty do not say.
        self.lives.whole = state.get("whole")
        unknown = None if self.returns is None else np.ones(tuple(self.returns.shape), bool)
        self.lives.lived = state.get("lived", unknown)
        self.private.set_state(state.get("private", {}))
