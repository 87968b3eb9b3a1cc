"""Attention of listeners over the messages that they heard, with its gradient written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

softmax_backward = torch.ops.aten._softmax_backward_data


def attend(heard: Tensor, query: Tensor, real: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """What each head makes of the messages: their mean with the weights softmax(heard . query / sqrt(width)).

    Keys and values are one: head j has the j-th part of every message and of the query. A row without messages has
    weights of zero, and hears zeros.

    Args:
        heard: [P, R, K, H], the encoded messages.
        query: [P, R, H].
        real: [P, R, K] bool, which messages there are.
        num_heads: divides H.

    Returns:
        context [P, R, H], weights [P, R, K, num_heads].
    """
    return _Attention.apply(heard, query, real, num_heads)


class _Attention(torch.autograd.Function):
    """One node of the graph where autograd makes fifteen: in small networks they are what an update costs."""

    @staticmethod
    def forward(ctx: Any, heard: Tensor, query: Tensor, real: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
        heard, query = heard.unflatten(-1, (num_heads, -1)), query.unflatten(-1, (1, num_heads, -1))
        absent = ~real.unsqueeze(-1)
        scores = (heard * query).sum(-1).mul_(heard.size(-1) ** -0.5)
        # A row without messages has equal scores, hence no NaN.
        weights = scores.masked_fill_(absent, -1e9).softmax(-2).masked_fill_(absent, 0.0)
        ctx.save_for_backward(heard, query, weights)
        ctx.set_materialize_grads(False)
        return (heard * weights.unsqueeze(-1)).sum(-3).flatten(-2), weights

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_context: Tensor | None, to_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        heard, query, weights = ctx.saved_tensors
        if to_context is None:  # only the weights were used
            to_context = torch.zeros_like(query).flatten(-3)
        to_context = to_context.unflatten(-1, query.shape[-3:])
        through = (heard * to_context).sum(-1)
        to_weights = through if to_weights is None else to_weights + through
        to_scores = softmax_backward(to_weights, weights, -2, weights.dtype).mul_(heard.size(-1) ** -0.5).unsqueeze(-1)
        to_heard = (weights.unsqueeze(-1) * to_context).addcmul_(to_scores, query)
        to_query = (to_scores * heard).sum(-3)
        return to_heard.flatten(-2).to(heard.dtype), to_query.flatten(-2).to(query.dtype), None, None
