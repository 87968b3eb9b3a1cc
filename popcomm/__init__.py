"""popcomm: populations of small agents that learn to talk to one another."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from popcomm.agents.tiny import TinyAgent
    from popcomm.envs.referential_v0 import CommunicationEnv
    from popcomm.rollout.loading import load
    from popcomm.rollout.population import Population

__version__ = "0.1.0"
__all__ = ["CommunicationEnv", "Population", "TinyAgent", "__version__", "load"]

_MODULES = {
    "CommunicationEnv": "popcomm.envs.referential_v0",
    "Population": "popcomm.rollout.population",
    "TinyAgent": "popcomm.agents.tiny",
    "load": "popcomm.rollout.loading",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: `import popcomm` alone must stay cheap."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'popcomm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
