"""A learned graph: how strong the links between seats are, as weights of those who hear."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from popcomm.channels import Learned
from popcomm.channels.narrowing import of_slots
from popcomm.envs.layout import SEATS_APART, WorldLayout

RATE = 10.0  # logits move so many times as fast as weights: links must be decided while networks learn


class LinkWeights(nn.Module):
    """The links into one species: L numbers, one for each species or, for each seat of its own, each seat that speaks.

    Every member has a row, as of all weights; the graph is that of their mean, whose rows start alike and have the same
    gradient. Whoever comes after a member takes its row over as it is.

    Parameters: weight [P, L]. Buffers: pruned [P, L] bool, links that are gone for good; settled [P] bool, whether the
    graph stays.
    """

    pruned: Tensor
    settled: Tensor

    def __init__(self, members: int, links: int, start: float) -> None:
        super().__init__()
        logit = math.log(start / (1 - start)) / RATE
        self.weight = nn.Parameter(torch.full((members, links), logit))
        self.register_buffer("pruned", torch.zeros(members, links, dtype=torch.bool))
        self.register_buffer("settled", torch.zeros(members, dtype=torch.bool))

    @property
    def probability(self) -> Tensor:
        """[L], strengths of links before any threshold."""
        return (RATE * self.weight.mean(0)).sigmoid()

    def open(self, threshold: float) -> Tensor:
        """[L] bool; once the graph stays, all that is not gone."""
        left = ~self.pruned[0]
        return left if bool(self.settled[0]) else left & (self.probability > threshold)

    def strengths(self, threshold: float) -> Tensor:
        """[L], probabilities of open links and 0 of the others; the gradient of a shut one is that of its probability,
        and of one that is gone there is none."""
        p = self.probability
        shown = torch.where(self.open(threshold), p, 0.0).detach() + p - p.detach()
        return torch.where(self.pruned[0], 0.0, shown)

    @torch.no_grad()
    def prune(self, threshold: float) -> None:
        """What is shut is gone for good; the others stay open."""
        self.pruned.copy_(~self.open(threshold).expand_as(self.pruned))
        self.settled.fill_(True)


class LearnedGraph:
    """The graph of all species of a world.

    Args:
        layout: of the world.
        topology: what is learned, and how.
        links: {species that hears: its LinkWeights}.
    """

    def __init__(self, layout: WorldLayout, topology: Learned, links: Mapping[str, LinkWeights]) -> None:
        self.layout, self.topology, self.links = layout, topology, links
        self._species = [name for name, species in layout.species.items() for _ in range(species.num_seats)]
        self._none = ~topology.possible(layout.num_agents)  # [N (sender), N (receiver)] bool

    def strengths(self) -> Tensor:
        """[N (sender), N (receiver)], differentiable; 0 into those who do not hear, and where the topology that is
        learned over has no link."""
        columns = []
        for name, species in self.layout.species.items():
            if name in self.links:
                own = self.links[name].strengths(self.topology.threshold)
                columns.append(self._by_seat(own, species.num_seats))
            else:
                weight = next(iter(self.links.values())).weight
                columns.append(weight.new_zeros(self.layout.num_agents, species.num_seats))
        whole = torch.cat(columns, 1)
        self._none = self._none.to(whole.device)  # it moves once
        return whole.masked_fill(self._none, 0.0)

    def gate(self, slots: Tensor) -> Tensor:
        """[B, N, K], of what stands in each slot of the inboxes; slots: [B, N, K]."""
        return of_slots(self.strengths(), slots)

    @property
    def pruned(self) -> bool:
        """Whether the graph stays."""
        return any(bool(links.settled[0]) for links in self.links.values())

    def penalty(self, name: str, shares: int = 1) -> Tensor | None:
        """What the links into a species cost; None: nothing, now.

        The price of their strengths while more are open than the budget has; shares: learners who add it up.
        """
        if name not in self.links or not self.topology.price or self.pruned:
            return None
        if self.budget_holds:
            return None
        real = self._real(name)
        return self.topology.price / shares * self.links[name].probability[real].sum()

    @property
    def budget_holds(self) -> bool:
        """Whether no more links are open than may be for nothing."""
        return bool(self.topology.budget) and self.open_links <= self.topology.budget

    @property
    def open_links(self) -> int:
        """Of all species; between seats, or between species."""
        return sum(
            int(links.open(self.topology.threshold)[self._real(name)].sum()) for name, links in self.links.items()
        )

    def settle(self, env_steps: int) -> None:
        """Prune where it is time. env_steps: of the training so far."""
        at = self.topology.prune_at
        if at is not None and env_steps >= at and not self.pruned:
            for links in self.links.values():
                links.prune(self.topology.threshold)

    def measures(self, name: str) -> dict[str, float]:
        """{"graph/<sender>/<receiver>": strength, "graph/open": share of open links} of the links into a species.

        Senders and receivers are species, or seats where links are between them and there are few. Links that nothing
        is ever said through (`real_links`) are not among them.
        """
        if name not in self.links:
            return {}
        links, real = self.links[name], self._real(name)
        opened = links.open(self.topology.threshold)[real]
        told = {"graph/open": float(opened.float().mean())} if len(opened) else {}
        own = links.strengths(self.topology.threshold).detach()
        if self.topology.between == "species":
            told |= {
                f"graph/{sender}/{name}": value
                for sender, value, there in zip(self.layout.species, own.tolist(), real.tolist(), strict=True)
                if there
            }
        elif self.layout.num_agents <= SEATS_APART:
            agents, receivers = self.layout.agents, self.layout.agents[self.layout.species[name].seats]
            pairs = [(sender, receiver) for receiver in receivers for sender in agents]
            told |= {
                f"graph/{sender}/{receiver}": value
                for (sender, receiver), value, there in zip(pairs, own.tolist(), real.tolist(), strict=True)
                if there
            }
        return told

    def _by_seat(self, values: Tensor, seats: int) -> Tensor:
        """[L] of a species with so many seats -> [N, seats]."""
        if self.topology.between == "seats":
            return values.view(seats, self.layout.num_agents).T
        names = list(self.layout.species)
        of = torch.tensor([names.index(name) for name in self._species], device=values.device)
        return values[of].unsqueeze(1).expand(-1, seats)

    def _real(self, name: str) -> Tensor:
        """[L] bool, see `real_links`."""
        return real_links(self.layout, self.topology, name).to(self.links[name].weight.device)


def real_links(layout: WorldLayout, topology: Learned, name: str) -> Tensor:
    """[L] bool, the links into a species that anything is said through: neither of the mute, nor of a seat to itself,
    and that the topology that is learned over has (`Learned.possible`). Between species it is one if any of its seats
    has it."""
    every = layout.species.values()
    speaks = torch.cat([torch.full((species.num_seats,), species.speaks) for species in every])
    pairs = topology.possible(layout.num_agents) & speaks.unsqueeze(1)
    into = pairs[:, layout.species[name].seats]
    if topology.between == "seats":
        return into.T.flatten()
    return torch.stack([into[species.seats].any() for species in every])


def links_into(layout: WorldLayout, topology: Learned, name: str) -> int:
    """L, how many strengths the links into a species have."""
    if topology.between == "species":
        return len(layout.species)
    return layout.species[name].num_seats * layout.num_agents
