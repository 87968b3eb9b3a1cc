"""Memory that this process was given and has no more use for."""

from __future__ import annotations

import ctypes

# From so many on (float32: 128 MiB) gradients and moments are tensors that malloc maps one by one, beside all that it
# keeps of rollouts and unrolls. Giving that back before an update is a hundredth of the update; with fewer it is more.
MANY_WEIGHTS = 2**25


def give_back() -> None:
    """Give the system what was freed: glibc keeps it, and what is larger than its pieces takes new memory beside it.

    Elsewhere (musl, macOS) nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
