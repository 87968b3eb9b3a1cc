"""Sizes of TinyAgent by their number of weights."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from popcomm.checks import whole
from popcomm.errors import UserError, unknown


@dataclass(frozen=True)
class TinySize:
    """What decides how large a TinyAgent is, and how it computes.

    Raises:
        UserError: heads that do not divide the width, or a number below one.
    """

    hidden_dim: int  # C, width of every token
    num_heads: int  # H, divides hidden_dim
    latent_tokens: int  # M, latents of each head through which the tokens exchange what they hold
    depth: int  # FLARE blocks
    checkpoint_activations: bool = False  # recompute a block's activations in the backward pass instead of keeping them
    dtype: str = "float32"  # of the blocks' products: "float32", or "bf16" by autocast

    def __post_init__(self) -> None:
        for key in ("hidden_dim", "num_heads", "latent_tokens", "depth"):
            whole(f"agent_config.{key}", getattr(self, key), 1)
        if self.hidden_dim % self.num_heads:
            raise UserError(
                f"agent_config.num_heads is {self.num_heads}, and must divide hidden_dim = {self.hidden_dim}"
            )
        if self.dtype not in DTYPES:
            raise unknown("agent_config.dtype", self.dtype, DTYPES)


DTYPES = ("float32", "bf16")
DEFAULT = TinySize(hidden_dim=768, num_heads=12, latent_tokens=32, depth=4)
LARGE = {"checkpoint_activations": True, "dtype": "bf16"}

# Narrow heads, as FLARE's own measurements favour (width 4 to 16), wider where the products get large; 32 latents, past
# which little changes. Every size is within 5 % of its name for the spec of popcomm.CommunicationEnv.
TINY_PRESETS = {
    "tiny-1m": TinySize(hidden_dim=128, num_heads=16, latent_tokens=16, depth=8),
    "tiny-10m": TinySize(hidden_dim=384, num_heads=48, latent_tokens=32, depth=9),
    "tiny-50m": TinySize(hidden_dim=768, num_heads=48, latent_tokens=32, depth=12),
    "tiny-100m": TinySize(hidden_dim=1024, num_heads=64, latent_tokens=32, depth=13),
    "tiny-250m": TinySize(hidden_dim=1536, num_heads=48, latent_tokens=32, depth=15, **LARGE),  # type: ignore[arg-type]
    "tiny-500m": TinySize(hidden_dim=2048, num_heads=64, latent_tokens=32, depth=17, **LARGE),  # type: ignore[arg-type]
    "tiny-1b": TinySize(hidden_dim=2560, num_heads=80, latent_tokens=32, depth=22, **LARGE),  # type: ignore[arg-type]
}


def tiny_size(preset: str | None, **overrides: Any) -> TinySize:
    """The size of that name, or the default one, with what is not None in `overrides` in its place.

    Raises:
        UserError: no such preset, or a size that does not fit together.
    """
    if preset is not None and preset not in TINY_PRESETS:
        raise unknown("agent_config.preset", preset, TINY_PRESETS)
    base = DEFAULT if preset is None else TINY_PRESETS[preset]
    values = {field.name: getattr(base, field.name) for field in fields(TinySize)}
    return TinySize(**{**values, **{key: value for key, value in overrides.items() if value is not None}})
