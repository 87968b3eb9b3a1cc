"""Topologies by the names that a config has for them."""

from __future__ import annotations

from typing import Any

from popcomm.channels.topology.contract import Topology, topology_of
from popcomm.channels.topology.curriculum import Curriculum
from popcomm.channels.topology.learned import Learned
from popcomm.channels.topology.over import KEY
from popcomm.channels.topology.plain import PLAIN

TOPOLOGIES: dict[str, type] = {**PLAIN, "curriculum": Curriculum, "learned": Learned}


def make_topology(value: Topology | dict[str, Any]) -> Topology:
    """A topology from its config mapping, e.g. {"kind": "k_nearest", "k": 4}.

    Raises:
        UserError: no such topology, or arguments that do not fit it.
    """
    return topology_of(KEY, value, TOPOLOGIES)
