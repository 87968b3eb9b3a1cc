"""What decides the shape and the rules of a runner's worlds, in words."""

from __future__ import annotations

import re
from typing import Any

from popcomm.envs.layout import WorldLayout


def surroundings(config: Any, layout: WorldLayout, num_worlds: int, channel: Any) -> dict[str, str]:
    """{what: which}, in words, of all that decides the shape and the rules of B worlds and of what is said in them."""
    parts = {
        "environment": getattr(config.world, "__qualname__", config.world),
        "env_config": sorted(config.env_config.items()),
        "num_worlds_per_env_runner": num_worlds,
        "seats": {name: s.num_seats for name, s in layout.species.items()},
        "members": {name: config.members_of(name) for name in layout.species},
        "agent": config.agent_class.__qualname__,
        "agent_config": sorted(config.agent_config.items()),
        "messages": config.message_kind,
        "topology": channel and channel.topology,
        "reflexes": channel and [reflex.name for reflex in channel.reflexes],
    }
    # Where objects do not say what they are, their address would differ in every process.
    return {name: re.sub(r" at 0x[0-9a-f]+", "", repr(value)) for name, value in parts.items()}
