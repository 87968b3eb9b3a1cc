"""Masked means and explained variances on numbers worked out by hand."""

import pytest
import torch

from popcomm.agents.losses import masked_mean, masked_mse, r_squared


def test_masked_mean_counts_real_entries_per_member():
    values = torch.tensor([[1.0, 3.0, 100.0], [5.0, 6.0, 7.0]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(values, mask).tolist() == [2.0, 0.0]


def test_masked_mse_averages_over_rows_and_numbers_that_are_real():
    prediction = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    target = torch.tensor([[[0.0, 0.0], [torch.nan, torch.nan]]])
    assert masked_mse(prediction, target, torch.tensor([[[True], [False]]])).tolist() == [2.5]


def test_a_masked_nan_sends_no_gradient():
    prediction = torch.ones(1, 2, 1, requires_grad=True)
    target = torch.tensor([[[0.0], [torch.nan]]])
    masked_mse(prediction, target, torch.tensor([[[True], [False]]])).sum().backward()
    assert prediction.grad.flatten().tolist() == [2.0, 0.0]


def test_r_squared_is_one_for_the_truth_zero_for_the_mean_and_averages_dimensions():
    target = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    everywhere = torch.ones(2, 1, dtype=torch.bool)
    assert r_squared(target, target, everywhere).item() == 1.0
    assert r_squared(target.mean(0).expand(2, 2), target, everywhere).item() == 0.0
    half = torch.stack([target[:, 0], target[:, 1].mean().expand(2)], -1)
    assert r_squared(half, target, everywhere).item() == 0.5
    # Second dimension: errors 1 and 1 against deviations 2 and 2 -> 1 - 2 / 8.
    assert r_squared(target + torch.tensor([0.0, 1.0]), target, everywhere).item() == pytest.approx((1 + 0.75) / 2)


def test_r_squared_leaves_out_constant_dimensions_and_masked_rows():
    target = torch.tensor([[0.0, 7.0], [2.0, 7.0], [torch.nan, 3.0]])
    prediction = torch.tensor([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    mask = torch.tensor([[True], [True], [False]])
    assert r_squared(prediction, target, mask).item() == 1.0
    assert r_squared(prediction, target, torch.zeros_like(mask)).item() == 0.0
