"""Inversion sampling: the distribution, what is impossible, and reproducibility."""

import pytest
import torch
from scipy import stats

from popcomm.channels import sampling
from popcomm.channels.sampling import sample_categorical


def test_samples_follow_the_distribution():
    logits = torch.tensor([0.0, 1.0, -2.0, 0.5])
    found = sample_categorical(logits.expand(40_000, 4), torch.Generator().manual_seed(0)).bincount(minlength=4)
    assert stats.chisquare(found.numpy(), 40_000 * logits.double().softmax(0).numpy()).pvalue > 0.01


def test_what_is_impossible_never_comes_up_even_at_the_ends():
    logits = torch.full((200_000, 5), -1e9)
    logits[:, 2] = 0.0
    assert (sample_categorical(logits, torch.Generator().manual_seed(0)) == 2).all()


def test_the_extreme_draws_name_classes_with_probability(monkeypatch: pytest.MonkeyPatch):
    logits = torch.tensor([[-1e9, 0.0, 0.0, -1e9]])
    for extreme, expected in ((0.0, 2), (1 - 2**-24, 1)):
        monkeypatch.setattr(torch, "rand", lambda *shape, extreme=extreme, **_: torch.full(shape, extreme))
        assert sample_categorical(logits).item() == expected


def test_the_generator_decides_and_any_leading_axes_do():
    logits = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    once, again = (sample_categorical(logits, torch.Generator().manual_seed(4)) for _ in range(2))
    assert once.shape == (2, 3, 5)
    assert torch.equal(once, again)


def test_a_distribution_that_is_not_finite_gives_a_class_that_exists():
    found = sample_categorical(torch.full((4, 3), torch.nan), torch.Generator().manual_seed(0))
    assert ((found >= 0) & (found < 3)).all()


def test_samples_are_the_same_however_many_are_looked_at_together(monkeypatch):
    logits = torch.randn(7, 3, 10, generator=torch.Generator().manual_seed(0))
    whole = sample_categorical(logits, torch.Generator().manual_seed(5))
    for numbers in (1, 25, 200):  # a row, two, and 20 of 21
        monkeypatch.setattr(sampling, "AT_ONCE", numbers)
        assert torch.equal(sample_categorical(logits, torch.Generator().manual_seed(5)), whole)
    assert sample_categorical(logits[0, 0]).shape == ()
