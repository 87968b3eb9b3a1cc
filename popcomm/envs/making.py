"""From what a user calls an environment to B worlds of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from popcomm.envs import WORLDS, ParallelEnvWorld
from popcomm.envs.species import SpeciesLike, with_species
from popcomm.envs.world import World
from popcomm.errors import UserError
from popcomm.references import named

EnvLike = str | type[World] | Callable[..., object]


def resolve(env: object) -> type[World] | Callable[..., object]:
    """A World class or a creator from a popcomm name, a "module:attribute", a World class or a creator.

    Raises:
        UserError: no such name, or nothing that makes an environment.
    """
    if isinstance(env, str):
        env = named("environment.env", env, WORLDS)
    if isinstance(env, type) and issubclass(env, World):
        return env
    if not callable(env):
        raise UserError(
            f"environment.env is {env!r}, and must be a popcomm name ({', '.join(WORLDS)}), a World class, "
            "'module:attribute', or a callable that takes the env_config and returns a ParallelEnv"
        )
    return env


def make_world(
    env: object,
    env_config: Mapping[str, object],
    num_worlds: int,
    device: str | torch.device = "cpu",
    species: SpeciesLike | None = None,
    agent_id: bool = False,
) -> World:
    """B worlds of an environment. species, agent_id: see `popcomm.envs.species.with_species`.

    Raises:
        UserError: env_config does not fit the environment, or species do not fit its agents.
    """
    return with_species(_made(env, env_config, num_worlds, device), species, agent_id)


def _made(env: object, env_config: Mapping[str, object], num_worlds: int, device: str | torch.device) -> World:
    maker = resolve(env)
    if isinstance(maker, type) and issubclass(maker, World):
        try:
            return maker(num_worlds=num_worlds, device=device, **env_config)  # type: ignore[call-arg]
        except TypeError as error:
            raise UserError(f"environment.env_config does not fit: {str(error).split('__init__() ')[-1]}") from error
    return ParallelEnvWorld(maker, num_worlds, device=device, **env_config)
