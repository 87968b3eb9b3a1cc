"""popcomm submit and popcomm jobs on a real job server with a token: a job that is done, and one that is stopped."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from popcomm.language import progress
from popcomm.rllib.checkpoints import latest_valid
from tests.sockets import LOOPBACK, listening

pytestmark = pytest.mark.system

TOKEN = "a-token-of-these-tests-and-of-nothing-else"
TINY = {
    "environment": {"env": "my_world:Fragile", "env_config": {"num_agents": 3}},
    "communication": {"messages": {"kind": "symbols", "vocab_size": 8, "length": 2}},
    "population": {"agent": "mlp"},
    "training": {"num_epochs": 1},
    "env_runners": {"num_env_runners": 0, "num_worlds_per_env_runner": 2, "rollout_fragment_length": 4},
    "recording": {"checkpoint_every": 1, "keep_checkpoints": 2, "conversation_every": 0, "picture_every": 0},
    "debugging": {"seed": 3},
    "stop": {"training_iteration": 4},
}
# A world that dies once, with its process, as a node that is lost; and a learner that does, in its third update.
WORLD = """
import os
from pathlib import Path

from popcomm.agents.mlp import MLPAgent
from popcomm.envs.swarm_v0 import SwarmWorld


class Mortal(MLPAgent):
    has_auxiliary_losses = True
    updates = 0

    def __init__(self, spec, died, **options):
        super().__init__(spec, **options)
        self.died = Path(died)

    def auxiliary_losses(self, batch, outputs):
        Mortal.updates += 1
        if Mortal.updates == 3 and not self.died.exists():
            self.died.touch()
            os._exit(1)
        return {}


class Fragile(SwarmWorld):
    steps = 0

    def __init__(self, num_worlds=1, device="cpu", num_agents=3, died="", raises_at=0):
        super().__init__(num_worlds=num_worlds, device=device, num_agents=num_agents, max_steps=8)
        self.died, self.raises_at = died and Path(died), raises_at

    def step(self, *args, **kwargs):
        Fragile.steps += 1
        if Fragile.steps == self.raises_at:
            raise RuntimeError("the bridge fell down")
        if Fragile.steps == 11 and self.died and not self.died.exists():
            self.died.touch()
            os._exit(1)
        return super().step(*args, **kwargs)
"""


def environment(token: str | None = TOKEN) -> dict[str, str]:
    """Of a process with that token; without the settings that this test run has for its own Ray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    extra = {} if token is None else {"RAY_AUTH_TOKEN": token}
    return kept | extra | {"RAY_USAGE_STATS_ENABLED": "0", "HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """Where the job server of a simulated cluster is, and its process: a head without CPUs, and a node with two."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["popcomm.cluster.local_cluster", "--nodes", "1", "--cpus", "2", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment() | {"PATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert server.stdout is not None
    assert TOKEN in server.stdout.readline()
    yield f"http://127.0.0.1:{port}", server.pid
    server.communicate(timeout=60)


@pytest.fixture(scope="module")
def address(cluster: tuple[str, int]) -> str:
    return cluster[0]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory with a world and a config, and a run that must not be taken along."""
    (tmp_path / "my_world.py").write_text(WORLD)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return tmp_path


class Shell:
    """A process that calls popcomm again and again: it loads Ray once."""

    CODE = """
import contextlib, io, json, sys
from popcomm.cli.main import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""

    def __init__(self, here: Path, token: str | None = TOKEN) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE],
            cwd=here,
            env=environment(token),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *args: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(args) + "\n")
        self.process.stdin.flush()
        code, out, err = json.loads(self.process.stdout.readline())
        return code, out, err

    def close(self) -> None:
        self.process.communicate(timeout=30)


def test_every_socket_of_a_local_cluster_is_on_loopback(cluster: tuple[str, int]) -> None:
    found = listening(cluster[1])
    assert len(found) > 5
    assert set(found) <= LOOPBACK


def test_a_token_is_asked_for_and_looked_at(address: str, tmp_path: Path) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{address}/api/jobs/")
    for token, said in ((None, "asks for a token, and there is none"), ("wrong" * 8, "refuses the token")):
        shell = Shell(tmp_path, token)
        code, out, err = shell("jobs", "list", "--address", address)
        shell.close()
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert said in err


def test_jobs_survive_the_loss_of_their_process_and_of_a_learner_one_raises_and_one_is_stopped(
    address: str, here: Path
) -> None:
    popcomm, at = Shell(here), ("--address", address)
    code, _, err = popcomm("submit", "tiny.yaml", *at, "--gpus", "1")
    assert (code, "learners ask for 1 GPUs, and the cluster" in err) == (2, True)
    run = here / "run"
    dies = ("--set", f"environment.env_config.died={here / 'died'}")
    code, out, err = popcomm("submit", "tiny.yaml", *at, "--run-dir", str(run), *dies)
    assert code == 0, out + err
    assert "retry 1 of 3" in out
    assert f"resumed from {run / 'checkpoints/checkpoint_000002'}" in out
    assert re.search(r"^iteration 4 \| env steps ", out, re.MULTILINE), out
    assert list(progress.read(run / "progress.jsonl")["iteration"]) == [1, 2, 3, 4]
    assert latest_valid(run / "checkpoints") == run / "checkpoints/checkpoint_000004"
    assert len(list((run / "checkpoints").iterdir())) == 2
    assert not (run / "tune").exists()

    lost = here / "lost"
    mortal = {
        "population.agent": "my_world:Mortal",
        "population.agent_config.died": here / "died_learning",
        "learners.num_learners": 1,
    }
    own = [
        part for key, value in ({**mortal, "learners.num_learners": 1}).items() for part in ("--set", f"{key}={value}")
    ]
    code, out, err = popcomm("submit", "tiny.yaml", *at, "--run-dir", str(lost), *own)
    assert code == 0, out + err
    assert "learner 1 of 1 is lost: its process ended" in out
    assert "begins again from the newest checkpoint (retry 1 of 3)" in out
    assert f"resumed from {lost / 'checkpoints/checkpoint_000002'}" in out
    assert list(progress.read(lost / "progress.jsonl")["iteration"]) == [1, 2, 3, 4]

    code, out, err = popcomm(
        *("submit", "tiny.yaml", *at, "--run-dir", str(here / "raised")),
        *("--set", "environment.env_config.raises_at=7"),
    )
    assert code == 1, out + err
    said = (
        "failed, and not tried again: an environment, an agent or the config raised RuntimeError: the bridge fell down"
    )
    assert said in out.splitlines()
    assert "begins again" not in out
    assert "in step" in (here / "raised/tune/error.txt").read_text()

    code, out, _ = popcomm("submit", "tiny.yaml", *at, "--detach", "--run-dir", str(run))
    assert code == 0
    job = out.split()[1]
    assert f"popcomm jobs logs {job} --address {address} --follow" in out
    assert popcomm("jobs", "stop", job, *at)[0] == 0
    assert popcomm("jobs", "logs", job, "--follow", *at)[0] == 3
    listed = popcomm("jobs", "list", *at)[1].splitlines()
    assert [line.split()[1] for line in listed] == ["SUCCEEDED", "SUCCEEDED", "FAILED", "STOPPED"]
    assert "there is no job 'nothing'" in popcomm("jobs", "logs", "nothing", *at)[2]
    popcomm.close()
