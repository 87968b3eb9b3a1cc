"""A Ray with a job server on loopback, for as long as standard input is open: `job_server.py PORT`.

It asks for the token of RAY_AUTH_TOKEN.
"""

from __future__ import annotations

import sys

import ray

if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=int(sys.argv[1]),
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    print("ready", flush=True)
    sys.stdin.read()
    ray.shutdown()
