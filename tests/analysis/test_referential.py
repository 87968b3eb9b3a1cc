"""The experiment beside EGG: its cases are what they say, its page says what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from popcomm.analysis.experiments import frame, referential
from popcomm.analysis.experiments.frame import markdown, write
from popcomm.analysis.experiments.records import RESULTS, Trial
from popcomm.analysis.experiments.referential import CASES, EXPERIMENT, Case

from popcomm.cli import documents, schema
from popcomm.language import progress


def outcome(case: str, seed: int = 1, mean: float = 1.0, seconds: float = 10.0) -> dict[str, Any]:
    curve = [(1000, 0.1), (2000, 0.5)]
    run = {"case": case, "seed": seed, "messages": 320_000, "said": 320_000, "cpu_seconds": seconds, "curve": curve}
    return {**run, "mean": mean, "least": mean - 0.01, "attributes": mean}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_is_a_valid_config_of_the_size_that_its_name_says(case: Case) -> None:
    from popcomm.rllib import PopulationPPOConfig

    config = schema.apply(documents.load(case.file, list(case.overrides)), PopulationPPOConfig())
    config.validate()
    members = {"pair": 1, "population 5 x 5": 5, "population 10 x 10": 10}[case.name.split(",")[0]]
    assert {config.plan.species[species].members for species in ("speaker", "listener")} == {members}
    assert (config.message_kind is None) == ("silent" in case.name)
    assert (config.message_gradient == "reinforce") == ("Reinforce" in case.name)


def planned(out: Path, messages: int = 1000, overrides: tuple[str, ...] = ()) -> list[Trial]:
    options = {"out": out, "seeds": 1, "messages": messages, "only": None, "set": list(overrides), "page_only": True}
    return referential.planned(argparse.Namespace(**options))


def test_runs_of_another_budget_or_setting_are_other_runs(tmp_path: Path) -> None:
    first = planned(tmp_path)[0]
    progress.append(tmp_path / RESULTS, {**first.key, "mean": 1.0})
    assert planned(tmp_path)[0].is_complete()
    assert not planned(tmp_path, messages=2000)[0].is_complete()
    assert not planned(tmp_path, overrides=("training.lr=1e-3",))[0].is_complete()


def test_a_bar_is_met_by_the_lowest_seed_or_missed(tmp_path: Path) -> None:
    name = referential.PAIR
    write(EXPERIMENT, [outcome(name, 1, 1.0), outcome(name, 2, 0.97)], tmp_path, "the command")
    page = (tmp_path / "referential.md").read_text()
    assert f"| {name}: accuracy of every seed >= 0.980 | 0.970 | **missed** |" in page
    # 320,000 messages in 10 seconds.
    assert f"| {name}: messages / CPU s, twice EGG's >= 17,600 | 32,000 | met |" in page
    assert "the command" in page
    assert (tmp_path / "referential.png").read_bytes()[:4] == b"\x89PNG"


def test_the_time_of_ten_by_ten_is_held_against_five_by_five() -> None:
    small, large = referential.POPULATION, referential.LARGE
    page = markdown(EXPERIMENT, [outcome(small, seconds=10.0), outcome(large, seconds=25.0)], "")
    assert "| 2.50 | **missed** |" in page


def test_an_unknown_config_key_is_told_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frame, "train_all", lambda *_: pytest.fail("trained"))
    command = ["--seeds", "1", "--out", str(tmp_path), "--only", "silent", "--set", "training.lrr=1"]
    assert referential.main(command) == 2
    assert "lrr" in capsys.readouterr().err
