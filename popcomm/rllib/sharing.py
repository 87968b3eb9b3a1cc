"""Parts that the networks of several species have in common: one set of weights, with gradients from all of them.

An agent names them in `shared_parts`. The first species that has a part owns it and lends it to the others: it is in
their networks, where it is used, and in the owner's alone where it is trained, clipped and saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from popcomm.errors import UserError
from popcomm.rllib.drafts import draft_of
from popcomm.rllib.plan import Plan


def share(agents: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Put the part of the first species that has it in the place of all others', in place.

    Args:
        agents: {species: network}.

    Returns:
        {species: names of the weights of its network that are another's}.

    Raises:
        UserError: parts of the same name have other weights.
    """
    owners: dict[tuple[type, str], str] = {}
    borrowed: dict[str, frozenset[str]] = {}
    for name, agent in agents.items():
        lent: set[str] = set()
        for path in getattr(agent, "shared_parts", ()):
            owner = owners.setdefault((type(agent), path), name)
            if owner == name:
                continue
            part = agents[owner].get_submodule(path)
            _check_alike(path, owner, part, name, agent.get_submodule(path))
            parent, _, leaf = path.rpartition(".")
            setattr(agent.get_submodule(parent), leaf, part)
            lent |= {f"{path}.{key}" for key in part.state_dict()}
        borrowed[name] = frozenset(lent)
    return borrowed


def check_sharing(plan: Plan) -> None:
    """Whether parts that species have in common fit each other; networks are made here without memory for weights.

    Raises:
        UserError: they do not, or selection would put members of one species alone into other places.
    """
    lent = borrowers(plan)
    if lent and plan.survival is not None:
        raise UserError(
            f"population.agent {plan.species[lent[0]].agent_class.__name__} shares weights between species "
            f"({', '.join(lent)} and another), and survival selects members of each species apart; use "
            "agent_config.codec 'own'"
        )


def borrowers(plan: Plan) -> list[str]:
    """Species whose networks have parts of another species' network. Raises UserError: these do not fit each other."""
    sharing = {name: s for name, s in plan.species.items() if hasattr(s.agent_class, "shared_parts")}
    drafts = {name: draft_of(species) for name, species in sharing.items()}
    agents = {name: agent for name, agent in drafts.items() if agent is not None}
    return [name for name, lent in share(agents).items() if lent]


def own_parameters(module: nn.Module, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Of the parameters of a PopulationRLModule those that are not another species'."""
    borrowed: frozenset[str] = getattr(module, "borrowed", frozenset())
    if not borrowed:
        return list(parameters)
    others = {id(value) for name, value in module.named_parameters() if name in borrowed}
    return [parameter for parameter in parameters if id(parameter) not in others]


def _check_alike(path: str, owner: str, part: nn.Module, name: str, own: nn.Module) -> None:
    weights, theirs = own.state_dict(), part.state_dict()
    for key in sorted(weights.keys() | theirs.keys()):
        sizes = [tuple(w[key].shape) if key in w else None for w in (theirs, weights)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"the part '{path}' of population.agent is shared by species '{owner}' and '{name}', and its "
                f"{key} (members, in, out) is {sizes[0]} of the one and {sizes[1]} of the other; give them equally "
                "many members and the same last width in agent_config.features, or agent_config.codec 'own'"
            )
