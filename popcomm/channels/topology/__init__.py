"""Who hears whom: a topology names the K senders of every receiver, for a batch of worlds at once."""

from popcomm.channels.topology.contract import Topology
from popcomm.channels.topology.curriculum import Curriculum
from popcomm.channels.topology.kinds import TOPOLOGIES, make_topology
from popcomm.channels.topology.learned import Learned
from popcomm.channels.topology.plain import Chain, Custom, Full, KNearest, Ring, Routed

__all__ = [
    "TOPOLOGIES",
    "Chain",
    "Curriculum",
    "Custom",
    "Full",
    "KNearest",
    "Learned",
    "Ring",
    "Routed",
    "Topology",
    "make_topology",
]
