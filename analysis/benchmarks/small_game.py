"""A small game: what few speakers saw, few listeners must name a function of. How games are drawn and what they pay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np

from popcomm.checks import whole
from popcomm.envs.scripted import References
from popcomm.errors import UserError, unknown

# {name: the fewest speakers that it takes}
FUNCTIONS: Mapping[str, int] = MappingProxyType({"copy": 1, "sum": 2, "parity": 2, "maximum": 2, "which": 2})
MOST = {"speakers": 3, "listeners": 2, "delay": 3}
KINDS = (2, 3, 4)
# Of the games that are drawn: silence earns no more than this, so that .9 of the oracle takes talk.
DEAF_AT_MOST = 0.75
FORWARDING_SHARE = 1 / 3


@dataclass(frozen=True)
class Game:
    """S speakers each see a part, one of K kinds, in step 0 alone; L listeners must name a function of all parts.

    The parts of all worlds' episodes are drawn evenly from `cases`. The functions, of the parts x_0 ... x_(S - 1):
    "copy", x_0; "sum"; "parity", the sum modulo 2; "maximum"; "which", 0 if x_0 > x_1 and 1 if x_0 < x_1 (they are
    never the same). Parts that a function does not look at are there to be ignored.

    Seats are the speakers, the relay if there is `forwarding`, and the listeners. All hear all others, but with
    forwarding a listener hears the relay alone. What is said in a step is heard in the next one, and what is heard in a
    step can be a part of what is said in it, so a listener can know in step `hops`, and must answer in step
    `hops + delay - 1`, the last one.

    **Without memory** a game can still be won if others say again what is forgotten. Nobody hears itself, so with one
    knower the answer comes back to it after two steps: delays of 1 and 3 always can be won so. A delay of 2 can where
    two listeners know the answer and tell each other (without forwarding), and where there are two speakers, who swap
    their parts in step 1 and thereby say them twice. With one speaker and one listener or a relay it cannot: in step 1,
    whoever says what is heard in step 2 has heard nothing. `plain_without_memory` says where it can by the protocol of
    `popcomm.analysis.benchmarks.small_game_protocol`; `draw_game` draws no others, so the oracle of every game is 1 for
    agents with and without memory.

    **Alphabet.** In that protocol a speaker says its part (of a parity, the part modulo 2), those who know it the
    answer. Messages are one symbol without a sender's name, as networks hear them. `symbols_needed` counts what is
    said so; cleverer protocols may do with less.

    Raises:
        UserError: a number out of its range, an unknown function, or one that takes more speakers.
    """

    function: str
    speakers: int
    listeners: int
    kinds: int
    delay: int
    forwarding: bool
    vocab_size: int = 0  # 0: as many as are needed

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise unknown("small game: function", self.function, FUNCTIONS)
        for key, least in {"speakers": FUNCTIONS[self.function], "listeners": 1, "delay": 1}.items():
            if whole(f"small game: {key}", getattr(self, key), least) > MOST[key]:
                raise UserError(f"small game: {key} is {getattr(self, key)}, and must be at most {MOST[key]}")
        whole("small game: kinds", self.kinds, 2)
        if not isinstance(self.forwarding, bool):
            raise UserError(f"small game: forwarding is {self.forwarding!r}, and must be true or false")
        if not self.vocab_size:
            object.__setattr__(self, "vocab_size", self.symbols_needed)
        whole("small game: vocab_size", self.vocab_size, 2)

    @property
    def num_agents(self) -> int:
        """N."""
        return self.speakers + self.forwarding + self.listeners

    @property
    def hops(self) -> int:
        """The first step in which a listener can know."""
        return 1 + self.forwarding

    @property
    def max_steps(self) -> int:
        """Steps of an episode; the answer is given in the last one."""
        return self.hops + self.delay

    @property
    def cases(self) -> np.ndarray:
        """[C, S] int64, all parts that there can be, each as likely as the others."""
        parts = np.array(list(product(range(self.kinds), repeat=self.speakers)), np.int64)
        return parts[parts[:, 0] != parts[:, 1]] if self.function == "which" else parts

    @property
    def right(self) -> np.ndarray:
        """[C] int64, what is to be named in every case."""
        x = self.cases
        if self.function == "which":
            return (x[:, 0] < x[:, 1]).astype(np.int64)
        if self.function == "copy":
            return x[:, 0]
        if self.function == "maximum":
            return x.max(1)
        total: np.ndarray = x.sum(1)
        return total % 2 if self.function == "parity" else total

    @property
    def answers(self) -> int:
        """How many different ones there are; actions are 0 ... answers - 1."""
        return int(self.right.max()) + 1

    @property
    def swaps(self) -> bool:
        """Whether the plain protocol has two speakers say each other's part again."""
        return self.delay == 2 and self.speakers == 2

    @property
    def plain_without_memory(self) -> bool:
        """Whether it can be won without memory; see above."""
        tell_each_other = self.listeners == 2 and not self.forwarding
        return self.delay != 2 or self.swaps or tell_each_other

    @property
    def symbols_needed(self) -> int:
        """The alphabet of the plain protocol; see above."""
        parts = 2 if self.function == "parity" else self.kinds
        says_the_answer = self.forwarding or (self.delay > 1 and not self.swaps)
        return max(parts, self.answers) if says_the_answer else parts

    @property
    def adjacency(self) -> np.ndarray:
        """[N, N] bool, [i, j] is True where seat j hears seat i."""
        hears = ~np.eye(self.num_agents, dtype=bool)
        if self.forwarding:
            relay = self.speakers
            hears[:, relay + 1 :] = False
            hears[relay, relay + 1 :] = True
        return hears

    @property
    def env_config(self) -> dict[str, Any]:
        """What the SmallGameWorld of this game is made of."""
        return {key: value for key, value in asdict(self).items() if key != "vocab_size"}

    @property
    def communication(self) -> dict[str, Any]:
        """The section of a config: one symbol to all who can hear it."""
        topology = {"kind": "custom", "adjacency": self.adjacency.tolist()} if self.forwarding else {"kind": "full"}
        return {"messages": {"kind": "symbols", "vocab_size": self.vocab_size, "length": 1}, "topology": topology}


def references(game: Game) -> References:
    """Expected returns: a listener's answers at random are right in one of `answers` cases; the deaf one always names
    what is right most often; the oracle is 1, which the plain protocol reaches."""
    shares = np.bincount(game.right) / len(game.right)
    return References(random=1.0 / game.answers, silent=float(shares.max()), oracle=1.0)


def draw_game(rng: np.random.Generator) -> Game:
    """A game of the family: any function, numbers within MOST and KINDS, an alphabet at the need or up to twice that.

    Games that silence nearly wins (DEAF_AT_MOST) and those that the plain protocol cannot win without memory are drawn
    again.
    """
    while True:
        function = str(rng.choice(list(FUNCTIONS)))
        least = Game(
            function,
            speakers=int(rng.integers(FUNCTIONS[function], MOST["speakers"] + 1)),
            listeners=int(rng.integers(1, MOST["listeners"] + 1)),
            kinds=int(rng.choice(KINDS)),
            delay=int(rng.integers(1, MOST["delay"] + 1)),
            forwarding=bool(rng.random() < FORWARDING_SHARE),
        )
        more = int(rng.integers(1, least.symbols_needed + 1)) if rng.random() < 0.5 else 0
        if least.plain_without_memory and references(least).silent <= DEAF_AT_MOST:
            return Game(**least.env_config, vocab_size=least.symbols_needed + more)
