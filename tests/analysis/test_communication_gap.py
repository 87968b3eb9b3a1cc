"""The communication gap: intervals by hand, run folders made by hand, scripted swarms, what is not trained twice."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from popcomm.analysis.experiments import communication_gap
from popcomm.analysis.experiments.communication_gap import (
    EXPERIMENT,
    Gap,
    Results,
    at_end,
    at_start,
    claims,
    common_horizon,
    measure,
)
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.intervals import difference
from popcomm.analysis.experiments.records import as_json
from popcomm.analysis.experiments.runs import Run, TrainingError, train_all

from popcomm.cli import documents
from popcomm.errors import UserError
from popcomm.language import progress

STEPS, EVERY = 10_000, 100


# ---- intervals ----


def test_intervals_of_a_difference_worked_out_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t of 0.975 with 2 degrees 4.302653."""
    found = difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.paired == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
    # Variances 4 and 1 over 3 seeds: error sqrt(5 / 3), degrees (5/3)^2 / ((4/3)^2 / 2 + (1/3)^2 / 2) = 2.941176.
    assert found.unpaired == pytest.approx((-2.157, 6.157), abs=2e-3)
    # All three the same, with probability 1 / 27 each way, is more than 2.5 %.
    assert found.bootstrap == pytest.approx((1.0, 3.0))


def test_pairing_removes_what_the_seeds_share() -> None:
    shared = np.array([0.0, 10.0, 20.0, 30.0])
    found = difference(shared + 1 + np.array([0.1, -0.1, 0.1, -0.1]), shared)
    assert found.paired.excludes_zero
    assert not found.unpaired.excludes_zero


def test_a_known_difference_lies_in_95_of_100_intervals() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(3.0, 1.0, (400, 5)), rng.normal(1.0, 1.0, (400, 5))
    found = [difference(a, b) for a, b in zip(first, second, strict=True)]
    for kind in ("paired", "unpaired"):
        intervals = [getattr(told, kind) for told in found]
        assert 0.92 <= np.mean([low <= 2.0 <= high for low, high in intervals]) <= 0.98


def test_one_seed_gives_a_difference_and_no_interval() -> None:
    found = difference([3.0], [1.0])
    assert found.mean == 2.0
    assert np.isnan([*found.paired, *found.unpaired, *found.bootstrap]).all()
    assert not found.paired.excludes_zero


# ---- numbers of a run ----


def table(level: float, arm: str = "talking", steps: int = STEPS) -> pd.DataFrame:
    """A run whose return rises to `level` within half of its training, and stays there."""
    silent, noise = arm == "silent", arm == "noise"
    at = np.arange(EVERY, steps + 1, EVERY, dtype=float)
    done = np.minimum(at / (0.5 * steps), 1)
    columns: dict[str, Any] = {
        "iteration": np.arange(1, len(at) + 1),
        "env_steps": at,
        "time_s": 0.006 * at,
        "charts/agent_episodic_return": np.where(at <= 2 * EVERY, np.nan, level * done),
        "charts/episodic_length": np.where(at <= 2 * EVERY, np.nan, 50.0),
        "losses/world_r2": np.zeros_like(at) if silent or noise else 0.8 * done,
        "losses/prediction": 1 - 0.5 * done,
    }
    if not silent:
        columns["losses/reconstruction"] = 1 - 0.75 * done
        columns["language/vocabulary_used"] = 1 - (0.1 if noise else 0.5) * done
        columns["language/vocabulary_effective"] = 1 - 0.6 * done
        columns["language/mutual_information"] = 1.5 * done
    return pd.DataFrame(columns)


def test_start_and_end_are_means_over_their_shares_of_training() -> None:
    rising = pd.DataFrame({"env_steps": [10.0, 20.0, 80.0, 90.0, 100.0], "x": [np.nan, 1.0, 5.0, 7.0, 9.0]})
    assert at_end(rising, "x") == 8.0
    assert at_start(rising, "x") == 1.0
    assert np.isnan(at_end(rising, "y"))
    assert np.isnan(at_start(rising, "y"))


def test_a_run_trained_for_longer_is_cut_to_the_shortest() -> None:
    long, short = common_horizon([table(1.0, steps=2 * STEPS), table(1.0)])
    assert long["env_steps"].max() == short["env_steps"].max() == STEPS


SCRIPTED = {"random": 20.0, "alone": 40.0, "told": 80.0}


def gap_of(talking: list[float], silent: list[float], noise: list[float]) -> Any:
    """Returns are per 50 steps, which is a full episode."""
    levels = {"talking": talking, "silent": silent, "noise": noise}
    arms = {arm: [table(level, arm) for level in given] for arm, given in levels.items()}
    return measure(range(1, len(talking) + 1), arms, SCRIPTED, episode=50)


def page_of(gap: Gap, command: str = "") -> str:
    return markdown(EXPERIMENT, Results(gap, {}, "swarm"), command, {"torch": "2"})


def test_the_gaps_of_runs_with_known_returns() -> None:
    gap = gap_of([70.0, 71.0, 72.0], [40.0, 40.0, 41.0], [50.0, 50.0, 50.0])
    assert gap.returns["talking"] == pytest.approx([70, 71, 72])
    assert gap.gaps["silent"].mean == pytest.approx((30 + 31 + 31) / 3)
    assert gap.gaps["noise"].mean == pytest.approx(21)
    # Differences 20, 21, 22: standard error 1 / sqrt(3), t of 0.975 with 2 degrees 4.302653.
    assert gap.gaps["noise"].paired == pytest.approx((21 - 4.302653 / 3**0.5, 21 + 4.302653 / 3**0.5), abs=1e-5)
    assert gap.measures["reconstruction loss, end"] == pytest.approx([0.25] * 3)
    assert gap.measures["vocabulary used, end, noise"] == pytest.approx([0.9] * 3)
    assert gap.minutes["silent"] == pytest.approx(1.0)
    assert np.isnan(gap_of([1.0], [1.0], [1.0]).gaps["noise"].paired.low)
    assert all(claim.holds for claim in claims(gap))


def test_returns_of_shorter_episodes_are_scaled_to_full_ones() -> None:
    arms = {arm: [table(30.0, arm)] for arm in communication_gap.ARMS}
    assert measure([1], arms, {}, episode=100).returns["talking"] == pytest.approx([60.0])


def test_a_swarm_that_does_as_well_with_random_symbols_shows_nothing_of_its_messages() -> None:
    """Silence is far worse, yet messages are worth nothing: what silence lacks is something else."""
    gap = gap_of([70.0, 71.0, 72.0], [40.0, 40.0, 41.0], [71.0, 70.0, 72.0])
    assert [claim.holds for claim in claims(gap)][:2] == [False, True]


def test_what_is_not_shown_is_not_claimed() -> None:
    held = [claim.holds for claim in claims(gap_of([60.0, 20.0, 62.0], [40.0, 40.0, 41.0], [40.0, 40.0, 41.0]))]
    assert held == [False, False, False, True, True, True, True, True]
    mute = measure([1, 2], {arm: [table(1.0, "silent")] * 2 for arm in communication_gap.ARMS}, {}, episode=50)
    # Equal returns, R2 of 0, no reconstruction, no vocabulary; the noise's R2 and the prediction are as they should be.
    assert [claim.holds for claim in claims(mute)] == [False, False, False, False, True, False, True, False]


def test_the_bars_are_met_where_they_are_reached() -> None:
    level = {claim.text: claim for claim in claims(gap_of([65.0, 65.1], [1.0, 2.0], [1.0, 2.0]))}
    earned = level["Agents that talk get at least 65 per agent and full episode"]
    assert earned.holds
    assert earned.measured.startswith("65.05 [64.41, 65.69]")  # 12.706 (t, one degree) * 0.05


def test_the_page_shows_every_seed_and_says_what_does_not_hold() -> None:
    page = page_of(gap_of([60.0, 20.0], [40.0, 41.0], [30.0, 31.0]), "python -m it")
    assert "    python -m it" in page
    assert "| seed 2 | 20.00 | 41.00 | 31.00 | -21.00 | -11.00 |" in page
    assert "| **no** |" in page
    assert "supervised on the true state" in page
    assert "Noise is the control that decides" in page
    assert "nan" not in page
    for header, rule in zip(page.splitlines(), page.splitlines()[1:], strict=False):
        assert not rule.startswith("| ---") or header.count("|") == rule.count("|")


def test_what_was_not_measured_is_a_dash() -> None:
    tables = {arm: [table(level, arm) for level in (60.0, 61.0)] for arm in communication_gap.ARMS}
    for silent in tables["silent"]:
        del silent["losses/world_r2"]
    page = page_of(measure([1, 2], tables, SCRIPTED, 50))
    assert "| world estimator R², silent | — | — | — |" in page
    assert "nan" not in page


def test_one_seed_makes_a_page_that_asks_for_more() -> None:
    gap = gap_of([60.0], [40.0], [45.0])
    page = page_of(gap)
    assert "needs two seeds" in page
    assert "nan" not in page
    content = json.loads(as_json(EXPERIMENT.numbers(Results(gap, {}, "swarm"))))
    assert content["gaps"]["noise"]["mean"] == pytest.approx(15.0)
    assert content["gaps"]["silent"]["paired"] == content["gaps"]["silent"]["bootstrap"] == {"low": None, "high": None}


def test_the_figure_has_a_thin_line_per_seed_and_a_thick_mean() -> None:
    levels = {"talking": (60.0, 64.0), "silent": (40.0, 42.0), "noise": (44.0, 45.0)}
    arms = {arm: [table(level, arm) for level in given] for arm, given in levels.items()}
    figure = communication_gap.draw(arms, SCRIPTED)
    returns, _, losses, vocabulary = figure.axes
    thick = [line for line in returns.lines if line.get_linewidth() > 2]
    assert [line.get_label() for line in thick] == ["talking", "silent", "noise"]
    assert thick[0].get_ydata()[-1] == pytest.approx(62.0)
    assert len([line for line in returns.lines if line.get_linewidth() < 1]) == 6
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
    # The silent say nothing: no curve of theirs where messages are measured.
    assert len(losses.lines) == 6
    assert len([line for line in vocabulary.lines if line.get_linewidth() > 2]) == 2


# ---- runs ----


def planned(out: Path, seeds: int = 2, env_steps: int = STEPS) -> dict[str, list[Run]]:
    options = {"out": out, "seeds": seeds, "config": "swarm", "set": [], "env_steps": env_steps, "quick": False}
    made = communication_gap.planned(argparse.Namespace(**options))
    return {arm: [run for run in made if run.name.startswith(arm)] for arm in communication_gap.ARMS}


def train_by_hand(run: Run, level: float, steps: int = STEPS) -> None:
    """Leave in the folder what `popcomm train` would."""
    run.path.mkdir(parents=True)
    documents.dump(run.document, run.path / "config.yaml")
    for row in table(level, run.path.name.split("-")[0], steps).to_dict("records"):
        progress.append(run.path / "progress.jsonl", row)


def test_the_arms_differ_in_the_messages_alone(tmp_path: Path) -> None:
    talking, silent, noise = (arm[0].document for arm in planned(tmp_path).values())
    assert noise["communication"].pop("noise") == 1.0
    assert noise == talking
    assert talking["communication"].pop("messages")["kind"] == "symbols"
    assert silent["communication"].pop("messages") is None
    assert talking == silent
    assert talking["stop"] == {"num_env_steps_sampled_lifetime": STEPS}


def test_a_complete_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = planned(tmp_path)
    everything = [run for arm in arms.values() for run in arm]
    for run in everything[1:]:
        train_by_hand(run, 1.0)
    trained: list[Path] = []
    monkeypatch.setattr(Run, "train", lambda run: trained.append(run.path))
    train_all(everything, say=lambda line: None)
    assert trained == [everything[0].path]


def test_a_run_that_is_not_long_enough_is_not_complete(tmp_path: Path) -> None:
    run = planned(tmp_path)["talking"][0]
    train_by_hand(run, 1.0, steps=STEPS - EVERY)
    assert not run.is_complete()


def test_a_part_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    run = planned(tmp_path)["talking"][0]
    train_by_hand(run, 1.0, steps=EVERY)
    assert "--resume" not in run.command()
    assert not run.path.exists()


def test_a_folder_with_another_configuration_is_refused(tmp_path: Path) -> None:
    run = planned(tmp_path)["talking"][0]
    train_by_hand(run, 1.0)
    with pytest.raises(UserError, match=r"training\.lr"):
        Run(run.path, run.file, (*run.overrides, "training.lr=0.5"), run.env_steps).is_complete()


def test_a_failed_run_shows_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Run, "command", lambda run: [sys.executable, "-c", "print('the last words'); raise SystemExit(3)"]
    )
    with pytest.raises(TrainingError, match=r"exit code 3[\s\S]*the last words"):
        train_all(planned(tmp_path)["talking"], say=lambda line: None)


def test_a_failed_run_ends_the_experiment_without_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Run, "command", lambda run: [sys.executable, "-c", "raise SystemExit(3)"])
    assert communication_gap.main(["--seeds", "1", "--out", str(tmp_path)]) == 1
    assert "exit code 3" in capsys.readouterr().err
    assert not (tmp_path / "communication_gap.md").exists()


def test_complete_runs_become_a_page_a_figure_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, docs = tmp_path / "out", tmp_path / "docs"
    arms = planned(out)
    for arm, levels in {"talking": (60.0, 62.0), "silent": (40.0, 41.0), "noise": (30.0, 31.0)}.items():
        for run, level in zip(arms[arm], levels, strict=True):
            train_by_hand(run, level)
    monkeypatch.setattr(Run, "train", lambda run: pytest.fail(f"{run.path} was trained"))
    arguments = ["--seeds", "2", "--out", str(out), "--env-steps", str(STEPS), "--docs", str(docs)]
    assert communication_gap.main(arguments) == 0
    page = (docs / "communication_gap.md").read_text()
    assert "| seed 2 | 124.00 | 82.00 | 62.00 | +42.00 | +62.00 |" in page  # episodes of 50 steps, of 100
    assert "](communication_gap.png)" in page
    assert (docs / "communication_gap.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((docs / "communication_gap.json").read_text())["gaps"]["silent"]["mean"] == pytest.approx(41)
    assert "yes Agents that talk get more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "environment.env=mine:env"], "must be 'swarm_v0'"),
        (["--set", "communication.messages={kind: vectors, size: 2}"], "must be 'symbols'"),
        (["--set", "stop.num_env_steps_sampled_lifetime=null"], "--env-steps"),
        (["--config", "swrm"], "swarm"),
    ],
)
def test_a_users_mistake_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert communication_gap.main(["--out", str(tmp_path / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
