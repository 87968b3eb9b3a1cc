"""Jobs without a cluster: exit codes, detaching, sentences, what a job is told and what it does of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError

from popcomm.cli import job as on_cluster
from popcomm.cli import jobs, submitting
from popcomm.cli import main as cli
from popcomm.errors import UserError

AT = jobs.ADDRESS


class Client:
    """Stands for Ray's client of a job that ends so."""

    def __init__(self, status: str, lines: tuple[str, ...] = (), raises: BaseException | None = None) -> None:
        self.status, self.lines, self.raises = status, lines, raises
        self.gpus, self.labels = 0.0, {}

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for line in self.lines:
            yield line
        if self.raises is not None:
            raise self.raises

    def get_job_status(self, job: str) -> Any:
        return SimpleNamespace(value=self.status)

    def _do_request(self, method: str, path: str) -> Any:
        nodes = [
            {"state": "ALIVE", "resources_total": {"CPU": 2.0}, "labels": self.labels},
            {"state": "ALIVE", "resources_total": {"GPU": self.gpus}, "labels": {}},
            {"state": "DEAD", "resources_total": {"GPU": 8.0}, "labels": {}},
        ]
        return SimpleNamespace(json=lambda: {"data": {"result": {"result": nodes}}})


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 3)])
def test_the_exit_code_tells_how_a_job_ended(capsys: pytest.CaptureFixture[str], status: str, code: int) -> None:
    said: list[str] = []
    assert jobs.follow(Client(status, ("a\n", "b\n")), AT, "j", said.append) == code
    assert capsys.readouterr().out == "a\nb\n"
    assert said == [f"job j: {status.lower()}"]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as in a terminal; what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_the_job_and_says_how_to_come_back() -> None:
    class Endless(Client):
        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            await asyncio.sleep(60)
            yield ""

    said: list[str] = []
    assert jobs.follow(Endless("RUNNING"), "http://h:1", "j", said.append) == 130
    assert "popcomm jobs logs j --address http://h:1 --follow" in said[0]
    assert "popcomm jobs stop j --address http://h:1" in said[1]


def test_a_job_that_is_stopped_is_waited_for() -> None:
    class Ending(Client):
        def stop_job(self, job: str) -> bool:
            threading.Timer(0.7, setattr, (self, "status", "STOPPED")).start()
            return True

    assert jobs.stop(Ending("RUNNING"), AT, "j") == "STOPPED"


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (AuthenticationError("Authentication required: Unauthorized"), "asks for a token, and there is none"),
        (AuthenticationError("Authentication failed: Forbidden: Invalid"), "refuses the token"),
        (RuntimeError("Request failed with status code 404: Job j does not exist."), "there is no job 'j'"),
        (ConnectionError("gone\nfar away"), r"no job server of Ray answers at .* \(gone\)"),
    ],
)
def test_what_the_job_server_refuses_is_one_sentence(raised: Exception, told: str) -> None:
    with pytest.raises(UserError, match=told):
        jobs.follow(Client("RUNNING", raises=raised), AT, "j", print)


def test_more_gpus_than_there_are_are_refused_unless_nodes_are_started_on_demand() -> None:
    client = Client("RUNNING")
    client.gpus = 1.0
    jobs.check_gpus(client, AT, 1)
    with pytest.raises(UserError, match=r"learners ask for 2 GPUs, and the cluster at .* has 1"):
        jobs.check_gpus(client, AT, 2)
    client.labels = {jobs.OF_AN_AUTOSCALER: "head"}
    jobs.check_gpus(client, AT, 2)


class _Other(BaseHTTPRequestHandler):
    """A web server that is no Ray."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def other_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def complaint(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.main(list(args)) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    return err


def test_addresses_without_a_job_server_are_one_sentence(
    capsys: pytest.CaptureFixture[str], other_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert "no job server of Ray answers" in complaint(capsys, "submit", "swarm", "--address", nobody)
    assert "is not of the form http://HOST:PORT" in complaint(capsys, "submit", "swarm", "--address", "auto")
    assert f"what answers at {other_server} is no job server" in complaint(
        capsys, "jobs", "list", "--address", other_server
    )


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("swarm", "--run-dir", "runs/a"), "is not absolute"),
        (("swarm", "--resume"), "--resume needs --run-dir"),
        (("swarn",), "did you mean 'swarm'"),
        (("swarm", "--gpus", "-1"), "--gpus"),
    ],
)
def test_mistakes_are_told_before_a_cluster_is_reached(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], told: str
) -> None:
    assert told in complaint(capsys, "submit", *args)


def test_a_submission_carries_the_document_with_its_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import zipfile

    monkeypatch.chdir(tmp_path)
    sent: dict[str, Any] = {}

    def submit(client: Any, address: str, job: str, entrypoint: str, package: Path) -> None:
        with zipfile.ZipFile(package) as archive:
            archive.extractall(tmp_path / "on_cluster")
        sent[job] = submitting.told(tmp_path / "on_cluster")

    client = Client("RUNNING")
    client.gpus = 2.0
    monkeypatch.setattr(jobs, "connect", lambda address: client)
    monkeypatch.setattr(jobs, "submit", submit)
    assert cli.main(["submit", "swarm", "--gpus", "2", "--set", "training.gamma=0.5", "--detach"]) == 0
    (job, told), *_ = sent.items()
    assert told.id == job
    assert told.document["learners"] == {"num_learners": 2, "num_gpus_per_learner": 1}
    assert told.document["training"]["gamma"] == 0.5
    assert told.fallback.startswith(str(tmp_path / "runs/swarm-"))
    assert f"job: {job} " in capsys.readouterr().out
    with pytest.raises(UserError, match="ask for 4 GPUs"):
        submitting.submit("swarm", [], AT, 4, None, False, False, print)


def test_what_stays_behind_is_told_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps").symlink_to("nowhere")
    told: list[str] = []
    monkeypatch.setattr(jobs, "connect", lambda address: Client("RUNNING"))
    monkeypatch.setattr(jobs, "submit", lambda *job: told.append("sent"))
    assert submitting.submit("swarm", [], AT, 0, None, False, False, told.append) == 0
    assert told[:2] == [
        "left out of the working directory, and not there on the cluster: maps (a link to nothing)",
        "sent",
    ]


def test_a_job_has_keys_that_are_numbers_and_dates_as_they_stand_in_the_file(tmp_path: Path) -> None:
    kept = {"environment": {"env_config": {"weights": {0: 1.0, 1: 2.0}, "day": date(2026, 1, 1), "rate": 3e-4}}}
    for name, text in submitting._told(submitting.Job("j", kept, None, "/x", True)).items():
        (tmp_path / name).write_text(text)
    assert submitting.told(tmp_path) == submitting.Job("j", kept, None, "/x", True)


def test_the_run_folder_is_the_one_named_or_in_the_clusters_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    unnamed = submitting.Job("j", {}, None, "/home/me/runs/swarm-1", False)
    assert on_cluster._run_dir(unnamed) == Path("/home/me/runs/swarm-1")
    monkeypatch.setenv(on_cluster.RUNS, "/shared/runs")
    assert on_cluster._run_dir(unnamed) == Path("/shared/runs/swarm-1")
    assert on_cluster._run_dir(submitting.Job("j", {}, "/mine", "/x", False)) == Path("/mine")


@pytest.mark.parametrize(("seen", "blind"), [([True, True], ""), ([True, False], "10.0.0.2 does not see")])
def test_a_folder_that_a_node_does_not_see_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[bool], blind: str
) -> None:
    import ray

    nodes = [{"Alive": True, "NodeID": "a" * 56, "NodeManagerAddress": f"10.0.0.{i}"} for i in (1, 2)]
    looked: list[str] = []
    task = SimpleNamespace(remote=looked.append)
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False}])
    monkeypatch.setattr(ray, "remote", lambda **options: lambda look: SimpleNamespace(options=lambda **where: task))
    monkeypatch.setattr(ray, "get", lambda answers: seen)
    run_dir = tmp_path / "run"
    if blind:
        with pytest.raises(UserError, match=rf"{run_dir} is not on storage that the cluster shares: {blind}"):
            on_cluster.check_shared(run_dir)
    else:
        on_cluster.check_shared(run_dir)
    assert len(looked) == 2
    assert list(run_dir.iterdir()) == []  # what was written to be looked for is gone


def test_a_job_is_told_by_the_command_line_too() -> None:
    wanted = on_cluster._job(["swarm", "--run-dir", "/shared/a", "--set", "training.gamma=0.5", "--resume"])
    assert (wanted.run_dir, wanted.resume) == ("/shared/a", True)
    assert wanted.document["training"]["gamma"] == 0.5
    with pytest.raises(UserError, match="--run-dir is missing"):
        on_cluster._job(["swarm"])
    with pytest.raises(UserError, match="--trust is of what is resumed"):
        on_cluster._job(["swarm", "--run-dir", "/shared/a", "--trust"])


def test_an_attempt_without_a_checkpoint_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    for name in ("config.yaml", "run.json", "progress.jsonl", "checkpoints/x/y", "tensorboard/e", "tune/begun", "mine"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    on_cluster._forget(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "tune"]
