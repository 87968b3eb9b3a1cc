"""Messages into vectors: symbols by table lookup, with the straight-through gradient but without one-hots."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from popcomm.agents.deferred import Lookups, add_rows, deferral
from popcomm.agents.population import linear, uniform
from popcomm.channels.ending import sent
from popcomm.channels.mailbox import Inbox
from popcomm.channels.messages import MessageKind, Symbols
from popcomm.channels.relaxed import RelaxedSymbols
from popcomm.channels.words import Words


def lookup(tables: Tensor, messages: Tensor, soft: Tensor | None = None, there: Tensor | None = None) -> Tensor:
    """Sum of the rows that the symbols name, one table per position.

    It is `one_hot(messages).flatten(-2) @ tables`: with `soft` the gradient goes to `soft` as if it were the one-hot
    (straight-through, Bengio 2013), while the tables' gradient is that of the symbols that were sent.

    Args:
        tables: [P, L * V, H], V rows for each of the L positions.
        messages: [P, ..., L] int64.
        soft: [P, ..., L, V], whose values are not looked at, or None.
        there: [P, ..., L] bool, symbols that count; None: all.

    Returns:
        [P, ..., H].
    """
    now, lookups = deferral(tables), None
    if now is not None:
        lookups, (tables,) = now.lookups(tables)
    return _Lookup.apply(lookups, tables, messages, soft, there)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, lookups: Lookups | None, tables: Tensor, messages: Tensor, soft: Tensor | None, there: Tensor | None
    ) -> Tensor:
        members, size, features = tables.shape
        length = messages.shape[-1]
        first = torch.arange(0, members * size, size // length, device=messages.device)
        first = first.view(members, *[1] * (messages.dim() - 2), length)
        rows = (messages + first).reshape(-1, length)
        weights = None if there is None else there.reshape(-1, length).to(tables.dtype)
        ctx.save_for_backward(tables, rows, weights)
        ctx.soft_shape, ctx.lookups = None if soft is None else soft.shape, lookups
        flat = tables.reshape(-1, features)
        return F.embedding_bag(rows, flat, mode="sum", per_sample_weights=weights).view(*messages.shape[:-1], features)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tables, rows, weights = ctx.saved_tensors
        members, size, features = tables.shape
        grad = grad.reshape(members, -1, features)
        to_tables = to_soft = None
        if ctx.needs_input_grad[1] and ctx.lookups is not None:
            ctx.lookups.add(rows, grad.reshape(-1, features), weights)
        elif ctx.needs_input_grad[1]:
            flat = tables.new_zeros(members * size, features)
            add_rows(flat, rows, grad.reshape(-1, features), weights)
            to_tables = flat.view_as(tables)
        if ctx.needs_input_grad[3]:
            to_soft = torch.bmm(grad, tables.mT).view(ctx.soft_shape)
            if weights is not None:
                to_soft = to_soft * weights.view(*ctx.soft_shape[:-1], 1)
        return None, to_tables, None, to_soft, None


def inputs_on(kind: MessageKind) -> float:
    """How many of the numbers of a message's float form are ones, the rest zeros; 0 for a kind of other numbers."""
    if isinstance(kind, Symbols | RelaxedSymbols):
        return kind.length
    # The bits of a word, and that something was said.
    return (kind.min_on + kind.max_on) / 2 + 1 if isinstance(kind, Words) else 0


class MessageEncoder(nn.Module):
    """Every message of an inbox as a vector: inbox [P, R, K, ...] -> [P, R, K, out_features].

    `weight` is [P, numbers in the kind's features_shape, out_features], a Linear without bias on
    `kind.straight_through(messages, soft)`, and `extract` treats it as one. Symbols start with unit variance of the
    output, since exactly L of the L * V inputs are on, and words with about that, by the middle of their gate (whose
    bits are unpacked here, and no earlier); vectors start as torch.nn.Linear does. Slots without a message are encoded
    too: mask them. Of a message that ends early nothing counts that was not sent.
    """

    transposed = ("weight",)

    def __init__(
        self, members: int, kind: MessageKind, out_features: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.kind = kind
        size, on = math.prod(kind.features_shape), inputs_on(kind)
        if on:
            self.weight = nn.Parameter(torch.randn(members, size, out_features, generator=generator) / on**0.5)
        else:
            self.weight = uniform(size**-0.5, members, size, out_features, generator=generator)

    def forward(self, inbox: Inbox) -> Tensor:
        return inbox.read(self.encode)

    def encode(self, messages: Tensor, soft: Tensor | None = None) -> Tensor:
        """messages [P, ..., *message shape], soft [P, ..., *features shape] -> [P, ..., out_features]."""
        if isinstance(self.kind, Symbols):
            return lookup(self.weight, messages, soft, sent(messages) if self.kind.ends else None)
        real = self.kind.straight_through(messages, soft)
        axes = len(self.kind.features_shape)
        if axes > 1:
            real = real.flatten(-axes)
        return linear(real.to(self.weight.dtype), self.weight)
