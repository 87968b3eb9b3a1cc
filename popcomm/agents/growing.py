"""Growing: which edges the layers of a budget lose and get, and what a block costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from popcomm.agents.block_sparse import BlockSparseLinear
from popcomm.agents.growth_criteria import SEATS, most_rows
from popcomm.agents.growth_rule import GrowthRule, Pool

# Share of the operations of updates that looking at their gradients may take: with two epochs, of which the first is
# looked at, half of it.
LOOK = 0.08


class Flops(NamedTuple):
    """Floating-point operations; a multiplication and an addition are two."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        return self.forward + self.backward


def flops_of_block(layer: BlockSparseLinear, name: str) -> Flops:
    """Of one block of a layer and one row. name: "actor.0" and so on; a first layer's observations need no gradient."""
    once = 2.0 * layer.in_features * layer.out_features
    return Flops(once, once if name.endswith(".0") else 2 * once)


def look_every(layers: Mapping[str, BlockSparseLinear]) -> int:
    """Every which update of an iteration to look at, told by one that the layers were just watched in: 1 is all.

    A look at R rows takes about 2 N R^2 (N + in + out) operations in each layer of a network; skipping updates brings
    them down to `LOOK`. Updates are of worlds drawn by chance, so what is summed up is biased by nothing. Fewer rows
    would tell less for the same time: what a look tells and what it takes both go with R^2, and its overhead does not.
    Up to SEATS seats all are looked at: they need what there is to be seen, and are no great part of a training.
    """
    update = look = 0.0
    for name, layer in layers.items():
        rows = sum(call.inputs.shape[1] for call in layer.seen)
        kept = min(rows, most_rows(layer.networks, layer.nodes))
        update += flops_of_block(layer, name).total * (layer.nodes + len(layer.senders)) * rows
        look += 2.0 * layer.nodes * kept**2 * (layer.seats + layer.in_features + layer.out_features)
    seats = next(iter(layers.values())).seats
    return 1 if seats <= SEATS or not update else math.ceil(look / (LOOK * update))


def grow_pool(
    layers: Mapping[str, BlockSparseLinear], scores: Tensor, pool: Pool, rule: GrowthRule, iteration: int
) -> dict[nn.Parameter, Tensor]:
    """Drop the weakest edges of some layers, and add the best.

    Args:
        layers: {name: layer}, those of the pool.
        scores: [L, G, N, N], layers by networks by sender by receiver.

    Returns:
        {`edges` of a layer: its rows}, of the layers whose edges change (`popcomm.agents.reindex`).
    """
    own, (_, networks, _, _) = list(layers.values()), scores.shape
    network = torch.cat([layer.pairs()[0] for layer in own])
    gone = _dropped(own, network, rule.prune, iteration)
    lost = torch.bincount(network[gone], minlength=networks)
    left = room_of(layers, pool, ~gone)
    there = _candidates(own, scores)
    where, *edge = chosen(scores, there, left.edges, left.costs, left.flops, rule.at_once + lost, rule.threshold)
    return _changed(own, gone, where, edge, iteration)


class Room(NamedTuple):
    """What a budget has left, of each of G networks."""

    edges: Tensor  # [G] int64
    flops: Tensor  # [G] float64; infinite where there is no such budget
    costs: Tensor  # [L] float64, of an edge of each layer (FLOPs)


def room_of(layers: Mapping[str, BlockSparseLinear], pool: Pool, kept: Tensor | None = None) -> Room:
    """What is left of a budget beside the edges that are there.

    Args:
        layers: {name: layer}, those of the pool.
        kept: [E] bool, which of their edges stay; None: all.
    """
    own = list(layers.values())
    networks, seats = own[0].networks, own[0].seats
    network = torch.cat([layer.pairs()[0] for layer in own])
    costs = network.new_tensor(
        [flops_of_block(layer, name).total for name, layer in layers.items()], dtype=torch.float64
    )
    paid = costs.repeat_interleave(network.new_tensor([len(layer.senders) for layer in own]))
    if kept is not None:
        network, paid = network[kept], paid[kept]
    spent, dense = torch.bincount(network, paid, networks), float(costs.sum()) * seats**2
    purse = torch.inf if pool.flops is None else dense * pool.flops - dense / seats
    return Room(pool.edges - torch.bincount(network, minlength=networks), purse - spent, costs)


def has_room(layers: Mapping[str, BlockSparseLinear], pool: Pool) -> bool:
    """Whether any of its networks may get another edge within a budget."""
    left = room_of(layers, pool)
    return bool(((left.edges > 0) & (left.flops >= left.costs.min())).any())


def _candidates(layers: list[BlockSparseLinear], scores: Tensor) -> Tensor:
    """[L, G, N, N] bool, edges that are not there; what is dropped now does not come back at once."""
    seats = scores.shape[-1]
    could = ~torch.eye(seats, dtype=torch.bool, device=scores.device).expand_as(scores)
    for i, layer in enumerate(layers):
        could = could.index_put((torch.full_like(layer.senders, i), *layer.pairs()), could.new_tensor(False))
    return could


def _dropped(layers: list[BlockSparseLinear], network: Tensor, prune: float, iteration: int) -> Tensor:
    """[E] bool over the edges of some layers: those that pruning takes; the newborn have had no time to grow strong."""
    if not prune:
        return torch.zeros_like(network, dtype=torch.bool)
    norms = torch.cat([layer.edges.detach().square().mean((1, 2)).sqrt() for layer in layers])
    born = torch.cat([layer.born for layer in layers])
    networks = layers[0].networks
    return weakest(norms, network, born < iteration, prune, networks)


def _changed(
    layers: list[BlockSparseLinear], gone: Tensor, where: Tensor, edge: list[Tensor], iteration: int
) -> dict[nn.Parameter, Tensor]:
    """The layers with other edges. gone: [E] bool over all layers; where: [K], the layers of new edges."""
    network, sender, receiver = edge
    rows: dict[nn.Parameter, Tensor] = {}
    left = gone.split([len(layer.senders) for layer in layers])
    for i, (layer, dropped) in enumerate(zip(layers, left, strict=True)):
        mine = where == i
        if bool(mine.any()) or bool(dropped.any()):
            first = network[mine] * layer.seats
            new = (first + sender[mine], first + receiver[mine])
            rows[layer.edges] = layer.arrange(~dropped, *new, iteration)
    return rows


def chosen(
    scores: Tensor, candidates: Tensor, room: Tensor, costs: Tensor, purse: Tensor, at_once: Tensor, threshold: float
) -> tuple[Tensor, ...]:
    """The best edges of a pool, in each network.

    A pair of seats gets one edge at a time, in the layer where it has the best score, and pairs that no layer joins
    come before those that one does: a new edge has not learned yet, and until it has, its gradient in all the other
    layers asks for the same thing again.

    Args:
        scores: [L, G, N, N], layers by networks by sender by receiver.
        candidates: [L, G, N, N] bool, edges that there could be and are not.
        room: [G] int64, how many more the budget has place for.
        costs: [L], of an edge of each layer (FLOPs).
        purse: [G], how many FLOPs are left; an edge that takes more is none.
        at_once: [G] int64, the most now.
        threshold: scores must be above.

    Returns:
        Layer, network, sender and receiver of each, [K] int64.
    """
    seats = scores.shape[-1]
    dear = (costs.unsqueeze(1) > purse).view(len(costs), -1, 1, 1)
    values = scores.double().masked_fill(~candidates | dear | ~(scores > threshold), -torch.inf)
    strange = candidates.all(0)  # [G, N, N]
    largest = values.nan_to_num(0.0, 0.0, 0.0).abs().amax((0, 2, 3), keepdim=True)
    values = values / torch.where(largest > 0, largest, 1.0) + 2 * strange
    values = values.masked_fill(values < values.amax(0), -torch.inf).transpose(0, 1).flatten(1)
    most = min(int(torch.minimum(room, at_once).max().clamp(min=0)), values.shape[1])
    best, places = values.topk(most, dim=1)  # [G, K]
    layer, pair = places // seats**2, places % seats**2
    within = torch.arange(most, device=scores.device) < torch.minimum(room, at_once).unsqueeze(1)
    paid = costs[layer].cumsum(1) <= purse.unsqueeze(1)
    network, rank = (best.isfinite() & within & paid).nonzero(as_tuple=True)
    pair = pair[network, rank]
    return layer[network, rank], network, pair // seats, pair % seats


def weakest(norms: Tensor, network: Tensor, may_go: Tensor, share_of: float, networks: int) -> Tensor:
    """[E] bool: of the edges of each network the share with the smallest norms, rounded down, as RigL drops them.

    Args:
        norms: [E], the edges' own.
        network: [E] int64.
        may_go: [E] bool; newborns have had no time to become strong.
        share_of: of all edges of a network.
    """
    counts = torch.bincount(network, minlength=networks)
    quota = (counts * share_of).long()
    order = torch.where(may_go, norms, torch.inf).argsort(stable=True)
    order = order[network[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[network[order]]
    return may_go & (rank < quota[network])
