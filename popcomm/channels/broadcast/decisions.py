"""Who repeats what it heard: decision functions of word repetition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from popcomm.channels.broadcast.moment import Measured, Moment
from popcomm.channels.broadcast.sketch import WIDEST, pair_key
from popcomm.channels.broadcast.sketch import CountMin as Sketch
from popcomm.checks import finite, number, true_or_false, whole
from popcomm.errors import UserError
from popcomm.references import made

# Above this a channel takes hundreds of steps to settle, and a little learned echo carries it over 1.
HIGHEST_TARGET = 0.95


class Decision:
    """Base of decisions; one of your own needs `probabilities`.

    `reproduction` is R, the mean number of repetitions of a transmission, where the decision itself knows it.
    """

    reproduction: float | None = None

    def bind(self, num_agents: int) -> None:
        """Check that this fits N agents; raises UserError if not."""

    def open(self, num_worlds: int, seed: int) -> None:
        """Make room for what is remembered of B worlds; nothing is remembered yet."""

    def probabilities(self, indegree: np.ndarray) -> float | np.ndarray:
        """With which probability a seat repeats a word that it received.

        Args:
            indegree: [N] or [B, N], how many seats it hears, itself included where it hears itself.

        Returns:
            one number, [N] or [B, N], in [0, 1].
        """
        raise NotImplementedError

    def allows(self, moment: Moment, entry: np.ndarray, listener: np.ndarray) -> np.ndarray | None:
        """A veto on repetitions about to be made, (entry, listener) [C]: bool [C], or None to allow all."""
        return None

    def observe(self, measured: Measured) -> None:
        """Take note of what came of it, once a step."""

    def forget(self, worlds: np.ndarray) -> None:
        """New episodes begin in worlds [B] bool."""

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `get_state`."""


class Bernoulli(Decision):
    """All repeat with the same probability.

    R is p times the number of listeners; from 1 on words multiply until the log is full, and its drops hold them.

    Raises:
        UserError: p outside [0, 1].
    """

    def __init__(self, p: float) -> None:
        self.p = probability("decision.p", p)

    def probabilities(self, indegree: np.ndarray) -> float:
        """One number for all, whatever the indegree."""
        return self.p


class PerAgent(Decision):
    """Each seat has a probability of its own.

    Raises:
        UserError: a probability outside [0, 1], or (when bound) not one for each seat.
    """

    def __init__(self, p: Sequence[float]) -> None:
        if isinstance(p, str | Mapping) or not np.iterable(p):
            raise UserError(f"decision.p is {p!r}, and must be a list of probabilities, one for each seat")
        self.p = np.array([probability(f"decision.p[{i}]", value) for i, value in enumerate(p)])

    def bind(self, num_agents: int) -> None:
        """Raises UserError: p is not of N agents."""
        if len(self.p) != num_agents:
            raise UserError(f"decision.p has {len(self.p)} probabilities, and there are {num_agents} agents")

    def probabilities(self, indegree: np.ndarray) -> np.ndarray:
        """[N], whatever the indegree."""
        return self.p


class LocalRule(Decision):
    """p_j = target / (how many j hears): makes R the target on any graph, and nobody needs to know more than its inbox.

    All columns of the next-generation matrix T diag(p) then sum to the target, which is thus its spectral radius. Who
    is absent or cannot speak does not count as heard; where words are lost on the way (`dropout`), R is less by their
    share.

    Raises:
        UserError: a target outside [0, 0.95]; from 1 on words multiply without end, and this rule has no brake.
    """

    def __init__(self, target: float = 0.5) -> None:
        finite("decision.target", target)
        number("decision.target", target, "not be negative", least=0)
        if target >= 1:
            raise UserError(
                f"decision.target is {target}, and must be below 1: each word would then be repeated at least once on "
                "average, and the load grow without end; a target of 1 or more needs the brake of decision 'controlled'"
            )
        if target > HIGHEST_TARGET:
            raise UserError(
                f"decision.target is {target}, and must be at most {HIGHEST_TARGET}: a little learned echo would carry "
                "R over 1; use the brake of decision 'controlled'"
            )
        self.target = self.reproduction = float(target)

    def probabilities(self, indegree: np.ndarray) -> np.ndarray:
        """Shaped as indegree; 0 where nobody is heard."""
        hears = np.maximum(indegree, 1e-12)
        return np.where(indegree > 0, np.minimum(self.target / hears, 1.0), 0.0)


class CountMin(Decision):
    """An agent repeats a word only while it has repeated it fewer than `cap` times: a hard bound.

    Its count is a count-min sketch, which never counts too little, so of any word's spread at most
    1 + agents x cap transmissions happen in a window, whatever the probabilities. Every `window` steps all counts are
    halved; a new episode starts from zero.

    Args:
        cap: repetitions of a word by an agent in a window.
        decision: with which probability it repeats below the cap; None: surely.
        width, depth: of the sketch of each world; a width is a power of two.

    Raises:
        UserError: a number below 1, or a width that is no power of two from 2 on.
    """

    def __init__(
        self, cap: int, decision: Decision | dict[str, Any] | None = None, window: int = 64, width: int = 4096,
        depth: int = 2,
    ) -> None:  # fmt: skip
        self.cap, self.window = whole("decision.cap", cap, 1), whole("decision.window", window, 1)
        self.width, self.depth = whole("decision.width", width, 2), whole("decision.depth", depth, 1)
        if self.width & (self.width - 1) or self.width > WIDEST:
            near = min(1 << self.width.bit_length(), WIDEST)
            raise UserError(f"decision.width is {width}, and must be a power of two up to {WIDEST}; the next is {near}")
        self.decision = Bernoulli(1.0) if decision is None else make_decision(decision)
        self.reproduction = self.decision.reproduction
        self._sketch: Sketch | None = None
        self._steps = 0

    def bind(self, num_agents: int) -> None:
        self.decision.bind(num_agents)

    def open(self, num_worlds: int, seed: int) -> None:
        self._sketch = Sketch(num_worlds, width=self.width, depth=self.depth, seed=seed)
        self._steps = 0
        self.decision.open(num_worlds, seed + 1)

    def probabilities(self, indegree: np.ndarray) -> float | np.ndarray:
        """Those of the decision within; `allows` does the counting."""
        return self.decision.probabilities(indegree)

    def allows(self, moment: Moment, entry: np.ndarray, listener: np.ndarray) -> np.ndarray:
        """Never None: copies of a word above `cap` are vetoed, beside what the decision within vetoes."""
        assert self._sketch is not None
        inner = self.decision.allows(moment, entry, listener)
        allowed = np.ones(len(entry), bool) if inner is None else inner.copy()
        world = moment.log.world[entry]
        keys = pair_key(listener, moment.log.word[entry])
        # Copies of a word that reach an agent in the same step are counted one after the other.
        candidates = np.flatnonzero(allowed)
        turn = occurrence(world[candidates], keys[candidates])
        before = self._sketch.estimate(world[candidates], keys[candidates])
        allowed[candidates] = before + turn < self.cap
        self._sketch.add(world[allowed], keys[allowed])
        return allowed

    def observe(self, measured: Measured) -> None:
        # Windows are of steps, and not of steps in which some world had something to repeat: what happens in a world
        # does not depend on the others.
        self._steps += 1
        if self._sketch is not None and self._steps % self.window == 0:
            self._sketch.decay()
        self.decision.observe(measured)

    def forget(self, worlds: np.ndarray) -> None:
        if self._sketch is not None:
            self._sketch.reset(worlds)
        self.decision.forget(worlds)

    def get_state(self) -> dict[str, Any]:
        sketch = None if self._sketch is None else self._sketch.get_state()
        return {"steps": self._steps, "sketch": sketch, "decision": self.decision.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._steps = state["steps"]
        if self._sketch is not None and state["sketch"] is not None:
            self._sketch.set_state(state["sketch"])
        self.decision.set_state(state["decision"])


class Controlled(Decision):
    """The local rule, its target kept by measurement: what agents repeat by themselves is left out of the reflex.

    Each step R is estimated (repetitions, learned ones included, over the transmissions they came from, each a moving
    average over about `horizon` steps), and the probabilities are scaled by exp(gain (target - R)). Where the reflex
    fades, the target fades with it. The brake scales the probabilities in a world whose log is more than half full,
    down to zero where it is full; R is what it would be without the brake. Up to a target of 1.5 the load then settles
    at 1 - 1 / (2 target) of the log's capacity; with more it swings between a full and an empty log.

    Raises:
        UserError: a target above 0.95 without the brake, a gain that is not positive, a horizon below 1.
    """

    def __init__(self, target: float = 0.5, brake: bool = True, gain: float = 0.02, horizon: float = 50.0) -> None:
        for key, value in (("target", target), ("gain", gain), ("horizon", horizon)):
            finite(f"decision.{key}", value)
        number("decision.target", target, "not be negative", least=0)
        if not brake and target > HIGHEST_TARGET:
            reason = "words would multiply without end" if target >= 1 else "a little learned echo would carry R over 1"
            raise UserError(
                f"decision.target is {target} without a brake, and must be at most {HIGHEST_TARGET}: {reason}"
            )
        true_or_false("decision.brake", brake)
        number("decision.gain", gain, "be above 0", above=0)
        number("decision.horizon", horizon, "be at least 1 step", least=1)
        self.target, self.brake, self.gain, self.keep = float(target), brake, float(gain), 1 - 1 / float(horizon)
        self.reproduction = self.target if self.target < 1 else None
        self.open(1, 0)

    def open(self, num_worlds: int, seed: int) -> None:
        self.scale, self._children, self._parents = 1.0, 0.0, 0.0
        self._braked = 0  # repetitions of this step that the brake held back

    @property
    def estimate(self) -> float:
        """R as measured; the target before anything was."""
        return self._children / self._parents if self._parents else self.target

    def probabilities(self, indegree: np.ndarray) -> np.ndarray:
        """Shaped as indegree; 0 where nobody is heard."""
        hears = np.maximum(indegree, 1e-12)
        return np.where(indegree > 0, np.minimum(self.scale * self.target / hears, 1.0), 0.0)

    def allows(self, moment: Moment, entry: np.ndarray, listener: np.ndarray) -> np.ndarray | None:
        """None without a brake, or while no log is more than half full."""
        if not self.brake:
            return None
        left = np.clip(2.0 - 2.0 * moment.load / moment.capacity, 0.0, 1.0)
        if left.min() >= 1:
            return None
        allowed = moment.rng.random(len(entry)) < left[moment.log.world[entry]]
        # They count as made, or the scale would rise against the brake until the load swings.
        self._braked = len(allowed) - int(allowed.sum())
        return allowed

    def observe(self, measured: Measured) -> None:
        if not measured.parents:
            return  # Silence says nothing about R, and an old estimate must not go on turning the scale.
        self._children = self.keep * self._children + measured.repeats + measured.echoes + self._braked
        self._braked = 0
        self._parents = self.keep * self._parents + measured.parents
        error = measured.strength * self.target - self.estimate
        # A scale beyond these bounds changes nothing any more, and would take long to come back from.
        turn = float(np.clip(self.gain * error, -1.0, 1.0))
        self.scale = float(np.clip(self.scale * math.exp(turn), 1e-3, 10.0))

    def get_state(self) -> dict[str, Any]:
        return {"scale": self.scale, "children": self._children, "parents": self._parents}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.scale, self._children, self._parents = state["scale"], state["children"], state["parents"]


def occurrence(world: np.ndarray, key: np.ndarray) -> np.ndarray:
    """How many equal (world, key) stand before each: [C] int64."""
    order = np.lexsort((np.arange(len(key)), key, world))
    same = np.zeros(len(order), bool)
    same[1:] = (world[order[1:]] == world[order[:-1]]) & (key[order[1:]] == key[order[:-1]])
    place = np.arange(len(order))
    start = np.maximum.accumulate(np.where(same, 0, place))
    turn = np.empty(len(order), np.int64)
    turn[order] = place - start
    return turn


def probability(key: str, value: Any) -> float:
    """The value, which must be a probability.

    Raises:
        UserError: it is not.
    """
    number(key, value)
    return number(key, value, "be a probability, from 0 to 1", least=0, most=1)


DECISIONS: dict[str, type] = {
    "bernoulli": Bernoulli,
    "per_agent": PerAgent,
    "local_rule": LocalRule,
    "count_min": CountMin,
    "controlled": Controlled,
}


def make_decision(value: Decision | dict[str, Any] | str) -> Decision:
    """A decision from its config mapping, e.g. {"kind": "local_rule", "target": 0.5}.

    Raises:
        UserError: no such decision, arguments that do not fit it, or a class that is no subclass of Decision.
    """
    decision = made("decision", value, DECISIONS, "probabilities")
    if not isinstance(decision, Decision):
        raise UserError(f"decision is {decision!r}, and must be an object of a subclass of Decision")
    return decision
