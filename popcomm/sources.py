"""Where environments of others come from: "source:name" in place of a name of popcomm's."""

from __future__ import annotations

# {source: a line on what its names mean}
SOURCES = {
    "vmas": "a scenario of VMAS (popcomm[vmas])",
    "gymnasium": "an environment of Gymnasium for several players (popcomm[lbforaging], popcomm[rware])",
}


def of_a_source(env: object) -> bool:
    """Whether it is a name such as "vmas:navigation"."""
    return isinstance(env, str) and ":" in env and env.partition(":")[0] in SOURCES
