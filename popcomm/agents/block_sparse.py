"""BlockSparseLinear: one layer of all seats of a world, made of blocks: a seat's own, and edges from seat to seat.

A node is a seat of a network: node g N + n is seat n of network g, of G networks of N seats. Tensors are node-major,
[G N, W, ...]: W worlds of each network.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from popcomm.agents.population import linear, orthogonal_
from popcomm.agents.reindex import take_sizes

EXECUTORS = ("list", "receivers", "dense")
# Where each executor is the fastest, on one core (docs/bottom_up.md): the share of a dense layer's edges from which on
# the whole matrix is multiplied, and the edges of a receiver from which on its senders are joined.
DENSE_FROM = 0.7
JOINED_FROM, JOINED_FROM_WITHOUT_GRADIENT = 4.0, 8.0
# Seats and worlds up to which a loop over receivers costs more than it saves.
FEW_SEATS, FEW_WORLDS = 8, 16

OF_EDGES = ("edges", "senders", "receivers", "born")


class Captured(NamedTuple):
    """What a layer was watched doing in one call."""

    inputs: Tensor  # [G N, W, in]
    gradients: Tensor  # [G N, W, out], of the loss by what the layer gave


class BlockSparseLinear(nn.Module):
    """y_i = b_i + x_i D_i + the sum over edges j -> i of x_j W_ij: a dense layer whose other blocks are zero.

    The rows of `edges` come and go (`arrange`, `popcomm.agents.reindex`); there are none at the start.

    Args:
        networks: G.
        seats: N.
        in_features, out_features: of a seat's own block.
        gain: of the orthogonal blocks at the start.
        shared: whether the seats of a network share one own block, [G, in, out], instead of [G N, in, out].
        generator: source of the initial weights; torch's default one if None.

    Attributes:
        weight, bias: the own blocks, [G N or G, in, out] and [G N or G, out].
        edges: [E, in, out], the blocks between seats.
        senders, receivers: [E] int64 nodes, sorted by receiver and then by sender.
        born: [E] int64, the iteration in which an edge was grown.
        executor: one of EXECUTORS for all calls; None: the fastest one.
        watching: whether calls with gradients are captured in `seen`.
    """

    senders: Tensor
    receivers: Tensor
    born: Tensor

    def __init__(
        self,
        networks: int,
        seats: int,
        in_features: int,
        out_features: int,
        gain: float = 1.0,
        shared: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.networks, self.seats, self.shared = networks, seats, shared
        self.in_features, self.out_features = in_features, out_features
        own = networks if shared else networks * seats
        self.weight = nn.Parameter(torch.empty(own, in_features, out_features))
        orthogonal_(self.weight, gain, generator)
        self.bias = nn.Parameter(torch.zeros(own, out_features))
        self.edges = nn.Parameter(torch.empty(0, in_features, out_features))
        for name in ("senders", "receivers", "born"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64))
        self.executor: str | None = None
        self.watching = False
        self.seen: list[Captured] = []
        self._spans: list[tuple[int, int, int]] | None = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        take_sizes(self, OF_EDGES, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._spans = None

    @property
    def nodes(self) -> int:
        """G N."""
        return self.networks * self.seats

    @property
    def density(self) -> float:
        """The share of all edges that there could be."""
        return len(self.senders) / max(1, self.nodes * (self.seats - 1))

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of every edge the network, the sending and the receiving seat: [E] int64 each."""
        return self.senders // self.seats, self.senders % self.seats, self.receivers % self.seats

    # ---- the product ----

    def forward(self, x: Tensor) -> Tensor:
        """x [G N, W, in] -> [G N, W, out]."""
        executor = self.executor or self.fastest(x.shape[1], torch.is_grad_enabled())
        if executor == "dense" and len(self.senders):
            out = self._dense(x)
        else:
            out = self._own(x)
            if len(self.senders):
                out = out + self._joined(x) if executor == "receivers" else self._listed(x, out)
        if self.watching and out.requires_grad:
            inputs = x.detach()
            out.register_hook(lambda slope: self.seen.append(Captured(inputs, slope.detach())))
        return out

    def fastest(self, worlds: int, gradients: bool) -> str:
        """The executor that is fastest with the edges as they are, for W worlds, with or without gradients."""
        if self.density >= DENSE_FROM:
            return "dense"
        each = len(self.senders) / self.nodes
        joined = JOINED_FROM if gradients else JOINED_FROM_WITHOUT_GRADIENT
        loops = self.seats > FEW_SEATS and worlds > FEW_WORLDS and each >= joined
        return "receivers" if loops else "list"

    def _own(self, x: Tensor) -> Tensor:
        if not self.shared:
            return linear(x, self.weight, self.bias)
        joined = x.reshape(self.networks, -1, self.in_features)
        return linear(joined, self.weight, self.bias).view(*x.shape[:2], self.out_features)

    def _listed(self, x: Tensor, out: Tensor) -> Tensor:
        """One product for every edge, added up at the receivers: adding an edge of zeros changes no bit."""
        sent = torch.bmm(x.index_select(0, self.senders), self.edges)
        return out.index_add(0, self.receivers, sent)

    def _joined(self, x: Tensor) -> Tensor:
        """One product for every receiver, of all that its senders send."""
        edges: Tensor = self.edges
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, edges = x.to(dtype), edges.to(dtype)
        if self._spans is None:
            self._spans = spans(self.receivers)
        return _OfReceivers.apply(x, edges, self.senders, self._spans)

    def _dense(self, x: Tensor) -> Tensor:
        """One product of the whole matrix, zeros and all."""
        g, n = self.networks, self.seats
        worlds = x.view(g, n, -1, self.in_features).transpose(1, 2).flatten(2)
        bias = self.bias.view(g, 1, -1) if not self.shared else self.bias.repeat(1, n).unsqueeze(1)
        out = torch.baddbmm(bias, worlds, self.matrix())
        return out.unflatten(2, (n, -1)).transpose(1, 2).flatten(0, 1)

    def matrix(self) -> Tensor:
        """The layer as a dense one: [G, N in, N out], with gradients."""
        own = self.weight.view(self.networks, -1, *self.weight.shape[1:]).expand(-1, self.seats, -1, -1)
        return _Matrix.apply(own, self.edges, self.pairs())

    # ---- edges that come and go ----

    @torch.no_grad()
    def arrange(self, kept: Tensor, senders: Tensor, receivers: Tensor, iteration: int) -> Tensor:
        """Keep some edges and take others in; the order stays that of receivers.

        Args:
            kept: [E] bool.
            senders, receivers: [K] int64 nodes of new edges.
            iteration: in which they are born.

        Returns:
            [E'] int64, which row of `edges` is to stand on each place, -1: a new one (`popcomm.agents.reindex`). The
            parameter itself is still to be changed.
        """
        rows = torch.cat([kept.nonzero()[:, 0], torch.full_like(senders, -1)])
        parts = (senders, receivers, torch.full_like(senders, iteration))
        before = (self.senders, self.receivers, self.born)
        joined = [torch.cat([old[kept], new]) for old, new in zip(before, parts, strict=True)]
        order = (joined[1] * self.nodes + joined[0]).argsort()
        self.senders, self.receivers, self.born = (values[order] for values in joined)
        self._spans = None
        return rows[order]

    @torch.no_grad()
    def connect(self, senders: Tensor, receivers: Tensor) -> None:
        """Edges from the start, all that there are then; their weights are zero. senders, receivers: [E] int64."""
        self.arrange(torch.zeros_like(self.senders, dtype=torch.bool), senders, receivers, 0)
        self.edges.data = torch.zeros(len(senders), self.in_features, self.out_features)

    @torch.no_grad()
    def start_dense_(self, generator: torch.Generator | None = None) -> None:
        """Weights of all blocks as small as those of a dense layer with so many inputs, and outputs as large."""
        self.weight.div_(math.sqrt(self.seats))
        self.edges.normal_(0.0, float(self.weight.square().mean().sqrt()), generator=generator)

    @torch.no_grad()
    def inherit(self, parents: Tensor) -> Tensor:
        """Node p gets the edges that node parents[p] has: parents [G N] int64 (-1: none) -> rows of `edges` [E'].

        Whom a node hears are the same seats of its own network; where that would be itself, the seat of its parent.
        """
        counts = torch.bincount(self.receivers, minlength=self.nodes)
        starts = counts.cumsum(0) - counts
        many = torch.where(parents < 0, 0, counts[parents])
        receivers = torch.arange(self.nodes, device=parents.device).repeat_interleave(many)
        ahead = torch.arange(len(receivers), device=parents.device) - (many.cumsum(0) - many)[receivers]
        rows = starts[parents[receivers]] + ahead
        heard = self.senders[rows] % self.seats
        heard = torch.where(heard == receivers % self.seats, parents[receivers] % self.seats, heard)
        senders = receivers // self.seats * self.seats + heard
        order = (receivers * self.nodes + senders).argsort()
        rows = rows[order]
        self.senders, self.receivers, self.born = senders[order], receivers[order], self.born[rows]
        self._spans = None
        return rows


def spans(receivers: Tensor) -> list[tuple[int, int, int]]:
    """(node, first edge, one after its last edge) of all nodes that hear anybody. receivers: [E] int64, sorted."""
    nodes, counts = torch.unique_consecutive(receivers, return_counts=True)
    ends = [0, *counts.cumsum(0).tolist()]
    return [(node, first, end) for node, (first, end) in zip(nodes.tolist(), pairwise(ends), strict=True)]


class _Matrix(torch.autograd.Function):
    """Blocks put where they belong in a dense matrix, and its gradient taken apart: each number is moved once."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, edges: Tensor, pairs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """own [G, N, in, out], edges [E, in, out], pairs: networks, senders and receivers -> [G, N in, N out]."""
        g, n, i, o = own.shape
        matrix = edges.new_zeros(g, n, i, n, o)
        blocks, seat = matrix.transpose(2, 3), torch.arange(n, device=own.device)
        blocks[:, seat, seat] = own
        blocks[pairs] = edges
        ctx.save_for_backward(*pairs)
        ctx.shape = matrix.shape
        return matrix.view(g, n * i, n * o)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        blocks = slopes.reshape(ctx.shape).transpose(2, 3)
        seat = torch.arange(blocks.shape[1], device=slopes.device)
        return blocks[:, seat, seat], blocks[ctx.saved_tensors], None


class _OfReceivers(torch.autograd.Function):
    """One product for each receiver: what its senders send, side by side, times its edges, one under the other.

    The loop is over receivers with senders; padding all to the most senders that one has costs half as much again. What
    is joined is joined again in the backward pass: kept, it would take E W in numbers.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, edges: Tensor, senders: Tensor, where: list[tuple[int, int, int]]) -> Tensor:
        """x [G N, W, in], edges [E, in, out], senders [E], where: `spans` -> [G N, W, out]."""
        worlds = x.transpose(0, 1).contiguous()  # [W, G N, in]
        out = x.new_zeros(*x.shape[:2], edges.shape[2])
        for node, first, end in where:
            sent = worlds.index_select(1, senders[first:end]).flatten(1)
            torch.mm(sent, edges[first:end].flatten(0, 1), out=out[node])
        ctx.save_for_backward(worlds, edges, senders)
        ctx.where = where
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        worlds, edges, senders = ctx.saved_tensors
        to_x, to_edges, _, _ = ctx.needs_input_grad
        of_x = torch.zeros_like(worlds) if to_x else None
        of_edges = torch.zeros_like(edges) if to_edges else None
        for node, first, end in ctx.where:
            slope, some = slopes[node], senders[first:end]
            if of_edges is not None:
                sent = worlds.index_select(1, some).flatten(1)
                torch.mm(sent.T, slope, out=of_edges[first:end].flatten(0, 1))
            if of_x is not None:
                back = torch.mm(slope, edges[first:end].flatten(0, 1).T)
                of_x.index_add_(1, some, back.unflatten(1, (len(some), -1)))
        return None if of_x is None else of_x.transpose(0, 1), of_edges, None, None
