"""The experiment on what overlap earns: what is claimed of which runs, its page, and arms that differ in it alone."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml
from popcomm.analysis.experiments import overlap_returns
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.overlap_returns import OVERLAP, TURNS

from popcomm.cli.train import checked_config
from popcomm.errors import UserError


def runs(apart: float) -> list[dict[str, Any]]:
    """Five seeds of both; overlap earns so much less, give or take 1."""
    made = []
    for seed, noise in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0), 1):
        for arm, earned in ((OVERLAP, 70.0 - apart + noise), (TURNS, 70.0)):
            curve = [[1280, 10.0], [2560, earned]]
            behind = int(arm == OVERLAP)
            made.append(
                {"arm": arm, "seed": seed, "env_steps": 2560, "return": earned, "behind": behind, "curve": curve}
            )
    return made


@pytest.mark.parametrize(("apart", "holds"), [(0.5, True), (5.0, True), (6.5, False), (-8.0, False)])
def test_the_same_means_that_the_whole_interval_lies_within_a_tenth(apart: float, holds: bool) -> None:
    """The deviation is .79 and the interval 2.776 x .79 / sqrt(5) = .98 on both sides; a tenth of 70 is 7."""
    [claim] = overlap_returns.claims(runs(apart))
    assert claim.holds is holds
    assert "7.0 (10% of it)" in claim.text
    assert claim.measured.startswith(f"{-apart:+.1f} [")


def test_the_page_tells_both_ways_and_the_figure_draws_them() -> None:
    page = markdown(overlap_returns.EXPERIMENT, runs(1.0), "the command", {})
    assert "| sampling while learning | 5 | 69.0" in page
    assert "| taking turns | 5 | 70.0" in page
    assert len(overlap_returns.draw(runs(1.0)).axes[0].lines) == 12
    assert overlap_returns.claims(runs(1.0)[:1]) == []


def planned(folder: Path) -> list[Any]:
    return overlap_returns.planned(Namespace(out=folder, seeds=2, quick=False, env_steps=2560))


def test_the_arms_differ_in_overlap_alone_and_can_be_trained(tmp_path: Path) -> None:
    ahead, still, other, _ = (run.document for run in planned(tmp_path))
    checked_config(ahead)
    assert ahead["env_runners"].pop("overlap") is True
    assert ahead == still
    assert other["debugging"]["seed"] == 2


def test_what_is_measured_is_of_whole_episodes_and_of_whole_runs_alone(tmp_path: Path) -> None:
    run, *others = planned(tmp_path)
    with pytest.raises(UserError, match="no whole run of 2560"):
        overlap_returns.measured(Namespace(out=tmp_path), [run, *others])
    run.path.mkdir(parents=True)
    (run.path / "config.yaml").write_text(yaml.safe_dump(run.document))
    lines = [
        {"iteration": i, "env_steps": 1280 * i, "charts/updates_behind": i - 1}
        | {"charts/agent_episodic_return": 10.0 * i, "charts/episodic_length": 50.0}
        for i in (1, 2)
    ]
    (run.path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    [record] = overlap_returns.measured(Namespace(out=tmp_path), [run, *others])
    # Half an episode of a hundred steps, over the last fifth.
    assert (record["return"], record["behind"]) == (40.0, 1)
    assert record["curve"] == [[1280, 20.0], [2560, 40.0]]
