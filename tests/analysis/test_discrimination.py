"""The experiment on picking among candidates: its arms can be trained, its claims are told by known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments import discrimination
from popcomm.analysis.experiments.frame import markdown

from popcomm.envs.referential_v0 import ReferentialWorld


def record(arm: dict[str, Any], seed: int) -> dict[str, Any]:
    """Who weighs candidates picks .9 of the seen ones, and "gru" by trial none of the new ones but by chance."""
    chance = arm["agent"] == "gru" and arm["way"] == "by trial"
    seen = (0.9 if arm["weighed"] else 0.2) + 0.01 * seed
    curve = [{"env_steps": 100 * step, "score": 0.2 + 0.1 * step} for step in range(4)]
    return {
        **arm, "seed": seed, "env_steps": 300, "seen": seen, "held_out": 0.2 + 0.01 * (seed - 2) if chance else seen,
        "sampled": 0.5, "topsim": 0.3, "words": 70, "meanings": 80, "curve": curve, "seconds": 20.0,
    }  # fmt: skip


def runs(seeds: int = 3) -> list[dict[str, Any]]:
    return [record(arm, seed) for seed in range(1, seeds + 1) for arm in discrimination.ARMS]


def test_claims_hold_where_intervals_lie_above_chance() -> None:
    told = discrimination.claims(discrimination.grouped(runs()))
    assert len(told) == 3 * 5
    assert [claim.text for claim in told if not claim.holds] == [
        "`gru`, by trial, speakers by Reinforce, picks more of held-out combinations than chance (0.2)"
    ]
    assert told[0].measured.startswith("+0.700")
    assert "(3 seeds)" in told[0].text


def test_the_page_and_the_figure_tell_of_the_runs_that_are_there() -> None:
    page = markdown(discrimination.EXPERIMENT, runs(), "the command", {})
    assert "| `mlp` | told, by places alone | 3 | 0.220" in page
    assert "0.83 of the rounds" in page
    assert len(discrimination.draw(runs()).axes) == 2
    assert "(no interval: needs two seeds)" in markdown(discrimination.EXPERIMENT, runs(1)[:1], "the command", {})


def test_who_understands_one_attribute_guesses_among_those_that_have_it() -> None:
    """Against 20,000 draws."""
    rng = np.random.default_rng(0)
    others = rng.permuted(np.tile(np.arange(1, 100), (20_000, 1)), axis=1)[:, :4]
    alike = (others // 10 == 0).sum(1)  # the target is 0: its first digit is theirs
    assert discrimination.one_known() == pytest.approx((1 / (1 + alike)).mean(), abs=0.005)


def test_the_control_sees_the_same_numbers_and_is_not_told_of_which_action_they_are() -> None:
    told, plain = (world(task="pick", values=3) for world in (ReferentialWorld, discrimination.ByPlaces))
    for seen, other in zip(
        told.reset(seed=1).observations.values(), plain.reset(seed=1).observations.values(), strict=True
    ):
        torch.testing.assert_close(seen, other)
    assert told.species["listener"].structure is not None
    assert plain.species["listener"].structure is None


@pytest.mark.parametrize("arm", discrimination.ARMS, ids=lambda arm: "-".join(map(str, arm.values())))
def test_every_arm_is_a_configuration_that_can_be_trained(arm: dict[str, Any]) -> None:
    config = discrimination.settings(**arm, seed=3)
    config.validate()
    assert (config.plan.species["listener"].spec.candidates is not None) == arm["weighed"]
    assert not config.plan.species["listener"].spec.speaks
