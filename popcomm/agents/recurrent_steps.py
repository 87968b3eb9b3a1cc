"""What recurrent cells do after their products, each as one node of the graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from popcomm.agents.activations import tanh
from popcomm.agents.deferred import Products

sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward


def gru_step(from_x: Tensor, from_h: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What follows the products: the next h, the gates [P, R, 2H] (reset, update), and what is new [P, R, H]."""
    width = from_x.size(-1) // 3 * 2
    gates = (from_x[..., :width] + from_h[..., :width]).sigmoid()
    reset, update = gates.chunk(2, -1)
    new = tanh(torch.addcmul(from_x[..., width:], reset, from_h[..., width:]))
    return new - update * new if h is None else torch.lerp(new, h, update), gates, new


class GRUStep(torch.autograd.Function):
    """A cell after its products as one node of the graph: autograd would fill a tensor with zeros for every part."""

    @staticmethod
    def forward(ctx: Any, from_x: Tensor, from_h: Tensor, h: Tensor | None) -> Tensor:
        after, gates, new = gru_step(from_x, from_h, h)
        ctx.save_for_backward(from_h, h, gates, new)
        ctx.one_row = from_x.size(1) == 1, from_h.size(1) == 1
        return after

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_after: Tensor) -> tuple[Tensor | None, ...]:
        from_h, h, gates, new = ctx.saved_tensors
        reset, update = gates.chunk(2, -1)
        to_h = to_after * update
        to_new = tanh_backward(to_after - to_h, new)
        to_update = to_after * (-new if h is None else h - new)
        to_reset = to_new * from_h[..., -new.size(-1) :]
        to_gates = sigmoid_backward(torch.cat([to_reset, to_update], -1), gates)
        parts = torch.cat([to_gates, to_new], -1), torch.cat([to_gates, to_new * reset], -1)
        sums = (part.sum(1, keepdim=True) if one else part for part, one in zip(parts, ctx.one_row, strict=True))
        return *sums, None if h is None else to_h


def lstm_step(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What follows the products.

    Args:
        gates: [P, R, 4H] before their nonlinearities, in the order input, forget, new, output.
        c: [P, R, H].

    Returns:
        h and c [P, R, H], the gates after their nonlinearities, tanh(c).
    """
    enter, forget, new, leave = gates.unflatten(-1, (4, -1)).unbind(-2)
    opened = torch.stack([enter.sigmoid(), forget.sigmoid(), tanh(new), leave.sigmoid()], -2)
    enter, forget, new, leave = opened.unbind(-2)
    c = torch.addcmul(enter * new, forget, c)
    shown = tanh(c)
    return leave * shown, c, opened, shown


class LSTMStep(torch.autograd.Function):
    """A cell as one node of the graph where autograd makes fifteen: in small networks they are what an update costs.

    Parts of x without a gradient, such as observations, are spared the product that would make one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        collected: tuple[Products, Products] | None,
        h: Tensor,
        c: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor,
        *parts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        x = torch.cat(parts, -1)
        gates = torch.baddbmm(torch.baddbmm(bias, x, weight_ih), h, weight_hh)
        after_h, after_c, opened, shown = lstm_step(gates, c)
        ctx.save_for_backward(x, h, c, weight_ih, weight_hh, opened, shown)
        ctx.sizes, ctx.collected = [part.size(-1) for part in parts], collected
        return after_h, after_c

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_h: Tensor, to_c: Tensor) -> tuple[Tensor | None, ...]:
        x, h, c, weight_ih, weight_hh, opened, shown = ctx.saved_tensors
        enter, forget, new, leave = opened.unbind(-2)
        # A sum, and no in-place one: the gradient that comes in may be another's too.
        to_c = to_c + tanh_backward(to_h * leave, shown)
        gates = (
            sigmoid_backward(to_c * new, enter),
            sigmoid_backward(to_c * c, forget),
            tanh_backward(to_c * enter, new),
            sigmoid_backward(to_h * shown, leave),
        )
        to_gates, need = torch.cat(gates, -1), ctx.needs_input_grad[1:]
        rows = weight_ih.split(ctx.sizes, 1)
        to_parts = [torch.bmm(to_gates, w.mT) if needed else None for w, needed in zip(rows, need[5:], strict=True)]
        for inputs, products in zip((x, h), ctx.collected or (), strict=False):
            products.add(inputs, to_gates)
        return (
            None,
            torch.bmm(to_gates, weight_hh.mT) if need[0] else None,
            to_c * forget if need[1] else None,
            None if ctx.collected else torch.bmm(x.mT, to_gates),
            None if ctx.collected else torch.bmm(h.mT, to_gates),
            to_gates.sum(1, keepdim=weight_ih.size(0) > 1),
            *to_parts,
        )
