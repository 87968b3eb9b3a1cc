"""Reflexes of c11np: what happens on a channel without the agents' doing, to keep it alive until a jargon forms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from popcomm.channels.broadcast.decisions import (
    DECISIONS,
    HIGHEST_TARGET,
    Bernoulli,
    Controlled,
    CountMin,
    Decision,
    LocalRule,
    PerAgent,
    make_decision,
    probability,
)
from popcomm.channels.broadcast.log import PUBLISHED, Log, entries
from popcomm.channels.broadcast.moment import Measured, Moment, first_of_word
from popcomm.channels.broadcast.reflex import Reflex
from popcomm.checks import number, one_of, true_or_false
from popcomm.errors import UserError, nearest
from popcomm.references import made
from popcomm.schedules import Clock, LoadLinear, Schedule

if TYPE_CHECKING:
    from popcomm.channels.words import Words

__all__ = [
    "DECISIONS",
    "REFLEXES",
    "Bernoulli",
    "Controlled",
    "CountMin",
    "Decision",
    "ImmediateFeedback",
    "LocalRule",
    "PerAgent",
    "Publishing",
    "Reflex",
    "SensoryDeprivation",
    "WordRepetition",
    "make_reflex",
]


class ImmediateFeedback(Reflex):
    """A transmission reaches every recipient, its sender included, one step later; at strength s with probability s."""

    name = "immediate_feedback"

    def __init__(self, schedule: Schedule | dict[str, Any] | float | None = None) -> None:
        super().__init__(schedule)
        self._not_in_load()

    def feedback(self, clock: Clock) -> float:
        return self.strength(clock)


class WordRepetition(Reflex):
    """Each word that an agent receives it sends again at once with a probability that `decision` says.

    Args:
        decision: who repeats what; LocalRule(0.5) if None.
        slot: "parallel": a repetition goes out beside the agent's own word; the branching theory is then exact.
            "hijack": it goes out instead, one transmission for each agent and step at most.
        dedup: decide once a step for each word, however often it was received.
        schedule: how it fades; the strength multiplies the probabilities.

    Raises:
        UserError: an unknown slot or decision.
    """

    name = "word_repetition"
    SLOTS = ("parallel", "hijack")

    def __init__(
        self,
        decision: Decision | dict[str, Any] | str | None = None,
        slot: str = "parallel",
        dedup: bool = False,
        schedule: Schedule | dict[str, Any] | float | None = None,
    ) -> None:
        super().__init__(schedule)
        one_of("reflex word_repetition: slot", slot, self.SLOTS)
        true_or_false("reflex word_repetition: dedup", dedup)
        self.decision = LocalRule() if decision is None else make_decision(decision)
        self._strength = 1.0  # in the last step
        self.takes_turn, self.dedup = slot == "hijack", dedup
        if isinstance(self.schedule, LoadLinear) and self.decision.reproduction is None:
            raise UserError(
                "reflex word_repetition: the schedule 'load_linear' needs a decision that knows its R, such as "
                "'local_rule'; use 'linear'"
            )

    def bind(self, messages: Words, num_agents: int) -> None:
        self.decision.bind(num_agents)

    def open(self, num_worlds: int, seed: int) -> None:
        self.decision.open(num_worlds, seed)

    def strength(self, clock: Clock) -> float:
        """The factor of the probabilities; under a fade in load, R(t) / R0."""
        if self.decision.reproduction is None:
            return self.schedule.strength(clock)
        return self.schedule.of_repetition(clock, self.decision.reproduction)

    def transmissions(self, moment: Moment) -> Log | None:
        """None where nothing is repeated. Raises UserError: the decision gives no probabilities."""
        self._strength = strength = self.strength(moment.clock)
        if strength <= 0 or not len(moment.log):
            return None
        chance = np.asarray(self.decision.probabilities(moment.indegree))
        if not (chance.min() >= 0 and chance.max() <= 1):
            name = type(self.decision).__name__
            raise UserError(f"decision {name} gives {chance.min()} to {chance.max()}, and a probability is in [0, 1]")
        entry, listener = moment.copies(strength * chance)
        if self.dedup:
            first = first_of_word(moment, entry, listener)
            entry, listener = entry[first], listener[first]
        if self.takes_turn:
            # Entries stand in random order, so the first of an agent's repetitions is any of them.
            agent = moment.log.world[entry].astype(np.int64) * moment.hears.shape[1] + listener
            chosen = np.unique(agent, return_index=True)[1]
            entry, listener = entry[chosen], listener[chosen]
        # Last, so that a decision which counts what it allows counts what is made.
        allowed = self.decision.allows(moment, entry, listener)
        if allowed is not None:
            entry, listener = entry[allowed], listener[allowed]
        log = moment.log
        return entries(log.world[entry], log.word[entry], listener, log.generation[entry] + 1)

    def observe(self, measured: Measured) -> None:
        self.decision.observe(measured._replace(strength=self._strength))

    def forget(self, worlds: np.ndarray) -> None:
        self.decision.forget(worlds)

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "decision": self.decision.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self.decision.set_state(state["decision"])


class Publishing(Reflex):
    """Poisson(rate) fresh words a step in every world, heard by all, from nobody (source -1).

    Args:
        rate: words per world and step.
        when: "always", or "events": only in steps in which some seat of the world perceives what the world has a label
            for, such as a predator; a word is then heard one step after the event was seen. Nothing is published where
            nobody tells labels, as in a PettingZoo loop.
        source: "uniform": any words, with equal probability; or packed words to choose from, as numbers (bit i worth
            2**i) or as the signed patterns that channels carry.
        schedule: how it fades; the strength multiplies the rate.

    Raises:
        UserError: a rate that is negative or not finite, an unknown `when`, or (when bound) something in `source` that
            is no word.
    """

    name = "publishing"
    WHEN = ("always", "events")

    def __init__(
        self,
        rate: float = 1.0,
        source: str | Sequence[int] = "uniform",
        schedule: Schedule | dict[str, Any] | float | None = None,
        when: str = "always",
    ) -> None:
        super().__init__(schedule)
        self._not_in_load()
        self.needs_labels = one_of("reflex publishing: when", when, self.WHEN) == "events"
        number("reflex publishing: rate", rate, "be a number of words, 0 or more", least=0, below=math.inf)
        if isinstance(source, str) and source != "uniform":
            raise UserError(f"reflex publishing: source is {source!r}; {nearest(source, ['uniform'])}, or a list")
        if not isinstance(source, Sequence | np.ndarray):
            raise UserError(f"reflex publishing: source is {source!r}, and must be 'uniform' or a list of packed words")
        if not isinstance(source, str) and not len(source):
            raise UserError("reflex publishing: source is an empty list, and must hold at least one word")
        self.rate, self.source = float(rate), source
        self._messages: Words | None = None
        self._choices: np.ndarray | None = None

    def bind(self, messages: Words, num_agents: int) -> None:
        self._messages = messages
        if not isinstance(self.source, str):
            self._choices = _packed(messages, self.source)

    def transmissions(self, moment: Moment) -> Log | None:
        assert self._messages is not None, "a reflex is bound to a channel before it acts"
        rate = self.rate * self.strength(moment.clock)
        count = moment.rng.poisson(rate, moment.num_worlds) * moment.lively
        if self.needs_labels:
            count = count * moment.noticed
        world = np.repeat(np.arange(moment.num_worlds, dtype=np.int32), count)
        if self._choices is None:
            words = self._messages.uniform(moment.rng, len(world))
        else:
            words = self._choices[moment.rng.integers(0, len(self._choices), len(world))]
        return entries(world, words, PUBLISHED)


class SensoryDeprivation(Reflex):
    """Takes away what agents see of the environment, so that they must listen: never the channel, nor an action mask.

    Args:
        mode: "withdraw": zeros; "noise": a bounded sample of the observation space.
        who: seats that it may befall; None: all.
        when: the probability with which it befalls each of them in a step; or (period, length): in the first `length`
            of every `period` steps that the worlds make.
        schedule: how it fades; the strength multiplies the probability.

    Raises:
        UserError: an unknown mode, a probability outside [0, 1], a length above its period, (when bound) no such seat.
    """

    name = "sensory_deprivation"
    MODES = ("withdraw", "noise")

    def __init__(
        self,
        mode: str = "withdraw",
        who: Sequence[int] | None = None,
        when: float | Sequence[int] = 0.1,
        schedule: Schedule | dict[str, Any] | float | None = None,
    ) -> None:
        super().__init__(schedule)
        self._not_in_load()
        one_of("reflex sensory_deprivation: mode", mode, self.MODES)
        if isinstance(who, str) or not (who is None or isinstance(who, Sequence | np.ndarray)):
            raise UserError(f"reflex sensory_deprivation: who is {who!r}, and must be a list of seats")
        self.mode, self.who, self.when = mode, who, when
        self._steps = 0
        if isinstance(when, Sequence) and not isinstance(when, str):
            whole_numbers = len(when) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in when)
            if not whole_numbers or not 0 < when[1] <= when[0]:
                raise UserError(
                    f"reflex sensory_deprivation: when is {list(when)!r}, and must be a probability or "
                    "[period, length] with 0 < length <= period, in steps"
                )
        else:
            self.when = probability("reflex sensory_deprivation: when", when)

    def bind(self, messages: Words, num_agents: int) -> None:
        """Raises UserError: `who` has a seat that is not there."""
        for seat in self.who if self.who is not None else ():
            if isinstance(seat, bool) or not isinstance(seat, Integral) or not 0 <= seat < num_agents:
                raise UserError(f"reflex sensory_deprivation: who has {seat!r}, and seats are 0 to {num_agents - 1}")

    def open(self, num_worlds: int, seed: int) -> None:
        self._steps = 0

    def deprived(self, clock: Clock, num_worlds: int, num_agents: int, rng: np.random.Generator) -> np.ndarray:
        may = np.zeros(num_agents, bool)
        may[slice(None) if self.who is None else list(self.who)] = True
        if isinstance(self.when, float):
            chance = self.when
        else:
            period, length = self.when
            chance = float(self._steps % period < length)
        self._steps += 1
        return may & (rng.random((num_worlds, num_agents)) < chance * self.strength(clock))

    def perceive(self, values: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Zeros, or what is nearest to zero within bounds; or uniform noise, within [-1, 1] where there is no bound."""
        if self.mode == "withdraw":
            return np.broadcast_to(np.clip(0.0, low, high), values.shape).astype(values.dtype)
        bottom = np.where(np.isfinite(low), low, np.minimum(-1.0, high - 1.0))
        top = np.where(np.isfinite(high), high, np.maximum(1.0, bottom + 1.0))
        return rng.uniform(bottom, top, values.shape).astype(values.dtype)

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "steps": self._steps}

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self._steps = state["steps"]


def _packed(messages: Words, words: Sequence[int]) -> np.ndarray:
    """Packed words [W] from numbers or signed patterns; raises UserError for what is no word of that kind."""
    size = 32 if messages.bits <= 32 else 64
    lowest = -(2 ** (size - 1)) if messages.bits == size else 1
    for word in words:
        if isinstance(word, bool) or not isinstance(word, Integral) or not lowest <= word < 2**messages.bits:
            raise UserError(
                f"reflex publishing: source has {word!r}, and a packed word is a number above 0 of {messages.bits} bits"
            )
    packed = np.array([int(word) % 2**size for word in words], f"uint{size}").view(f"int{size}")
    gated = messages.gated(torch.from_numpy(packed)).numpy()
    if not gated.all():
        word = words[int(np.flatnonzero(gated == 0)[0])]
        raise UserError(f"reflex publishing: source has {word}, and it is no word: {messages.rule()}")
    return packed


def check_together(reflexes: Sequence[Reflex]) -> None:
    """Raises UserError for several repetitions without a brake that together pass what each may target."""
    targets = [
        reflex.decision.target
        for reflex in reflexes
        if isinstance(reflex, WordRepetition) and isinstance(reflex.decision, LocalRule)
    ]
    if sum(targets) > HIGHEST_TARGET:
        raise UserError(
            f"communication.reflexes repeat words with R = {sum(targets):g} together, and without a brake it must be "
            f"at most {HIGHEST_TARGET}: words would multiply without end"
        )


REFLEXES: dict[str, type] = {
    "immediate_feedback": ImmediateFeedback,
    "word_repetition": WordRepetition,
    "sensory_deprivation": SensoryDeprivation,
    "publishing": Publishing,
}


def make_reflex(value: Reflex | dict[str, Any] | str) -> Reflex:
    """A reflex from its config mapping, e.g. {"kind": "word_repetition", "decision": {"kind": "local_rule"}}.

    Raises:
        UserError: no such reflex, arguments that do not fit it, or a class that is no subclass of Reflex.
    """
    reflex = made("communication.reflexes", value, REFLEXES, "strength")
    if not isinstance(reflex, Reflex):
        raise UserError(f"communication.reflexes has {reflex!r}, and must hold objects of subclasses of Reflex")
    return reflex
