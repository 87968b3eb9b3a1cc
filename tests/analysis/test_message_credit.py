"""The experiment on credit: its game, its measures, and what is claimed of which runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments import message_credit
from popcomm.analysis.experiments.frame import markdown

from popcomm.envs.testing import world_api_test

SEATS = message_credit.SEATS


def record(credit: str, seed: int, score: float, auc: float = 1.0) -> dict[str, Any]:
    curve = [{"env_steps": 0, "score": 0.3}, {"env_steps": 100, "score": score}]
    known = message_credit.matters(seed)
    found = {"auc": 0.9, "auc_value": 0.7, "auc_removed": auc, "importance": known * 0.5, "matters": known}
    return {"credit": credit, "seed": seed, "env_steps": 100, "score": score, "curve": curve, "seconds": 5.0, **found}


def runs() -> list[dict[str, Any]]:
    """Counterfactual credit comes to .4 more than `step` on every seed, and is like `next`."""
    found = [record("step", seed, 0.5 + 0.01 * seed) for seed in (1, 2, 3)]
    found += [record("next", seed, 0.92 + 0.01 * seed) for seed in (1, 3, 2)]
    return found + [record("counterfactual", seed, 0.9 + 0.01 * seed + 0.04 * (seed == 2)) for seed in (1, 2, 3)]


def test_the_game_keeps_the_contract_and_pays_all_the_mean() -> None:
    world_api_test(message_credit.AskedWorld(2))
    world = message_credit.AskedWorld(4, layout_seed=2)
    step = world.reset(seed=1)
    kinds = step.observations["seat"][..., : message_credit.KINDS].argmax(-1)
    world.step({"seat": kinds})
    right = kinds[:, world.sources]
    right[0, 0] = (right[0, 0] + 1) % message_credit.KINDS
    told = world.step({"seat": right}).rewards
    assert told[0].tolist() == pytest.approx([1 - 1 / SEATS] * SEATS)
    assert torch.equal(told[1:], torch.ones(3, SEATS))


def test_auc_is_the_share_of_pairs_in_order() -> None:
    known = np.array([[False, True], [True, False]])
    assert message_credit.auc(np.array([[0.0, 1.0], [2.0, 0.5]]), known) == 1.0
    assert message_credit.auc(np.array([[np.nan, 1.0], [0.2, 0.5]]), known) == 0.5
    assert message_credit.auc(np.zeros((2, 2)), known) == 0.5


def test_a_claim_holds_where_the_interval_over_seeds_lies_above_0() -> None:
    told = message_credit.claims(message_credit.grouped(runs()))
    assert [claim.holds for claim in told] == [True, False, True]
    worse = [*runs(), record("receivers", 1, 0.95, auc=0.9)]
    assert not message_credit.claims(message_credit.grouped(worse))[-1].holds


def test_the_page_and_the_figure_tell_of_the_credits_that_are_there() -> None:
    page = markdown(message_credit.EXPERIMENT, runs(), "the command", {})
    assert "(`step`) | 0.520" in page
    assert len(message_credit.draw(runs()).axes) == 3


@pytest.mark.parametrize("credit", message_credit.CREDITS)
def test_every_credit_is_a_configuration_that_can_be_trained(credit: str) -> None:
    message_credit.settings(credit, 3).validate()
