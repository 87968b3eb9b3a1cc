"""Ray for one run: a small private instance on this machine, or the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from popcomm.cli.signals import sigterm_kept
from popcomm.errors import UserError

ANSWER_SECONDS = 5.0  # for a connection to the cluster of RAY_ADDRESS
# The object store holds the fragments on their way from the env runners to the learners. Ray's own default is 30 % of
# the memory, which the networks need more; a config with larger fragments spills to disk, or raises this.
OBJECT_STORE_BYTES = 500 * 1024**2


def prepare_environment() -> None:
    """Defaults that Ray and torch read when they are imported; to be called before either is. The user's own win."""
    # More threads than one fight over the cores with the env runners: 0.45 s an iteration becomes 1.5 to 4.8 s.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.environ.get("RAY_ADDRESS"):
        # The only switch that keeps every socket of Ray on the loopback interface, on Linux too.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def quiet_ray() -> None:
    """Errors only, from here on: RLlib warns about its own defaults. To be called after Ray is imported."""
    for name in ("ray", "ray.rllib"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def ray_session(config: Any, copies: int = 1) -> Iterator[None]:
    """Ray is up inside, with the CPUs that so many runs of the config ask for; what was started here is stopped at the
    end."""
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with sigterm_kept():
        if address:
            _join(address, quiet)
        else:
            _start(
                num_cpus=copies * cpus(config), object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False, **quiet
            )
    try:
        yield
    finally:
        ray.shutdown()


def _start(**options: Any) -> None:
    """Raises UserError: Ray's own processes did not begin in the half minute that it waits for them."""
    import ray

    try:
        ray.init(**options)
    except Exception as error:  # of no class of its own
        if "timed out during startup" not in str(error):
            raise
        raise UserError(
            "Ray did not start in the 30 seconds that it waits for its own processes: this machine has too much else "
            "to do; try again when it has less"
        ) from error


def check_address() -> None:
    """Raises UserError where nothing answers at RAY_ADDRESS, before Ray is loaded, which would try for minutes."""
    address = os.environ.get("RAY_ADDRESS", "")
    place = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d+)(?:/.*)?", address)
    if place:
        try:
            socket.create_connection((place[1], int(place[2])), timeout=ANSWER_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, error) from error


def _join(address: str, quiet: dict[str, Any]) -> None:
    import ray

    check_address()
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> UserError:
    return UserError(
        f"RAY_ADDRESS is '{address}', and no Ray cluster answers there ({error}); unset it for a Ray of this machine"
    )


def cpus(config: Any) -> int:
    """CPUs that Ray must offer: the env runners, those of evaluation, the learners, and the driver.

    They are what RLlib asks for, or a CPU more where learners have GPUs. They are reservations, not cores: a
    machine with fewer cores runs the same config slower.
    """
    per_learner = 1 if config.num_cpus_per_learner == "auto" else config.num_cpus_per_learner
    runners = config.num_env_runners + config.evaluation_num_env_runners
    wanted = runners * config.num_cpus_per_env_runner + config.num_learners * per_learner
    driver = max(1, config.num_cpus_for_main_process)
    return math.ceil(wanted + (driver if config.num_learners else max(driver, per_learner)))
