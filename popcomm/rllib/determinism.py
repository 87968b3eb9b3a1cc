"""What a seed makes of torch."""

from __future__ import annotations

import torch


def leave_new_memory() -> None:
    """Let new tensors hold what was there before.

    With a seed RLlib turns torch's deterministic algorithms on, which then write NaN into every tensor that is made
    empty, so that whoever reads it without writing reads the same each time. Nothing here does, and it was a tenth of
    an update. What the algorithms compute stays deterministic.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
