"""The command line's manners: one sentence on stderr, exit codes, and nothing of a traceback."""

from __future__ import annotations

import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from popcomm.cli import documents, run_folder
from popcomm.cli import main as cli
from popcomm.cli.train import checked_config
from popcomm.errors import LostError, UserError
from popcomm.manifest import Found


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def complaint(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one sentence of a user's mistake, without the program's name."""
    assert cli.main(list(args)) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "Traceback" not in streams.err
    lines = streams.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("popcomm: ")
    return lines[0].removeprefix("popcomm: ")


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search("trian.*train", complaint(capsys, "trian", "swarm"))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["train"], "FILE"),
        (["play"], "RUN"),
        (["play", "x", "--gif", "a.gif", "--steps", "many"], "--steps"),
        (["train", "x", "--rusume"], "--resume"),
    ],
)
def test_a_missing_or_wrong_argument_is_named(capsys: pytest.CaptureFixture[str], args: list[str], said: str) -> None:
    assert said in complaint(capsys, *args)


def test_an_unknown_file_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        complaint(capsys, "train", "swarm_larg") == "the file 'swarm_larg' does not exist; did you mean 'swarm_large'?"
    )


def test_a_mistake_names_file_override_key_and_value(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "train", "swarm", "--set", "training.lr=abc", "--run-dir", "r")
    assert said.startswith("swarm --set training.lr=abc: training.lr is 'abc', and must be a number")


def test_a_mistake_leaves_no_run_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    complaint(capsys, "train", "swarm", "--set", "trainig.lr=1", "--run-dir", "r")
    complaint(capsys, "train", "swarm", "--set", "env_runners.num_worlds_per_env_runner=0", "--run-dir", "r")
    assert not (tmp_path / "r").exists()


def test_an_impossible_combination_is_a_mistake_too(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "train", "swarm", "--set", "communication.topology.k=10", "--run-dir", "r")
    assert said.endswith("topology.k is 10, and an agent has only 9 others; at most 9")


def test_more_gpus_than_there_are_is_a_mistake(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    gpus = ["--set", "learners.num_gpus_per_learner=1", "--set", "learners.num_learners=2"]
    said = complaint(capsys, "train", "swarm", *gpus, "--run-dir", "r")
    assert said.endswith("learners.num_gpus_per_learner asks for 2 GPUs, and this machine has 1")


def test_within_a_ray_that_is_there_learners_are_placed_where_the_gpus_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a trial of a job, whose node may have none."""
    document = documents.load("swarm", ["learners.num_gpus_per_learner=1", "learners.num_learners=2"])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    assert checked_config(document).num_learners == 2


def test_training_without_an_end_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("environment: {env: swarm_v0}")
    said = complaint(capsys, "train", "a.yaml")
    assert said.startswith("a.yaml: stop is missing; name a bound for at least one of training_iteration, num_env")


def test_the_run_folder_is_named_on_the_command_line_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(capsys, "train", "swarm", "--set", "recording.run_dir=x").endswith(
        "recording.run_dir belongs on the command line: --run-dir"
    )


def test_resuming_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(capsys, "train", "swarm", "--resume").startswith("--resume needs --run-dir")
    assert complaint(capsys, "train", "--resume").startswith("--resume needs --run-dir")


def test_resuming_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(capsys, "train", "swarm", "--resume", "--run-dir", "r").endswith("r holds no run (no config.yaml)")


def test_a_folder_with_a_run_is_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/progress.jsonl").write_text("{}\n")
    assert "--run-dir r holds a run already; add --resume" in complaint(capsys, "train", "swarm", "--run-dir", "r")
    assert (tmp_path / "r/progress.jsonl").read_text() == "{}\n"


def test_a_run_folder_that_cannot_be_made_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "r").write_text("a file")
    assert "--run-dir r" in complaint(capsys, "train", "swarm", "--run-dir", "r")


@pytest.mark.parametrize(
    "command", [["report", "r"], ["watch", "r"], ["play", "r"], ["evaluate", "r"], ["export", "r", "x"]]
)
def test_a_folder_that_is_no_run_is_told(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert complaint(capsys, *command).startswith("r holds no run (no config.yaml)")


@pytest.mark.parametrize(
    ("gif", "said"), [("a.png", "--gif a.png does not end in .gif"), ("no/a.gif", "the folder no does not exist")]
)
def test_a_gif_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str], gif: str, said: str) -> None:
    assert said in complaint(capsys, "play", "r", "--gif", gif)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["play", "r", "--gif", "d.gif"], "--gif d.gif is a folder; name a file"),
        (["evaluate", "r", "--json", "d.json"], "--json d.json is a folder; name a file"),
        (["evaluate", "r", "--noise", "lost", "--plot", "d.png"], "--plot d.png is a folder; name a file"),
        (["channel", "--plot", "d.png"], "--plot d.png is a folder; name a file"),
        (["language", "r", "--lexicon", "d.csv"], "--lexicon d.csv is a folder; name a file"),
        (["language", "r", "--export", "d.jsonl"], "'d.jsonl' is a folder; name a file"),
        (["export", "r", "file"], "file is a file; name a new folder, or an empty one"),
        (["export", "r", "file/sub"], "file is a file; name a new folder, or an empty one"),
        (["export", "r", "full"], "full holds something already; name a new folder, or an empty one"),
    ],
)
def test_what_is_to_be_written_over_something_else_is_told_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str], said: str
) -> None:
    for name in ("d.gif", "d.json", "d.png", "d.csv", "d.jsonl", "full/inner"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    assert complaint(capsys, *command) == said


def test_a_run_without_a_valid_checkpoint_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broken = tmp_path / "r/checkpoints/checkpoint_000001"
    broken.mkdir(parents=True)
    (broken / "manifest.json").write_text("{")
    (tmp_path / "r/config.yaml").write_text("environment: {env: swarm_v0}\n")
    for command in (["play", "r", "--gif", "a.gif"], ["evaluate", "r"], ["export", "r", "x"]):
        told = complaint(capsys, *command)
        assert "checkpoints holds no valid checkpoint" in told
        assert told.endswith("checkpoint_000001 has a damaged manifest.json")


def test_a_users_mistake_in_another_process_is_said_without_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.exceptions import RayTaskError

    def run(*_: object, **__: object) -> None:
        cause = UserError("the world is flat")
        raise RayTaskError("sample", "Traceback (most recent call last): ...", cause).as_instanceof_cause()

    monkeypatch.setattr("popcomm.cli.train.run", run)
    assert complaint(capsys, "train", "swarm").endswith("swarm: the world is flat")


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("popcomm.cli.train.run", run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train", "swarm"])


def test_ctrl_c_outside_of_training_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("popcomm.cli.train.run", run)
    assert cli.main(["train", "swarm"]) == 130


def test_list_names_everything_with_a_line_on_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for name in ("swarm_v0", "symbolic", "mlp", "symbols", "vectors", "full", "k_nearest", "ring", "swarm_large"):
        assert re.search(rf"^ +{name} +\S+ \S+", out, re.MULTILINE), name


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    streams = capsys.readouterr()
    assert "train" in streams.out + streams.err
    assert "popcomm: \n" not in streams.err


# ---- the run folder ----


def test_a_default_run_folder_tells_config_and_time() -> None:
    assert re.fullmatch(r"runs/swarm-\d{8}-\d{6}", str(run_folder.default_run_dir("swarm")))


BEFORE = {"training": {"lr": 0.1}, "communication": {"messages": {"kind": "symbols"}}, "stop": {"time_total_s": 1}}


def test_a_run_is_resumed_as_its_own_config_says(tmp_path: Path) -> None:
    run_folder.open_run_dir(tmp_path / "r", BEFORE)
    document, source = run_folder.resumed_document(tmp_path / "r", ["training.lr=0.2", "stop.training_iteration=9"])
    assert source == tmp_path / "r/config.yaml"
    assert document == {**BEFORE, "training": {"lr": 0.2}, "stop": {"time_total_s": 1, "training_iteration": 9}}
    assert run_folder.changes(tmp_path / "r", document) == {
        "stop.training_iteration": "is 9, and was null",
        "training.lr": "is 0.2, and was 0.1",
    }
    run_folder.check_run_dir(tmp_path / "r", document, resume=True)


@pytest.mark.parametrize("override", ["communication.messages.kind=vectors", "population.members=3"])
def test_what_a_run_is_stays_for_its_life(tmp_path: Path, override: str) -> None:
    run_folder.open_run_dir(tmp_path / "r", BEFORE)
    document, _ = run_folder.resumed_document(tmp_path / "r", [override])
    key = override.partition("=")[0]
    with pytest.raises(UserError, match=rf"--resume: {key} is .*, and was .* in .*; this stays for the life of a run"):
        run_folder.check_run_dir(tmp_path / "r", document, resume=True)


def test_of_a_sweep_that_is_resumed_stop_alone_may_change(tmp_path: Path) -> None:
    run_folder.open_run_dir(tmp_path / "r", BEFORE)
    longer, _ = run_folder.resumed_document(tmp_path / "r", ["stop.training_iteration=9"])
    run_folder.check_run_dir(tmp_path / "r", longer, resume=True, only_stop=True)
    other, _ = run_folder.resumed_document(tmp_path / "r", ["training.lr=0.2"])
    with pytest.raises(UserError, match=r"training.lr is 0.2, and was 0.1 in .*; only stop may change"):
        run_folder.check_run_dir(tmp_path / "r", other, resume=True, only_stop=True)


def test_a_file_that_says_otherwise_than_the_run_is_told(tmp_path: Path) -> None:
    run_folder.open_run_dir(tmp_path / "r", BEFORE)
    file = tmp_path / "a.yaml"
    file.write_text("{training: {lr: 0.3}, communication: {messages: {kind: symbols}}, stop: {time_total_s: 7}}")
    (told,) = run_folder.not_as_in(str(file), tmp_path / "r", ["stop.time_total_s=7"])
    assert told.endswith("the run's own settings stand, unless changed by --set: training.lr 0.1 (not 0.3)")
    file.write_text((tmp_path / "r/config.yaml").read_text())
    assert run_folder.not_as_in(str(file), tmp_path / "r", []) == []


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "[::1]:{port}"])
def test_a_cluster_that_does_not_answer_is_told_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # nobody listens there
        address = address.format(port=port)
        monkeypatch.setenv("RAY_ADDRESS", address)
        monkeypatch.setitem(sys.modules, "popcomm.cli.train", None)  # importing it would fail
        said = complaint(capsys, "train", "swarm")
    assert said.startswith(f"RAY_ADDRESS is '{address}', and no Ray cluster answers there (")


def test_sigterm_is_ctrl_c_with_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: object, **kwargs: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("popcomm.cli.listing.print_listing", killed)
    assert cli.main(["list"]) == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_ends_what_a_shell_started_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("popcomm.cli.listing.print_listing", lambda *a, **k: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert cli.main(["list"]) == 143
    finally:
        signal.signal(signal.SIGINT, before)


def test_training_time_adds_up_over_processes_up_to_the_checkpoint(tmp_path: Path) -> None:
    # 5 s in the first process, its iteration 3 done again and 4 done by a second one, whose clock began at 0.
    rows = [(1, 2.0), (2, 5.0), (3, 9.0), (3, 1.0), (4, 4.0)]
    lines = [f'{{"iteration": {iteration}, "time_s": {clock}}}\n' for iteration, clock in rows]
    (tmp_path / "progress.jsonl").write_text("".join(lines))
    assert [run_folder.seconds_until(tmp_path, i) for i in (0, 2, 3, 4)] == [0.0, 5.0, 6.0, 9.0]


@pytest.mark.parametrize("saved", [True, False])
def test_a_loss_is_one_sentence_that_says_how_to_go_on_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, saved: bool
) -> None:
    checkpoint = tmp_path / "checkpoint_000005"
    monkeypatch.setattr(run_folder, "find", lambda *args, **options: Found(checkpoint if saved else None, ()))

    def lose(*args: object, **options: object) -> int:
        with run_folder.run_folder_told(tmp_path):
            raise LostError("learner 1 of 1 is lost")

    monkeypatch.setattr(cli, "app", lose)
    assert cli.main(["train"]) == 1
    hint = (
        f"popcomm train --run-dir {tmp_path} --resume goes on from checkpoint_000005"
        if saved
        else f"no checkpoint was saved yet (recording.checkpoint_every), so {tmp_path} has nothing to go on from"
    )
    assert capsys.readouterr().err == f"popcomm: learner 1 of 1 is lost; {hint}\n"


def test_a_mistake_that_a_process_of_ray_found_is_its_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = RayTaskError("apply", "Traceback ...", UserError("no such key"), proctitle="pytest", pid=1, ip="127.0.0.1")

    def fail(*args: object, **options: object) -> int:
        raise found.as_instanceof_cause()

    monkeypatch.setattr(cli, "app", fail)
    assert complaint(capsys, "train") == "no such key"
