"""The channel of words: transmissions, gate and sketch per CPU second, and its share of a training step."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from popcomm.analysis.benchmarks.common import Measurement, Work, alternating, median, median_ratio
from popcomm.analysis.benchmarks.training import PLAIN_TALK, PPO, local_ray, trained

from popcomm.channels import Full, Words
from popcomm.channels.broadcast.air import Air
from popcomm.channels.broadcast.dimensions import dimensions
from popcomm.channels.broadcast.reflexes import ImmediateFeedback, LocalRule, WordRepetition
from popcomm.channels.broadcast.sketch import CountMin
from popcomm.channels.words.codes import passes
from popcomm.rllib import PopulationPPOConfig

AGENTS_IN_ALL = 1_000_000
BARS = {10: 10e6, 100: 15e6, 1000: 10e6}  # agents in a world -> transmissions per CPU second
SPEAKING, TARGET = 0.5, 0.5  # share of agents that say a word in a step; R of the reflex
SHARE = 0.15
UNIT = "transmissions / CPU s"
REFLEXES = [
    {"kind": "immediate_feedback"},
    {"kind": "word_repetition", "decision": {"kind": "local_rule", "target": TARGET}},
]


def run(quick: bool = False) -> list[Measurement]:
    """Rates of the parts, then the share of training."""
    torch.set_num_threads(1)
    return [*_transmissions(quick), *_parts(quick), *_share_of_training(quick)]


class Chatter:
    """Worlds whose agents say random words, and repeat what they hear; all hear all."""

    def __init__(self, agents: int, in_all: int) -> None:
        self.words, worlds = Words(), in_all // agents
        reflexes = [ImmediateFeedback(), WordRepetition(LocalRule(TARGET))]
        size = dimensions(Full(), reflexes, agents, None, 1)
        self.air = Air(self.words, Full(), reflexes, agents, worlds, size)
        rng = np.random.default_rng(0)
        self.said = [
            np.where(rng.random((worlds, agents)) < SPEAKING, self._uniform(rng, worlds, agents), 0) for _ in range(4)
        ]
        self.everybody = np.ones((worlds, agents), bool)
        self.step = 0

    def _uniform(self, rng: np.random.Generator, worlds: int, agents: int) -> np.ndarray:
        return self.words.uniform(rng, worlds * agents).reshape(worlds, agents)

    def steps(self, count: int = 4) -> int:
        """Make so many; returns the transmissions. What comes after the first is near the stationary load."""
        done = 0
        for _ in range(count):
            self.air.listen(self.everybody, self.everybody)
            self.air.transmit(self.said[self.step % len(self.said)], self.everybody)
            self.step += 1
            done += len(self.air.log)
        return done


def _transmissions(quick: bool) -> list[Measurement]:
    in_all = AGENTS_IN_ALL // 20 if quick else AGENTS_IN_ALL
    chatter = {agents: Chatter(agents, in_all) for agents in BARS}
    rates = alternating({str(n): c.steps for n, c in chatter.items()}, 1 if quick else 7, 0.1 if quick else 0.5)
    results = []
    for agents, bar in BARS.items():
        case = f"{in_all // agents:,} worlds x {agents:,} agents"
        samples = tuple(rates[str(agents)])
        heard = tuple(agents * r for r in samples)
        results += [
            Measurement("channel", f"{case}: transmissions", median(samples), UNIT, bar, samples=samples),
            Measurement("channel", f"{case}: deliveries", median(heard), "deliveries / CPU s", samples=heard),
        ]
    return results


def _parts(quick: bool) -> list[Measurement]:
    """What single parts do, in millions a CPU second."""
    kind, rng, count, worlds = Words(), np.random.default_rng(0), 10_000 if quick else 200_000, 1000
    words = kind.uniform(rng, count)
    world = np.sort(rng.integers(0, worlds, count))
    sketch = CountMin(worlds)

    def counted(work: Callable[[], Any]) -> Work:
        def call() -> int:
            work()
            return count

        return call

    params = torch.zeros(count // 10, *kind.params_shape)
    drawn = kind.sample(params, torch.Generator().manual_seed(0))
    works = {
        "words through the gate": counted(lambda: passes(words, kind.min_on, kind.max_on)),
        "uniform words drawn": counted(lambda: kind.uniform(rng, count)),
        "words counted in a sketch": counted(lambda: sketch.add(world, words)),
        "words looked up in a sketch": counted(lambda: sketch.estimate(world, words)),
        "words unpacked to floats": counted(lambda: kind.straight_through(torch.from_numpy(words), None)),
    }
    slow = {
        "words sampled from a law of bits": lambda: kind.sample(params) is None or count // 10,
        "log-probabilities of words": lambda: kind.log_prob(params, drawn) is None or count // 10,
        "entropies of laws of bits": lambda: kind.entropy(params) is None or count // 10,
    }
    rates = alternating({**works, **slow}, 1 if quick else 7, 0.05 if quick else 0.2)
    return [
        Measurement("channel", name, median(samples) / 1e6, "millions / CPU s", samples=tuple(samples))
        for name, samples in rates.items()
    ]


def training_config(quick: bool, **communication: Any) -> PopulationPPOConfig:
    """swarm.yaml's sizes with words: the default network, ten agents, full graph."""
    worlds = 10 if quick else 120
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 10})
        .communication(messages={"kind": "words"}, topology={"kind": "full"}, **communication)
        .population(agent="symbolic", members=10)
        .env_runners(num_env_runners=0, num_worlds_per_env_runner=worlds, rollout_fragment_length=8)
        .learners(num_learners=0)
        .training(**PPO, **PLAIN_TALK, num_epochs=4, minibatch_size=worlds)
        .debugging(seed=0)
    )


def _share_of_training(quick: bool) -> list[Measurement]:
    """CPU time spent in the air, over that of whole iterations; and an iteration beside one without reflexes."""
    configs = {
        "reflexes": training_config(quick, reflexes=REFLEXES),
        "none": training_config(quick),
    }
    clock = _Stopwatch()
    with local_ray(), clock, trained(configs["reflexes"], 10) as with_them, trained(configs["none"], 10) as without:
        shares = []

        def iterate() -> int:
            spent, start = clock.seconds, time.process_time()
            steps = with_them()
            shares.append((clock.seconds - spent) / (time.process_time() - start))
            return steps

        rates = alternating({"reflexes": iterate, "none": without}, 1 if quick else 5)
    cost = median_ratio(rates["none"], rates["reflexes"])
    samples = tuple(shares[1:])
    return [
        Measurement(
            "channel", "share of training spent in the channel", median(samples), "", SHARE, True, samples=samples
        ),
        Measurement("channel", "CPU time of an iteration, reflexes / plain words", cost, "times"),
    ]


class _Stopwatch:
    """Adds up the CPU time of everything that an Air does, while entered."""

    METHODS = ("listen", "inboxes", "transmit", "forget", "deprived")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._methods = {name: getattr(Air, name) for name in self.METHODS}

    def __enter__(self) -> _Stopwatch:
        for name, method in self._methods.items():
            setattr(Air, name, self._timed(method))
        return self

    def __exit__(self, *_: object) -> None:
        for name, method in self._methods.items():
            setattr(Air, name, method)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - start

        return timed
