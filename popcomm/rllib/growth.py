"""Networks whose rows come and go: whose each row is, what is summed up before they change, and the change itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from popcomm.agents.reindex import reindex, take_rows
from popcomm.errors import UserError
from popcomm.rllib.ppo import OwnersOf, Reduce
from popcomm.rollout import seed_of

GROWTH_BRANCH = 7

Owners = Mapping[nn.Parameter, Tensor]
Optimizers = Sequence[torch.optim.Optimizer]
Clip = Callable[[list[Tensor], int, float, OwnersOf], Tensor]


def owners_of(agent: Any) -> Owners:
    """{parameter: [axis 0] int64 member}, those of an agent whose first axis is not the members; see `Agent`."""
    return agent.owners() if hasattr(agent, "owners") else {}


class Growth:
    """Networks on their way through the updates: they are watched, their statistics are summed up, and they grow.

    Args:
        agents: {species: network}; nothing happens to those without `grow`.
        optimizers: a species -> its optimizers.
        seed: of random choices, the same on every learner.

    Attributes:
        sums: {species: what its `growth_statistics` add up to, over updates and learners, since it last grew}.
    """

    def __init__(self, agents: Mapping[str, Any], optimizers: Callable[[str], Optimizers], seed: int) -> None:
        self.agents = {name: agent for name, agent in agents.items() if hasattr(agent, "grow")}
        self.optimizers, self.seed = optimizers, seed
        self.sums: dict[str, Tensor] = {}
        self._watched: list[str] = []

    def watch(self, species: Sequence[str]) -> None:
        """From now on look at the gradients of these, and of no others."""
        self._watched = [name for name in self.agents if name in species]
        for name, agent in self.agents.items():
            agent.watch(name in self._watched)

    def collect(self, reduce: Reduce) -> None:
        """Add the statistics of an update, over all learners, before gradients are clipped.

        Those that are not finite are left out, as the gradients are.
        """
        for name in self._watched:
            statistics = reduce(self.agents[name].growth_statistics().detach().clone())
            if bool(statistics.isfinite().all()):
                self.sums[name] = self.sums[name] + statistics if name in self.sums else statistics

    def grow(self, *clock: int, ends: bool = True) -> None:
        """Let those that are watched say which rows their parameters are to have, after a step.

        Args:
            clock: when it was.
            ends: whether it was the last one of the first epoch.
        """
        for index, name in enumerate(self.agents):
            if name not in self._watched or name not in self.sums:
                continue
            if not ends and getattr(self.agents[name], "grows_by_iteration", False):
                continue
            agent, generator = self.agents[name], torch.Generator().manual_seed(seed_of(self.seed, *clock, index))
            rows = agent.grow(self.sums[name], generator)
            if not rows:
                continue
            own = set(agent.parameters())
            for parameter, chosen in rows.items():
                if parameter not in own:
                    raise UserError(
                        f"population.agent {type(agent).__name__}: grow() has rows for what is no parameter of it"
                    )
                reindex(optimizer_of(self.optimizers(name), parameter), parameter, chosen)
            del self.sums[name]

    def begin_anew(self, name: str) -> None:
        """Other networks took the places of some: what was seen of those before decides nothing."""
        self.sums.pop(name, None)

    def get_state(self) -> dict[str, np.ndarray]:
        return {name: sums.cpu().numpy() for name, sums in self.sums.items()}

    def set_state(self, state: Mapping[str, np.ndarray], device: torch.device | str) -> None:
        self.sums = {name: torch.as_tensor(sums, device=device) for name, sums in state.items() if name in self.agents}


def agreed_seed(root: int | None, device: torch.device | str, learners: int) -> int:
    """A seed of this part of the tree; without a root, fresh entropy that all learners have from the first."""
    seed = torch.tensor(seed_of(root, GROWTH_BRANCH), device=device)
    if learners > 1:
        torch.distributed.broadcast(seed, 0)
    return int(seed)


def optimizer_of(optimizers: Optimizers, parameter: nn.Parameter) -> torch.optim.Optimizer | None:
    """The optimizer that steps a parameter; None: it is not learned."""
    for optimizer in optimizers:
        if any(p is parameter for group in optimizer.param_groups for p in group["params"]):
            return optimizer
    return None


def inherit(
    module: Any, optimizers: Optimizers, parents: Tensor, crossed: Mapping[nn.Parameter, Tensor] | None = None
) -> None:
    """Member p becomes what member parents[p] is: weights, moments, and buffers such as the statistics of returns.

    Args:
        module: a PopulationRLModule. Of parameters that are not the members', its agent's `inherit(parents)` says which
            rows they get, and an agent with that method moves its own buffers itself. What has no axis of members is a
            whole network's, and stays.
        optimizers: of the species.
        parents: [P] int64; -1: zeros, as `reindex` makes them.
        crossed: {parameter: [P]}, the members of whom some parameters are instead.
    """
    agent, others, members = module.agent, crossed or {}, len(parents)
    itself = hasattr(agent, "inherit")
    rows = agent.inherit(parents) if itself else {}
    for parameter in module.parameters():
        if id(parameter) in module.everybodys or not (parameter in rows or has_members(parameter, members)):
            continue  # nobody's own
        chosen = rows.get(parameter, others.get(parameter, parents))
        reindex(optimizer_of(optimizers, parameter), parameter, chosen)
    for buffer in own_buffers(module, members).values():
        buffer.copy_(take_rows(buffer, parents.to(buffer.device)))


def own_buffers(module: Any, members: int) -> dict[str, Tensor]:
    """{name: [P, ...]}, those of a PopulationRLModule that go with its members; not what its agent moves itself.

    Args:
        members: P.
    """
    agent = module.agent
    kept = module.everybodys | ({id(b) for b in agent.buffers()} if hasattr(agent, "inherit") else set())
    return {name: b for name, b in module.named_buffers() if id(b) not in kept and has_members(b, members)}


def rows_of_members(module: Any, members: int) -> dict[nn.Parameter, Tensor | None]:
    """{parameter: [axis 0] int64, the member whose each row is; None: row p is member p's}, of those that are members'.

    Args:
        module: a PopulationRLModule.
        members: P.
    """
    owners, everybodys = owners_of(module.agent), module.everybodys
    return {
        parameter: owners.get(parameter)
        for parameter in module.parameters()
        if parameter in owners or (id(parameter) not in everybodys and has_members(parameter, members))
    }


class Ownership(NamedTuple):
    """Whose the rows of a species' gradients are."""

    members: int  # P
    owners: Owners  # of those whose first axis is not the members
    as_one: bool  # a collective with a parameter that is no member's: it is one network, clipped and guarded as one

    @classmethod
    def of(cls, agent: Any, parameters: Sequence[nn.Parameter], members: int) -> Ownership:
        if not (hasattr(agent, "owners") or getattr(agent, "collective", False)):
            return cls(members, {}, False)
        owners = owners_of(agent)
        shared = any(p not in owners and not has_members(p, members) for p in parameters)
        return cls(members, owners, shared)

    def clip(self, how: Clip, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        """Clip gradients in place; returns the norms [P] from before. how: `clip_owned` or `clip_values`."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.as_one:
            return how(gradients, 1, limit, ()).expand(self.members)
        owners = [self.owners.get(p) for p in parameters if p.grad is not None]
        return how(gradients, self.members, limit, owners)


def has_members(parameter: Tensor, members: int) -> bool:
    """Whether the first axis of a parameter, or of a buffer, is the members."""
    return members == 1 or (parameter.ndim > 0 and parameter.shape[0] == members)
