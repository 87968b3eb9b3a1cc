"""Symbols and what they cost from one softmax: a price of its own would read all logits twice more, and write them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

softmax_backward = torch.ops.aten._softmax_backward_data


def soft_and_expense(params: Tensor) -> tuple[Tensor, Tensor]:
    """The probabilities of symbols, and the expected number that is not the blank 0.

    Args:
        params: [..., L, V] logits.

    Returns:
        [..., L, V] and [...], differentiable both.
    """
    return _SoftAndExpense.apply(params)


class _SoftAndExpense(torch.autograd.Function):
    """One backward pass for both: d(1 - p_0) / dx_i = p_0 p_i - [i = 0] p_0."""

    @staticmethod
    def forward(ctx: Any, params: Tensor) -> tuple[Tensor, Tensor]:
        p = params.softmax(-1)
        ctx.save_for_backward(p)
        ctx.dtype = params.dtype
        ctx.set_materialize_grads(False)
        return p, (1 - p[..., 0]).sum(-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_soft: Tensor | None, to_expense: Tensor | None) -> Tensor | None:
        (p,) = ctx.saved_tensors
        result = None if to_soft is None else softmax_backward(to_soft.to(p.dtype), p, -1, p.dtype)
        if to_expense is not None:
            blank = p[..., 0] * to_expense.to(p.dtype).unsqueeze(-1)
            dear = blank.unsqueeze(-1)
            result = p * dear if result is None else result.addcmul_(p, dear)
            result[..., 0].sub_(blank)
        return None if result is None else result.to(ctx.dtype)
