"""The jargon experiment: its conditions are configs, its measures are right, and its page says what the numbers say."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from popcomm.analysis.experiments import frame, jargon
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.intervals import Interval, share_interval
from popcomm.analysis.experiments.jargon import EXPERIMENT
from popcomm.analysis.experiments.jargon_measures import (
    apart,
    arms,
    at_end,
    check_measured,
    claims,
    curves,
    formed_at,
    over_training,
    overall,
    value,
    verdict,
)
from popcomm.analysis.experiments.jargon_measures import jargon as discounted
from popcomm.analysis.experiments.records import RESULTS, Trial

from popcomm.cli import documents, schema
from popcomm.language import progress

KINDS = 4
REFERENCES = {"forage": 0.08, "flee": -0.1, "watch": 0.12, "hear": 0.28, "told": 0.6}


def progress_table(agreement: list[float], distinct: list[float]) -> pd.DataFrame:
    """One row per iteration, of 100 environment steps each."""
    rows = len(agreement)
    return pd.DataFrame(
        {
            "env_steps": 100 * np.arange(1, rows + 1),
            "language/agreement": agreement,
            "language/agreement_least": agreement,
            "language/distinct_modal_words": distinct,
            "charts/reward": np.linspace(0, 1, rows),
        }
    )


def record(condition: str, seed: int, quality: float = 0.5, formed: int | None = None, **end: float) -> dict[str, Any]:
    """A run whose every share is `quality`."""
    whole = {"reward": quality, "informed": quality, "false_alarms": 0.1, "agreement": quality, "distinct": 4.0}
    silent = condition == "no channel"
    said = {} if silent else {**whole, "jargon": quality}
    bare = {"reward": quality, "informed": quality, "false_alarms": 0.1} if silent else said
    lively = {} if silent else {"load": 9.0, "words": 3.0, "drops": 0.0, "reproduction": 0.4, "lifetime": 1.5}
    return {
        "condition": condition,
        "seed": seed,
        "settings": [f"seed {seed}"],
        "env_steps": 1000,
        "kinds": KINDS,
        "formed": formed,
        "over_training": quality,
        "after_fade": quality,
        "end": {**bare, **lively, **end},
        "bare": bare,
        "references": REFERENCES,
        "seconds": 60.0,
        "curves": {"env_steps": [100.0, 500.0, 1000.0], "reward": [0.1, 0.2, quality]}
        | ({} if silent else {"agreement": [None, 0.3, quality], "distinct": [1.0, 2.0, 4.0], "load": [9.0] * 3}),
    }


def group(condition: str, qualities: list[float], formed: list[int | None] | None = None, **end: float) -> Any:
    times = formed or [None] * len(qualities)
    return [record(condition, seed, q, t, **end) for seed, (q, t) in enumerate(zip(qualities, times, strict=True), 1)]


class TestConditions:
    @pytest.mark.parametrize("name", jargon.conditions(1000))
    def test_every_condition_is_a_valid_config(self, name: str) -> None:
        from popcomm.rllib import PopulationPPOConfig

        document = documents.load("jargon", jargon.settings(name, 1, 1000, ()))
        config = schema.apply(document, PopulationPPOConfig())
        config.validate()
        assert (config.message_kind is None) == (name == "no channel")
        assert config.plan.species["monkey"].members == 10
        assert schema.stop_bounds(document) == {"num_env_steps_sampled_lifetime": 1000}

    def test_each_row_of_the_ladder_adds_one_reflex(self) -> None:
        rows = [[reflex["kind"] for reflex in told] for told in jargon.LADDER.values()]
        assert [len(row) for row in rows] == [0, 1, 2, 3, 4]
        assert all(later[: len(row)] == row for row, later in pairwise(rows))

    def test_fading_ends_at_half_of_training_and_repetition_falls_in_load(self) -> None:
        told = jargon.conditions(1000)["+ deprivation, fading"]["reflexes"]
        kinds = {reflex["kind"]: reflex["schedule"]["kind"] for reflex in told}
        assert kinds.pop("word_repetition") == "load_linear"
        assert set(kinds.values()) == {"linear"}
        assert {(r["schedule"]["begin"], r["schedule"]["end"]) for r in told} == {(250, 500)}

    def test_runs_of_another_length_seed_or_setting_are_other_runs(self) -> None:
        told = jargon.settings("feedback", 1, 1000, ())
        assert told == jargon.settings("feedback", 1, 1000, ())
        others = [("feedback", 2, 1000, ()), ("feedback", 1, 2000, ()), ("feedback", 1, 1000, ("training.lr=1",))]
        assert all(told != jargon.settings(*other) for other in others)


class TestMeasures:
    def test_a_jargon_has_formed_where_it_is_kept_for_five_iterations(self) -> None:
        agreement = [0.95, 0.95, 0.2, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1]
        assert formed_at(progress_table(agreement, [4.0] * 9), KINDS) == 400
        assert formed_at(progress_table(agreement[:7], [4.0] * 7), KINDS) is None
        assert formed_at(progress_table([1.0] * 3, [4.0] * 3), KINDS) is None

    def test_one_word_for_everything_is_no_jargon(self) -> None:
        assert formed_at(progress_table([1.0] * 9, [1.0] * 9), KINDS) is None
        assert over_training(progress_table([1.0] * 9, [1.0] * 9), KINDS) == 0.25
        assert discounted(1.0, 4, 4) == 1

    def test_a_silent_run_has_none(self) -> None:
        silent = progress_table([1.0] * 9, [4.0] * 9)[["env_steps", "charts/reward"]]
        assert formed_at(silent, KINDS) is None
        assert over_training(silent, KINDS) == 0
        assert at_end(silent)["agreement"] is None

    def test_agreement_that_was_not_measured_does_not_pass_for_none(self) -> None:
        table = progress_table([0.1] * 9, [4.0] * 9)
        check_measured(table)
        for unmeasured in (table.drop(columns="language/agreement"), progress_table([float("nan")] * 9, [4.0] * 9)):
            with pytest.raises(ValueError, match="no language/agreement"):
                check_measured(unmeasured)

    def test_the_end_is_the_last_tenth(self) -> None:
        table = progress_table([0.0] * 18 + [0.5, 1.0], [4.0] * 20)
        assert at_end(table)["agreement"] == 0.75

    def test_curves_are_means_of_equal_parts_and_know_what_was_not_measured(self) -> None:
        told = curves(progress_table([float("nan")] * 2 + [0.5] * 398, [2.0] * 400))
        assert len(told["env_steps"]) == 100
        assert told["env_steps"][0] == 250
        assert told["agreement"][1] == 0.5
        assert "load" not in told
        json.dumps(curves(progress_table([float("nan")] * 4, [1.0] * 4)), allow_nan=False)

    def test_runs_without_a_jargon_count_with_their_length(self) -> None:
        assert value(record("feedback", 1, formed=300), "formed") == 300
        assert value(record("feedback", 1), "formed") == 1000
        assert np.isnan(value(record("no channel", 1), "bare.jargon"))

    def test_wilsons_interval_is_the_textbooks(self) -> None:
        # All of 5: the lower end is n / (n + z^2).
        assert share_interval(5, 5) == pytest.approx((5 / (5 + 1.959964**2), 1.0), abs=1e-6)

    def test_pairs_are_made_by_seed(self) -> None:
        first = [record("a", seed, seed / 10 + 0.1) for seed in (3, 1, 2)]
        second = [record("b", seed, seed / 10) for seed in (2, 3, 9)]
        told = apart(first, second, "over_training")
        assert told is not None
        assert told.mean == pytest.approx(0.1)
        assert told.paired == pytest.approx((0.1, 0.1))
        assert apart(first, [], "over_training") is None

    @pytest.mark.parametrize(
        ("interval", "more", "said"),
        [
            ((0.1, 0.2), True, "confirmed"),
            ((-0.1, 0.2), True, "not confirmed"),
            ((-0.2, -0.1), True, "contradicted"),
            ((-0.2, -0.1), False, "confirmed"),
            ((0.1, 0.2), False, "contradicted"),
            ((float("nan"), float("nan")), True, "not confirmed"),
        ],
    )
    def test_a_verdict_is_where_the_interval_lies(self, interval: Any, more: bool, said: str) -> None:
        assert verdict(Interval(*interval), more=more) == said

    def test_a_claim_needs_all_its_parts(self) -> None:
        assert overall(["confirmed", "confirmed"]) == "confirmed"
        assert overall(["confirmed", "not confirmed"]) == "not confirmed"
        assert overall(["confirmed", "not measured"]) == "not measured"
        assert overall(["not measured", "contradicted"]) == "contradicted"
        assert overall([]) == "not measured"

    def test_what_is_perceived_is_read_from_the_observation(self) -> None:
        seen = np.array([[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 1, 1]], np.float32)
        assert jargon.perceived(seen, 3).tolist() == [2, -1, -1, 0]


def all_runs() -> list[dict[str, Any]]:
    """Feedback is faster, repetition makes words live longer and languages worse, publishing does nothing."""
    return [
        *group("no channel", [0.1, 0.1, 0.1]),
        *group("no reflexes", [0.3, 0.31, 0.32], [900, None, 950]),
        *group("feedback", [0.5, 0.51, 0.53], [300, 310, 305], lifetime=1.0),
        *group("+ repetition", [0.3, 0.3, 0.3], lifetime=2.0),
        *group("+ publishing", [0.2, 0.3, 0.4]),
        *group("+ deprivation", [0.7, 0.8, 0.9]),
        *group("+ repetition, fading", [0.9, 0.9, 0.92]),
        *group("+ publishing, fading", [0.6, 0.5, 0.55], [100, 100, 100]),
        *group("+ deprivation, fading", [0.97, 0.98, 0.99]),
        *group("+ deprivation, gated", [0.9, 0.95, 0.97]),
    ]


class TestPage:
    def test_verdicts_are_those_of_the_numbers(self) -> None:
        told = {claim.text.split()[0]: claim for claim in claims(all_runs())}
        assert told["Immediate"].verdict == "confirmed"
        assert [part[2] for part in told["Repetition"].parts] == ["confirmed", "contradicted"]  # the first is a check
        assert told["Repetition"].verdict == "contradicted"
        assert told["Publishing"].verdict == "not confirmed"
        assert told["Deprivation"].verdict == "confirmed"
        assert [part[2] for part in told["Reflexes"].parts] == ["confirmed", *["not confirmed"] * 2, "confirmed"]
        assert told["The"].verdict == "confirmed"
        assert told["What"].verdict == "confirmed"

    def test_other_numbers_turn_the_verdicts(self) -> None:
        runs = [
            *group("no reflexes", [0.5, 0.5], [100, 100]),
            *group("feedback", [0.5, 0.5], [500, 500]),
            *[{**run, "after_fade": 0.9} for run in group("+ repetition, fading", [0.2, 0.21])],
        ]
        told = {claim.text.split()[0]: claim.verdict for claim in claims(runs)}
        assert told == {
            "Immediate": "contradicted",
            "Repetition": "not measured",
            "Publishing": "not measured",
            "Deprivation": "not measured",
            "Reflexes": "not measured",
            "The": "contradicted",
            "What": "contradicted",
        }

    def test_one_seed_confirms_nothing(self) -> None:
        told = claims([*group("no reflexes", [0.1], [900]), *group("feedback", [0.9], [100])])
        assert told[0].verdict == "not confirmed"
        assert "needs two seeds" in told[0].parts[0][1]

    def test_the_page_has_the_numbers(self) -> None:
        page = markdown(EXPERIMENT, all_runs(), "the command")
        assert "the command" in page
        assert "### Immediate feedback speeds convergence: confirmed" in page
        assert "### Repetition keeps words alive long enough for a jargon to form: contradicted" in page
        # 300, 310, 305 minus 900, 1000 (none formed), 950; the deviation is 45, t(0.975, 2) is 4.3027.
        assert "| -645 [-757, -533] | confirmed |" in page
        assert "| 2 of 3 [0.21, 0.94] | 925 |" in page
        assert "| no channel | 3 | 0.100 [0.100, 0.100] |" in page
        assert "at most" in page
        assert "nan" not in page

    def test_a_single_run_makes_a_page_too(self) -> None:
        for name in ("no channel", "feedback"):
            page = markdown(EXPERIMENT, [record(name, 1)], "")
            assert "not measured" in page
            assert "nan" not in page
            jargon.draw([record(name, 1)])

    def test_every_condition_has_its_own_line(self) -> None:
        runs = [r for name in jargon.conditions(1000) for r in group(name, [0.3, 0.4])]
        axes = jargon.draw(runs).axes
        looks = [(line.get_color(), line.get_linestyle()) for line in axes[0].lines[: len(arms(runs))]]
        assert len(set(looks)) == len(jargon.conditions(1000)) == 10
        assert len(axes[1].lines) == 9 + 1  # all but the silent one, and the threshold


class TestProgram:
    def test_the_page_is_written_from_stored_results_without_training(self, tmp_path: Path) -> None:
        for run in all_runs():
            run["seed"] += jargon.FIRST_SEED - 1
            run["settings"] = jargon.settings(run["condition"], run["seed"], 1000, ())
            progress.append(tmp_path / RESULTS, run)
        progress.append(tmp_path / RESULTS, {**record("feedback", 1, 0.0), "settings": ["other"]})
        docs = tmp_path / "docs"
        options = ["--out", str(tmp_path), "--seeds", "3", "--env-steps", "1000", "--page-only", "--docs", str(docs)]
        assert jargon.main(options) == 0
        assert sorted(file.name for file in docs.iterdir()) == ["jargon.json", "jargon.md", "jargon.png"]
        told = json.loads((docs / "jargon.json").read_text())
        assert len(told["runs"]) == len(all_runs())
        assert "--page-only" not in told["command"]
        assert markdown(EXPERIMENT, told["runs"], told["command"]) == (docs / "jargon.md").read_text()

    def test_known_runs_are_not_made_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Trial] = []
        monkeypatch.setattr(frame, "train_all", lambda trials, jobs: asked.extend(trials))
        seed = jargon.FIRST_SEED
        run = {**record("feedback", seed), "settings": jargon.settings("feedback", seed, 1000, ())}
        progress.append(tmp_path / RESULTS, run)
        with (tmp_path / RESULTS).open("a") as file:
            file.write('{"condition": "feedb')  # a process died here
        only = ["--only", "feedback", "--only", "no reflexes"]
        assert jargon.main(["--out", str(tmp_path), "--seeds", "1", "--env-steps", "1000", *only]) == 0
        found = [(trial.key["condition"], trial.key["seed"], trial.is_complete()) for trial in asked]
        assert found == [("feedback", seed, True), ("no reflexes", seed, False)]

    def test_mistakes_are_told_before_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(frame, "train_all", lambda *_: pytest.fail("trained"))
        assert jargon.main(["--out", str(tmp_path), "--set", "training.lrr=1"]) == 2
        assert "lrr" in capsys.readouterr().err
        assert jargon.main(["--out", str(tmp_path), "--page-only"]) == 2
        assert "no results" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            jargon.main(["--out", str(tmp_path), "--only", "feedbak"])
        assert "'feedbak' is no condition" in capsys.readouterr().err

    def test_it_runs_as_a_module(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", EXPERIMENT.module, "--out", str(tmp_path), "--only", "feedbak"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 2
        assert "'feedbak' is no condition" in run.stderr
        assert run.stdout == ""
