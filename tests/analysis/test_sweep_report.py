"""The report of a sweep: what its numbers are, for tables that were made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from popcomm.analysis.sweep_pictures import heights, mean_course
from popcomm.analysis.sweep_report import Sweep, binned, explained, grouped, sections, write_sweep_report
from scipy import stats

from popcomm.errors import UserError
from popcomm.language import progress

METRIC = "charts/reward"
AGENT, LR = "population.agent", "training.lr"


def swept(folder: Path, rows: list[dict[str, Any]], **tune: Any) -> Sweep:
    """A sweep of trials of three iterations each, which climb to their metric."""
    keys = [key for key in rows[0] if key != METRIC]
    space = {key: {"choice": sorted({str(row[key]) for row in rows})} for key in keys}
    document = {"environment": {"env": "swarm_v0"}, "tune": {"param_space": space, "metric": METRIC, **tune}}
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    trials = []
    for i, row in enumerate(rows):
        name = f"{i:05d}_x"
        (folder / name).mkdir()
        for at in (1, 2, 3):
            line = {
                "iteration": at,
                "env_steps": 10 * at,
                METRIC: None if row[METRIC] is None else row[METRIC] * at / 3,
            }
            progress.append(folder / name / "progress.jsonl", line)
        trials.append({"trial": name, **row, "status": "done", "iteration": 3, "reason": ""})
    trials.sort(key=lambda one: -np.inf if one[METRIC] is None else one[METRIC], reverse=True)
    (folder / "results.json").write_text(json.dumps({"metric": METRIC, "mode": "max", "trials": trials}))
    return Sweep.read(folder)


ROWS = [{AGENT: agent, LR: lr, METRIC: base + lr} for agent, base in (("mlp", 0.0), ("gru", 10.0)) for lr in (1.0, 2.0)]


def test_what_a_setting_tells_is_the_variance_between_its_groups(tmp_path: Path) -> None:
    told = explained(swept(tmp_path, ROWS))
    # Groups of agents are 10 apart, groups of rates 1: (5^2, 0.5^2) / (5^2 + 0.5^2).
    assert told == pytest.approx({AGENT: 25 / 25.25, LR: 0.25 / 25.25})


def test_a_setting_with_another_value_in_each_trial_tells_nothing(tmp_path: Path) -> None:
    rows = [{AGENT: "mlp", LR: float(i), METRIC: float(i)} for i in range(4)]
    assert explained(swept(tmp_path, rows)) == {}


def test_a_mean_course_is_over_those_that_got_as_far_with_students_interval() -> None:
    courses = [
        pd.DataFrame({"env_steps": [0, 10, 20], "m": [0.0, 1.0, 2.0]}),
        pd.DataFrame({"env_steps": [0, 20], "m": [2.0, 4.0]}),
        pd.DataFrame({"env_steps": [0], "m": [1.0]}),
        pd.DataFrame({"env_steps": [0], "other": [1.0]}),
    ]
    steps, means, low, high = mean_course(courses, "m")
    assert steps.tolist() == [0, 10, 20]
    assert means.tolist() == [1, 2, 3]
    told = stats.ttest_1samp([0.0, 1.0, 2.0], 0).confidence_interval(0.95)
    assert (low[0], high[0]) == pytest.approx((told.low, told.high))
    alone = mean_course(courses[:1], "m")
    assert np.isnan(alone[2]).all()


def test_trials_with_the_same_settings_and_other_seeds_are_one_curve(tmp_path: Path) -> None:
    rows = [{**row, "debugging.seed": seed} for row in ROWS for seed in (1, 2)]
    by, groups = grouped(swept(tmp_path, rows))
    assert by == f"{AGENT} and {LR}"
    assert {label: len(names) for label, names in groups.items()} == dict.fromkeys(
        ("gru, 2.0", "gru, 1.0", "mlp, 2.0", "mlp, 1.0"), 2
    )


def test_trials_that_all_differ_are_grouped_by_what_tells_most(tmp_path: Path) -> None:
    by, groups = grouped(swept(tmp_path, ROWS))
    assert by == AGENT
    assert groups == {"gru": ["00003_x", "00002_x"], "mlp": ["00001_x", "00000_x"]}


def test_many_numbers_are_parted_into_quarters() -> None:
    told = binned(pd.Series(np.arange(16.0)))
    assert told.value_counts().tolist() == [4] * 4
    assert binned(pd.Series([1, 2, 1])).tolist() == [1, 2, 1]


def test_an_axis_over_more_than_a_factor_of_thirty_is_logarithmic() -> None:
    assert heights(pd.Series([1.0, 10.0, 100.0]))[0].tolist() == pytest.approx([0, 0.5, 1])
    assert heights(pd.Series([0.0, 10.0, 100.0]))[0].tolist() == pytest.approx([0, 0.1, 1])
    spots, marks, labels = heights(pd.Series(["b", None, "a"]))
    assert (spots.tolist(), marks, labels) == ([0.5, 1, 0], [0, 0.5, 1], ["a", "b", "not set"])


def test_the_page_holds_its_pictures_and_escapes_what_users_wrote(tmp_path: Path) -> None:
    rows = [{**row, AGENT: f"<b>{row[AGENT]}</b>"} for row in ROWS]
    swept(tmp_path, rows)
    text = write_sweep_report(tmp_path).read_text()
    assert text.count("data:image/png;base64,") == 3
    assert "<b>mlp" not in text
    assert "Best charts/reward: 12, of 00003_x." in text
    assert "99% of the variance" in text


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    found = sections(swept(tmp_path, [{AGENT: "mlp", LR: 1.0, METRIC: None}]))
    assert [section.picture for section in found] == [None] * 3
    assert all(section.missing for section in found)


def test_a_folder_without_a_sweep_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no folder of a sweep: it has no results\.json"):
        write_sweep_report(tmp_path)


def test_quarters_of_a_narrow_range_are_told_apart_by_more_digits() -> None:
    values = pd.Series(np.arange(100_000.0, 100_017.0))
    told = binned(values)
    assert told.iloc[[0, 4, 8, 16]].tolist() == [
        "100000 to 100004", "100004 to 100008", "100008 to 100012", "100012 to 100016",
    ]  # fmt: skip
    assert told.value_counts().tolist() == [5, 4, 4, 4]


@pytest.mark.parametrize(
    ("bound", "rest", "told"),
    [
        (0.01, np.linspace(0.001, 0.009, 10), {"0.001 to 0.00567": 6, "0.00567 to 0.01": 16}),
        (0.0, np.linspace(0.1, 1.0, 10), {"0 to 0.475": 16, "0.475 to 1": 6}),
    ],
)
def test_values_of_which_half_are_at_a_bound_are_parted_by_the_edges_that_differ(
    bound: float, rest: Any, told: dict[str, int]
) -> None:
    values = pd.Series([*[bound] * 12, *rest])
    assert binned(values).value_counts().to_dict() == told
