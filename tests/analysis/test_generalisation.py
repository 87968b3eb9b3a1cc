"""The experiment on generalisation: its measures have known answers, and its claims are told by known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from popcomm.analysis.experiments import generalisation
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.intervals import correlation
from scipy import stats

from popcomm.envs.referential_meanings import Meanings

SPLIT = Meanings(2, 10, held_out=0.2, seed=3)
SEEN, NEW = SPLIT.train.numpy(), SPLIT.held_out.numpy()


def test_an_additive_reader_understands_new_combinations_of_a_systematic_language_alone() -> None:
    rng = np.random.default_rng(0)
    own = np.stack([rng.permutation(50)[:10] for _ in range(2)])
    said, of_new = (np.stack([own[0][m[:, 0]], own[1][m[:, 1]]], 1) for m in (SEEN, NEW))
    assert generalisation.additive_reader(SEEN, said, NEW, of_new) == 1.0
    # The same words for meanings that were dealt anew.
    dealt = rng.permutation(len(SEEN))
    assert generalisation.additive_reader(SEEN, said[dealt], NEW, of_new) < 0.15


def test_structure_of_a_systematic_language_is_whole_and_stands_above_chance() -> None:
    found = generalisation.structure(SEEN, SEEN)
    assert [found[name] for name in ("topsim", "TRE")] == pytest.approx([1.0, 0.0])
    assert found["posdis"] > 0.9  # of a grid with holes attributes tell a little of one another
    assert found["topsim by chance"] < 0.1
    assert found["TRE by chance"] > 0.5


def test_correlations_are_scipys_and_within_groups_nothing_is_left_of_what_tells_groups_apart() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 30))
    rho, interval = correlation(x, y)
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert interval.low < rho < interval.high
    groups = [number // 10 for number in range(30)]
    shifted = 100.0 * np.array(groups)
    assert correlation(x + shifted, y + shifted)[0] > 0.8
    rho, interval = correlation(x + shifted, y + shifted, groups)
    assert interval.low < 0 < interval.high
    assert np.isnan(correlation(shifted, y, groups)[0])


def test_intervals_of_correlations_hold_what_they_say() -> None:
    rng = np.random.default_rng(2)
    groups = [number // 5 for number in range(40)]
    told = [correlation(*rng.normal(size=(2, 40)), groups)[1].excludes_zero for _ in range(400)]
    assert 0.02 < np.mean(told) < 0.08


def record(arm: dict[str, Any], seed: int) -> dict[str, Any]:
    """Populations understand .1 more; symbols to spare .2; topsim goes with it within arms, posdis against it."""
    spread = 0.02 * seed
    held_out = 0.2 + 0.1 * (arm["members"] > 1) + 0.2 * (arm["symbols"] > 10 + 10 * (arm["attributes"] == 2)) + spread
    measures = {"topsim": 0.4 + spread, "posdis": 0.5 - spread, "bosdis": 0.3, "TRE": 0.6}
    by_chance = {f"{name} by chance": 0.1 for name in measures}
    game = {key: value for key, value in arm.items() if key != "attributes"}
    return {
        **game, "seed": seed, "env_steps": 100, "seen": 0.8 + 0.05 * seed, "held_out": held_out,
        "gap": 0.1, "seen_attributes": 0.95, "held_out_attributes": 0.7, "read": 0.5, "words": 70.0,
        "similarity": 0.6 if arm["members"] > 1 else None, "seconds": 30.0, **measures, **by_chance,
    }  # fmt: skip


def runs() -> list[dict[str, Any]]:
    arms = [{**arm, "attributes": generalisation.GAMES[str(arm["game"])].attributes} for arm in generalisation.ARMS]
    return [record(arm, seed) for seed in (1, 2, 3) for arm in arms]


def test_claims_hold_where_intervals_lie_above_chance() -> None:
    told = generalisation.claims(runs())
    assert [claim.holds for claim in told] == [True, True, True, False, True, False]
    populations, need, topsim, posdis = told[2:]
    assert populations.measured.startswith("+0.100")
    assert need.measured.startswith("-0.200")
    assert topsim.measured.startswith("+1.00 [+1.00")
    assert posdis.measured.startswith("-1.00 [-1.00")


def test_a_seed_without_all_arms_is_left_out_of_comparisons_over_arms() -> None:
    told = generalisation.claims(runs()[:-1])
    assert "(2 seeds)" in next(claim.text for claim in told if claim.text.startswith("Populations"))


def test_the_page_and_the_figure_tell_of_the_runs_that_are_there() -> None:
    page = markdown(generalisation.EXPERIMENT, runs(), "the command", {})
    assert "| 2 x 10 | 50 | 5 x 5 | 3 |" in page
    assert "| bosdis | - | - | - |" in page
    assert "16 of 24" in page
    assert len(generalisation.draw(runs()).axes) == 3
    one = runs()[:1]
    assert "(no interval: needs two seeds)" in markdown(generalisation.EXPERIMENT, one, "the command", {})


@pytest.mark.parametrize("arm", generalisation.ARMS, ids=lambda arm: "-".join(map(str, arm.values())))
def test_every_arm_is_a_configuration_that_can_be_trained(arm: dict[str, Any]) -> None:
    config = generalisation.settings(**arm, seed=3)
    config.validate()
    game = generalisation.GAMES[arm["game"]]
    messages = config.plan.message_kind
    assert arm["symbols"] ** game.attributes >= game.meanings
    assert messages.vocab_size == arm["symbols"]
    assert config.plan.species["speaker"].spec.members == arm["members"]
