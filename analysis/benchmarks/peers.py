"""popcomm beside BenchMARL on the same VMAS scenario, and beside EGG at equal batches; equal work, in one run.

The peers are no dependencies: what is not installed is left out and named.

    pip install "popcomm[peers]" && pip install git+https://github.com/facebookresearch/EGG
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from popcomm.analysis.benchmarks import peer_benchmarl, peer_egg
from popcomm.analysis.benchmarks.bare_loop import HIDDEN
from popcomm.analysis.benchmarks.common import Measurement, alternating, median, median_ratio
from popcomm.analysis.benchmarks.peer_benchmarl import Sizes
from popcomm.analysis.benchmarks.tally import Contender, accounts
from popcomm.analysis.benchmarks.training import PLAIN_TALK, PPO, building, local_ray, rows_of_popcomm

from popcomm.cli import documents, schema
from popcomm.rllib import PopulationPPOConfig

SPREAD, QUICK_SPREAD = Sizes(1024, 3, 25, 4, 4), Sizes(32, 3, 5, 2, 2)
SYMBOLS = {"kind": "symbols", "vocab_size": 16, "length": 2}
LENGTH, MINIBATCHES = 8, 4  # steps of popcomm's fragments of the game, and updates of an iteration
MODES = {"straight-through": (), "Reinforce": ("communication.gradient=reinforce",)}
BATCHES, QUICK_BATCHES = (128, 1024), (32,)


def run(quick: bool = False) -> list[Measurement]:
    """All cases for which there is a peer; rates are per CPU second of this process."""
    torch.set_num_threads(1)
    often = (1, 0.0) if quick else (5, 2.0)
    results: list[Measurement] = []
    with local_ray():
        if _there("benchmarl", "vmas"):
            results += beside_benchmarl(QUICK_SPREAD if quick else SPREAD, *often)
        if _there("egg"):
            for batch in QUICK_BATCHES if quick else BATCHES:
                for mode in MODES:
                    results += beside_egg(mode, batch, *often)
    return results


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
        return _compared(case, contenders, "BenchMARL", "agent-step", repetitions, min_seconds)


def beside_egg(mode: str, batch: int, repetitions: int, min_seconds: float) -> list[Measurement]:
    """The reconstruction game of two attributes with ten values, `batch` messages for each update."""
    config = game_config(mode, batch)
    rounds = config.env_config["rounds"]
    with ExitStack() as stack:
        # Of rounds + 2 rows of an episode, the first hears nothing yet and the last one starts over.
        share = rounds / (rounds + 2)
        contenders = {"popcomm": stack.enter_context(_popcomm(config, 1, batch * MINIBATCHES * share))}
        contenders["EGG"] = peer_egg.contender(mode, batch)
        case = f"reconstruction 2 x 10, {mode}, batches of {batch}"
        return _compared(case, contenders, "EGG", "message", repetitions, min_seconds)


@contextmanager
def _popcomm(config: Any, agents: int, work: float | None = None) -> Iterator[Contender]:
    """work: of an iteration, where it is not agent-steps."""
    with building(config, agents) as (algorithm, iterate):
        counted = iterate if work is None else lambda: round(work + 0 * iterate())
        yield Contender(counted, lambda tally: rows_of_popcomm(algorithm, tally))


def _compared(
    case: str, contenders: dict[str, Contender], peer: str, unit: str, repetitions: int, min_seconds: float
) -> list[Measurement]:
    rates = alternating({name: c.work for name, c in contenders.items()}, repetitions, min_seconds)
    results = [
        Measurement("peers", f"{case}: {name}", median(r), f"{unit}s / CPU s", samples=tuple(r))
        for name, r in rates.items()
    ]
    results += [
        Measurement("peers", f"{case}: {name} / {peer}", median_ratio(r, rates[peer]), "times")
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


def game_config(mode: str, batch: int) -> PopulationPPOConfig:
    """rllib_configs/referential.yaml with updates of `batch` rows, MINIBATCHES of them an iteration."""
    worlds = max(1, batch // LENGTH)
    changes = (
        f"env_runners.num_worlds_per_env_runner={worlds * MINIBATCHES}",
        f"env_runners.rollout_fragment_length={LENGTH}",
        f"training.minibatch_size={worlds}",
        "recording.conversation_every=0",
        "recording.picture_every=0",
        *MODES[mode],
    )
    return schema.apply(documents.load("referential", list(changes)), PopulationPPOConfig())
