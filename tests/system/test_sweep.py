"""popcomm sweep from end to end: trials that are popcomm's own runs, one that fails, and going on afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from popcomm.cli import main as cli
from popcomm.envs.swarm_v0 import SwarmWorld
from popcomm.envs.world import WorldStep
from popcomm.language import progress
from popcomm.rllib.checkpoints import verify

pytestmark = pytest.mark.system


class Fragile(SwarmWorld):
    """Swarms of three break while a file is there."""

    def __init__(self, num_worlds: int = 1, device: str = "cpu", num_agents: int = 2, breaks: str = "") -> None:
        super().__init__(num_worlds=num_worlds, device=device, num_agents=num_agents, max_steps=8)
        self.breaks = Path(breaks)

    def step(self, *args: Any, **kwargs: Any) -> WorldStep:
        if self.num_agents == 3 and self.breaks.is_file():
            raise RuntimeError("the wing fell off")
        return super().step(*args, **kwargs)


SIZE = "environment.env_config.num_agents"


def document(breaks: Path) -> dict[str, Any]:
    return {
        "environment": {"env": "tests.system.test_sweep:Fragile", "env_config": {"breaks": str(breaks)}},
        "communication": {"messages": {"kind": "symbols", "vocab_size": 8, "length": 2}},
        "population": {"agent": "mlp"},
        "training": {"num_epochs": 1},
        "env_runners": {"num_worlds_per_env_runner": 2, "rollout_fragment_length": 4},
        "recording": {"checkpoint_every": 0, "conversation_every": 0, "picture_every": 0},
        "debugging": {"seed": 3},
        "stop": {"training_iteration": 2},
        "tune": {"param_space": {SIZE: {"grid_search": [2, 3]}}, "metric": "charts/reward"},
    }


@pytest.fixture(scope="module")
def swept(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep whose second trial has failed."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "breaks").touch()
    (folder / "s.yaml").write_text(yaml.safe_dump(document(folder / "breaks")))
    assert sweep(folder) == 1
    return folder


def sweep(folder: Path, *options: str) -> int:
    options = ("--run-dir", str(folder / "s"), "--max-concurrent", "2", *options)
    return cli.main(["sweep", str(folder / "s.yaml"), *options])


def weights(run_dir: Path) -> str:
    return verify(run_dir / "checkpoints/checkpoint_000002")["weights"]


def test_a_trial_that_fails_is_told_with_its_reason_and_ends_nothing_else(swept: Path) -> None:
    table = pd.read_csv(swept / "s/results.csv").set_index(SIZE)
    assert dict(table["status"]) == {2: "done", 3: "failed"}
    assert table["reason"][3].startswith("SamplingError: sampling failed")
    assert table["reason"][3].endswith("RuntimeError: the wing fell off")
    trial = swept / "s" / table["trial"][2]
    assert trial.name == "00000_num_agents=2"
    assert table["charts/reward"][2] == progress.read(trial / "progress.jsonl")["charts/reward"].iloc[-1]
    assert table["iteration"][2] == 2
    assert [row["status"] for row in json.loads((swept / "s/results.json").read_text())["trials"]] == ["done", "failed"]


def test_a_trial_is_the_run_that_train_makes_of_the_same_parameters(swept: Path) -> None:
    trial, alone = swept / "s/00000_num_agents=2", swept / "alone"
    assert cli.main(["train", str(swept / "s.yaml"), "--set", f"{SIZE}=2", "--run-dir", str(alone)]) == 0
    assert weights(trial) == weights(alone)
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in (trial, alone)]
    del configs[1]["tune"]
    assert configs[0] == configs[1]
    assert list((trial / "tensorboard").glob("events.out.tfevents.*"))


def test_resuming_tries_what_failed_again_and_keeps_the_rest(swept: Path) -> None:
    done = swept / "s/00000_num_agents=2/progress.jsonl"
    before = done.read_text()
    (swept / "breaks").unlink()
    assert sweep(swept, "--resume") == 0
    assert list(pd.read_csv(swept / "s/results.csv")["status"]) == ["done", "done"]
    assert done.read_text() == before
    assert weights(swept / "s/00001_num_agents=3")
