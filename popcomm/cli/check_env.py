"""`popcomm check-env`: an environment of one's own, before anything is trained in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from rich.console import Console

from popcomm.cli import documents
from popcomm.envs.checking import EnvCheck, check_env
from popcomm.envs.making import makes_worlds, resolve
from popcomm.envs.vmas_checking import check_vmas
from popcomm.envs.world import World
from popcomm.errors import UserError
from popcomm.references import attribute
from popcomm.sources import of_a_source

FRAGMENT = 16
WORLDS = 16  # copies in training, where nobody says
AGENT_STEPS = "num_agent_steps_sampled_lifetime"
# Above so many agents a full topology would be most of the work.
ALL_HEAR_ALL = 32


def env_config_of(settings: list[str]) -> dict[str, Any]:
    """["N=3"] -> {"N": 3}, values in YAML.

    Raises:
        UserError: not of that form.
    """
    document: dict[str, Any] = {"env_config": {}}
    for setting in settings:
        documents.put(document, f"env_config.{setting}")
    return document["env_config"]


def check(reference: str, env_config: dict[str, Any], num_steps: int, worlds: int, iterations: int) -> EnvCheck:
    """What was found of "module:attribute", "vmas:NAME" or "gymnasium:ID", with the rate in training for so many
    iterations (0: none). Where something is wrong already nothing is trained: what came of it would say nothing.

    Raises:
        UserError: the reference leads nowhere, or to a World.
    """
    creator = resolve(reference) if of_a_source(reference) else attribute("the environment", reference)
    looks: Callable[..., EnvCheck] = check_vmas if isinstance(creator, partial) and makes_worlds(creator) else check_env
    if isinstance(creator, type) and issubclass(creator, World):
        raise UserError(f"{reference} is a World, and check-env is for ParallelEnvs; use popcomm.envs.world_api_test")
    if not callable(creator):
        raise UserError(f"{reference} is a {type(creator).__name__}, and must be what makes a ParallelEnv")
    # What they would say of one environment stands in the result.
    with _silent("popcomm.envs"):
        found = looks(creator, env_config, num_steps)
        if iterations and found.facts and found.wrong:
            found.notes.append("no training was tried: first what is wrong is to be mended")
        elif iterations and found.facts:
            _train(found, reference if of_a_source(reference) else creator, env_config, worlds, iterations)
    return found


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Without that logger's warnings, and with them again afterwards."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _train(
    found: EnvCheck, creator: str | Callable[..., Any], env_config: dict[str, Any], worlds: int, iterations: int
) -> None:
    """Put in the rate of agent steps in training, or what stopped it."""
    from popcomm.cli.ray_session import quiet_ray, ray_session
    from popcomm.rllib import PopulationPPOConfig
    from popcomm.rllib.algorithm import SamplingError

    quiet_ray()
    config = PopulationPPOConfig().environment(creator, env_config=env_config).population(agent="mlp")
    seats = config.layout.num_agents
    topology = {"kind": "full"} if seats <= ALL_HEAR_ALL else {"kind": "ring", "k": 4}
    messages = {"kind": "symbols", "vocab_size": 8, "length": 1} if seats > 1 else None
    config.communication(messages=messages, topology=topology)
    config.env_runners(num_worlds_per_env_runner=worlds, rollout_fragment_length=FRAGMENT)
    with ray_session(config):
        algo = config.build_algo()
        try:
            before = after = algo.train()[AGENT_STEPS]  # the first makes buffers, and opens episodes
            started = time.perf_counter()
            for _ in range(iterations):
                after = algo.train()[AGENT_STEPS]
            taken = time.perf_counter() - started
            found.rates[f"in training ({worlds} worlds, mlp, {'talking' if messages else 'silent'})"] = (
                after - before
            ) / taken
        except SamplingError as error:
            found.wrong.append(f"in training: {str(error).strip().splitlines()[-1]}")
        finally:
            algo.stop()


def print_check(reference: str, found: EnvCheck, console: Console) -> None:
    """The result as text."""
    _print(console, "environment", [reference])
    for what, lines in found.facts.items():
        _print(console, what, lines)
    rates = [f"{rate:>10,.0f} {where}" for where, rate in found.rates.items()]
    _print(console, "agent steps a second", rates)
    _print(console, "worth knowing", found.notes)
    _print(console, "wrong", found.wrong or ["nothing"])


def _print(console: Console, what: str, lines: list[str]) -> None:
    for line in lines:
        console.print(f"{what:<22}{line}", markup=False, soft_wrap=True)
        what = ""
