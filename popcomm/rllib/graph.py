"""The learned graph of a training: what it is made of, and how runners follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from popcomm.agents.graph import LearnedGraph, links_into
from popcomm.channels import Channel, Learned
from popcomm.channels.session import Session
from popcomm.envs.layout import WorldLayout
from popcomm.errors import UserError
from popcomm.rllib.plan import Plan


def learned(channel: Channel | None) -> Learned | None:
    """The topology of a channel whose graph is to be learned; None of any other."""
    topology = None if channel is None else channel.topology
    return topology if isinstance(topology, Learned) and not topology.is_given else None


def graph_of(channel: Channel | None, layout: WorldLayout, modules: Mapping[str, Any]) -> LearnedGraph | None:
    """The graph whose links are weights of modules {species: PopulationRLModule}; None: none is learned."""
    topology = learned(channel)
    if topology is None:
        return None
    return LearnedGraph(layout, topology, {name: m.links for name, m in modules.items() if m.links is not None})


def strengths_of(channel: Channel | None, graph: LearnedGraph | None) -> LearnedGraph | Learned | None:
    """Whose `gate` multiplies what is heard: the graph that is learned, or one that was given; None: nobody's."""
    topology = None if channel is None else channel.topology
    return topology if graph is None and isinstance(topology, Learned) else graph


def links_of(plan: Plan, name: str) -> tuple[int, float] | None:
    """(how many links a species hears by, their first strength); None: none of them is learned."""
    topology = learned(plan.channel)
    if topology is None or not plan.species[name].spec.hears:
        return None
    return links_into(plan.layout, topology, name), topology.start


@torch.no_grad()
def relink(session: Session | None, graph: LearnedGraph | None) -> None:
    """Let a session send through the graph as it is now."""
    if session is not None and graph is not None:
        session.relink(graph.strengths(), graph.pruned)


def check_graph(plan: Plan) -> None:
    """Raises UserError: networks that do not hear by single messages, or a budget that refuses nobody."""
    if plan.channel is None or not isinstance(plan.channel.topology, Learned):
        return
    topology, served = plan.channel.topology, plan.channel.budget.messages
    most = topology.inbox_size(plan.layout.num_agents)
    if topology.is_given and served is not None and served >= most:
        raise UserError(
            f"communication.budget is {served}, and by the links of communication.topology.strengths an agent hears at "
            f"most {most} others, so that nobody is ever refused; use less than {most}, or leave it out"
        )
    for name, species in plan.species.items():
        if species.spec.hears and getattr(species.agent_class, "collective", False):
            raise UserError(
                f"communication.topology is learned, and the {species.agent_class.__name__} of species '{name}' has "
                "links of its own; use full, ring, chain or k_nearest"
            )
