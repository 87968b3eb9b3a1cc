"""Ray's object store, in which fragments lie on their way from env runners to learners, when it is full.

Ray moves what it has no memory for to its folder on the disk, and training goes on, slower. Where that has no room
either, a fragment can be kept nowhere.
"""

from __future__ import annotations

import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError
from ray.rllib.policy.sample_batch import MultiAgentBatch

from popcomm.errors import UserError
from popcomm.rllib.fragment import nbytes
from popcomm.rllib.settings import Settings


def put(batch: MultiAgentBatch, settings: Settings) -> ray.ObjectRef:
    """Where the batch lies now.

    Raises:
        UserError: there is room for it neither in memory nor on the disk.
    """
    try:
        return ray.put(batch)
    except (ObjectStoreFullError, OutOfDiskError) as error:
        raise UserError(
            f"a fragment of {nbytes(batch) / 2**20:.0f} MiB fits neither into Ray's object store nor on the disk to "
            "which Ray moves what it has no memory for; make "
            f"env_runners.num_worlds_per_env_runner ({settings.num_worlds_per_env_runner}) or "
            f"env_runners.rollout_fragment_length ({settings.rollout_fragment_length}) smaller, name a folder with "
            "room by the environment variable RAY_TMPDIR, or join a Ray with a larger store (ray start "
            "--object-store-memory, and RAY_ADDRESS)"
        ) from error
