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


def test_resuming_tries_what_failed_again_with_another_bound_and_keeps_the_rest(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = swept / "s/00000_num_agents=2/progress.jsonl"
    before = done.read_text()
    (swept / "breaks").unlink()
    assert sweep(swept, "--resume", "--set", "stop.training_iteration=3") == 0
    assert "these trials have ended, and stay as they are: 00000_num_agents=2" in capsys.readouterr().out
    assert list(pd.read_csv(swept / "s/results.csv")["status"]) == ["done", "done"]
    assert done.read_text() == before
    assert verify(swept / "s/00001_num_agents=3/checkpoints/checkpoint_000003")["weights"]


# ---- what a scheduler makes of trials ----


def fragile(folder: Path, **tune: Any) -> Path:
    """A document of trials that do not fail, whose only difference is what `tune` says."""
    told = document(folder / "none")
    told["environment"]["env_config"]["num_agents"] = 2
    del told["recording"]["checkpoint_every"]
    told["tune"] = {"metric": "charts/reward", **tune}
    (folder / "s.yaml").write_text(yaml.safe_dump(told))
    return folder


def test_the_population_of_the_best_run_seeds_the_other(ray_cluster: None, tmp_path: Path) -> None:
    space = {"debugging.seed": {"grid_search": [1, 2]}, "training.lr": {"choice": [1e-3, 1e-2]}}
    scheduler = {"kind": "population_survival", "strategy": {"kind": "top_k", "k": 1}, "every": 1}
    assert sweep(fragile(tmp_path, param_space=space, scheduler=scheduler)) == 0
    table = pd.read_parquet(tmp_path / "s/lineage.parquet")
    assert table["generation"].tolist() == [0, 0, 1, 1]
    (heir,) = table[table["source"].notna()].to_dict("records")
    best = table[:2].sort_values("fitness").iloc[-1]
    assert (heir["source"], heir["parent"], heir["founder"]) == (best["trial"], best["id"], best["id"])
    begun = [
        verify(tmp_path / "s" / name / "checkpoints/checkpoint_000001") for name in (heir["trial"], heir["source"])
    ]
    assert begun[0]["weights"] == begun[1]["weights"]
    # From there on it learns otherwise, at its own rate.
    assert weights(tmp_path / "s" / heir["trial"]) != weights(tmp_path / "s" / heir["source"])
    rate = progress.read(tmp_path / "s" / heir["trial"] / "progress.jsonl")["losses/learning_rate"].iloc[-1]
    assert rate == pytest.approx(json.loads(heir["parameters"])["training.lr"])
    results = pd.read_csv(tmp_path / "s/results.csv").set_index("trial")
    assert results["training.lr"][heir["trial"]] == pytest.approx(rate)
    assert "Survival between runs: 1 selection" in (tmp_path / "s/report.html").read_text()


def test_a_metric_that_no_trial_measures_ends_the_sweep_at_once(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"training.lr": {"grid_search": [1e-3, 1e-2]}}
    folder = fragile(tmp_path, param_space=space, metric="world/acuracy")
    told = yaml.safe_load((folder / "s.yaml").read_text())
    told["stop"]["training_iteration"] = 10_000
    (folder / "s.yaml").write_text(yaml.safe_dump(told))
    assert sweep(folder) == 2
    assert "tune.metric 'world/acuracy' was recorded by no trial; " in capsys.readouterr().err
