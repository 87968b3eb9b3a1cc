"""From what a user calls an environment to B worlds of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch

from popcomm.checks import count
from popcomm.envs import WORLDS, ParallelEnvWorld
from popcomm.envs.process_worlds import TIMEOUT, ProcessWorlds
from popcomm.envs.species import SpeciesLike, with_species
from popcomm.envs.tuple_env import check_registered, from_gymnasium
from popcomm.envs.vmas_scenarios import scenario_class
from popcomm.envs.vmas_world import VmasWorld
from popcomm.envs.world import World
from popcomm.errors import UserError
from popcomm.references import named
from popcomm.sources import of_a_source

EnvLike = str | type[World] | Callable[..., object]


def _vmas(name: str) -> Callable[..., object]:
    scenario_class(name)
    return partial(VmasWorld, scenario=name)


def _gymnasium(name: str) -> Callable[..., object]:
    check_registered(name)
    return partial(from_gymnasium, name)


# {source: what makes worlds or environments of "source:name"}
MAKERS: dict[str, Callable[[str], Callable[..., object]]] = {"vmas": _vmas, "gymnasium": _gymnasium}


def resolve(env: object) -> type[World] | Callable[..., object]:
    """What makes worlds, or a creator of environments, from a popcomm name, a "source:name", a "module:attribute", a
    World class or a creator.

    Raises:
        UserError: no such name, or nothing that makes an environment.
    """
    if isinstance(env, str):
        source, _, name = env.partition(":")
        env = MAKERS[source](name) if of_a_source(env) else named("environment.env", env, WORLDS)
    if not callable(env):
        raise UserError(
            f"environment.env is {env!r}, and must be a popcomm name ({', '.join(WORLDS)}), a World class, "
            "'module:attribute', or a callable that takes the env_config and returns a ParallelEnv"
        )
    return env


def makes_worlds(maker: object) -> bool:
    """Whether it is a World class, or one that was given some of its arguments."""
    made = maker.func if isinstance(maker, partial) else maker
    return isinstance(made, type) and issubclass(made, World)


def make_world(
    env: object,
    env_config: Mapping[str, object],
    num_worlds: int,
    device: str | torch.device = "cpu",
    species: SpeciesLike | None = None,
    agent_id: bool = False,
    processes: int | None = None,
    timeout: float = TIMEOUT,
) -> World:
    """B worlds of an environment. species, agent_id: see `popcomm.envs.species.with_species`; processes, timeout:
    `popcomm.envs.ProcessWorlds`.

    Raises:
        UserError: env_config does not fit the environment, or species do not fit its agents; worlds that are stepped
            together and cannot be dealt out.
    """
    if processes is None:
        return with_species(_made(env, env_config, num_worlds, device), species, agent_id)
    maker = resolve(env)
    check_processes(maker, processes)
    world = ProcessWorlds(cast(Any, maker), num_worlds, device, processes, timeout, env_config)
    try:
        return with_species(world, species, agent_id)
    except UserError:
        world.close()
        raise


def check_processes(maker: object, processes: object) -> None:
    """Raises UserError: not a number of processes, or what is made are worlds that are stepped together."""
    wanted = count("environment.processes", processes, 1)
    if makes_worlds(maker):
        made = maker.func if isinstance(maker, partial) else maker
        name = getattr(made, "name", getattr(made, "__name__", made))
        apart = isinstance(made, type) and issubclass(made, ProcessWorlds)
        how = "has a process for each world as it is" if apart else "steps all of its worlds together as tensors"
        raise UserError(
            f"environment.processes is {wanted}, and {name} {how}; processes are for ParallelEnvs, and "
            "env_runners.num_env_runners for all"
        )


def _made(env: object, env_config: Mapping[str, object], num_worlds: int, device: str | torch.device) -> World:
    maker = resolve(env)
    if makes_worlds(maker):
        _check_supplied(maker, env_config)
        try:
            return cast(World, maker(num_worlds=num_worlds, device=device, **env_config))  # type: ignore[call-arg]
        except TypeError as error:
            raise UserError(f"environment.env_config does not fit: {str(error).split('__init__() ')[-1]}") from error
    return ParallelEnvWorld(maker, num_worlds, device, env_config)


def _check_supplied(maker: object, env_config: Mapping[str, object]) -> None:
    """Raises UserError: env_config says what is said elsewhere."""
    supplied = {"num_worlds": "env_runners.num_worlds_per_env_runner", "device": "the resources of the env runners"}
    if isinstance(maker, partial):
        supplied |= dict.fromkeys(maker.keywords, "environment.env")
    for key, where in supplied.items():
        if key in env_config:
            raise UserError(f"environment.env_config.{key} is set by {where}")
