"""What a seed makes of torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

COMPILER = "torch._inductor"


def leave_new_memory() -> None:
    """Let new tensors hold what was there before.

    With a seed RLlib turns torch's deterministic algorithms on, which then write NaN into every tensor that is made
    empty, so that whoever reads it without writing reads the same each time. Nothing here does, and it was a tenth of
    an update. What the algorithms compute stays deterministic.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Within, `torch.use_deterministic_algorithms`, which RLlib calls with a seed, does not load torch's compiler.

    It does so only to tell it, and that takes 1.4 CPU seconds of every process; `tell_compiler` does it for those who
    compile. What the algorithms compute is as deterministic as ever.
    """
    theirs = torch.use_deterministic_algorithms

    def ours(mode: bool, *, warn_only: bool = False) -> None:
        if COMPILER in sys.modules:
            theirs(mode, warn_only=warn_only)
        else:
            torch.set_deterministic_debug_mode(("warn" if warn_only else "error") if mode else "default")

    torch.use_deterministic_algorithms = ours
    try:
        yield
    finally:
        torch.use_deterministic_algorithms = theirs


def tell_compiler() -> None:
    """Load torch's compiler, and tell it whether algorithms are deterministic."""
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled(), warn_only=warn_only)
