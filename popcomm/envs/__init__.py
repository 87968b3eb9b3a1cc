"""Where agents live: worlds stepped as tensors, and their PettingZoo faces.

Names are imported when they are first asked for, so that a worker that needs one world does not load the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from popcomm.envs import (
        alarm_v0,
        colour_digit_v0,
        factory_v0,
        navigation_v0,
        platoon_v0,
        predator_prey_v0,
        referential_v0,
        relay_v0,
        swarm_v0,
        switch_riddle_v0,
        traffic_junction_v0,
        traffic_v0,
    )
    from popcomm.envs.messaging import with_messages
    from popcomm.envs.names import WORLDS
    from popcomm.envs.pettingzoo import ParallelEnvWorld
    from popcomm.envs.process_worlds import ProcessWorlds
    from popcomm.envs.referential_v0 import CommunicationEnv
    from popcomm.envs.testing import world_api_test
    from popcomm.envs.tuple_env import from_gymnasium
    from popcomm.envs.world import Species, World, WorldStep
    from popcomm.envs.world_parallel import WorldParallelEnv

_ENVIRONMENTS = (
    "alarm_v0",
    "colour_digit_v0",
    "factory_v0",
    "navigation_v0",
    "platoon_v0",
    "predator_prey_v0",
    "referential_v0",
    "relay_v0",
    "swarm_v0",
    "switch_riddle_v0",
    "traffic_junction_v0",
    "traffic_v0",
)
_MODULES = {
    "CommunicationEnv": "referential_v0",
    "ParallelEnvWorld": "pettingzoo",
    "ProcessWorlds": "process_worlds",
    "Species": "world",
    "WORLDS": "names",
    "World": "world",
    "WorldParallelEnv": "world_parallel",
    "WorldStep": "world",
    "from_gymnasium": "tuple_env",
    "with_messages": "messaging",
    "world_api_test": "testing",
}

__all__ = [
    "WORLDS",
    "CommunicationEnv",
    "ParallelEnvWorld",
    "ProcessWorlds",
    "Species",
    "World",
    "WorldParallelEnv",
    "WorldStep",
    "alarm_v0",
    "colour_digit_v0",
    "factory_v0",
    "from_gymnasium",
    "navigation_v0",
    "platoon_v0",
    "predator_prey_v0",
    "referential_v0",
    "relay_v0",
    "swarm_v0",
    "switch_riddle_v0",
    "traffic_junction_v0",
    "traffic_v0",
    "with_messages",
    "world_api_test",
]


def __getattr__(name: str) -> Any:
    if name in _ENVIRONMENTS:
        return import_module(f"popcomm.envs.{name}")
    if name in _MODULES:
        return getattr(import_module(f"popcomm.envs.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'popcomm.envs' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
