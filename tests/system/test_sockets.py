"""Where popcomm's own commands listen, with Ray, learners that exchange gradients, and worlds in processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sockets import LOOPBACK, listening

pytestmark = pytest.mark.system

SECTIONS: dict[str, Any] = {
    "environment": {"env": "mpe2.simple_spread_v3:parallel_env", "env_config": {"max_cycles": 8}, "processes": 2},
    "communication": {"messages": {"kind": "symbols", "vocab_size": 8, "length": 2}},
    "population": {"agent": "mlp"},
    "training": {"num_epochs": 1},
    "env_runners": {"num_env_runners": 1, "num_worlds_per_env_runner": 2, "rollout_fragment_length": 4},
    "recording": {"checkpoint_every": 0, "conversation_every": 0, "picture_every": 0},
    "stop": {"training_iteration": 1_000_000},
}
LEARNERS = {"learners": {"num_learners": 2}}
SPACE = {"tune": {"param_space": {"training.gamma": {"grid_search": [0.9]}}, "metric": "charts/reward"}}


@pytest.mark.parametrize(("command", "own"), [("train", LEARNERS), ("sweep", SPACE)])
def test_every_socket_of_a_command_is_on_loopback(command: str, own: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**SECTIONS, **own}))
    process = subprocess.Popen(
        [sys.executable, "-m", "popcomm.cli.main", command, "c.yaml", "--run-dir", "run"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 120
        while not list(tmp_path.glob("run/**/progress.jsonl")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        assert list(tmp_path.glob("run/**/progress.jsonl"))
        found = listening(process.pid)
        assert len(found) > 5  # Ray alone has as many
        assert set(found) <= LOOPBACK
    finally:
        process.terminate()  # it ends its Ray
        process.wait(60)
