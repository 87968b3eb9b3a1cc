"""FLARE: attention routed through a few learned latents, for P members at once.

Source: Puri et al., "FLARE: Fast Low-rank Attention Routing Engine", arXiv 2508.12594. Every head encodes N tokens into
M latents and decodes them again with the same scores, so the cost grows with N, not with its square. The variant
"flare++" (arXiv 2608.11519) makes its queries from the input by one more encode.

Tensors are member-major: x [P, R, N, C], R rows (sequences) of N tokens for each of P members; H heads, D = C / H.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from popcomm.agents.flare_mixing import decode, encode, fused_decode, fused_encode, never_empty, scores, spectrum
from popcomm.agents.population import PopulationLayerNorm, PopulationLinear
from popcomm.checks import whole
from popcomm.errors import UserError, unknown

VARIANTS = ("flare", "flare++")
PATHS = ("auto", "shared", "fused")


class FlareAttention(nn.Module):
    """Token mixing of rank M per head. x [P, R, N, C], mask [P, R, N] bool -> [P, R, N, C].

        K, V = MLP(x), MLP(x) [N, D];  Z = softmax over N (s Q K^T) V [M, D];  Y = softmax over M (s K Q^T) Z [N, D]

    per head, then one Linear over the concatenated heads (arXiv 2508.12594). Q is learned: `latent_q` [P, C, M], viewed
    as [P, H, M, D]. "flare++" has linear K (normalised per head) and V, and queries
    Q = LN(Q) + sigmoid(gate) softmax(s LN(Q0) LN(Wx)^T) LN(Wx) (arXiv 2608.11519).

    With members=1 a plain x [R, N, C] with mask [R, N] is taken too, and [R, N, C] returned.

    Tokens that the mask leaves out are not encoded, so they change nothing for real ones; what stands at their own
    places in the result means nothing. A row without real tokens gives the bias of `out`, with finite gradients.

    Args:
        dim: C.
        num_heads: H, a divisor of `dim`.
        num_latents: M. Worth its cost from about N = 2 M on; past 32, more change little.
        kv_layers: hidden residual layers in the MLPs of K and V: -1 for x + W x, 3 as published (five Linears).
        scale: s. None is the published one: 1 for "flare", D**-0.5 for "flare++". "auto" is 1 if D <= 8, else D**-0.5.
        variant: "flare" or "flare++".
        members: P; 1 is weights that all rows share.
        generator: source of the initial weights; torch's default one if None.

    Attributes:
        path: "shared" makes one score matrix for both softmaxes, "fused" calls torch's fused attention twice and keeps
            no scores, "auto" chooses by size. They give the same numbers, up to rounding.

    Raises:
        UserError: an argument outside of what is said here; in `forward`, a shape or a mask that does not fit.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_latents: int,
        kv_layers: int = -1,
        scale: float | Literal["auto"] | None = None,
        variant: str = "flare",
        members: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(dim, num_heads, num_latents, kv_layers, members)
        _check_variant(variant, kv_layers)
        self.dim, self.num_heads, self.num_latents, self.members = dim, num_heads, num_latents, members
        self.variant, self.path, self.scale = variant, "auto", _scale(scale, variant, dim // num_heads)
        if variant == "flare":
            self.latent_q = _latents(members, dim, num_latents, 0.1, generator)
            self.key: nn.Module = ResidualMLP(members, dim, dim, dim, kv_layers, generator)
            self.value: nn.Module = ResidualMLP(members, dim, dim, dim, kv_layers, generator)
        else:
            self.latent_q = _latents(members, dim, num_latents, 0.02, generator)
            self.key = _near_identity(members, dim, generator)
            self.value = _near_identity(members, dim, generator)
            self.key_norm = PopulationLayerNorm(members, dim // num_heads)
            self.refine = QueryRefinement(members, dim, num_heads, num_latents, self.scale, generator)
        self.out = _normal(members, dim, dim, generator)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [P, R, N, C], mask [P, R, N] bool or None, True for real tokens -> [P, R, N, C]."""
        plain = x.dim() == 3
        x, mask = self._with_members(x, mask)
        fused = self._takes_fused_path(x)
        attended = None if mask is None else never_empty(mask)
        q, k, v = self.queries_keys_values(x, mask, fused)
        if fused:
            y = fused_decode(q, k, fused_encode(q, k, v, attended, self.scale), self.scale)
        else:
            s = scores(q, k, self.scale)
            y = decode(s, encode(s, v, attended))
        y = self.out(y.flatten(-2))
        return y.squeeze(0) if plain else y

    def queries_keys_values(
        self, x: Tensor, mask: Tensor | None = None, fused: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [P, R, N, C] -> Q [P, 1 or R, H, M, D], K and V [P, R, N, H, D]; V is zero where the mask is False."""
        heads = (self.num_heads, -1)
        q = _by_heads(self.latent_q, self.num_heads)
        k, v = self.key(x).unflatten(-1, heads), self.value(x).unflatten(-1, heads)
        if mask is not None:
            # Rows without real tokens thus encode zeros, whatever lies in the padding.
            v = v.masked_fill(~mask[..., None, None], 0)
        if self.variant == "flare++":
            k, q = self.key_norm(k), self.refine(q, x, mask, fused)
        return q, k, v

    @torch.no_grad()
    def spectrum(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Eigenvalues of every head's token-mixing matrix W = W_decode W_encode: how much routing the layer does.

        See `effective_rank` and `spectral_gap`; a fresh layer has an effective rank of about 1.

        Args:
            x: [P, R, N, C].
            mask: [P, R, N] bool, or None; W is over real tokens.

        Returns:
            [P, R, H, M] float32 at least, descending, in [0, 1], padded with zeros where M > N. The largest is 1, since
            rows of W sum to one; a row without real tokens has zeros only.
        """
        plain = x.dim() == 3
        x, mask = self._with_members(x, mask)
        q, k, _ = self.queries_keys_values(x, mask)
        eigenvalues = spectrum(scores(q, k, self.scale), mask)
        return eigenvalues.squeeze(0) if plain else eigenvalues

    def check(self, x: Tensor, mask: Tensor | None) -> None:
        """Refuse an x that is not [P, R, N, C] and a mask that is not [P, R, N] bool.

        Raises:
            UserError: they do not fit. A float mask would silently be added to scores.
        """
        if mask is not None and mask.dtype != torch.bool:
            raise UserError(f"mask has dtype {mask.dtype}, and must be torch.bool, True for real tokens")
        if x.dim() != 4 or x.shape[0] != self.members or x.shape[-1] != self.dim:
            raise UserError(f"x has shape {tuple(x.shape)}, and must have [{self.members}, rows, tokens, {self.dim}]")
        if mask is not None and mask.shape != x.shape[:-1]:
            raise UserError(f"mask has shape {tuple(mask.shape)}, and must have {tuple(x.shape[:-1])} as x has")

    def _with_members(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x and mask with the members axis, found to fit."""
        if x.dim() == 3 and self.members == 1:
            x, mask = x.unsqueeze(0), None if mask is None else mask.unsqueeze(0)
        self.check(x, mask)
        return x, mask

    def _takes_fused_path(self, x: Tensor) -> bool:
        if self.path not in PATHS:
            raise unknown("the path", self.path, PATHS)
        if self.path != "auto":
            return self.path == "fused"
        # Fused / shared time, forward and backward, fp32, one CPU thread, 16,384 tokens in rows of N, D in {4 ... 64}:
        #   N =        16          64          256         1024        4096
        #   M <= 16    1.5 - 2.3   1.2 - 1.6   1.1 - 1.5   1.0 - 1.4   1.1 - 1.6
        #   M = 32     1.4 - 2.1   1.2 - 1.4   1.0 - 1.2   0.9 - 1.2   0.9 - 1.2
        #   M = 64     1.4 - 1.7   1.1 - 1.3   0.9 - 1.2   0.8 - 1.2   0.7 - 1.1
        # Where it is a draw, the fused path keeps no scores for the backward pass. GPUs were not measured; there the
        # scores' way through memory should cost more than the arithmetic.
        tokens = x.shape[-2]
        return tokens >= 256 if x.is_cuda else tokens >= 1024 and self.num_latents >= 32


class QueryRefinement(nn.Module):
    """FLARE++'s first hop: learned queries plus what second ones, Q0, read in the input (arXiv 2608.11519)."""

    def __init__(
        self,
        members: int,
        dim: int,
        num_heads: int,
        num_latents: int,
        scale: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, scale
        self.latent_q = _latents(members, dim, num_latents, 0.02, generator)
        self.norm = PopulationLayerNorm(members, dim // num_heads)
        self.key = _near_identity(members, dim, generator)
        self.gate = nn.Parameter(torch.full((members, num_heads), 0.25))

    def forward(self, q: Tensor, x: Tensor, mask: Tensor | None, fused: bool) -> Tensor:
        """q [P, 1, H, M, D], x [P, R, N, C], mask [P, R, N] -> [P, R, H, M, D]."""
        size = (q.shape[-1],)
        first = self.norm(_by_heads(self.latent_q, self.num_heads))
        k = v = F.layer_norm(self.key(x).unflatten(-1, (self.num_heads, -1)), size)
        attended = None
        if mask is not None:
            attended, v = never_empty(mask), v.masked_fill(~mask[..., None, None], 0)
        if fused:
            read = fused_encode(first, k, v, attended, self.scale)
        else:
            read = encode(scores(first, k, self.scale), v, attended)
        return F.layer_norm(q, size) + self.gate.sigmoid()[:, None, :, None, None] * read


class FlareBlock(nn.Module):
    """Pre-norm block: x += FLARE(LN x); x += MLP(LN x). x [P, R, N, C], mask [P, R, N] bool -> [P, R, N, C].

    The MLP is a `ResidualMLP` of hidden width mlp_ratio * dim; published are mlp_ratio=1, mlp_layers=3, kv_layers=3 for
    "flare", and these defaults for "flare++". Other arguments, and inputs without members, as for `FlareAttention`.

    Raises:
        UserError: as `FlareAttention` and `ResidualMLP` do.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_latents: int,
        mlp_ratio: float = 2.0,
        mlp_layers: int = 0,
        kv_layers: int = -1,
        scale: float | Literal["auto"] | None = None,
        variant: str = "flare",
        members: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.attention = FlareAttention(dim, num_heads, num_latents, kv_layers, scale, variant, members, generator)
        self.attention_norm = PopulationLayerNorm(members, dim)
        self.mlp = ResidualMLP(members, dim, int(mlp_ratio * dim), dim, mlp_layers, generator)
        self.mlp_norm = PopulationLayerNorm(members, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))


class ResidualMLP(nn.Module):
    """The MLP of FLARE. x [P, R, ..., in_features] -> [P, R, ..., out_features].

        h = x + act(W1 x);  num_layers times h = h + act(Wi h);  y = h + W2 h

    with the tanh form of GELU: num_layers + 2 Linears; -1 is y = x + W x. A residual is left out where the widths
    differ. Weights start as N(0, 0.02), biases as zeros.

    Raises:
        UserError: num_layers below -1, or a width below one.
    """

    def __init__(
        self,
        members: int,
        in_features: int,
        hidden: int,
        out_features: int,
        num_layers: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if num_layers < -1:
            raise UserError(f"the MLP's number of layers is {num_layers}, and must be at least -1 (one Linear)")
        if hidden < 1:
            raise UserError(f"the MLP's hidden width is {hidden}, and must be at least 1")
        widths = [in_features, *[hidden] * (num_layers + 1), out_features]
        self.layers = nn.ModuleList(
            _normal(members, widths[i], widths[i + 1], generator) for i in range(len(widths) - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = _residual(x, F.gelu(layer(x), approximate="tanh"))
        return _residual(x, self.layers[-1](x))


def _by_heads(latents: Tensor, num_heads: int) -> Tensor:
    """[P, C, M] -> [P, 1, H, M, D], a view and no transpose, as in the authors' layout."""
    members, dim, num_latents = latents.shape
    return latents.view(members, 1, num_heads, num_latents, dim // num_heads)


def _latents(members: int, dim: int, num_latents: int, std: float, generator: torch.Generator | None) -> nn.Parameter:
    return nn.Parameter(torch.empty(members, dim, num_latents).normal_(0, std, generator=generator))


def _normal(members: int, in_features: int, out_features: int, generator: torch.Generator | None) -> PopulationLinear:
    """Weights N(0, 0.02), zero biases: the start of all Linears of FLARE."""
    layer = PopulationLinear(members, in_features, out_features, generator=generator)
    layer.weight.data.normal_(0, 0.02, generator=generator)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _near_identity(members: int, features: int, generator: torch.Generator | None) -> PopulationLinear:
    """Weights I + N(0, 0.02), zero biases: the start of FLARE++'s keys and values."""
    layer = _normal(members, features, features, generator)
    layer.weight.data += torch.eye(features)
    return layer


def _residual(x: Tensor, y: Tensor) -> Tensor:
    return x + y if x.shape[-1] == y.shape[-1] else y


def _check_sizes(dim: int, num_heads: int, num_latents: int, kv_layers: int, members: int) -> None:
    for name, value in {"dim": dim, "num_heads": num_heads, "num_latents": num_latents, "members": members}.items():
        whole(name, value, 1)
    if dim % num_heads:
        raise UserError(f"num_heads is {num_heads}, and must divide dim, which is {dim}")
    if kv_layers < -1:
        raise UserError(f"kv_layers is {kv_layers}, and must be at least -1 (x + W x)")


def _check_variant(variant: str, kv_layers: int) -> None:
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    if variant == "flare++" and kv_layers != -1:
        raise UserError(f"kv_layers is {kv_layers}, and must be -1 with variant 'flare++': its K and V are linear")


def _scale(scale: float | str | None, variant: str, head_dim: int) -> float:
    if scale is None:
        return 1.0 if variant == "flare" else head_dim**-0.5
    if scale == "auto":
        return 1.0 if head_dim <= 8 else head_dim**-0.5
    if isinstance(scale, str) or not 0 < scale < math.inf:
        raise UserError(f"scale is {scale!r}, and must be a number above 0, 'auto' or null")
    return float(scale)
