"""What draws parameters: Optuna hears of numbers alone, and of a trial without any no more than its end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from popcomm.cli.search_space import search
from popcomm.cli.sweep_trials import Reports
from popcomm.cli.tune_search import make_searcher

TUNE = {"param_space": {"training.lr": {"uniform": [0.0, 1.0]}}, "metric": "charts/reward", "search": "optuna"}


@pytest.mark.parametrize("at_once", [None, 2])
def test_a_trial_without_a_number_does_not_end_what_optuna_draws(at_once: int | None) -> None:
    pytest.importorskip("optuna", reason="popcomm[optuna] is not installed")
    wanted = search({"tune": {**TUNE, "num_samples": 4}, "debugging": {"seed": 1}})
    searcher = make_searcher(wanted, at_once)
    space = {key: one.for_tune() for key, one in wanted.param_space.items()}
    assert searcher.set_search_properties("value", "max", space)
    drawn = [searcher.suggest("a")["training.lr"], searcher.suggest("b")["training.lr"]]
    searcher.on_trial_result("a", {"iteration": 1, "training_iteration": 1})
    searcher.on_trial_result("b", {"iteration": 1, "training_iteration": 1, "value": 0.5})
    searcher.on_trial_complete("a", {"iteration": 1, "training_iteration": 1, "final": True})
    searcher.on_trial_complete("b", {"iteration": 1, "training_iteration": 1, "value": 0.5})
    drawn.append(searcher.suggest("c")["training.lr"])
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("how", ["optuna", "random"])
def test_the_last_report_of_a_trial_is_told_without_a_number_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.tune.report", told.append)
    (tmp_path / "progress.jsonl").write_text('{"iteration": 1, "charts/reward": null}\n')
    reports = Reports(tmp_path, search({"tune": {**TUNE, "search": how}}), patience=1, due=None)
    reports.start("x", SimpleNamespace(training_iteration=0, num_env_steps_sampled_lifetime=0, reached=lambda _: 0), {})
    reports.final()
    assert told == [{"iteration": 0, "env_steps": 0, "final": True}]
