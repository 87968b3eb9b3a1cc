"""Experiments on survival and curricula: what is claimed of which runs, their pages, and whether all arms can train."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from popcomm.analysis.experiments import axis_and_trials, curricula, ease_of_teaching
from popcomm.analysis.experiments.frame import markdown

from popcomm.cli import schema
from popcomm.cli.run_folder import trained_seconds
from popcomm.rllib import PopulationPPOConfig


def lesson(ease: float) -> dict[str, Any]:
    return {
        "understood": 0.95, "env_steps": 100, "ease": ease, "grades": [ease, ease], "lesson_steps": 8, "distance": 0.1,
        "words": 90.0,
    }  # fmt: skip


def schools() -> list[dict[str, Any]]:
    """The liquid language is easier by 0.2 at equal understanding, and not later; one run never understood enough."""
    found = []
    for seed in (1, 2, 3):
        for arm, ease in (("none", 0.5), ("liquid", 0.7)):
            moments = {"equal": lesson(ease + 0.01 * seed), "late": lesson(0.6 + 0.01 * (seed == 2))}
            key = {"liquid": 10, "steps": 20, "target": 0.95, "lessons": 2}
            found.append({"arm": arm, "seed": seed, **key, "moments": moments, "curve": [[1, 0.5]], "seconds": 1.0})
    del found[0]["moments"]["equal"]
    return found


def test_languages_are_compared_where_both_runs_of_a_seed_came_to_the_moment() -> None:
    equal, late = ease_of_teaching.claims(schools())
    assert equal.text.endswith("at equal understanding (2 seeds)")
    assert equal.holds
    assert equal.measured == "+0.200 [+0.200, +0.200]"
    assert not late.holds
    assert late.measured.startswith("+0.000")
    page = markdown(ease_of_teaching.EXPERIMENT, schools(), "the command", {})
    assert "| at equal understanding | nobody is replaced | 2 |" in page
    assert "| after equally many steps | nobody is replaced | 3 |" in page
    assert len(ease_of_teaching.draw(schools()).axes) == 2


def swarms() -> list[dict[str, Any]]:
    """Of 10 boids a curriculum earns 1 more on the sparse graph than either of the others."""
    return [
        {
            "agents": 10, "arm": arm, "seed": seed, "agent_steps": 100, "score": 5.0, "deaf": 1.0, "seconds": 60.0,
            "sparse": 2.0 + seed + (arm == "curriculum"), "curve": [[0, 0.0], [100, 5.0]],
        }
        for seed in (1, 2, 3)
        for arm in curricula.ARMS
    ]  # fmt: skip


def test_a_curriculum_is_judged_on_the_sparse_graph() -> None:
    claims = curricula.claims(swarms())
    assert [claim.measured for claim in claims] == ["+1.00 [+1.00, +1.00]"] * 2
    assert all(claim.holds for claim in claims)
    page = markdown(curricula.EXPERIMENT, swarms(), "the command", {})
    assert "## 10 boids" in page
    assert "## 50 boids" not in page
    assert len(curricula.draw(swarms()).axes) == 1


@pytest.mark.parametrize("agents", curricula.SIZES)
@pytest.mark.parametrize("arm", curricula.ARMS)
def test_every_arm_of_the_curricula_can_be_trained_with_equally_many_rows(arm: str, agents: int) -> None:
    config = curricula.settings(agents, arm, 3, 10_000)
    config.validate()
    assert config.plan.total_worlds * agents == curricula.ROWS
    assert config.plan.channel is not None
    assert config.plan.channel.inbox_size == (curricula.LEAST if arm == "sparse" else agents - 1)
    schedule = config.plan.channel.topology.schedule
    if schedule is not None:
        assert (schedule.begin, schedule.end) == (0.2 * 10_000 / agents, 0.7 * 10_000 / agents)  # type: ignore[attr-defined]


def populations() -> list[dict[str, Any]]:
    key = {"members": 2, "every": 2, "generations": 2, "env_steps": 64, "wall_s": 9.0, "trained_s": 5.0}
    return [
        {
            "arm": arm, "seed": seed, **key, "best": 3.0, "mean": 2.0 + seed, "returns": [1.0, 3.0],
            "generation_s": 5.0 if arm == "trials" else 0.01,
        }
        for seed in (1, 2)
        for arm in axis_and_trials.TITLES
    ]  # fmt: skip


def test_a_generation_is_cheaper_where_it_saves_seconds_and_equal_returns_are_no_gain() -> None:
    cheaper, better, selected = axis_and_trials.claims(populations())
    assert cheaper.holds
    assert cheaper.measured == "+4.99 [+4.99, +4.99]"
    assert not better.holds
    assert not selected.holds
    page = markdown(axis_and_trials.EXPERIMENT, populations(), "the command", {})
    assert page.count("| 2 | 64 |") == 3
    assert len(axis_and_trials.draw(populations()).axes) == 2


def test_seconds_of_all_processes_of_a_run_add_up() -> None:
    assert trained_seconds(np.array([1.0, 3.0, 0.5, 2.0])) == 5.0


@pytest.mark.parametrize("members", [1, 4])
def test_members_of_a_training_and_trials_have_equally_many_worlds(members: int) -> None:
    document = axis_and_trials.document_of(1, axis_and_trials.FULL, members)
    config = schema.apply(document, PopulationPPOConfig())
    config.validate()
    assert config.plan.total_worlds == config.minibatch_size == members * axis_and_trials.WORLDS
    assert document["stop"] == {"training_iteration": 60}
