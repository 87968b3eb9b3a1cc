"""`popcomm watch`: a page on loopback that follows a run folder, and answers nothing but GET."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from popcomm.analysis.watched import Watched
from popcomm.analysis.watching import Server

from popcomm.cli import main as cli
from popcomm.language import progress
from popcomm.language.recording import conversation_path, write_conversations
from tests.analysis.synthetic_run import make_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", worlds=1, agents=3, k=1, steps=6, vocab=8, length=2, iterations=12)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """What is known of the folder is renewed by the tests alone."""
    with Server(Watched(folder), 0) as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.getheaders())
    connection.close()
    return found


def live(server: Server, seen: str = "") -> dict:
    return json.loads(ask(server, f"/live.json?seen={seen}")[1])


def test_the_page_is_that_of_the_report_and_asks_for_news(server: Server) -> None:
    status, page, headers = ask(server, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert 'data-live="yes"' in page
    assert "connect-src 'self'" in page
    assert all(f'<section id="{name}">' in page for name in ("curves", "conversation", "symbol", "exchanges", "pair"))


def test_pictures_come_when_they_are_drawn_with_a_version_of_their_own(server: Server) -> None:
    assert 'id="symbol_use"' not in ask(server, "/")[1]
    before = live(server)["version"]
    assert "pictures are being drawn" in live(server)["status"]
    server.watched.draw()
    assert "pictures are being drawn" not in live(server)["status"]
    assert 'id="symbol_use"' in ask(server, "/")[1]
    assert live(server)["version"] == before + 1
    server.watched.draw()  # nothing new: not drawn again
    assert live(server)["version"] == before + 1


def test_only_what_has_changed_is_told(server: Server, folder: Path) -> None:
    first = live(server)
    assert set(first["data"]) == {"curves", "talk"}
    assert "iteration 12" in first["status"]
    assert live(server, first["seen"])["data"] == {}
    progress.append(folder / "progress.jsonl", {"iteration": 13, "env_steps": 60000, "losses/entropy": 0.125})
    server.watched.look()
    second = live(server, first["seen"])
    assert set(second["data"]) == {"curves"}
    assert second["data"]["curves"]["measures"]["losses/entropy"][0]["y"][-1] == 0.125
    assert "iteration 13" in second["status"]
    assert second["standing"]["iterations"] == "13"
    assert second["version"] == first["version"]


def test_the_first_conversations_bring_their_sections(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", worlds=1, agents=3, k=1, steps=6, iterations=3, conversations=False)
    watched = Watched(run)
    assert 'id="pair"' not in watched.page
    make_run(tmp_path / "other", worlds=1, agents=3, k=1, steps=6, iterations=3)
    conversation_path(run, 3).parent.mkdir()
    conversation_path(tmp_path / "other", 3).rename(conversation_path(run, 3))
    watched.look()
    assert 'id="pair"' in watched.page
    assert watched.news("")["version"] == 2


def test_a_run_that_has_written_nothing_yet_can_be_watched(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("environment: {env: swarm_v0}\n")
    watched = Watched(tmp_path)
    assert "no iteration is finished yet" in watched.news("")["status"]
    watched.draw()
    assert "No conversation is recorded yet" in watched.page


def test_a_look_that_fails_is_told_and_comes_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("popcomm.analysis.watched.LOOK", 0.02)
    watched = Watched(folder)
    watched.draw = lambda: None  # type: ignore[method-assign]
    part = folder / "conversations" / "part-000013.parquet"
    part.write_text("no Parquet")
    watched.start()
    told = threading.Event()
    for _ in range(500):
        if "The last look failed" in watched.news("")["status"]:
            break
        told.wait(0.02)
    assert "part-000013.parquet is no whole Parquet file" in watched.news("")["status"]
    part.unlink()
    for _ in range(500):
        if "failed" not in watched.news("")["status"]:
            break
        told.wait(0.02)
    watched.end()
    assert "failed" not in watched.news("")["status"]
    assert "Watching: iteration 12" in watched.news("")["status"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_nothing_but_get_is_answered(server: Server, method: str) -> None:
    status, _, headers = ask(server, "/", method)
    assert (status, headers["Allow"]) == (405, "GET")


def test_no_files_are_served(server: Server) -> None:
    for path in ("/config.yaml", "/../run/config.yaml", "/%2e%2e/config.yaml", "//etc/passwd"):
        assert ask(server, path)[0] == 404


def test_it_listens_on_loopback_and_answers_to_its_own_names_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, "/", Host=f"localhost:{server.server_port}")[0] == 200
    assert ask(server, "/", Host=f"evil.example:{server.server_port}")[0] == 403
    assert "Access-Control-Allow-Origin" not in ask(server, "/live.json")[2]


def test_a_port_in_use_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["watch", str(folder), "--port", str(port)]) == 2
    told = capsys.readouterr().err
    assert f"--port {port} cannot be used" in told
    assert "0 for a free one" in told
    assert "Traceback" not in told
    assert cli.main(["watch", str(folder), "--port", "99999"]) == 2


def test_a_sweep_is_told_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"tune": {"param_space": {}}}))
    assert cli.main(["watch", str(tmp_path)]) == 2
    assert "name that of one of its trials" in capsys.readouterr().err


def test_conversations_of_a_hostile_name_stay_data(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    run = make_run(tmp_path / "run", worlds=1, agents=2, k=1, steps=3, iterations=2, conversations=False)
    columns = {key: [0, 1] for key in ("iteration", "env_steps", "world", "episode", "step", "sender", "member")}
    columns |= {"species": [name, "b"], "symbols": [[1], [2]]}
    write_conversations(conversation_path(run, 1), columns)
    watched = Watched(run)
    assert "<script>alert" not in watched.page
    assert json.loads(watched.news("")["parts"]["talk"])["agents"] == [f"{name} 0", "b 1"]
