"""Whether all nodes of a Ray cluster see a sweep's folder: trials write into it wherever they run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from popcomm.errors import UserError


def check_storage(
    sweep_dir: Path,
    nodes: Sequence[str] | None = None,
    blind: Callable[[Path, Sequence[str]], Sequence[str]] | None = None,
) -> None:
    """Raises UserError where there are several nodes, and the folder is named relative to this one or not seen by all.

    Args:
        sweep_dir: as it was given.
        nodes: ids of those that are alive; None: of Ray's cluster, which is up.
        blind: which of some nodes do not see a file; None: a task on each looks for it.
    """
    nodes = alive_nodes() if nodes is None else nodes
    if len(nodes) < 2:
        return
    if not sweep_dir.is_absolute():
        raise UserError(
            f"--run-dir {sweep_dir} is relative, and the cluster has {len(nodes)} nodes; name the whole path of a "
            "folder that all of them share"
        )
    there = sweep_dir.is_dir()
    sweep_dir.mkdir(parents=True, exist_ok=True)
    marker = sweep_dir / f".seen-{uuid.uuid4().hex}"
    marker.touch()
    try:
        missing = (blind or blind_nodes)(marker, nodes)
    finally:
        marker.unlink()
        if not there:
            sweep_dir.rmdir()
    if missing:
        raise UserError(
            f"--run-dir {sweep_dir} is not seen by {len(missing)} of the cluster's {len(nodes)} nodes; name a folder "
            "that all of them share"
        )


def alive_nodes() -> list[str]:
    """Ids of the nodes of Ray's cluster."""
    import ray

    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def blind_nodes(file: Path, nodes: Sequence[str]) -> list[str]:
    """Those nodes on which the file is not there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def sees(path: str) -> bool:
        return Path(path).is_file()

    look = ray.remote(num_cpus=0)(sees)
    asked = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(str(file))
        for node in nodes
    ]
    return [node for node, seen in zip(nodes, ray.get(asked), strict=True) if not seen]
