"""BottomUpNetwork: all seats of a world as one network, whose agents start alone and grow the edges that they need.

After "Bottom Up Network" (arXiv 2410.02516): the weights of a collective start block-diagonal, those between agents are
zero, and those with the largest gradients are added during training under a budget. docs/bottom_up.md says what is the
paper's and what is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from popcomm.agents.activations import activation_function
from popcomm.agents.block_sparse import BlockSparseLinear
from popcomm.agents.contract import AgentOutput, AgentSpec, AuxiliaryBatch
from popcomm.agents.growing import Flops, flops_of_block, grow_pool, has_room, look_every
from popcomm.agents.growth_criteria import rows_of
from popcomm.agents.growth_rule import GrowthRule
from popcomm.agents.message_encoder import MessageEncoder
from popcomm.agents.pointing import make_pointing, pointed
from popcomm.agents.population import PopulationGRUCell, PopulationLinear
from popcomm.agents.pretrained import Pretrained
from popcomm.agents.start import POLICY_GAIN, start_message_head_
from popcomm.channels.mailbox import Inbox
from popcomm.checks import one_of, true_or_false, whole
from popcomm.errors import UserError, unknown

BLOCKS, HEARS = ("own", "shared"), ("all", "grown")
# Root mean square of the actor's last activations at the start, as of MLPAgent.
START_SCALE = 0.5


class BottomUpNetwork(Pretrained, nn.Module):
    """Separate actor and critic of block-sparse layers over all seats, which start as independent agents.

    With seating "fixed" and members = seats x teams every seat is a member, with a normaliser of returns and a clipping
    of its own; with "worlds", or one member, a member is a whole network. Layers are "actor.0" ... and "critic.0" ...,
    the last of each being its head. What is heard is encoded per message, averaged, and added to a seat's own first
    layers; messages are linear in the actor's last hidden layer. What hears, speaks and weighs candidates is a
    member's, on all seats where it sits, whatever `blocks` says.

    Args:
        spec: what the network must know of its place.
        hidden: width of a seat's part of each hidden layer.
        layers: hidden layers of actor and of critic.
        activation: "tanh" or "relu".
        blocks: "own" blocks of every seat, or one that is "shared" by the seats of a network.
        recurrent: whether a GRU of every seat follows the first hidden layer of actor and critic.
        hears: "all" that the channel brings, or "grown": those alone whom an edge of the actor joins with a seat.
        growth: when and which edges grow (`popcomm.agents.growth_rule.GrowthRule.of`); empty: by csnr.
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: a width or number of layers below one, an unknown activation, or growth that cannot be.
    """

    has_auxiliary_losses = False
    gives_features = takes_relaxed = collective = True
    # Of the trainer: asked to grow once an iteration; with seating "shuffled", a member for every seat.
    grows_by_iteration = seat_members = True

    iterations: Tensor

    def __init__(
        self,
        spec: AgentSpec,
        hidden: int = 64,
        layers: int = 2,
        activation: str = "tanh",
        blocks: str = "own",
        recurrent: bool = False,
        hears: str = "all",
        growth: Mapping[str, Any] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        whole("agent_config.hidden", hidden, 1)
        whole("agent_config.layers", layers, 1)
        self.spec, self.features_size, self.activation = spec, hidden, activation_function(activation)
        self.shared = one_of("agent_config.blocks", blocks, BLOCKS) == "shared"
        self.recurrent = true_or_false("agent_config.recurrent", recurrent)
        self.hears_links = one_of("agent_config.hears", hears, HEARS) == "grown"
        self._check_hearing()
        self.by_seat = spec.seating == "fixed" and spec.members > 1
        self.seats = spec.num_seats
        self.networks = spec.members // self.seats if self.by_seat else spec.members
        names = [f"{group}.{i}" for group in ("actor", "critic") for i in range(layers + 1)]
        self.rule = GrowthRule.of({} if growth is None else growth, names, self.seats)
        heads = {"actor": (spec.action_params_size, POLICY_GAIN), "critic": (1, 1.0)}
        self.stacks = nn.ModuleDict(
            {name: self._stack(hidden, layers, *head, generator) for name, head in heads.items()}
        )
        if recurrent:
            own = self.networks if self.shared else self.networks * self.seats
            cells = {name: PopulationGRUCell(own, hidden, hidden, generator) for name in heads}
            self.cores = nn.ModuleDict(cells)
        if spec.receives is not None:
            self.encoder = MessageEncoder(spec.members, spec.receives, hidden, generator=generator)
            self.heard = PopulationLinear(spec.members, hidden, 2 * hidden, bias=False, generator=generator)
        if spec.sends is not None:
            params = math.prod(spec.sends.params_shape)
            self.message_head = PopulationLinear(spec.members, hidden, params, generator=generator)
            start_message_head_(self.message_head, START_SCALE, generator)
        self.pointing = make_pointing(spec, hidden, START_SCALE, generator)
        self.register_buffer("iterations", torch.zeros(1, dtype=torch.int64))
        self._connect(generator)

    def _check_hearing(self) -> None:
        others = set(self.spec.seat_species) - {self.spec.species}
        if self.hears_links and (others or self.spec.receives is None):
            why = "others of another species are heard, too" if others else "nothing is heard here"
            raise UserError(
                f"agent_config.hears is 'grown', the graph of the seats of one species, and {why}; use 'all'"
            )

    def _stack(
        self, hidden: int, layers: int, out: int, gain: float, generator: torch.Generator | None
    ) -> nn.ModuleList:
        sizes, gains = [self.spec.obs_size, *[hidden] * layers, out], [math.sqrt(2)] * layers + [gain]
        return nn.ModuleList(
            BlockSparseLinear(self.networks, self.seats, *size, g, self.shared, generator)
            for size, g in zip(pairwise(sizes), gains, strict=True)
        )

    def _connect(self, generator: torch.Generator | None) -> None:
        """The edges that are there from the start: of an oracle, at zero; of a dense collective, as a dense layer's."""
        if self.rule.criterion == "oracle":
            assert self.rule.graph is not None
            pairs = self.rule.graph
        elif self.rule.criterion == "full":
            pairs = (~torch.eye(self.seats, dtype=torch.bool)).nonzero()
        else:
            return
        first = torch.arange(self.networks).view(-1, 1) * self.seats
        senders, receivers = ((first + seats).flatten() for seats in pairs.unbind(1))
        for layer in self.layers.values():
            layer.connect(senders, receivers)
            if self.rule.criterion == "full" and self.seats > 1:
                layer.start_dense_(generator)

    @property
    def layers(self) -> dict[str, BlockSparseLinear]:
        """{"actor.0": layer, ..., "critic.0": layer, ...}."""
        return {f"{group}.{i}": layer for group in self.stacks for i, layer in enumerate(self._layers(group))}

    def _layers(self, group: str) -> list[BlockSparseLinear]:
        return list(cast(Any, self.stacks[group]))

    def edges(self, layer: str | int, network: int = 0) -> Tensor:
        """The edges of a layer, [E, 2] int64 (sender, receiver), sorted by receiver.

        Args:
            layer: its name, or its place among `layers`: the actor's come first.
            network: whose, where there are several teams.

        Raises:
            UserError: no such layer.
        """
        layers = self.layers
        if isinstance(layer, int) and 0 <= layer < len(layers):
            layer = list(layers)[layer]
        if layer not in layers:
            raise unknown("the layer", str(layer), layers)
        of, senders, receivers = layers[layer].pairs()
        return torch.stack([senders, receivers], 1)[of == network]

    # ---- a step ----

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """Zeros {"actor", "critic": [P, rows, hidden]} of the GRUs; nothing where there are none."""
        if not self.recurrent:
            return {}
        zeros = self._layers("actor")[0].weight.new_zeros(self.spec.members, rows, self.features_size)
        return dict.fromkeys(self.stacks, zeros)

    def forward(self, obs: Tensor, inbox: Inbox | None, state: Mapping[str, Tensor]) -> AgentOutput:
        """obs [P, R, O] float32, inbox [P, R, K, ...] or None -> AgentOutput.

        `aux` has "features", the actor's last hidden layer, [P, R, hidden].
        """
        seen = self._nodes(obs)
        heard: Mapping[str, Tensor] = {}
        if inbox is not None and self.spec.receives is not None:
            parts = self._nodes(self.heard(self._pool(inbox))).chunk(2, -1)
            heard = dict(zip(self.stacks, parts, strict=True))
        out, features, after = {}, {}, {}
        for name in self.stacks:
            first, *hidden, head = self._layers(name)
            x = first(seen)
            x = self.activation(x + heard[name] if heard else x)
            if self.recurrent:
                x = self._remember(name, x, self._nodes(state[name]))
                after[name] = self._rows(x)
            for layer in hidden:
                x = self.activation(layer(x))
            features[name], out[name] = x, self._rows(head(x))
        acted = self._rows(features["actor"])
        message = None
        if self.spec.sends is not None:
            message = self.message_head(acted).unflatten(-1, self.spec.sends.params_shape)
        logits = pointed(self.pointing, out["actor"], acted, obs)
        return AgentOutput(logits, message, out["critic"].squeeze(-1), after, {"features": acted})

    def _remember(self, name: str, x: Tensor, state: Tensor) -> Tensor:
        """A step of the GRUs: x and state [G N, W, hidden] -> the state after it, which is what they give."""
        if not self.shared:
            return self.cores[name](x, state)
        joined = [values.reshape(self.networks, -1, self.features_size) for values in (x, state)]
        return self.cores[name](*joined).view_as(x)

    def _nodes(self, rows: Tensor) -> Tensor:
        """[P, R, F] -> [G N, W, F]."""
        if self.by_seat:
            return rows
        return rows.unflatten(1, (-1, self.seats)).transpose(1, 2).flatten(0, 1)

    def _rows(self, nodes: Tensor) -> Tensor:
        """[G N, W, F] -> [P, R, F]."""
        if self.by_seat:
            return nodes
        return nodes.unflatten(0, (-1, self.seats)).transpose(1, 2).flatten(1, 2)

    def _pool(self, inbox: Inbox) -> Tensor:
        """[P, R, hidden], the mean over real messages; zero where there is none."""
        read, mask = self.activation(self.encoder(inbox)), inbox.mask
        if self.hears_links:
            mask = mask & self._joined(inbox.senders)
        weight = mask / mask.sum(-1, keepdim=True).clamp(min=1)
        return (read * weight.unsqueeze(-1)).sum(-2)

    def _joined(self, senders: Tensor) -> Tensor:
        """Whether an edge of the actor joins whom a row hears with it: senders [P, R, K] seats -> [P, R, K] bool."""
        links = torch.zeros(self.networks * self.seats, self.seats, dtype=torch.bool, device=senders.device)
        for layer in self._layers("actor"):
            links[layer.receivers, layer.senders % self.seats] = True
        rows = self._rows(links.unsqueeze(1).expand(-1, senders.shape[1] // (1 if self.by_seat else self.seats), -1))
        return rows.gather(2, senders.clamp(max=self.seats - 1)) & (senders < self.seats)

    def auxiliary_losses(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> dict[str, Tensor]:
        """It has none."""
        return {}

    # ---- growth ----

    def owners(self) -> dict[nn.Parameter, Tensor]:
        """Edges are their receiver's; of a member that is a whole network, all blocks of its seats are its own."""
        each = 1 if self.by_seat else self.seats
        owners = {layer.edges: layer.receivers // each for layer in self.layers.values()}
        if self.by_seat or self.shared:
            return owners
        own = self._own_parts()
        whose = torch.arange(self.networks, device=self.iterations.device).repeat_interleave(self.seats)
        return owners | dict.fromkeys(own, whose)

    def _own_parts(self) -> list[nn.Parameter]:
        blocks = [p for layer in self.layers.values() for p in (layer.weight, layer.bias)]
        return blocks + (list(self.cores.parameters()) if self.recurrent else [])

    def watch(self, on: bool) -> None:
        """Whether the gradients that follow are looked at."""
        looks = on and self.rule.watches(int(self.iterations) + 1) and self._has_room()
        self._update, self._every = 0, 1
        for layer in self.layers.values():
            layer.watching, layer.seen = looks, []

    def _has_room(self) -> bool:
        """Whether any edge can still come: a budget is not spent, or pruning makes room."""
        layers = self.layers
        pools = (({name: layers[name] for name in pool.layers}, pool) for pool in self.rule.pools)
        return self.rule.prune > 0 or any(has_room(own, pool) for own, pool in pools if own)

    def growth_statistics(self) -> Tensor:
        """[K, L, G, N, N] sums of the criterion for every layer, sender by receiver; [1] where it looks at nothing."""
        criterion, layers = self.rule.looks, self.layers.values()
        if criterion is None:
            return self.iterations.new_zeros(1, dtype=torch.float32)
        nothing = self._layers("actor")[0].weight.new_zeros(criterion.parts, self.networks, self.seats, self.seats)
        found, seen = [], any(layer.seen for layer in layers)
        self._update, self._every = self._update + 1, look_every(self.layers) if seen else self._every
        for layer in layers:
            rows = rows_of(layer.seen, self.networks)
            found.append(nothing if rows is None else criterion.statistics(rows).to(nothing.dtype))
            layer.watching, layer.seen = (layer.watching or self._every > 1) and self._update % self._every == 0, []
        return torch.stack(found, 1)

    def grow(self, sums: Tensor, generator: torch.Generator) -> dict[nn.Parameter, Tensor]:
        """At the end of an iteration: which rows the edges of each layer are to have, if they change."""
        self.iterations += 1
        now, layers = int(self.iterations), self.layers
        if not self.rule.due(now):
            return {}
        names = list(layers)
        if self.rule.looks is None:
            shape = (len(names), self.networks, self.seats, self.seats)
            scores = torch.rand(shape, generator=generator).to(sums.device)
        else:
            scores = self.rule.looks.score(sums)
        rows: dict[nn.Parameter, Tensor] = {}
        for pool in self.rule.pools:
            if pool.layers:
                own = {name: layers[name] for name in pool.layers}
                rows |= grow_pool(own, scores[[names.index(name) for name in own]], pool, self.rule, now)
        return rows

    def inherit(self, parents: Tensor) -> dict[nn.Parameter, Tensor]:
        """Member p is to become what member parents[p] is, with its edges; -1: one with those of the start, at zero."""
        nodes = parents = parents.to(self.iterations.device)
        if not self.by_seat:
            seat = torch.arange(self.seats, device=parents.device)
            nodes = torch.where(parents.unsqueeze(1) < 0, -1, parents.unsqueeze(1) * self.seats + seat).flatten()
        rows: dict[nn.Parameter, Tensor] = {}
        for layer in self.layers.values():
            # Where nothing grows all that there are were there at the start: who is new has its place's.
            own_place = torch.arange(len(nodes), device=nodes.device)
            inherited = layer.inherit(nodes if self.rule.grows else torch.where(nodes < 0, own_place, nodes))
            rows[layer.edges] = torch.where(nodes[layer.receivers] < 0, -1, inherited)
        own = self._own_parts()
        if self.by_seat and self.shared:  # one block for a whole team stays what it is
            nodes = torch.arange(self.networks, device=parents.device)
        elif self.shared:
            nodes = parents
        return rows | dict.fromkeys(own, nodes)

    # ---- accounting ----

    def flops(self, dense: bool = False) -> Flops:
        """Operations of an agent in a step: of blocks, edges and GRUs, not of what hears, speaks or weighs candidates.

        Backward is what an update adds for the same step: gradients of weights and of all inputs but observations.
        Where all edges are multiplied as one dense matrix, the machine does more than is counted here.

        Args:
            dense: of the same network with all edges.
        """
        forward = backward = 0.0
        nodes = self.networks * self.seats
        for name, layer in self.layers.items():
            edges = nodes * (self.seats - 1) if dense else len(layer.senders)
            block = flops_of_block(layer, name)
            forward += (nodes + edges) * block.forward / nodes
            backward += (nodes + edges) * block.backward / nodes
        if self.recurrent:
            core = len(self.stacks) * 2 * 2.0 * self.features_size * 3 * self.features_size
            forward, backward = forward + core, backward + 2 * core
        return Flops(forward, backward)

    def measures(self) -> dict[str, float]:
        """What is logged once an iteration, in the mean over networks: edges are blocks, links are pairs of seats."""
        now, whole_network = self.flops(), self.flops(dense=True)
        actor = self._layers("actor")
        links = torch.cat([layer.senders * layer.nodes + layer.receivers for layer in actor]).unique()
        groups = {g: sum(len(layer.senders) for layer in self._layers(g)) / self.networks for g in self.stacks}
        told = {
            "edges": groups["actor"],
            "critic_edges": groups["critic"],
            "links": len(links) / self.networks,
            "flops_share": now.total / whole_network.total,
            "flops_forward": now.forward,
            "flops_backward": now.backward,
        }
        return {f"bottom_up/{name}": float(value) for name, value in told.items()}
