"""popcomm beside BenchMARL on the same VMAS scenario, and beside EGG at equal batches; equal work, in one run.

The peers are no dependencies: what is not installed is left out and named.

    pip install "popcomm[peers]" && pip install git+https://github.com/facebookresearch/EGG
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from statistics import fmean
from typing import Any

import torch
from popcomm.analysis.benchmarks import peer_benchmarl, peer_egg
from popcomm.analysis.benchmarks.bare_loop import HIDDEN
from popcomm.analysis.benchmarks.common import Measurement, alternating, median, median_ratio, table
from popcomm.analysis.benchmarks.peer_benchmarl import Sizes
from popcomm.analysis.benchmarks.tally import Contender, accounts
from popcomm.analysis.benchmarks.training import PLAIN_TALK, PPO, building, local_ray, rows_of_popcomm

from popcomm.cli import documents, schema
from popcomm.rllib import PopulationPPOConfig

SPREAD, QUICK_SPREAD = Sizes(1024, 3, 25, 4, 4), Sizes(32, 3, 5, 2, 2)
SYMBOLS = {"kind": "symbols", "vocab_size": 16, "length": 2}
SPREAD_BARS = {"popcomm": 2.5, "popcomm with messages": 1.5}  # times BenchMARL
LENGTH = 8  # steps of popcomm's fragments of the game
MODES = {"straight-through": (), "Reinforce": ("communication.gradient=reinforce",)}
BATCHES, QUICK_BATCHES = {128: 16, 1024: 8}, {32: 4}  # rows of an update -> updates of an iteration
EGG_BARS = {"popcomm": 1.5}  # times EGG
# Accuracy is compared at this batch, after so many messages; sampled accuracies that differ by less are alike.
LEARNED_BATCH, LEARNED_MESSAGES, ALIKE = 128, 100_000, 0.01


def run(quick: bool = False) -> list[Measurement]:
    """All cases for which there is a peer; rates are per CPU second of this process."""
    torch.set_num_threads(1)
    results: list[Measurement] = []
    with local_ray():
        for measured in _cases(quick):
            print(table(measured), flush=True)  # the next case takes minutes
            results += measured
    return results


def _cases(quick: bool) -> Iterator[list[Measurement]]:
    often = (1, 0.0) if quick else (3, 1.5)
    if _there("benchmarl", "vmas"):
        yield beside_benchmarl(QUICK_SPREAD if quick else SPREAD, *often)
    if _there("egg"):
        for batch, updates in (QUICK_BATCHES if quick else BATCHES).items():
            for mode in MODES:
                yield beside_egg(mode, batch, updates, *often)
        for mode in MODES:
            yield learned_beside_egg(mode, LEARNED_BATCH, LEARNED_MESSAGES // (100 if quick else 1))


def _there(*modules: str) -> bool:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        print(f"peers: {', '.join(missing)} not installed, so not measured", flush=True)
    return not missing


def beside_benchmarl(sizes: Sizes, repetitions: int, min_seconds: float) -> list[Measurement]:
    """IPPO on VMAS' simple_spread; popcomm silent and with messages, BenchMARL silent, which is all that it has."""
    case = f"VMAS simple_spread, {sizes.worlds} x {sizes.agents}"
    with ExitStack() as stack:
        contenders = {
            name: stack.enter_context(_popcomm(spread_config(sizes, messages), sizes.agents))
            for name, messages in (("popcomm", None), ("popcomm with messages", SYMBOLS))
        }
        contenders["BenchMARL"] = stack.enter_context(peer_benchmarl.contender(sizes))
        return _compared(case, contenders, "BenchMARL", "agent-step", repetitions, min_seconds, SPREAD_BARS)


def beside_egg(mode: str, batch: int, updates: int, repetitions: int, min_seconds: float) -> list[Measurement]:
    """The reconstruction game of two attributes with ten values, `batch` messages for each update."""
    config = game_config(mode, batch, updates)
    with ExitStack() as stack:
        contenders = {"popcomm": stack.enter_context(_popcomm(config, 1, messages_of(config)))}
        contenders["EGG"] = peer_egg.Game(mode, batch).contender()
        return _compared(_game(mode, batch), contenders, "EGG", "message", repetitions, min_seconds, EGG_BARS)


def messages_of(config: PopulationPPOConfig) -> float:
    """Messages of an iteration that are answered."""
    rounds = config.env_config["rounds"]
    # Of rounds + 2 rows of an episode, the first hears nothing yet and the last one starts over.
    return config.num_worlds_per_env_runner * config.rollout_fragment_length * rounds / (rounds + 2)


def learned_beside_egg(mode: str, batch: int, messages: int) -> list[Measurement]:
    """Share of meanings understood in the last tenth of so many messages, by both anew.

    Words are sampled, and popcomm's answers, too, as in training; EGG's answers are the likeliest.
    """
    config, egg = game_config(mode, batch, BATCHES[batch]), peer_egg.Game(mode, batch)
    each = messages_of(config)
    algorithm = config.build_algo()
    ours = [algorithm.train()["popcomm"].get("world/accuracy", 0.0) for _ in range(round(messages / each))]
    algorithm.stop()
    theirs = []
    for _ in range(messages // (peer_egg.BATCHES * batch)):
        egg.iterate()
        theirs.append(egg.accuracy)
    scores = {"popcomm": _last_tenth(ours), "EGG": _last_tenth(theirs)}
    case = f"{_game(mode, batch)}: accuracy after {messages:,} messages"
    results = [Measurement("peers", f"{case}: {name}", score, "of 1") for name, score in scores.items()]
    less = scores["popcomm"] - scores["EGG"]
    return [*results, Measurement("peers", f"{case}: popcomm - EGG", less, "of 1", -ALIKE)]


def _last_tenth(course: list[float]) -> float:
    return fmean(course[-max(1, len(course) // 10) :])


def _game(mode: str, batch: int) -> str:
    return f"reconstruction 2 x 10, {mode}, batches of {batch}"


@contextmanager
def _popcomm(config: Any, agents: int, work: float | None = None) -> Iterator[Contender]:
    """work: of an iteration, where it is not agent-steps."""
    with building(config, agents) as (algorithm, iterate):
        counted = iterate if work is None else lambda: round(work + 0 * iterate())
        yield Contender(counted, lambda tally: rows_of_popcomm(algorithm, tally))


def _compared(
    case: str,
    contenders: dict[str, Contender],
    peer: str,
    unit: str,
    repetitions: int,
    min_seconds: float,
    bars: dict[str, float],
) -> list[Measurement]:
    """Rates, and how many times the peer's they are, which `bars` are for."""
    rates = alternating({name: c.work for name, c in contenders.items()}, repetitions, min_seconds)
    results = [
        Measurement("peers", f"{case}: {name}", median(r), f"{unit}s / CPU s", samples=tuple(r))
        for name, r in rates.items()
    ]
    results += [
        Measurement("peers", f"{case}: {name} / {peer}", median_ratio(r, rates[peer]), "times", bars[name])
        for name, r in rates.items()
        if name != peer
    ]
    return [*results, *accounts("peers", case, contenders, unit)]


def spread_config(sizes: Sizes, messages: Any) -> PopulationPPOConfig:
    """IPPO's settings in popcomm's words; all seats share one network."""
    return (
        PopulationPPOConfig()
        .environment(
            "vmas:simple_spread",
            env_config={"n_agents": sizes.agents, "max_steps": sizes.max_steps, "continuous_actions": False},
        )
        .communication(messages=messages, topology={"kind": "full"}, gradient="straight_through" if messages else None)
        .population(agent="mlp", members=1, agent_config={"hidden": HIDDEN})
        .env_runners(num_worlds_per_env_runner=sizes.worlds, rollout_fragment_length=sizes.length)
        .training(**PPO, **PLAIN_TALK, num_epochs=sizes.epochs, minibatch_size=sizes.worlds // sizes.minibatches)
        .debugging(seed=0)
    )


def game_config(mode: str, batch: int, updates: int) -> PopulationPPOConfig:
    """rllib_configs/referential.yaml with updates of `batch` rows, so many of them an iteration."""
    worlds = max(1, batch // LENGTH)
    changes = (
        f"env_runners.num_worlds_per_env_runner={worlds * updates}",
        f"env_runners.rollout_fragment_length={LENGTH}",
        f"training.minibatch_size={worlds}",
        "recording.conversation_every=0",
        "recording.picture_every=0",
        *MODES[mode],
    )
    return schema.apply(documents.load("referential", list(changes)), PopulationPPOConfig())
