"""The jargon experiment with power: its conditions are configs, its contrasts are read rightly, its page is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from popcomm.analysis.experiments import jargon_power as power
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.intervals import detectable
from popcomm.analysis.experiments.jargon_power import ANY, EXPERIMENT, GATED, LEXICON, NONE, PUBLISHED, REPEATED
from scipy import stats

JUDGED = {"reward": 0.3, "informed": 0.5, "false_alarms": 0.1, "agreement": 0.9, "distinct": 3, "jargon": 0.9}


def record(learner: str, seed: int, better: dict[str, float] | None = None) -> dict[str, Any]:
    """A seed of a learner; in some conditions the jargon over learning is better by so much."""
    arms = []
    for words, world, condition in power.ARMS[learner]:
        gain = (better or {}).get(condition, 0.0)
        arms.append(
            {
                "words": words, "world": world, "condition": condition, "env_steps": 1000,
                "formed": 500 if condition == GATED else None,
                "over_training": 0.5 + gain + 0.01 * np.sin(7 * seed + len(condition)),
                "end": JUDGED, "few": JUDGED, "seconds": 2.0,
                "curve": [{"env_steps": 0, "score": 0.1}, {"env_steps": 1000, "score": 0.5 + gain}],
            }
        )  # fmt: skip
    return {"learner": learner, "seed": seed, "env_steps": 1000, "arms": arms}


def records(seeds: int, better: dict[str, float] | None = None) -> list[dict[str, Any]]:
    return [record(learner, seed, better) for seed in range(seeds) for learner in power.ARMS]


@pytest.mark.parametrize("arm", power.ARMS["gradients"])
def test_every_condition_is_a_config_and_has_the_reflexes_that_it_names(arm: tuple[str, str, str]) -> None:
    words, world, condition = arm
    config = power.settings(words, world, condition, 11)
    config.validate()
    kinds = [reflex["kind"] for reflex in power.reflexes(world, condition)]
    whole = ["immediate_feedback", "word_repetition", "publishing", "sensory_deprivation"]
    assert kinds == whole[: {NONE: 0, REPEATED: 2, PUBLISHED: 3, GATED: 4}[condition]]
    assert config.message_kind.vocab == (16 if words == LEXICON else None)
    assert config.env_config["watchers"] == {"few see": 2, "all see": 10}[world]
    assert all(("schedule" in reflex) == (condition == GATED) for reflex in power.reflexes(world, condition))


def test_what_is_published_is_driven_by_events_and_deprivation_can_blind_all() -> None:
    published, deprived = power.reflexes("all see", GATED)[2:]
    assert published["when"] == "events"
    assert "who" not in deprived
    assert deprived["when"] == 0.5
    assert power.env_config("all see")["watchers"] == power.env_config("all see")["num_agents"]


def test_a_contrast_is_confirmed_where_its_whole_interval_is_on_the_claimed_side() -> None:
    groups = power.grouped(power.flat(records(12, {REPEATED: 0.3, PUBLISHED: 0.1, GATED: 0.0})))
    told = {one.contrast.text: one for one in power.compared(groups, "gradients")}
    assert told[power.REPETITION.text].verdict == "confirmed"
    assert told[power.REPETITION.text].mean == pytest.approx(0.3, abs=0.02)
    assert told[power.PUBLICATION.text].verdict == "contradicted", "less than repetition alone"
    assert told[power.ALL.text].verdict == "not confirmed"
    assert told[power.SOONER.text].mean == -500, "a jargon that never forms counts with the whole length"
    assert told[power.SOONER.text].verdict == "confirmed", "fewer steps were claimed"
    assert all(one.seeds == 12 for one in told.values())


def test_intervals_are_as_wide_as_all_contrasts_of_a_learner_ask_for() -> None:
    groups = power.grouped(power.flat(records(6, {REPEATED: 0.3})))
    for learner, contrasts in power.CONTRASTS.items():
        one = power.compared(groups, learner)[0]
        arm = (learner, one.contrast.words, "few see")
        runs, others = groups[(*arm, REPEATED)], groups[(*arm, NONE)]
        apart = [a["over_training"] - b["over_training"] for a, b in zip(runs, others, strict=True)]
        level = 1 - 0.05 / len(contrasts)
        expected = stats.ttest_1samp(apart, 0.0).confidence_interval(level)
        assert one.interval == pytest.approx((expected.low, expected.high))


def test_the_detectable_difference_is_found_in_four_of_five_samples() -> None:
    rng = np.random.default_rng(0)
    sample = rng.standard_normal(12)
    effect = detectable(sample / sample.std(ddof=1))
    draws = rng.standard_normal((4000, 12)) + effect
    found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=4.5 * np.sqrt(0.16 / 4000))
    assert np.isnan(detectable([1.0]))
    assert detectable([2.0, 2.0]) == 0


def test_page_figure_and_numbers_are_written_of_whatever_is_there() -> None:
    for told in (records(3, {REPEATED: 0.2}), records(1), [record("counts", 1)]):
        page = markdown(EXPERIMENT, told, "python -m x")
        assert "nan" not in page
        assert power.draw(told).axes
    page = markdown(EXPERIMENT, records(3, {REPEATED: 0.2}), "python -m x")
    assert "| Repetition and feedback: jargon, mean over learning | 16 words |" in page
    assert f"| counts | {ANY} | all see | {GATED} | 3 of 3" in page


def test_a_troop_that_counts_is_made_and_judged_in_both_worlds() -> None:
    run = power._counted(ANY, "all see", GATED, 11, 200)
    assert run["env_steps"] >= 200
    assert 0 <= run["over_training"] <= 1
    assert run["end"]["informed"] > run["few"]["informed"], "all see there, and few here"
    assert run["curve"][-1]["env_steps"] == run["env_steps"]
