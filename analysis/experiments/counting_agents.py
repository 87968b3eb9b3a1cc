"""Agents that only count: in alarm_v0, a Dirichlet posterior of the event given each word, and no gradient.

The Bayesian agents of c11np's draft, made precise. They take any words of the channel, of which there are millions; no
lexicon is agreed on before.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from popcomm.channels import Channel, Full, Words
from popcomm.channels.mail import Mail
from popcomm.channels.session import Session
from popcomm.envs.alarm_v0 import NAME, AlarmWorld
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import WorldStep
from popcomm.language.agreement import Agreement, jargon_agreement
from popcomm.rollout.perception import perceived
from popcomm.schedules import Clock

Array = NDArray[Any]

PRIOR = 1.0  # of each event, in counts
ROOM = 64  # words that there is room for at first


class Counters:
    """N agents that count how often each event ran while they heard a word; what they know holds in all B worlds.

    Events are the E kinds, and calm as the last one. *Belief*: of who sees nothing, Dirichlet(PRIOR + the counts of all
    different words that it hears, of the steps in which it saw nothing, added up); silence counts as a word. Whoever
    sees a kind knows it.

    *Acting*: probabilities are drawn from the belief (Thompson 1933), and the action is taken that earns most under
    them. *Speaking*: who sees a kind says a word, all others are silent: the one whose mean posterior of that kind,
    after all steps, is highest, or a new one, drawn evenly from all words, where the posterior of a word that was never
    heard, drawn, is above that of the best one, drawn. *Learning*: what an agent earned says which events can have run;
    the count of every word that it heard grows by its mean belief in them. Only what is heard is counted: what its own
    word means an agent learns where it hears it, or from others.

    Args:
        world: whose rewards they know; what they earn tells of the event where its `reward_share` is 0.
        messages: words without a lexicon.
        rng: of all that they draw.
    """

    def __init__(self, world: AlarmWorld, messages: Words, rng: np.random.Generator) -> None:
        self.kinds, self.num_agents, self.messages, self.rng = world.num_labels, world.num_agents, messages, rng
        events = self.kinds + 1
        # What action a (0: forage) earns in event e.
        self.earns = np.full((events, events), -world.wrong_penalty)
        self.earns[0], self.earns[1:, -1] = 0.0, -world.alarm_penalty
        self.earns[0, -1] = world.forage_reward
        self.earns[np.arange(1, events), np.arange(self.kinds)] = world.flight_reward
        self._place = {0: 0}  # {word: its row}
        self._words = np.zeros(ROOM, np.int64)
        self.counts = np.zeros((self.num_agents, ROOM, events))  # of all steps
        self.unseeing = np.zeros_like(self.counts)  # of those in which the agent saw nothing

    @property
    def words(self) -> Array:
        """[V], all words that anybody ever heard; silence first."""
        return self._words[: len(self._place)]

    def rows_of(self, words: Array) -> Array:
        """Rows of words [...]; new ones get one."""
        unique, where = np.unique(words, return_inverse=True)
        for word in unique.tolist():
            if word not in self._place:
                if len(self._place) == len(self._words):
                    self._words = np.concatenate([self._words, np.zeros_like(self._words)])
                    self.counts, self.unseeing = (
                        np.concatenate([old, np.zeros_like(old)], 1) for old in (self.counts, self.unseeing)
                    )
                self._words[len(self._place)] = word
                self._place[word] = len(self._place)
        return np.array([self._place[word] for word in unique.tolist()], int)[where].reshape(words.shape)

    def hear(self, words: Array, mask: Array) -> None:
        """words, mask [B, N, K]: what reaches each agent now; different words count once."""
        places = words.shape[0] * words.shape[1]
        rows, heard = self.rows_of(np.where(mask, words, 0)).reshape(places, -1), mask.reshape(places, -1)
        listener, slot = np.nonzero(heard)
        silent = np.flatnonzero(~heard.any(-1))
        told = np.stack([listener, rows[listener, slot]]), np.stack([silent, np.zeros_like(silent)])
        self.listener, self.row = np.unique(np.concatenate(told, 1), axis=1)  # [C] each
        self.alpha = np.full((places, self.kinds + 1), PRIOR)
        np.add.at(self.alpha, self.listener, self.unseeing[self.listener % self.num_agents, self.row])

    def act(self, seen: Array) -> Array:
        """seen [B, N], the kind or -1 -> actions [B, N]."""
        self.seen = seen.reshape(-1)
        drawn = self.rng.standard_gamma(self.alpha)
        drawn /= drawn.sum(-1, keepdims=True)
        self.chosen = np.where(self.seen >= 0, self.seen + 1, (drawn @ self.earns.T).argmax(-1))
        return self.chosen.reshape(seen.shape)

    def say(self) -> Array:
        """Words [B * N], 0 of those who see nothing."""
        said = np.zeros(len(self.seen), np.int64)
        speakers = np.flatnonzero(self.seen >= 0)
        fresh = self.messages.uniform(self.rng, len(speakers)).astype(np.int64)
        novel = self.rng.beta(PRIOR, PRIOR * self.kinds, len(speakers))
        if len(speakers):
            best, right, wrong = self._best(speakers % self.num_agents, self.seen[speakers])
            trusted = self.rng.beta(PRIOR + right, PRIOR * self.kinds + wrong)
            said[speakers] = np.where((best > 0) & (trusted >= novel), self.words[best], fresh)
        return said

    def names(self) -> Array:
        """[N, E], the word that each agent trusts most to tell each kind; 0: none more than one it never heard."""
        agent, kind = (values.reshape(-1) for values in np.indices((self.num_agents, self.kinds)))
        best, right, wrong = self._best(agent, kind)
        return np.where(right * self.kinds > wrong, self.words[best], 0).reshape(self.num_agents, self.kinds)

    def _best(self, agent: Array, kind: Array) -> tuple[Array, Array, Array]:
        """Of the word with the highest mean posterior of a kind, for M agents and kinds: its row [M] (0: none is known)
        and its counts of that kind and of all else, [M] each."""
        counts = self.counts[agent, : len(self._place)]  # [M, V, E + 1]
        every = np.arange(len(agent))
        right, total = counts[every, :, kind], counts.sum(-1)
        mean = (right + PRIOR) / (total + PRIOR * (self.kinds + 1))
        mean[:, 0] = 0.0  # silence is nothing that one says
        best = mean.argmax(-1)
        return best, right[every, best], (total - right)[every, best]

    def learn(self, earned: Array, living: Array) -> None:
        """earned [B, N], each one's own reward for what it just did; living [B, N] bool, whose it is."""
        possible = np.isclose(self.earns[self.chosen], earned.reshape(-1, 1))
        known = np.flatnonzero(self.seen >= 0)
        possible[known] = np.arange(self.kinds + 1) == self.seen[known, None]
        belief = self.alpha * possible
        kept = living.reshape(-1)[self.listener]
        listener, row = self.listener[kept], self.row[kept]
        share = belief[listener] / belief[listener].sum(-1, keepdims=True)
        np.add.at(self.counts, (listener % self.num_agents, row), share)
        blind = self.seen[listener] < 0
        np.add.at(self.unseeing, (listener[blind] % self.num_agents, row[blind]), share[blind])


class Looks(NamedTuple):
    """What some steps of all worlds came to, per agent-step."""

    reward: float  # each one's own
    informed: float
    false_alarms: float
    load: float  # transmissions of a world and step


class Life:
    """A collective of counters in B territories, with a channel and its reflexes.

    Args:
        env_config: of AlarmWorld; its `reward_share` is set to 0.
        messages: the words.
        reflexes: as in a config.
        worlds: B.
        seed: of everything random.
    """

    def __init__(
        self, env_config: Mapping[str, Any], messages: Words, reflexes: Sequence[Any], worlds: int, seed: int
    ) -> None:
        world = self._enter(env_config, messages, reflexes, worlds, seed)
        self.counters = Counters(world, messages, np.random.default_rng([seed, 1]))
        self.env_steps = 0

    def elsewhere(self, env_config: Mapping[str, Any], worlds: int, seed: int) -> Life:
        """The same collective as it is now in other territories, on a channel without reflexes."""
        other = copy.copy(self)
        other._enter(env_config, self.messages, (), worlds, seed)
        return other

    def _enter(self, env_config: Any, messages: Words, reflexes: Sequence[Any], worlds: int, seed: int) -> AlarmWorld:
        self.world = AlarmWorld(worlds, **{**env_config, "reward_share": 0.0, "stagger": True})
        self.layout, self.messages = WorldLayout.of(self.world), messages
        self.session = Session(Channel(messages, Full(), self.world.num_agents, reflexes=list(reflexes)), worlds, seed)
        self.step = self._arrive(self.world.reset(seed))
        return self.world

    def _arrive(self, step: WorldStep) -> WorldStep:
        self.session.notice(step.labels)
        step = perceived(step, self.session, self.layout)
        self.session.forget(step.first.all(1) | ~step.alive.any(1))
        there = step.alive & ~step.first
        self.session.deliver(there, there)
        return step

    def pass_steps(self, steps: int, learning: bool = True) -> Looks:
        """So many steps of all worlds."""
        rewards, load = [], 0
        self.world.metrics()
        for _ in range(steps):
            alive, labels, mail = self.step.alive, self.step.labels, self.session.mail
            assert labels is not None
            assert mail is not None
            self.counters.hear(*heard_in(mail))
            actions = self.counters.act(labels.masked_fill(~alive, -1).numpy())
            words = torch.from_numpy(self.counters.say()).to(self.messages.dtype).view(alive.shape)
            self.session.send(words, alive, alive.any(1))
            load += int((words != 0).sum()) if self.session.air is None else len(self.session.air.log)
            after, living = self.world.step({NAME: torch.from_numpy(actions)}), alive.numpy()
            earned = after.rewards.numpy()
            rewards.append(earned[living])
            if learning:
                self.counters.learn(earned, living)
            self.env_steps += int(alive.any(1).sum())
            self.step = self._arrive(after)
        told = self.world.metrics()
        reward, nothing = float(np.concatenate(rewards).mean()), float("nan")
        counted = (told.get(name, nothing) for name in ("informed", "false_alarms"))
        return Looks(reward, *counted, load / steps / self.world.num_worlds)

    def agreement(self) -> Agreement:
        """On what they would say of each kind, asked of all."""
        names = self.counters.names()
        members, kinds = np.indices(names.shape)
        return jargon_agreement(names.reshape(-1), kinds.reshape(-1), members.reshape(-1), self.counters.kinds)

    def observe(self, jargon: float) -> None:
        """How well it goes, for reflexes that fade by it."""
        self.session.observe(Clock(self.env_steps, {"jargon": jargon}))


def heard_in(mail: Mail) -> tuple[Array, Array]:
    """Words and mask [B, N, K] of what reaches each seat."""
    worlds = torch.arange(len(mail.slots)).view(-1, 1, 1)
    return mail.messages[worlds, mail.slots].numpy().astype(np.int64), mail.mask.numpy()
