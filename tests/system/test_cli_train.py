"""popcomm train, report and play from end to end: a run folder, its continuation, an interruption, a GIF."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import popcomm
from popcomm.cli import main as cli
from popcomm.cli.progress import Status
from popcomm.errors import UserError
from popcomm.language import progress
from popcomm.language.recording import read_conversations
from popcomm.rllib.checkpoints import verify

pytestmark = pytest.mark.system

TINY = {
    "environment": {"env": "swarm_v0", "env_config": {"num_agents": 4, "max_steps": 8}},
    "communication": {
        "messages": {"kind": "symbols", "vocab_size": 8, "length": 2},
        "topology": {"kind": "k_nearest", "k": 2},
    },
    "population": {"agent": "mlp", "members": 2},
    "training": {"num_epochs": 1, "minibatch_size": 2},
    "env_runners": {"num_env_runners": 1, "num_worlds_per_env_runner": 4, "rollout_fragment_length": 4},
    "recording": {"checkpoint_every": 2, "conversation_every": 2, "picture_every": 0},
    "debugging": {"seed": 3},
    "stop": {"training_iteration": 3},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file


@pytest.fixture(scope="module")
def finished(tiny: Path, ray_cluster: None) -> Path:
    """A run folder after 3 iterations."""
    run_dir = tiny.parent / "run"
    assert train(tiny, run_dir) == 0
    return run_dir


def train(file: Path, run_dir: Path, *options: str) -> int:
    return cli.main(["train", str(file), "--run-dir", str(run_dir), *options])


def manifest(run_dir: Path, iteration: int) -> dict[str, Any]:
    return verify(run_dir / f"checkpoints/checkpoint_{iteration:06d}")


def test_a_run_leaves_config_progress_checkpoints_and_report(finished: Path) -> None:
    assert yaml.safe_load((finished / "config.yaml").read_text()) == TINY
    assert list(progress.read(finished / "progress.jsonl")["iteration"]) == [1, 2, 3]
    assert sorted(p.name for p in (finished / "checkpoints").iterdir()) == ["checkpoint_000002", "checkpoint_000003"]
    assert manifest(finished, 3)["iteration"] == 3
    assert "<html" in (finished / "report.html").read_text().lower()
    assert list((finished / "tensorboard").glob("events.out.tfevents.*"))


def test_the_start_tells_the_message_rule_and_the_population(
    tiny: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert train(tiny, tmp_path / "run", "--set", "stop.training_iteration=1") == 0
    out = capsys.readouterr().out
    assert "messages: a message is exactly 2 symbols out of 8" in out
    assert "species swarm: 4 seats in each world, 2 members, " in out
    assert f"tensorboard --logdir {tmp_path / 'run'}" in out


def test_a_run_that_died_and_was_resumed_leaves_what_an_uninterrupted_one_does(
    tiny: Path, ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, progress, TensorBoard and conversations; it dies after the third iteration, the checkpoint is of the
    second, and conversations of three iterations are written at a time."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ("--set", "stop.training_iteration=6", "--set", "recording.conversation_every=3")
    assert train(tiny, whole, *options) == 0
    with monkeypatch.context() as dying:
        dying.setattr("popcomm.cli.train.Status.of", dies_at(3))
        with pytest.raises(RuntimeError, match="struck by lightning"):
            train(tiny, parts, *options)
    assert recorded(parts)["progress"]["iteration"].tolist() == [1, 2, 3]
    assert train(tiny, parts, *options, "--resume") == 0
    assert manifest(parts, 6)["weights"] == manifest(whole, 6)["weights"]
    assert manifest(parts, 2)["weights"] != manifest(parts, 6)["weights"]
    one, other = recorded(whole), recorded(parts)
    pd.testing.assert_frame_equal(one["progress"], other["progress"])
    assert one["events"] == other["events"]
    assert one["talk"].equals(other["talk"])
    # All four worlds are recorded, so every agent-step has its row, and only one.
    assert one["talk"].num_rows == one["progress"]["agent_steps"].iloc[-1]
    assert not one["talk"].to_pandas().duplicated(["world", "episode", "step", "sender"]).any()


def dies_at(iteration: int) -> Any:
    """Status.of, until it is told of that iteration."""
    of = Status.of

    def dying(result: Any, at: int, seconds: float) -> Status:
        if at == iteration:
            raise RuntimeError("struck by lightning")
        return of(result, at, seconds)

    return dying


def recorded(run_dir: Path) -> dict[str, Any]:
    """What a run folder tells of its training, as other programs read it; without clock times."""
    lines = pd.read_json(run_dir / "progress.jsonl", lines=True)
    timed = [name for name in lines if name == "time_s" or name.endswith("SPS")]
    board = EventAccumulator(str(run_dir / "tensorboard"), {"scalars": 0}).Reload()
    names = [name for name in board.Tags()["scalars"] if name not in timed]
    return {
        "progress": lines.drop(columns=timed),
        "events": {name: [(event.step, event.value) for event in board.Scalars(name)] for name in names},
        "talk": read_conversations(run_dir),
    }


def test_resuming_a_finished_run_trains_no_further(finished: Path, tiny: Path) -> None:
    before = (finished / "progress.jsonl").read_text()
    assert train(tiny, finished, "--resume") == 0
    assert (finished / "progress.jsonl").read_text() == before


def test_a_run_goes_on_by_its_folder_alone(
    tiny: Path, ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(tiny, run, "--set", "training.lr=0.002", "--set", "stop.training_iteration=1") == 0
    more = ("--set", "stop.training_iteration=2", "--set", "training.gamma=0.9")
    assert cli.main(["train", "--run-dir", str(run), "--resume", *more]) == 0
    out = capsys.readouterr().out
    assert "changed: training.gamma is 0.9, and was null" in out
    lines = progress.read(run / "progress.jsonl")
    assert lines["losses/learning_rate"].tolist() == pytest.approx([0.002, 0.002])
    assert yaml.safe_load((run / "config.yaml").read_text())["training"]["gamma"] == 0.9
    wider = ["train", "--run-dir", str(run), "--resume", "--set", "environment.env_config.num_agents=5"]
    assert cli.main([*wider, "--set", "stop.training_iteration=3"]) == 0  # learning goes on with other seats


def test_a_damaged_checkpoint_is_passed_over(tiny: Path, ray_cluster: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(tiny, run) == 0
    state = next((run / "checkpoints/checkpoint_000003").rglob("algorithm_state.pkl"))
    state.write_bytes(state.read_bytes()[:-1])
    assert train(tiny, run, "--resume") == 0
    assert manifest(run, 3)["iteration"] == 3


def test_play_writes_a_gif_of_as_many_pictures_as_steps(finished: Path, tmp_path: Path) -> None:
    gif = tmp_path / "play.gif"
    assert cli.main(["play", str(finished), "--gif", str(gif), "--steps", "5"]) == 0
    with Image.open(gif) as image:
        assert image.n_frames == 5
        assert min(image.size) > 50


def test_a_checkpoint_from_before_populations_were_in_them_is_evaluated_all_the_same(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now, then = tmp_path / "now.json", tmp_path / "then.json"
    assert cli.main(["evaluate", str(finished), "--episodes", "4", "--json", str(now)]) == 0
    older = tmp_path / "run"
    shutil.copytree(finished, older)
    for file in older.glob("checkpoints/*/manifest.json"):
        shutil.rmtree(file.parent / "population")
        about = json.loads(file.read_text())
        about["files"] = {name: told for name, told in about["files"].items() if not name.startswith("population/")}
        file.write_text(json.dumps(about))
    assert cli.main(["evaluate", str(older), "--episodes", "4", "--json", str(then)]) == 0
    assert json.loads(then.read_text())["return_mean"] == json.loads(now.read_text())["return_mean"]
    capsys.readouterr()
    with pytest.raises(UserError, match="it was saved by an earlier popcomm; train on for an iteration"):
        popcomm.load(older)


def test_report_is_written_again(finished: Path) -> None:
    (finished / "report.html").unlink()
    assert cli.main(["report", str(finished)]) == 0
    assert (finished / "report.html").stat().st_size > 1000


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_save_a_checkpoint(tiny: Path, tmp_path: Path, sent: signal.Signals, code: int) -> None:
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "popcomm.cli.main", "train", str(tiny), "--run-dir", str(run_dir)]
    endless = ["--set", "stop.training_iteration=1000000", "--set", "recording.checkpoint_every=0"]
    process = subprocess.Popen(
        [*command, *endless], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("iteration"):
            # As a terminal and `ray job stop` do it: the whole group hears of it.
            os.killpg(process.pid, sent)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in out + err
    saved = list((run_dir / "checkpoints").iterdir())
    assert len(saved) == 1
    assert f"checkpoint: {saved[0]}" in out
    rows = [json.loads(line) for line in (run_dir / "progress.jsonl").read_text().splitlines()]
    assert verify(saved[0])["iteration"] == rows[-1]["iteration"]
    assert f"interrupted; popcomm train --run-dir {run_dir} --resume goes on from there" in out
