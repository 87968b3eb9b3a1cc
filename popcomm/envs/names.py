"""The worlds that configuration files know by name."""

from __future__ import annotations

from popcomm.envs.referential_v0 import ReferentialWorld
from popcomm.envs.swarm_v0 import SwarmWorld
from popcomm.envs.world import World

WORLDS: dict[str, type[World]] = {"referential_v0": ReferentialWorld, "swarm_v0": SwarmWorld}
