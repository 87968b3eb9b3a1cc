"""FLARE's mixing of tokens once queries, keys and values are there: two ways to compute it, and its spectrum.

Source: arXiv 2508.12594. One score matrix S = scale K Q^T serves both passes: Z = softmax over N (S) V encodes N tokens
into M latents, Y = softmax over M (S) Z decodes them. `scores`, `encode` and `decode` compute S once; `fused_encode`
and `fused_decode` leave it to torch's fused attention, twice, and keep no scores.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """S = scale K Q^T: q [P, 1 or R, H, M, D], k [P, R, N, H, D] -> [P, H, R, N, M]."""
    p, r, n, h, d = k.shape
    m, each = q.shape[-2], q.shape[1]
    # Heads before rows, so that where all rows have the same queries a head's tokens are one matrix. The copy pays:
    # few columns (M = 8) against strided keys took 1.5 times as long.
    k = k.permute(0, 3, 1, 2, 4).contiguous().view(p * h * each, n if each == r else r * n, d)
    q = (q * scale).permute(0, 2, 1, 4, 3).reshape(p * h * each, d, m)
    return torch.bmm(k, q).view(p, h, r, n, m)


def encode(s: Tensor, v: Tensor, attended: Tensor | None) -> Tensor:
    """Z = softmax over N (S) V: s [P, H, R, N, M], v [P, R, N, H, D], attended [P, R, N] bool -> [P, R, H, M, D]."""
    (p, h, r, n, m), d = s.shape, v.shape[-1]
    if attended is not None:
        s = s.masked_fill(~attended[:, None, :, :, None], -math.inf)
    v = v.permute(0, 3, 1, 2, 4).reshape(p * h * r, n, d)
    return torch.bmm(_softmax(s, -2, v).mT, v).view(p, h, r, m, d).transpose(1, 2)


def decode(s: Tensor, z: Tensor) -> Tensor:
    """Y = softmax over M (S) Z: s [P, H, R, N, M], z [P, R, H, M, D] -> [P, R, N, H, D]."""
    (p, h, r, n, m), d = s.shape, z.shape[-1]
    z = z.transpose(1, 2).reshape(p * h * r, m, d)
    return torch.bmm(_softmax(s, -1, z), z).view(p, h, r, n, d).permute(0, 2, 3, 1, 4)


def _softmax(s: Tensor, dim: int, like: Tensor) -> Tensor:
    """Softmax of s [P, H, R, N, M] in float32 at least -> [P * H * R, N, M] in the dtype of `like`."""
    return s.softmax(dim, dtype=torch.promote_types(s.dtype, torch.float32)).to(like.dtype).flatten(0, 2)


def fused_encode(q: Tensor, k: Tensor, v: Tensor, attended: Tensor | None, scale: float) -> Tensor:
    """`encode` of `scores` by fused attention: q [P, 1 or R, H, M, D], k, v [P, R, N, H, D] -> [P, R, H, M, D]."""
    mask = None if attended is None else attended.flatten(0, 1)[:, None, None]
    z = F.scaled_dot_product_attention(
        _per_row(q, k), _rows_heads(k), _rows_heads(v).to(k.dtype), attn_mask=mask, scale=scale
    )
    return z.unflatten(0, k.shape[:2])


def fused_decode(q: Tensor, k: Tensor, z: Tensor, scale: float) -> Tensor:
    """`decode` of `scores` by fused attention: q [P, 1 or R, H, M, D], k [P, R, N, H, D], z [P, R, H, M, D] -> as k."""
    y = F.scaled_dot_product_attention(_rows_heads(k), _per_row(q, k), z.flatten(0, 1), scale=scale)
    return y.transpose(1, 2).unflatten(0, k.shape[:2])


def _rows_heads(x: Tensor) -> Tensor:
    """[P, R, N, H, D] -> [P * R, H, N, D], a view."""
    return x.flatten(0, 1).transpose(1, 2)


def _per_row(q: Tensor, k: Tensor) -> Tensor:
    """q [P, 1 or R, H, M, D] -> [P * R, H, M, D] for the rows of k, in its dtype."""
    return q.expand(-1, k.shape[1], -1, -1, -1).flatten(0, 1).to(k.dtype)


def never_empty(mask: Tensor) -> Tensor:
    """mask [P, R, N], all True in rows without any: a softmax over nothing is not a number, and nor is its gradient."""
    return mask | ~mask.any(-1, keepdim=True)


def spectrum(s: Tensor, mask: Tensor | None) -> Tensor:
    """Eigenvalues of W = softmax over M (S) softmax over N (S)^T per head, a matrix [N, N] that is not formed.

    With B = exp(S - logsumexp_N(S) / 2 - logsumexp_M(S) / 2) [N, M], W is similar to B B^T: its eigenvalues are the
    squared singular values of B (arXiv 2508.12594, spectral analysis).

    Args:
        s: [P, H, R, N, M] scores.
        mask: [P, R, N] bool, or None.

    Returns:
        [P, R, H, M] float32 at least, descending, in [0, 1], padded with zeros where M > N; zeros in empty rows.
    """
    s = s.to(torch.promote_types(s.dtype, torch.float32))
    over_latents = s.logsumexp(-1, keepdim=True)
    if mask is not None:
        s = s.masked_fill(~never_empty(mask)[:, None, :, :, None], -math.inf)
    b = (s - 0.5 * s.logsumexp(-2, keepdim=True) - 0.5 * over_latents).exp()
    eigenvalues = torch.linalg.svdvals(b).square().clamp(max=1).transpose(1, 2)
    eigenvalues = F.pad(eigenvalues, (0, s.shape[-1] - eigenvalues.shape[-1]))
    return eigenvalues if mask is None else eigenvalues * mask.any(-1)[..., None, None]


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """exp of the entropy of the normalised eigenvalues, [..., M] -> [...], from 1 to M (Roy & Vetterli 2007).

    0 where all eigenvalues are 0.
    """
    total = eigenvalues.sum(-1)
    shares = eigenvalues / torch.where(total > 0, total, 1).unsqueeze(-1)
    return torch.special.entr(shares).sum(-1).exp() * (total > 0)


def spectral_gap(eigenvalues: Tensor) -> Tensor:
    """The largest eigenvalue less the second, [..., M] descending -> [...]; near 1 where a head only averages."""
    first, second = F.pad(eigenvalues, (0, 1))[..., :2].unbind(-1)
    return first - second
