"""popcomm: populations of small agents that learn to talk to one another."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from popcomm.agents.tiny import TinyAgent
    from popcomm.envs.referential_v0 import CommunicationEnv

__version__ = "0.1.0"
__all__ = ["CommunicationEnv", "TinyAgent", "__version__"]

_MODULES = {"CommunicationEnv": "popcomm.envs.referential_v0", "TinyAgent": "popcomm.agents.tiny"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: `import popcomm` alone must stay cheap."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'popcomm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
