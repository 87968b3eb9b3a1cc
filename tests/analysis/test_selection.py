"""The experiment on selection: what is claimed of which runs, and the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from popcomm.analysis.experiments import selection
from popcomm.analysis.experiments.frame import markdown


def record(world: str, arm: str, seed: int, score: float, **more: Any) -> dict[str, Any]:
    curve = [{"env_steps": 0, "score": 0.0}, {"env_steps": 100, "score": score}]
    values = {"births": 3, "lines": 2, "effective": 1.6, "weight_diversity": 0.5, "seconds": 60.0}
    return {"world": world, "arm": arm, "seed": seed, "score": score, "curve": curve, **values, **more}


def runs() -> list[dict[str, Any]]:
    """In the swarm selection earns 2 more than chance on every seed, and in the game the two are alike."""
    found = [
        record("swarm", arm, s, s + 2.0 * (arm == "selected")) for s in (1, 2, 3) for arm in ("chance", "selected")
    ]
    found += [record("game", "chance", s, 0.9 + 0.01 * s, taught=0.5, distance=0.1) for s in (1, 2, 3)]
    return found + [record("game", "selected", s, 0.92 + 0.01 * (s == 3), taught=0.5, distance=0.1) for s in (1, 2, 3)]


def test_a_claim_holds_where_the_interval_over_seeds_lies_above_0() -> None:
    told = {claim.text: claim for claim in selection.claims(selection.grouped(runs()))}
    better = told["Swarm: selection by return earns more than replacement by chance (3 seeds)"]
    assert better.holds
    assert better.measured == "+2.000 [+2.000, +2.000]"
    assert not told["Game: selection is understood better than replacement by chance (3 seeds)"].holds
    assert not any("no replacement" in text for text in told)  # nobody ran without


def test_the_page_has_a_table_for_each_world_and_says_what_is_not_run() -> None:
    whole = markdown(selection.EXPERIMENT, runs(), "the command", {})
    assert whole.count("| selected by return | 3 |") == 2
    assert "not run yet" not in whole
    half = markdown(selection.EXPERIMENT, [r for r in runs() if r["world"] == "game"], "the command", {})
    assert "The arms of the swarm are not run yet." in half


def test_the_figure_has_a_panel_for_each_world() -> None:
    assert len(selection.draw(runs()).axes) == 2


def test_fitness_by_chance_is_unknown_where_nothing_was_lived() -> None:
    found = selection.by_chance({"return": np.array([1.0, np.nan, 3.0])})
    assert np.isnan(found).tolist() == [False, True, False]


@pytest.mark.parametrize(("world", "arm"), [(w, a) for w, arms in selection.ARMS.items() for a in arms])
def test_every_arm_is_a_configuration_that_can_be_trained(world: str, arm: str) -> None:
    config = selection.settings(world, arm, 3)
    config.validate()
    assert (config.plan.survival is None) == (arm == "none")
