"""FLARE's causal form as a memory of fixed size: M latents per head that keep a running mean of all tokens so far.

Source: arXiv 2508.12594. In the encoder of `FlareAttention` latent m holds the mean of the values weighted with
exp(scale q_m . k); over time that mean needs no more than its denominator, its numerator and the largest score so far:

    z_m(t) = numerator_m(t) / denominator_m(t),   denominator_m(t) = sum over tau <= t of exp(s_m(tau) - max_m(t))

so a token costs O(M D) per head however long the episode is, and nothing is forgotten or approximated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from popcomm.agents.flare import FlareAttention
from popcomm.agents.flare_mixing import scores

# The largest score where nothing was stored: finite, so that states can be stored, averaged and chosen by torch.where.
NOTHING = -1e30


class FlareMemory(nn.Module):
    """Writes tokens into M latents per head and reads them back. x [P, R, C] or [P, R, n, C] -> the same shape.

    After tokens 1 ... t were fed in any portions, what is read for those of the last portion is what `attention`, the
    `FlareAttention` that holds all weights, gives for them on the whole sequence. Tokens of one portion arrive
    together: each reads all of them. The state is {"max": [P, R, H, M], "denominator": [P, R, H, M],
    "numerator": [P, R, H, M, D]}, float32 at least, finite from the start; gradients flow through it.

    Args:
        dim, num_heads, num_latents, members, kv_layers, scale, generator: as for `FlareAttention`.

    Raises:
        UserError: as `FlareAttention` does.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_latents: int,
        members: int = 1,
        kv_layers: int = -1,
        scale: float | Literal["auto"] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.attention = FlareAttention(
            dim, num_heads, num_latents, kv_layers, scale, members=members, generator=generator
        )

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """Nothing stored, for R = rows: {"max": [P, R, H, M], "denominator": ..., "numerator": [P, R, H, M, D]}."""
        layer = self.attention
        shape = (layer.members, rows, layer.num_heads, layer.num_latents)
        dtype = torch.promote_types(layer.latent_q.dtype, torch.float32)
        empty = layer.latent_q.new_zeros(shape, dtype=dtype)
        numerator = empty.new_zeros(*shape, layer.dim // layer.num_heads)
        return {"max": torch.full_like(empty, NOTHING), "denominator": empty, "numerator": numerator}

    def forward(
        self, x: Tensor, state: Mapping[str, Tensor], mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Store tokens, then read for each of them.

        Args:
            x: [P, R, C] or [P, R, n, C], n >= 1.
            state: what `initial_state` or the last call gave.
            mask: [P, R] or [P, R, n] bool, True for real tokens, or None. Others are not stored.

        Returns:
            (y shaped as x, the new state). Where nothing was stored yet, y is the bias of the last Linear.
        """
        single = x.dim() == 3
        layer, tokens = self.attention, x.unsqueeze(2) if single else x
        seen = mask.unsqueeze(-1) if single and mask is not None else mask
        layer.check(tokens, seen)
        q, k, v = layer.queries_keys_values(tokens, seen)
        s = scores(q, k, layer.scale).transpose(1, 2).to(state["max"].dtype)
        state = _store(s, v, seen, state)
        y = torch.matmul(s.softmax(-1), _means(state)).transpose(2, 3).flatten(-2)
        y = layer.out(y.to(v.dtype))
        return (y.squeeze(2) if single else y), state

    def latents(self, state: Mapping[str, Tensor]) -> Tensor:
        """The M summaries, heads side by side: [P, R, M, C]; zeros where nothing was stored."""
        return _means(state).transpose(2, 3).flatten(-2)


def _store(s: Tensor, v: Tensor, mask: Tensor | None, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with tokens of scores s [P, R, H, n, M] and values v [P, R, n, H, D] (zero where not real) added."""
    if mask is not None:
        s = s.masked_fill(~mask[:, :, None, :, None], NOTHING)
    # The means do not depend on the number that is taken off all scores, so it needs no gradient.
    top = torch.maximum(state["max"], s.detach().amax(-2))
    decay, weights = (state["max"] - top).exp(), (s - top.unsqueeze(-2)).exp()
    if mask is not None:
        # Where there is nothing but padding so far, exp(NOTHING - NOTHING) is one.
        weights = weights.masked_fill(~mask[:, :, None, :, None], 0)
    return {
        "max": top,
        "denominator": state["denominator"] * decay + weights.sum(-2),
        "numerator": state["numerator"] * decay.unsqueeze(-1)
        + torch.matmul(weights.mT, v.transpose(2, 3).to(weights.dtype)),
    }


def _means(state: Mapping[str, Tensor]) -> Tensor:
    """[P, R, H, M, D]. A denominator is at least one (its largest term) unless nothing was stored."""
    return state["numerator"] / state["denominator"].clamp(min=0.5).unsqueeze(-1)
