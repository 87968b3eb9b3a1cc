"""A Ray of one process alone, beside others of the machine; imports nothing that reads the environment."""

from __future__ import annotations

import os
import tempfile


def ray_alone() -> dict[str, str]:
    """The environment, before Ray is imported, of one that stays on loopback, asks for no token, and has a folder of
    its own; RAY_ADDRESS must not be in it."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # Ray gives its processes what others leave over
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="pop"),
    }
