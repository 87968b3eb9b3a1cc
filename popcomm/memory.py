"""Memory that this process was given and has no more use for."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give the system what was freed: glibc keeps it, and what is larger than its pieces takes new memory beside it.

    Elsewhere (musl, macOS) nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
