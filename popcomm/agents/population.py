"""Layers for P members at once: torch's single-agent layers with the members as the first axis of every weight.

Inputs and outputs are member-major, [P, R, features], with any axes between (`[P, R, K, features]`). One `baddbmm`
gives every member its own weights at the cost of shared ones. `extract` and `insert` move one member to and from the
layout of torch's own layers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from popcomm.agents import deferred
from popcomm.agents.activations import activation_function
from popcomm.agents.recurrent_steps import GRUStep, LSTMStep, gru_step, lstm_step
from popcomm.errors import UserError, unknown


def uniform(bound: float, *shape: int, generator: torch.Generator | None = None) -> nn.Parameter:
    """A parameter of independent uniform numbers in [-bound, bound)."""
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound, generator=generator))


def orthogonal_(weight: Tensor, gain: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Fill weight [P, in, out] with an independent (semi-)orthogonal matrix per member (Saxe 2014), times `gain`."""
    members, rows, columns = weight.shape
    normal = torch.randn(members, max(rows, columns), min(rows, columns), generator=generator)
    q, r = torch.linalg.qr(normal)
    # The signs make the distribution of q uniform over the orthogonal group (Mezzadri 2007).
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    with torch.no_grad():
        return weight.copy_((q if rows >= columns else q.mT) * gain)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [P, R, ..., in], weight [P, in, out], bias [P, out] -> [P, R, ..., out], each member with its own weights."""
    members = weight.size(0)
    if x.dim() != 3 or members == 1 != x.size(0):
        # Weights of one member take any rows, such as [worlds, R, in].
        rows = x.flatten(0, -2).unsqueeze(0) if members == 1 else x.flatten(1, -2)
        return linear(rows, weight, bias).view(*x.shape[:-1], weight.size(-1))
    once = deferred.linear(x, weight, bias)
    if once is not None:
        return once
    # One member, too: the batched product of one costs what the plain one does, and half of the nodes of the graph.
    if bias is None:
        return torch.bmm(x, weight)
    return torch.baddbmm(bias if members == 1 else bias.unsqueeze(1), x, weight)


class PopulationLinear(nn.Module):
    """`torch.nn.Linear` for P members. x [P, R, ..., in] -> [P, R, ..., out].

    `weight` is [P, in, out], `bias` [P, out]; the distribution of their start is that of torch.nn.Linear.
    """

    transposed: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(
        self,
        members: int,
        in_features: int,
        out_features: int,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = uniform(bound, members, in_features, out_features, generator=generator)
        self.bias = uniform(bound, members, out_features, generator=generator) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class PopulationLayerNorm(nn.Module):
    """`torch.nn.LayerNorm` over the last axis for P members. x [P, R, ..., features] -> the same shape."""

    def __init__(self, members: int, features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(members, features))
        self.bias = nn.Parameter(torch.zeros(members, features))

    def forward(self, x: Tensor) -> Tensor:
        members, features = self.weight.shape
        if members == 1:
            return F.layer_norm(x, (features,), self.weight.squeeze(0), self.bias.squeeze(0), self.eps)
        shape = (members, *[1] * (x.dim() - 2), features)
        return torch.addcmul(self.bias.view(shape), F.layer_norm(x, (features,), eps=self.eps), self.weight.view(shape))


class PopulationEmbedding(nn.Module):
    """`torch.nn.Embedding` for P members. indices [P, R, ...] int64 -> [P, R, ..., features]."""

    def __init__(
        self, members: int, num_embeddings: int, features: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, num_embeddings, features, generator=generator))

    def forward(self, indices: Tensor) -> Tensor:
        members, num, features = self.weight.shape
        first = torch.arange(0, members * num, num, device=indices.device).view(-1, *[1] * (indices.dim() - 1))
        return F.embedding(indices + first, self.weight.view(members * num, features))


class _RecurrentCell(nn.Module):
    """Weights of a recurrent cell with torch's names: `gates` blocks of `hidden_size` columns, in torch's order."""

    gates: ClassVar[int]
    transposed: ClassVar[tuple[str, ...]] = ("weight_ih", "weight_hh")

    def __init__(
        self, members: int, input_size: int, hidden_size: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        bound, width = 1 / math.sqrt(hidden_size), self.gates * hidden_size
        self.hidden_size = hidden_size
        self.weight_ih = uniform(bound, members, input_size, width, generator=generator)
        self.weight_hh = uniform(bound, members, hidden_size, width, generator=generator)
        self.bias_ih = uniform(bound, members, width, generator=generator)
        self.bias_hh = uniform(bound, members, width, generator=generator)


class PopulationGRUCell(_RecurrentCell):
    """`torch.nn.GRUCell` for P members. x [P, R, in], h [P, R, H] -> h [P, R, H].

    x may have one row for all, and h may be None for zeros: their products are then not made for every row.
    """

    gates = 3

    def forward(self, x: Tensor, h: Tensor | None) -> Tensor:
        return self.step(self.fed(x), h)

    def fed(self, x: Tensor) -> Tensor:
        """x [P, R, in] -> [P, R, 3H], what `step` takes of it: of a table of symbols once for all who read them."""
        return linear(x, self.weight_ih, self.bias_ih)

    def step(self, from_x: Tensor, h: Tensor | None) -> Tensor:
        """`fed` [P, R, 3H] and h [P, R, H] -> h [P, R, H]."""
        from_h = self.bias_hh.unsqueeze(1) if h is None else linear(h, self.weight_hh, self.bias_hh)
        if torch.is_autocast_enabled(from_x.device.type):
            # The state may be wider than the gates: products are made in bfloat16, and states stay as they are.
            return gru_step(from_x, from_h, None if h is None else h.to(from_x.dtype))[0]
        return GRUStep.apply(from_x, from_h, h)


class PopulationLSTMCell(_RecurrentCell):
    """`torch.nn.LSTMCell` for P members. x [P, R, in], (h, c) each [P, R, H] -> (h, c).

    x may be given in parts that lie side by side, [P, R, in_i] each.
    """

    gates = 4

    def forward(self, x: Tensor | tuple[Tensor, ...], state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        parts = x if isinstance(x, tuple) else (x,)
        bias = self.bias_ih + self.bias_hh
        bias = bias if bias.size(0) == 1 else bias.unsqueeze(1)
        if torch.is_autocast_enabled(h.device.type):
            # Products in bfloat16 are autograd's to follow.
            gates = torch.baddbmm(torch.baddbmm(bias, torch.cat(parts, -1), self.weight_ih), h, self.weight_hh)
            h, c, *_ = lstm_step(gates, c)
            return h, c
        weights: tuple[Tensor, Tensor] = (self.weight_ih, self.weight_hh)
        collected = None
        now = deferred.deferral(self.weight_ih, h.size(1))
        if now is not None and h.size(0) > 1:
            (from_x, (weight_ih,)), (from_h, (weight_hh,)) = map(now.products, weights)
            weights, collected = (weight_ih, weight_hh), (from_x, from_h)
        return LSTMStep.apply(collected, h, c, *weights, bias, *parts)


class PopulationMLP(nn.Module):
    """Linear layers with an activation between them. x [P, R, ..., sizes[0]] -> [P, R, ..., sizes[-1]].

    With `gain` the weights are orthogonal with gain sqrt(2), those of the last layer with `gain`, and biases are zero
    (the start of CleanRL's PPO); without, the layers start as torch's.

    Raises:
        UserError: no such activation.
    """

    def __init__(
        self,
        members: int,
        *sizes: int,
        activation: str = "tanh",
        gain: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation_function(activation)
        pairs = list(itertools.pairwise(sizes))
        self.layers = nn.ModuleList(PopulationLinear(members, *pair, generator=generator) for pair in pairs)
        if gain is not None:
            for i, layer in enumerate(self.layers):
                orthogonal_layer_(layer, gain if i == len(pairs) - 1 else math.sqrt(2), generator)

    def hidden(self, x: Tensor) -> Tensor:
        """What the last layer gets: x [P, R, ..., sizes[0]] -> [P, R, ..., sizes[-2]]."""
        # As a list: a slice of a ModuleList is a new module.
        for layer in list(self.layers)[:-1]:
            x = self.activation(layer(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[-1](self.hidden(x))


def orthogonal_layer_(layer: Any, gain: float, generator: torch.Generator | None = None) -> None:
    """Orthogonal weights and zero biases for a PopulationLinear."""
    orthogonal_(layer.weight, gain, generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def extract(module: nn.Module, member: int) -> dict[str, Tensor]:
    """One member's weights: the same names, no member axis, and the layout of torch's single-agent layers.

    A Linear's weight is [out, in], a cell's [gates * H, in], so the torch layer of the same name loads it.

    Raises:
        UserError: no such member.
    """
    return {name: _view(value, member, flip, name).clone() for name, value, flip in _entries(module)}


def insert(module: nn.Module, member: int, state_dict: Mapping[str, Tensor]) -> None:
    """Write one member's weights, laid out as `extract` gives them.

    Raises:
        UserError: no such member, a name that is missing or unknown, or a shape that does not fit. Nothing is written.
    """
    slots = {name: _view(value, member, flip, name) for name, value, flip in _entries(module)}
    for name in state_dict:
        if name not in slots:
            raise unknown("the weight", name, slots)
    for name, slot in slots.items():
        if name not in state_dict:
            raise UserError(f"the weight '{name}' is missing from the member's state dict")
        if state_dict[name].shape != slot.shape:
            raise UserError(
                f"the weight '{name}' has shape {tuple(state_dict[name].shape)}, and must have {tuple(slot.shape)}"
            )
    for name, slot in slots.items():
        slot.copy_(state_dict[name])


def _entries(module: nn.Module) -> list[tuple[str, Tensor, bool]]:
    """(full name, tensor [P, ...], whether torch's layout is the transpose) of every entry of the state dict."""
    flips = {
        f"{prefix}.{name}" if prefix else name
        for prefix, layer in module.named_modules()
        for name in getattr(layer, "transposed", ())
    }
    return [(name, value, name in flips) for name, value in module.state_dict().items()]


def _view(value: Tensor, member: int, flip: bool, name: str) -> Tensor:
    """The member's part of a detached tensor, as a view in torch's layout."""
    if not 0 <= member < value.shape[0]:
        raise UserError(f"member is {member}, and '{name}' has members 0 to {value.shape[0] - 1}")
    return value[member].mT if flip else value[member]
