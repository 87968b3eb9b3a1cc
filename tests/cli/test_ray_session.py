"""Which Ray a run gets: its own small one on loopback, the cluster of RAY_ADDRESS, or the one that is up already."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import pytest
import ray

from popcomm.cli.ray_session import OBJECT_STORE_BYTES, cpus, prepare_environment, ray_session
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPO, PopulationPPOConfig

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Ray is asked for, in place of starting it."""
    made: list[Any] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: made.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: made.append("shutdown"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return made


def test_a_run_has_a_cpu_for_each_process() -> None:
    config = PopulationPPOConfig().env_runners(num_env_runners=3).learners(num_learners=2)
    assert cpus(config) == 6


def test_a_run_has_the_cpus_that_rllib_will_ask_for() -> None:
    config = PopulationPPOConfig().environment("swarm_v0").env_runners(num_env_runners=1, num_cpus_per_env_runner=3)
    config.evaluation(evaluation_interval=1, evaluation_num_env_runners=2)
    asked = PopulationPPO.default_resource_request(config.learners(num_learners=1)).required_resources["CPU"]
    assert cpus(config) == asked


def test_a_ray_of_its_own_is_small_and_stopped_even_after_an_error(calls: list[Any]) -> None:
    with pytest.raises(ZeroDivisionError), ray_session(PopulationPPOConfig().env_runners(num_env_runners=2)):
        raise ZeroDivisionError
    options, last = calls
    assert (options["num_cpus"], options["object_store_memory"]) == (3, OBJECT_STORE_BYTES)
    assert options["include_dashboard"] is False
    assert last == "shutdown"


def test_a_cluster_is_joined_as_it_is(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        address = f"127.0.0.1:{cluster.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with ray_session(PopulationPPOConfig()):
            pass
    assert calls[0]["address"] == address
    assert not {"num_cpus", "object_store_memory"} & set(calls[0])


@pytest.mark.parametrize(
    "error", [ConnectionError("nobody there"), ValueError("bad"), RuntimeError("Version mismatch")]
)
def test_what_ray_says_of_an_address_is_a_sentence(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(**options: object) -> None:
        raise error

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UserError, match=rf"RAY_ADDRESS is 'auto', .*\({error}\)"), ray_session(PopulationPPOConfig()):
        pass


def test_sigterm_stays_ours_while_ray_is_up(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts a handler in place that ends the process."""
    monkeypatch.setattr(ray, "init", lambda **options: signal.signal(signal.SIGTERM, signal.SIG_IGN))
    before = signal.getsignal(signal.SIGTERM)
    with ray_session(PopulationPPOConfig()):
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_ray_that_is_up_is_used_and_left_alone(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with ray_session(PopulationPPOConfig()):
        pass
    assert calls == []


@pytest.mark.parametrize(("address", "loopback"), [(None, "0"), ("10.0.0.1:6379", None)])
def test_sockets_stay_on_loopback_unless_a_cluster_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str | None, loopback: str | None
) -> None:
    environment = {} if address is None else {"RAY_ADDRESS": address}
    monkeypatch.setattr(os, "environ", environment)
    prepare_environment()
    assert environment.get(LOOPBACK) == loopback
    assert environment["OMP_NUM_THREADS"] == "1"


def test_the_users_own_settings_win(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"OMP_NUM_THREADS": "8", LOOPBACK: "1"}
    monkeypatch.setattr(os, "environ", environment)
    prepare_environment()
    assert (environment["OMP_NUM_THREADS"], environment[LOOPBACK]) == ("8", "1")


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (Exception("The current node timed out during startup. This could"), UserError, "did not start in the 30 sec"),
        (OSError("no such device"), OSError, "no such device"),
    ],
)
def test_a_machine_that_is_too_busy_for_ray_is_a_sentence_and_other_errors_are_left_alone(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], told: str
) -> None:
    def fail(**options: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(kind, match=told), ray_session(PopulationPPOConfig()):
        pass
