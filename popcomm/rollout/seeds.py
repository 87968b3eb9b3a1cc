"""Seeds: the branches of one tree of random numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Branches of a rollout; learners and networks have others (popcomm/rllib/config.py).
WORLD_BRANCH, SAMPLING_BRANCH, SEATING_BRANCH, CHANNEL_BRANCH = 1, 2, 3, 6


def seed_of(root: int | None, *branch: int) -> int:
    """A 63-bit seed for one branch of the tree that grows from the config's seed; fresh entropy without one."""
    sequence = np.random.SeedSequence(entropy=root, spawn_key=branch)
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


class Seeds(NamedTuple):
    """Of all that is random in a rollout."""

    world: int  # first episodes, and all that follows in the worlds
    sampling: int  # actions and messages, noise and dropout
    seating: int  # which members sit where
    channel: int  # the log of transmissions and its reflexes

    @classmethod
    def of(cls, root: int | None, *branch: int) -> Seeds:
        """Those of one rollout, e.g. a runner's index and more; fresh entropy without a root."""
        branches = (WORLD_BRANCH, SAMPLING_BRANCH, SEATING_BRANCH, CHANNEL_BRANCH)
        return cls(*(seed_of(root, b, *branch) for b in branches))
