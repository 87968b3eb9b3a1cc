"""Several simulated nodes on this machine, on the loopback interface alone: a cluster to try things on, and for tests.

    python -m popcomm.cluster.local_cluster --nodes 2 --cpus 2

The head has no CPUs, as that of a real cluster should, so trainings run on the nodes. Ctrl-C ends all of it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# What Ray reads when it is imported, which is why that happens late below.
LOOPBACK = "127.0.0.1"
STORE_BYTES = 150 * 2**20  # object store of each node
PORT = 8265  # of the job server


@contextmanager
def local_cluster(nodes: Sequence[int] = (2, 2), port: int | None = None) -> Iterator[str]:
    """A cluster whose nodes are processes of this machine; yields the address for RAY_ADDRESS.

    Args:
        nodes: CPUs of each node beside the head.
        port: of the job server and dashboard; None: neither.

    Ray must not have been imported before: it reads where it may listen, and whether to ask for a token, at import.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # every socket stays on loopback, on Linux too
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory(
        prefix="pop", ignore_cleanup_errors=True
    ) as folder:  # short: sockets have long names in it
        # Ray notes the address that "auto" means there; another Ray of this machine keeps its own.
        os.environ["RAY_TMPDIR"] = folder
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "node_ip_address": LOOPBACK, "object_store_memory": STORE_BYTES}
        # Each node's agent listens on a port that is free, other than Ray's own, which other Rays of this machine have.
        served = {"include_dashboard": port is not None, "dashboard_host": LOOPBACK, "dashboard_agent_listen_port": 0}
        cluster = Cluster(
            initialize_head=True,
            head_node_args={**head, **served, **({} if port is None else {"dashboard_port": port})},
        )
        try:
            for number, cpus in enumerate(nodes):
                # A folder of its own, as on its own machine: a node replaces a job's working directory that is there.
                own = {"num_cpus": cpus, "temp_dir": f"{folder}/{number}"}
                cluster.add_node(**own, node_ip_address=LOOPBACK, object_store_memory=STORE_BYTES)
            yield cluster.address
        finally:
            cluster.shutdown()


def main(args: Sequence[str] | None = None) -> int:
    """Run a cluster until Ctrl-C, or until standard input ends where it is no terminal."""
    parser = argparse.ArgumentParser(prog="python -m popcomm.cluster.local_cluster", description=__doc__)
    parser.add_argument("--nodes", type=int, default=2, help="beside the head (default: 2)")
    parser.add_argument("--cpus", type=int, default=2, help="of each (default: 2)")
    parser.add_argument("--port", type=int, default=PORT, help=f"of the job server (default: {PORT})")
    asked = parser.parse_args(args)
    if asked.nodes < 1 or asked.cpus < 1:
        parser.error("--nodes and --cpus must be at least 1")
    os.environ["RAY_AUTH_MODE"] = "token"
    token = os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with local_cluster([asked.cpus] * asked.nodes, asked.port) as address:
        print(f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN={token}")
        print(f"popcomm submit swarm --address http://{LOOPBACK}:{asked.port}    # or, as a process of yours:")
        print(f"RAY_ADDRESS={address} popcomm train swarm", flush=True)
        _wait()
    return 0


def _wait() -> None:
    try:
        while sys.stdin.readline():
            pass
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    sys.exit(main())
