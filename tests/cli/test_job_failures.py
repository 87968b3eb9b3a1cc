"""Why an attempt of a job failed: what is tried again, what is not, and what the user reads of it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.exceptions import ActorDiedError, NodeDiedError, RayError, RayTaskError, WorkerCrashedError

from popcomm.cli import failures, job, train
from popcomm.cli.submitting import Job
from popcomm.errors import UserError
from popcomm.rllib.harvest import NoSamplesError, SamplingError
from popcomm.rllib.learners import LearnerLostError

BRIDGE = "Traceback (most recent call last):\n  File 'town.py', line 3, in step\nRuntimeError: the bridge fell down\n"
IN_RUNNER = SamplingError(f"sampling failed in env runner 2:\n{BRIDGE}")


def in_a_task(cause: Exception) -> Any:
    """As Ray raises it where the result of a task is asked for."""
    return of_task(cause).as_instanceof_cause()


def of_task(cause: Exception) -> RayTaskError:
    return RayTaskError("apply", BRIDGE, cause, proctitle="pytest", pid=1, ip="127.0.0.1")


def no_samples(cause: Exception | None = None) -> NoSamplesError:
    error = NoSamplesError(f"3 iterations in a row brought no samples.\n{cause or 'env runner 1 is lost'}")
    error.__cause__ = cause
    return error


def in_a_constructor() -> ActorDiedError:
    """Of an actor that died of it."""
    return ActorDiedError(of_task(RuntimeError("the bridge fell down")))


class Unpicklable(RuntimeError):
    def __reduce__(self) -> Any:
        raise TypeError("not me")


RAISED = [
    (IN_RUNNER, "RuntimeError: the bridge fell down"),
    (no_samples(IN_RUNNER), "RuntimeError: the bridge fell down"),
    (KeyError("a_0"), "KeyError: 'a_0'"),
    (RuntimeError("Error(s) in loading:\n\tsize mismatch for w"), "RuntimeError: size mismatch for w"),
    (AssertionError(), "AssertionError"),
    (in_a_task(RuntimeError("the bridge fell down")), "RuntimeError: the bridge fell down"),
    (in_a_task(Unpicklable("the bridge fell down")), "RuntimeError: the bridge fell down"),
    (in_a_constructor(), "RuntimeError: the bridge fell down"),
    (RayError("an error that nobody can read"), "an error that nobody can read"),
]
LOST = [
    ActorDiedError(),
    WorkerCrashedError(),
    NodeDiedError("node 7 is gone"),
    in_a_task(ActorDiedError()),
    LearnerLostError("learner 1 of 1 is lost"),
    no_samples(),
]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the trial tells the driver."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", told.append)
    return told


def attempt(run_dir: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(train, "run", fail)
    (run_dir / job.TUNE).mkdir()
    job._trial({}, {}, str(run_dir), False, True)


@pytest.mark.parametrize(("error", "said"), RAISED, ids=lambda given: type(given).__name__)
def test_what_code_raised_is_told_with_its_last_line_and_not_tried_again(
    error: Exception, said: str, tmp_path: Path, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not failures.is_loss(error)
    attempt(tmp_path, error, monkeypatch)  # Tune begins anew what an error leaves
    assert reports == [{"raised": said}]
    assert (tmp_path / job.TUNE / job.ERROR).read_text().startswith("Traceback")


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_what_was_lost_is_tried_again(
    error: Exception, tmp_path: Path, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failures.is_loss(error)
    with pytest.raises(type(error)):
        attempt(tmp_path, error, monkeypatch)
    assert not (tmp_path / job.TUNE / job.ERROR).exists()
    own = isinstance(error, (LearnerLostError, NoSamplesError))
    assert reports == ([{"line": str(error), "why": True}] if own else [])


@pytest.mark.parametrize("error", [UserError("no such key"), in_a_task(UserError("no such key"))])
def test_a_mistake_is_its_sentence_wherever_it_was_found(
    error: Exception, tmp_path: Path, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(tmp_path, error, monkeypatch)
    assert reports == [{"mistake": "no such key"}]


def test_a_loss_that_said_why_itself_is_given_no_other_reason(capsys: pytest.CaptureFixture[str]) -> None:
    teller, trial = job._teller(), SimpleNamespace(num_failures=1)
    teller.on_trial_result(1, [], trial, {"line": "iteration 4"})
    teller.on_trial_recover(1, [], trial)
    teller.on_trial_result(2, [], trial, {"line": "learner 1 of 1 is lost", "why": True})
    teller.on_trial_recover(2, [], trial)
    teller.on_trial_recover(3, [], trial)
    again = "begins again from the newest checkpoint (retry 1 of 3)"
    assert capsys.readouterr().out.splitlines() == [
        "iteration 4",
        f"lost a process or a node; {again}",
        "learner 1 of 1 is lost",
        again,
        f"lost a process or a node; {again}",
    ]


def test_a_job_whose_environment_raised_has_failed_and_keeps_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SimpleNamespace(
        algo_class=SimpleNamespace(default_resource_request=lambda config: None), to_dict=lambda: {}
    )
    result = SimpleNamespace(error=None, metrics={"raised": "RuntimeError: the bridge fell down"})
    monkeypatch.setattr(train, "checked_config", lambda document, elsewhere: config)
    monkeypatch.setattr(job, "ray_session", lambda config: nullcontext())
    monkeypatch.setattr(job, "check_shared", lambda run_dir: None)
    monkeypatch.setattr(job, "_tuner", lambda *asked: SimpleNamespace(fit=lambda: [result]))
    error = tmp_path / "run" / job.TUNE / job.ERROR
    error.parent.mkdir(parents=True)
    error.write_text(BRIDGE)
    assert job.run(Job("j", {}, str(tmp_path / "run"), "", False)) == job.FAILED
    assert capsys.readouterr().out.splitlines()[1:] == [
        "failed, and not tried again: an environment, an agent or the config raised RuntimeError: the bridge fell down",
        f"all of it: {error}",
    ]
    assert error.read_text() == BRIDGE
