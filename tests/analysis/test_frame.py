"""The frame of experiments: runs that are lines of a file, numbers as JSON, the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from popcomm.analysis.experiments import frame, records
from popcomm.analysis.experiments.frame import Experiment
from popcomm.analysis.experiments.intervals import Interval, mean_interval
from popcomm.analysis.experiments.records import RESULTS, Trial, arms_of, as_json, isolated, results_of

from popcomm.errors import UserError
from popcomm.language.drawing import card


def squared(number: int) -> dict[str, Any]:
    return {"square": number**2, "process": os.getpid(), "unknown": float("nan")}


def refused(number: int) -> dict[str, Any]:
    raise UserError(f"{number} is refused")


def trials(out: Path, numbers: range, make: Any = squared) -> list[Trial]:
    return [Trial(out / RESULTS, {"number": number}, make) for number in numbers]


# ---- runs ----


def test_a_trial_is_made_once_in_a_process_of_its_own(tmp_path: Path) -> None:
    (trial,) = trials(tmp_path, range(3, 4))
    assert trial.result is None
    trial.train()
    assert trial.is_complete()
    assert (trial.result["number"], trial.result["square"], trial.result["unknown"]) == (3, 9, None)
    assert trial.result["process"] != os.getpid()


def test_a_result_is_found_by_what_it_was_asked_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 100 steps may end at 104."""
    monkeypatch.setattr(records, "isolated", lambda make, **key: make(**key))
    (trial,) = trials(tmp_path, range(100, 101), lambda number: {"score": 1, "number": number + 4})
    trial.train()
    assert trial.result == {"number": 100, "score": 1}


def test_a_mistake_in_another_process_is_told_as_it_is() -> None:
    with pytest.raises(UserError, match="5 is refused"):
        isolated(refused, 5)


def test_a_result_after_half_a_line_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "isolated", lambda make, **key: make(**key))
    (tmp_path / RESULTS).write_text('{"number": 1, "squ')
    first, second = trials(tmp_path, range(1, 3))
    second.train()
    assert not first.is_complete()
    assert second.is_complete()
    assert [row["square"] for row in results_of([first, second])] == [4]


def test_no_result_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results of these settings yet"):
        results_of(trials(tmp_path, range(2)))


def test_arms_keep_their_order_and_sort_their_seeds() -> None:
    rows = [{"arm": arm, "seed": seed} for arm, seed in (("b", 2), ("a", 1), ("b", 1))]
    found = arms_of(rows, lambda row: row["arm"])
    assert {arm: [row["seed"] for row in runs] for arm, runs in found.items()} == {"b": [1, 2], "a": [1]}
    assert list(found) == ["b", "a"]


def test_numbers_come_back_from_their_file_with_null_for_none() -> None:
    values = {
        "interval": Interval(float("-inf"), 1.0),
        "array": np.array([[1.5, np.nan]]),
        "step": np.int64(3),
        "words": ("one", "two"),
        "nothing": [],
        "lr": 1.23456789012e-7,
    }
    assert json.loads(as_json(values)) == {
        "interval": {"low": None, "high": 1.0},
        "array": [[1.5, None]],
        "step": 3,
        "words": ["one", "two"],
        "nothing": [],
        "lr": 1.2345679e-7,
    }


def test_the_t_interval_is_the_textbooks() -> None:
    # Mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027.
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert mean_interval([2.0, 2.0]) == (2.0, 2.0)


# ---- the command line ----


def experiment(asked: list[Any]) -> Experiment:
    """Its page is that of the reconstruction game, of no runs at all."""

    def page(found: Any) -> Mapping[str, Any]:
        return {"groups": {}, "rates": {}, "bars": [], "peers": {}}

    def plan(options: Any) -> list[Trial]:
        asked.append((options.seeds, options.jobs))
        return []

    return Experiment(
        "referential", "About.", plan, page, lambda _: card(2, 2, ""), lambda *_: None, lambda _: {}, seeds=7, quick=2
    )


def test_seeds_are_those_of_the_experiment_of_its_quick_mode_or_as_told(tmp_path: Path) -> None:
    asked: list[Any] = []
    for words in ([], ["--quick"], ["--quick", "--seeds", "4"], ["--jobs", "3"]):
        assert experiment(asked).main(["--out", str(tmp_path), *words]) == 0
    assert asked == [(7, 1), (2, 1), (4, 1), (7, 3)]


def test_the_page_tells_the_command_but_not_that_nothing_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "train_all", lambda *_: pytest.fail("trained"))
    out, docs = tmp_path / "out", tmp_path / "docs"
    assert experiment([]).main(["--page-only", "--out", str(out), "--docs", str(docs)]) == 0
    command = f"python -m popcomm.analysis.experiments.referential --out {out} --docs {docs}"
    assert f"    {command}\n" in (docs / "referential.md").read_text()
    assert json.loads((docs / "referential.json").read_text())["command"] == command


@pytest.mark.parametrize("option", ["--seeds", "--jobs"])
def test_nought_is_told_before_any_work(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    with pytest.raises(SystemExit):
        experiment(asked).main(["--out", str(tmp_path), option, "0"])
    assert f"{option} is 0, and must be at least 1" in capsys.readouterr().err
    assert not asked
