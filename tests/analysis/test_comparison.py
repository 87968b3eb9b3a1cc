"""Several runs beside each other: which are of one condition, what they came to, and how sure that is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from popcomm.analysis.comparison import Comparison, Number, conditions, difference
from popcomm.analysis.comparison_report import courses, sections, write_comparison

from popcomm.cli import main as cli
from popcomm.errors import UserError
from popcomm.language import progress

RETURN = "charts/agent_episodic_return"


def make(folder: Path, value: float, seed: int | None = None, steps: int = 20, **training: float) -> Path:
    """A run whose return is `value` at every iteration, and once more at each later one."""
    folder.mkdir(parents=True)
    config = {"environment": {"env": "swarm_v0"}, "training": training, "debugging": {"seed": seed}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for i in range(1, steps + 1):
        row = {"iteration": i, "env_steps": 100 * i, RETURN: value if i <= 20 else value + 100}
        progress.append(folder / "progress.jsonl", row)
    return folder


@pytest.fixture
def four(tmp_path: Path) -> list[Path]:
    """Returns of 1 and 3 with a low rate of learning, 6 and 8 with a high one."""
    values = [(1.0, 1e-3), (3.0, 1e-3), (6.0, 1e-2), (8.0, 1e-2)]
    return [make(tmp_path / f"r{i}", value, seed=i % 2, lr=lr) for i, (value, lr) in enumerate(values)]


def test_runs_that_differ_in_seeds_records_and_length_are_of_one_condition() -> None:
    settings = [
        {"training.lr": 1, "debugging.seed": seed, "recording.picture_every": seed, "stop.training_iteration": seed}
        for seed in (1, 2)
    ]
    assert conditions(settings, ["a", "b"]) == ["all runs"] * 2
    assert conditions([*settings, {"training.gamma": 0.5}], ["a", "b", "c"]) == [
        "training.lr=1, training.gamma=not set",
        "training.lr=1, training.gamma=not set",
        "training.lr=not set, training.gamma=0.5",
    ]
    assert conditions([*settings, {}], ["a", "b", "c"]) == ["all runs", "all runs", "c (no config.yaml)"]


def test_means_have_students_interval_over_the_runs(four: list[Path]) -> None:
    """Two values 2 apart: the half width is t (12.706, one degree of freedom) times 1."""
    number = Comparison.read(four).numbers()[RETURN]["training.lr=0.001"]
    assert number.values == (1.0, 3.0)
    assert number.interval == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)
    assert Number((1.0,)).shown() == "1 (one run: no interval)"
    assert Number(()).shown() == "not measured"


def test_differences_have_welchs_interval() -> None:
    """Equal variances of 2 in groups of two: two degrees of freedom, t 4.303, standard error sqrt(2)."""
    mean, interval = difference(Number((1.0, 3.0)), Number((6.0, 8.0)))
    assert mean == 5.0
    assert interval == pytest.approx((5 - 4.3027 * 2**0.5, 5 + 4.3027 * 2**0.5), abs=1e-3)
    assert np.isnan(difference(Number((1.0,)), Number((6.0, 8.0)))[1].low)


def test_longer_runs_are_compared_where_the_shortest_ends(tmp_path: Path) -> None:
    short, long = make(tmp_path / "a", 5.0), make(tmp_path / "b", 5.0, steps=60, seed=1)
    found = Comparison.read([short, long])
    assert found.horizon == 2000
    assert found.numbers()[RETURN]["all runs"].values == (5.0, 5.0)


def test_one_run_is_no_sample_of_two(tmp_path: Path, four: list[Path]) -> None:
    with pytest.raises(UserError, match=r"r0 and .*r0 are the same run"):
        Comparison.read([four[0], four[0] / ".." / "r0"])
    for copy in four[:2]:
        (copy / "run.json").write_text(json.dumps({"id": "abc"}))
    with pytest.raises(UserError, match=r"r0 and .*r1 are the same run"):
        Comparison.read(four[:2])
    with pytest.raises(UserError, match="takes two at least"):
        Comparison.read(four[:1])


def test_runs_of_the_same_seed_are_said_to_be_one(tmp_path: Path, four: list[Path]) -> None:
    again = make(tmp_path / "again", 1.0, seed=0, lr=1e-3)
    assert "have the same seed" in sections(Comparison.read([*four, again]))[0].headline
    assert "same seed" not in sections(Comparison.read(four))[0].headline


def test_the_trials_of_a_sweep_are_runs(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    for i, lr in enumerate((0.1, 0.2)):
        make(sweep / f"t{i}", 1.0 + i, seed=i, lr=lr)
    (sweep / "config.yaml").write_text(yaml.safe_dump({"tune": {"param_space": {"training.lr": [0.1, 0.2]}}}))
    trials = [{"trial": f"t{i}", "training.lr": lr, RETURN: 1.0} for i, lr in enumerate((0.1, 0.2))]
    (sweep / "results.json").write_text(json.dumps({"metric": RETURN, "mode": "max", "trials": trials}))
    found = Comparison.read([sweep, make(tmp_path / "alone", 3.0, lr=0.1)])
    assert {name: [run.name for run in runs] for name, runs in found.groups.items()} == {
        "training.lr=0.1": ["t0", "alone"],
        "training.lr=0.2": ["t1"],
    }


def test_curves_are_means_with_intervals_for_each_condition(four: list[Path]) -> None:
    low, high = courses(Comparison.read(four))["measures"][RETURN]
    assert (low["label"], high["label"]) == ("training.lr=0.001 (2)", "training.lr=0.01 (2)")
    assert (low["y"][0], high["y"][-1]) == (2.0, 7.0)
    assert low["low"][0] == pytest.approx(2 - 12.706, abs=0.01)


def test_the_page_tells_what_differs_and_that_some_would_by_chance(four: list[Path], tmp_path: Path) -> None:
    page = write_comparison(four, tmp_path / "c.html").read_text(encoding="utf-8")
    assert "training.lr=0.001 2 [-10.7, 14.7]; training.lr=0.01 7 [-5.71, 19.7]" in page
    assert "Against training.lr=0.001, 0 of 1 differences have an interval without 0" in page
    assert "+5 [-1.08, +11.1]" in page


def test_runs_without_progress_are_compared_without_numbers(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("environment: {env: '<script>alert(1)</script>'}\n")
    page = write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html").read_text(encoding="utf-8")
    assert "The runs have measured nothing yet." in page
    assert "<script>alert" not in page


def test_the_command_writes_where_it_is_told(
    four: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [str(run) for run in four]
    assert cli.main(["report", *runs]) == 0
    assert (tmp_path / "comparison.html").is_file()
    assert cli.main(["report", *runs, "--out", "two.html"]) == 0
    assert (tmp_path / "two.html").is_file()
    capsys.readouterr()
    assert cli.main(["report", runs[0], "--out", "two.html"]) == 2
    assert "--out is for several runs" in capsys.readouterr().err
    assert cli.main(["report", *runs, "--out", "nowhere/two.html"]) == 2
    assert cli.main(["report", runs[0], str(tmp_path / "none")]) == 2
    assert "holds no run" in capsys.readouterr().err
