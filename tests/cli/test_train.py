"""popcomm train around the trainer, which stands in here for itself: no Ray."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from popcomm.cli import train
from popcomm.cli.progress import display


class Trainer:
    def __init__(self) -> None:
        self.itself = self  # a cycle, as RLlib's are
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


def test_a_trainer_is_no_longer_there_when_the_report_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many members it holds gigabytes."""
    made: list[weakref.ref[Trainer]] = []
    there: list[bool] = []

    def build_algo() -> Trainer:
        trainer = Trainer()
        made.append(weakref.ref(trainer))
        return trainer

    def report(run_dir: Path) -> Path:
        there.extend(trainer() is not None for trainer in made)
        return run_dir / "report.html"

    config = SimpleNamespace(build_algo=build_algo, recording=lambda **_: None)
    summary: dict[str, Any] = {"checkpoint": None, "interrupted": False, "training_iteration": 0}
    monkeypatch.setattr(train, "checked_config", lambda document: config)
    monkeypatch.setattr(train, "ray_session", lambda config: nullcontext())
    monkeypatch.setattr(train, "_introduce", lambda *_: None)
    monkeypatch.setattr(train, "_iterate", lambda *_: summary)
    monkeypatch.setattr(train, "_conclude", lambda *_: None)
    monkeypatch.setattr(train, "_report", report)
    told = train.run({"stop": {"training_iteration": 1}}, tmp_path / "run", False, display())
    assert told["report"] == tmp_path / "run" / "report.html"
    assert there == [False]
