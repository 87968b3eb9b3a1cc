"""Two simulated nodes: remote env runners and a remote learner do what local ones do, and a node that is lost is told.

    python -m popcomm.analysis.faults.nodes

prints one line of JSON.
"""

from __future__ import annotations

import os

from popcomm.analysis.faults.alone import ray_alone

os.environ.pop("RAY_ADDRESS", None)
os.environ.update(ray_alone())

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.checkpoints import weight_digest

LOOPBACK, STORE_BYTES = "127.0.0.1", 100 * 2**20
ITERATIONS, PATIENCE_SECONDS = 2, 200.0


def config_of(learners: int) -> PopulationPPOConfig:
    """Two runners. learners: 0, in the driver, or 1, on a node."""
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 6})
        .communication(messages={"kind": "symbols", "vocab_size": 8, "length": 2})
        .population(agent="mlp")
        .env_runners(num_env_runners=2, num_worlds_per_env_runner=4, rollout_fragment_length=5, sample_timeout_s=30)
        .learners(num_learners=learners)
        .training(num_epochs=1)
        .debugging(seed=3)
    )


def main() -> None:
    """Train on two nodes and with the learner in the driver, restore, lose a node; print what came of it."""
    node = {"node_ip_address": LOOPBACK, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **node})
    nodes = [cluster.add_node(num_cpus=2, **node) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", _node_ip_address=LOOPBACK)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        told = _same_as_local() | _lose(cluster, nodes, node)
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)
    print(json.dumps(told), flush=True)


def _train(algorithm: PopulationPPO) -> str:
    for _ in range(ITERATIONS):
        algorithm.train()
    return weight_digest(algorithm)


def _same_as_local() -> dict[str, Any]:
    """Weights with a remote learner, restored in the middle, and with one in the driver."""
    remote = config_of(1).build_algo()
    try:
        _train(remote)
        saved = remote.save_to_path(Path(os.environ["RAY_TMPDIR"]) / "saved")
        places = set(remote.foreach_sampling_runner(lambda runner: _place()))
        places |= {result.get() for result in remote.learner_group.foreach_learner(lambda learner: _place())}
    finally:
        remote.stop()
    restored = PopulationPPO.from_checkpoint(saved)
    try:
        weights = _train(restored)
    finally:
        restored.stop()
    local = config_of(0).build_algo()
    try:
        _train(local)
        return {"nodes": len(places), "restored": weights, "local": _train(local)}
    finally:
        local.stop()


def _place() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _lose(cluster: Cluster, nodes: list[Any], node: dict[str, Any]) -> dict[str, Any]:
    """Take away a node with a runner, and give another in its place.

    Returns:
        {"said": what the log said, "alone": runners that sampled then, "seconds": from there to all of them again}.
    """
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("popcomm").addHandler(handler)
    algorithm = config_of(0).build_algo()
    try:
        algorithm.train()
        places = algorithm.foreach_sampling_runner(lambda runner: _place())
        lost = next(one for one in nodes if one.node_id == places[0])
        began = time.monotonic()
        cluster.remove_node(lost)
        # At once: Ray begins a runner anew within seconds, and nobody would have missed it.
        present = [algorithm.train()["popcomm"]["charts/env_runners"]]
        cluster.add_node(num_cpus=2, **node)
        while time.monotonic() - began < PATIENCE_SECONDS and (len(set(present)) < 2 or present[-1] < 2):
            present.append(algorithm.train()["popcomm"]["charts/env_runners"])
        return {"said": said, "present": present, "seconds": round(time.monotonic() - began, 1)}
    finally:
        algorithm.stop()


if __name__ == "__main__":
    main()
