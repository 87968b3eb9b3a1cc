"""Fragments that do not fit into Ray's object store: they go to the disk, and where that is full, it is told.

    python -m popcomm.analysis.faults.store
    python -m popcomm.analysis.faults.store --full-disk

print one line of JSON: {"steps": of the environment, "said": why it ended, or nothing, "spilled": MiB on the disk}.
"""

from __future__ import annotations

import os
import sys

from popcomm.analysis.faults.alone import ray_alone

if __name__ == "__main__":  # before Ray is imported; its processes import this file, too, for the environment
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update(ray_alone())
    # From this share of the disk on, Ray takes it for full.
    os.environ["RAY_local_fs_capacity_threshold"] = "0.0001" if "--full-disk" in sys.argv else "0.999"  # noqa: SIM112

import json
import logging
import re
import shutil
import subprocess
from typing import Any

import numpy as np
import ray
from gymnasium import spaces
from popcomm.analysis.faults.faulty_env import FaultyEnv
from popcomm.analysis.faults.matrix import LIMIT_SECONDS, Told
from ray._private.internal_api import memory_summary

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig

LOOPBACK, STORE_BYTES = "127.0.0.1", 80 * 2**20
WIDTH, ITERATIONS = 250_000, 2
# Two runners of four worlds, eight steps each; in the second fragment one of them is the reset of all worlds.
STEPS = 120
FAULTS: dict[str, tuple[str, ...]] = {
    "the object store is full": (),
    "the object store is full, and so is the disk": ("--full-disk",),
}


def try_out(name: str) -> Told:
    """Train with a store that is too small, in a process of its own.

    Raises:
        AssertionError: the training ends otherwise, or nothing went to the disk.
    """
    command = [sys.executable, "-m", "popcomm.analysis.faults.store", *FAULTS[name]]
    found = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert found.returncode == 0, found.stderr[-3000:]
    told = json.loads(found.stdout.splitlines()[-1])
    if FAULTS[name]:
        assert told["steps"] == 0, told
        assert told["said"].startswith("a fragment of "), told
        assert "env_runners.rollout_fragment_length (8) smaller" in told["said"], told
        return Told(name, told["said"], 2, None)
    assert (told["steps"], told["said"]) == (STEPS, ""), told
    assert told["spilled"] > 0, told
    return Told(name, f"nothing; {told['spilled']} MiB went to the disk", 0, None)


class WideEnv(FaultyEnv):
    """Two agents that see 1 MB each."""

    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Box(-1, 1, (WIDTH,), np.float32)

    def _look(self) -> dict[str, Any]:
        return {agent: np.full(WIDTH, self.rng.uniform(-1, 1), np.float32) for agent in self.possible_agents}


def main() -> None:
    """Two runners whose fragments of some 70 MiB lie in a store of 80 MiB at the same time."""
    ray.init(
        num_cpus=3,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address=LOOPBACK,
    )
    logging.getLogger("ray").setLevel(logging.ERROR)
    config = (
        PopulationPPOConfig()
        .environment("popcomm.analysis.faults.store:WideEnv")
        .communication(messages={"kind": "symbols", "vocab_size": 4, "length": 1})
        .population(agent="mlp", agent_config={"hidden": 4})
        .env_runners(num_env_runners=2, num_worlds_per_env_runner=4, rollout_fragment_length=8)
        .training(num_epochs=1)
        .debugging(seed=3)
    )
    said, algorithm = "", config.build_algo()
    try:
        for _ in range(ITERATIONS):
            algorithm.train()
    except UserError as error:
        said = str(error)
    finally:
        steps, spilled = algorithm.env_steps, spilled_mib()
        algorithm.stop()
        ray.shutdown()
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)
    print(json.dumps({"steps": steps, "said": said, "spilled": spilled}), flush=True)


def spilled_mib() -> int:
    """MiB that Ray has moved to the disk so far."""
    summary = re.search(r"Spilled (\d+) MiB", memory_summary(ray.get_runtime_context().gcs_address, stats_only=True))
    return int(summary[1]) if summary else 0


if __name__ == "__main__":
    main()
