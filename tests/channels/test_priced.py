"""Symbols and what they cost from one softmax."""

from __future__ import annotations

import pytest
import torch

from popcomm.channels import Symbols

KIND = Symbols(vocab_size=5, length=3)


@pytest.mark.parametrize("heard", [True, False])
def test_the_price_of_the_softmax_that_is_heard_is_the_expense_and_has_its_gradient(heard: bool) -> None:
    """The softmax may reach nobody, as that of a fragment's last step: the price alone has a gradient then."""
    torch.manual_seed(3)
    params = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    to_soft, to_price = torch.randn_like(params), torch.randn(2, 4, dtype=torch.float64)
    gradients = []
    for together in (True, False):
        given = params.clone().requires_grad_()
        both = KIND.soft_and_expense(given) if together else (KIND.soft(given), KIND.expense(given))
        assert both is not None
        ((both[0] * to_soft).sum() * heard + (both[1] * to_price).sum()).backward()
        gradients.append((both[0].detach(), both[1].detach(), given.grad))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("other", [{"temperature": 0.5}, {"end_symbol": True}])
def test_where_it_is_another_softmax_nothing_is_given(other: dict) -> None:
    assert Symbols(vocab_size=5, length=3, **other).soft_and_expense(torch.zeros(3, 5)) is None
