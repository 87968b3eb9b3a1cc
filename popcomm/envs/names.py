"""The worlds that configuration files know by name."""

from __future__ import annotations

from popcomm.envs.alarm_v0 import AlarmWorld
from popcomm.envs.colour_digit_v0 import ColourDigitWorld
from popcomm.envs.factory_v0 import FactoryWorld
from popcomm.envs.navigation_v0 import NavigationWorld
from popcomm.envs.platoon_v0 import PlatoonWorld
from popcomm.envs.predator_prey_v0 import PredatorPreyWorld
from popcomm.envs.referential_v0 import ReferentialWorld
from popcomm.envs.relay_v0 import RelayWorld
from popcomm.envs.swarm_v0 import SwarmWorld
from popcomm.envs.switch_riddle_v0 import SwitchRiddleWorld
from popcomm.envs.traffic_junction_v0 import TrafficJunctionWorld
from popcomm.envs.traffic_v0 import TrafficWorld
from popcomm.envs.world import World

WORLDS: dict[str, type[World]] = {
    "alarm_v0": AlarmWorld,
    "colour_digit_v0": ColourDigitWorld,
    "factory_v0": FactoryWorld,
    "navigation_v0": NavigationWorld,
    "platoon_v0": PlatoonWorld,
    "predator_prey_v0": PredatorPreyWorld,
    "referential_v0": ReferentialWorld,
    "relay_v0": RelayWorld,
    "swarm_v0": SwarmWorld,
    "switch_riddle_v0": SwitchRiddleWorld,
    "traffic_junction_v0": TrafficJunctionWorld,
    "traffic_v0": TrafficWorld,
}
