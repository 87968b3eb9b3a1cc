"""Jobs on a Ray cluster, by Ray's job server: reach it, submit, follow, list, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from popcomm.cli.ray_session import ANSWER_SECONDS, quiet_ray
from popcomm.cli.signals import INTERRUPTED
from popcomm.errors import UserError

SUCCEEDED, FAILED, STOPPED = 0, 1, 3  # exit codes of what follows a job to its end
EXIT_CODES = {"SUCCEEDED": SUCCEEDED, "FAILED": FAILED, "STOPPED": STOPPED}
ADDRESS = "http://127.0.0.1:8265"
TOKEN_HINT = (
    "Ray's token is read from RAY_AUTH_TOKEN, from the file that RAY_AUTH_TOKEN_PATH names, or from ~/.ray/auth_token"
)
# In which a cluster that has begun takes jobs, and a job whose log has ended comes to a final state.
SETTLING_SECONDS = 30.0
# What launchers of clusters with an autoscaler write on nodes: there may be GPUs that have not been started yet.
OF_AN_AUTOSCALER = "ray.io/node-group"

Say = Callable[[str], None]


def connect(address: str) -> Any:
    """Ray's JobSubmissionClient of the job server at an address, which is reached and lets us in.

    Raises:
        UserError: no address of a job server, nobody answers there, or a token is missing or refused.
    """
    _check_reachable(address)
    _use_token()
    from ray.job_submission import JobSubmissionClient

    quiet_ray()
    for name in ("dashboard_sdk", "job.sdk"):  # which set themselves to tell each step
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    with _told(address):
        client = JobSubmissionClient(address)
        client.list_jobs()  # the connection alone is made without a token
    return client


def submit(client: Any, address: str, job: str, entrypoint: str, package: Path) -> None:
    """Start a job with its working directory in a zip."""
    given_up = time.monotonic() + SETTLING_SECONDS
    with _told(address):
        while True:
            try:
                client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job,
                    # A training has one thread, as anywhere (see ray_session).
                    runtime_env={"working_dir": str(package), "env_vars": {"OMP_NUM_THREADS": "1"}},
                    metadata={"popcomm": job},
                )
                return
            except RuntimeError as error:
                # A cluster that has just begun takes no jobs for a few seconds.
                if "No available agent" not in str(error) or time.monotonic() > given_up:
                    raise
            time.sleep(1.0)


def check_gpus(client: Any, address: str, wanted: float) -> None:
    """Raises UserError where a cluster has fewer GPUs, and nobody who could start nodes with more."""
    if not wanted:
        return
    with _told(address):
        answer = client._do_request("GET", "/api/v0/nodes?limit=10000")
        nodes = [node for node in answer.json()["data"]["result"]["result"] if node["state"] == "ALIVE"]
    there = sum(node["resources_total"].get("GPU", 0) for node in nodes)
    if wanted > there and not any(OF_AN_AUTOSCALER in (node.get("labels") or {}) for node in nodes):
        raise UserError(f"learners ask for {wanted:g} GPUs, and the cluster at {address} has {there:g}")


def follow(client: Any, address: str, job: str, say: Say) -> int:
    """Print the log of a job as it is written, and wait for its end; Ctrl-C leaves the job to itself.

    Returns:
        SUCCEEDED, FAILED or STOPPED; INTERRUPTED after Ctrl-C.
    """

    async def read() -> None:
        async for lines in client.tail_job_logs(job):
            print(lines, end="", flush=True)

    try:
        with _told(address, job):
            asyncio.run(read())
        return _end(client, address, job, say)
    except KeyboardInterrupt:
        say(f"detached; the job goes on. Come back: {_command('logs', job, address)} --follow")
        say(f"end it: {_command('stop', job, address)}")
        return INTERRUPTED


def logs(client: Any, address: str, job: str) -> str:
    """What a job has printed so far."""
    with _told(address, job):
        return str(client.get_job_logs(job))


def stop(client: Any, address: str, job: str) -> str:
    """Ask for a job's end and wait for it; returns what became of the job."""
    with _told(address, job):
        client.stop_job(job)
    return _settled(client, address, job)


def status(client: Any, address: str, job: str) -> str:
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED (Ray's exit codes do not tell a stopped job from a done one)."""
    with _told(address, job):
        return str(client.get_job_status(job).value)


def rows(client: Any, address: str) -> list[tuple[str, str, str, str]]:
    """(job, status, since, what it runs) of the jobs that were submitted, the newest last."""
    with _told(address):
        jobs = [job for job in client.list_jobs() if job.submission_id]
    return [
        (job.submission_id, str(job.status.value), _moment(job.start_time), job.entrypoint)
        for job in sorted(jobs, key=lambda job: job.start_time or 0)
    ]


def how_to_come_back(job: str, address: str) -> str:
    """Commands for a job that is left to itself."""
    return f"{_command('logs', job, address)} --follow"


def _end(client: Any, address: str, job: str, say: Say) -> int:
    """The exit code of a job whose log has ended, as soon as it is known."""
    now = _settled(client, address, job)
    if now not in EXIT_CODES:
        raise UserError(f"the log of {job} has ended, and it is {now}: {_command('logs', job, address)} --follow")
    say(f"job {job}: {now.lower()}")
    return EXIT_CODES[now]


def _settled(client: Any, address: str, job: str) -> str:
    """The status of a job that is about to end: its last one, or the one that it still has after a while."""
    given_up = time.monotonic() + SETTLING_SECONDS
    while (now := status(client, address, job)) not in EXIT_CODES and time.monotonic() < given_up:
        time.sleep(0.5)
    return now


def _command(verb: str, job: str, address: str) -> str:
    return f"popcomm jobs {verb} {job}" + ("" if address == ADDRESS else f" --address {address}")


def _check_reachable(address: str) -> None:
    """Raises UserError where nothing answers, before Ray is loaded; its client would wait for minutes."""
    place = re.fullmatch(r"https?://\[?([^\[\]/:]+|[0-9a-fA-F:]+)\]?(?::(\d+))?/?", address)
    if not place:
        raise UserError(f"--address {address} is not of the form http://HOST:PORT, for example {ADDRESS}")
    port = int(place[2] or (443 if address.startswith("https") else 80))
    try:
        socket.create_connection((place[1], port), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _nobody(address, error) from error


def _use_token() -> None:
    """Ray sends a token only where it is told to, even if one is there."""
    there = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if there or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextmanager
def _told(address: str, job: str | None = None) -> Iterator[None]:
    """What Ray's client raises, in a sentence."""
    import requests
    from aiohttp import ClientError
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        if "401" in str(error) or "required" in str(error).lower():
            raise UserError(f"the cluster at {address} asks for a token, and there is none; {TOKEN_HINT}") from error
        raise UserError(f"the cluster at {address} refuses the token; {TOKEN_HINT}") from error
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:  # of an answer that is none of Ray's
        raise UserError(f"what answers at {address} is no job server of Ray ({_line(error)})") from error
    except (requests.exceptions.RequestException, ClientError, ConnectionError) as error:
        raise _nobody(address, error) from error
    except RuntimeError as error:
        if job is not None and ("404" in str(error) or "does not exist" in str(error)):
            raise UserError(f"there is no job '{job}' on the cluster at {address}; see popcomm jobs list") from error
        raise UserError(f"the job server at {address} answers {_line(error)}") from error


def _nobody(address: str, error: Exception) -> UserError:
    return UserError(
        f"no job server of Ray answers at {address} ({_line(error)}); of a cluster elsewhere, its port 8265 is reached "
        "by a tunnel: ray dashboard, kubectl port-forward, or ssh -L"
    )


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _moment(milliseconds: int | None) -> str:
    if not milliseconds:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000).isoformat(sep=" ", timespec="seconds")
