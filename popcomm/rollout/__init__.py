"""Worlds, seats, networks and their channel, one step at a time; without Ray, and without a trainer's configuration."""

from popcomm.rollout.actor import Act, Network, Thought
from popcomm.rollout.players import Players, Turn
from popcomm.rollout.rollout import Playable, Rollout
from popcomm.rollout.seeds import Seeds, seed_of

__all__ = ["Act", "Network", "Playable", "Players", "Rollout", "Seeds", "Thought", "Turn", "seed_of"]
