"""The pull at what a policy is about to rule out, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from popcomm.agents.openness import FAINT, openness


def test_nothing_pulls_while_all_can_happen() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5], requires_grad=True)
    assert logits.softmax(-1).min() > FAINT / 4
    value = openness(logits.log_softmax(-1))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("sure", [10.0, 60.0])
def test_what_is_ruled_out_is_pulled_at_however_sure_the_policy_is(sure: float) -> None:
    """One of n = 4 has all, p -> 1: each of the three others is pulled at with 1 / n, and it pays for them."""
    logits = torch.tensor([sure, 0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    value = openness(logits.log_softmax(-1))
    value.backward()
    assert value.item() == pytest.approx(0.75 * (-sure - math.log(FAINT / 4)), abs=1e-3)
    torch.testing.assert_close(logits.grad, torch.tensor([-0.75, 0.25, 0.25, 0.25]).double(), atol=1e-3, rtol=0)


def test_what_is_not_allowed_is_ruled_out_for_good() -> None:
    """Of two allowed ones, p = 1 and 0: n is 2."""
    logits = torch.tensor([0.0, -40.0, -1e9, -1e9], requires_grad=True)
    allowed = torch.tensor([True, True, False, False])
    value = openness(logits.log_softmax(-1), allowed)
    value.backward()
    assert value.item() == pytest.approx((-40.0 - math.log(FAINT / 2)) / 2, abs=1e-3)
    torch.testing.assert_close(logits.grad, torch.tensor([-0.5, 0.5, 0.0, 0.0]))


def test_where_nothing_is_allowed_nothing_pulls() -> None:
    logits = torch.full((3,), -1e9, requires_grad=True)
    value = openness(logits.log_softmax(-1), torch.zeros(3, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()
