"""Release: a population leaves its trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from popcomm.envs.species import SpeciesLike
from popcomm.references import reference_to
from popcomm.rllib.graph import graph_of
from popcomm.rllib.plan import Plan, channel_recipe, plan_of
from popcomm.rllib.settings import Settings
from popcomm.rollout.members import Members
from popcomm.rollout.population import Population
from popcomm.rollout.recipes import EnvRecipe, as_json
from popcomm.schedules import Clock


def released(algorithm: Any) -> Population:
    """The population of a PopulationPPO as it is now, in a copy, on this process's CPU."""
    modules = algorithm.config.get_multi_rl_module_spec(inference_only=True).build()
    modules.set_state(algorithm.learner_group.get_weights())
    return population_of(algorithm.config, modules, Clock(algorithm.env_steps), algorithm.fades())


def population_of(
    settings: Settings, modules: Mapping[str, Any], clock: Clock, fades: Sequence[Mapping[str, Any]]
) -> Population:
    """The population of a config, with the networks of RLlib's modules; critics and statistics of returns stay behind.

    Args:
        settings: the config.
        modules: {species: PopulationRLModule}, whose networks become the population's.
        clock: how far training is.
        fades: what the schedules of reflexes remember.
    """
    plan = plan_of(settings)
    members = {}
    for name in plan.species:
        module = modules[name]
        members[name] = Members(module.spec, module.agent, module.model_config["agent_config"])
    channel = None
    if plan.channel is not None:
        channel = replace(channel_recipe(settings, plan.channel.messages), topology=_topology(settings, plan, modules))
    assert settings.world is not None
    return Population(
        members,
        plan.layout,
        channel,
        EnvRecipe(
            settings.world,
            dict(settings.env_config),
            _species(settings, plan),
            settings.agent_id,
            settings.processes,
            settings.process_timeout,
        ),
        plan.seating_rule,
        clock,
        fades,
        settings.num_worlds_per_env_runner,
        settings.seed,
    )


@torch.no_grad()
def _topology(settings: Settings, plan: Plan, modules: Mapping[str, Any]) -> Any:
    """Who hears whom; of a graph that is learned the links as they are now."""
    graph = graph_of(plan.channel, plan.layout, modules)
    if graph is None:
        return settings.channel_topology
    of = as_json("communication.topology.of", graph.topology.of)
    return {"kind": "learned", "of": of, "strengths": graph.strengths().cpu().tolist(), "pruned": graph.pruned}


def _species(settings: Settings, plan: Plan) -> SpeciesLike | None:
    """Who is of which species, in a form that can be written down: what a nameless function says, for one."""
    given = settings.given_species
    if callable(given) and reference_to(given) is None:
        return {name: species.species.agents for name, species in plan.species.items()}
    return given
