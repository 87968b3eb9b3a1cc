"""popcomm: populations of small agents that learn to talk to one another."""

__version__ = "0.1.0"
