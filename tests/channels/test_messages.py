"""Kinds of message: their distributions against closed forms, their gradients against finite differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popcomm.channels import Symbols, Vectors, message_kind
from popcomm.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64) * 1.5


def test_samples_of_symbols_are_as_frequent_as_the_softmax_says() -> None:
    kind, count = Symbols(4, 2), 40_000
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0], [3.0, 0.0, 0.0, 0.0]])
    samples = kind.sample(logits.expand(count, 2, 4), generator())
    assert samples.shape == (count, 2)
    assert samples.dtype == torch.int64
    expected = logits.softmax(-1)
    for position in range(2):
        found = torch.bincount(samples[:, position], minlength=4) / count
        # Five standard deviations of a frequency at its widest.
        assert torch.allclose(found, expected[position], atol=5 * 0.5 / math.sqrt(count))


def test_symbols_of_one_message_are_drawn_independently() -> None:
    samples = Symbols(2, 2).sample(torch.zeros(40_000, 2, 2), generator())
    both = (samples.sum(-1) == 2).float().mean()
    assert abs(float(both) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 40_000)


def test_same_generator_seed_gives_the_same_messages_and_another_seed_others() -> None:
    logits = random_logits(100, 5, 8)
    kind = Symbols(8, 5)
    first, again, other = (kind.sample(logits, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@settings(max_examples=30, deadline=None)
@given(vocab=st.integers(2, 4), length=st.integers(1, 3), seed=st.integers(0, 1000))
def test_probabilities_of_all_messages_sum_to_one(vocab: int, length: int, seed: int) -> None:
    kind = Symbols(vocab, length)
    every = torch.tensor(list(itertools.product(range(vocab), repeat=length)))
    log_p = kind.log_prob(random_logits(length, vocab, seed=seed).expand(len(every), length, vocab), every)
    assert float(log_p.exp().sum()) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(vocab=st.integers(2, 4), length=st.integers(1, 3), seed=st.integers(0, 1000))
def test_entropy_of_symbols_is_that_of_the_distribution_of_whole_messages(vocab: int, length: int, seed: int) -> None:
    kind, logits = Symbols(vocab, length), random_logits(length, vocab, seed=seed)
    every = torch.tensor(list(itertools.product(range(vocab), repeat=length)))
    log_p = kind.log_prob(logits.expand(len(every), length, vocab), every)
    assert float(kind.entropy(logits)) == pytest.approx(float(-(log_p.exp() * log_p).sum()))


def test_entropy_of_uniform_symbols_is_length_times_log_of_the_vocabulary() -> None:
    assert float(Symbols(6, 3).entropy(torch.zeros(3, 6))) == pytest.approx(3 * math.log(6), rel=1e-6)


def test_straight_through_has_the_one_hot_of_the_stored_symbols_as_value() -> None:
    kind, logits = Symbols(3, 2), random_logits(4, 2, 3)
    stored = torch.tensor([[0, 2], [1, 1], [2, 0], [0, 0]])
    value = kind.straight_through(stored, kind.soft(logits))
    expected = torch.eye(3, dtype=torch.float64)[stored]
    assert torch.allclose(value, expected, atol=1e-12)
    assert torch.equal(kind.straight_through(stored, None), expected.float())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_straight_through_has_the_gradient_of_the_softmax(temperature: float) -> None:
    kind, logits = Symbols(3, 2, temperature=temperature), random_logits(2, 3).requires_grad_()
    weights = random_logits(2, 3, seed=1)
    value = kind.straight_through(torch.tensor([1, 2]), kind.soft(logits))
    (gradient,) = torch.autograd.grad((value * weights).sum(), logits)
    plain, step = logits.detach(), 1e-6
    for i, j in itertools.product(range(2), range(3)):
        up, down = plain.clone(), plain.clone()
        up[i, j] += step
        down[i, j] -= step
        difference = [((x / temperature).softmax(-1) * weights).sum() for x in (up, down)]
        assert float(gradient[i, j]) == pytest.approx(float(difference[0] - difference[1]) / (2 * step), abs=1e-7)


def test_load_counts_symbols_that_are_not_the_blank() -> None:
    loads = Symbols(5, 3).load(torch.tensor([[0, 0, 0], [0, 4, 0], [1, 2, 3]]))
    assert loads.tolist() == [0.0, 1.0, 3.0]


def test_noise_replaces_symbols_by_uniform_ones_at_its_rate() -> None:
    kind, count = Symbols(4, 1), 40_000
    noisy = kind.corrupt(torch.full((count, 1), 2), 0.4, generator()).flatten()
    found = torch.bincount(noisy, minlength=4) / count
    # A replaced symbol is the same again in one case of four.
    assert torch.allclose(found, torch.tensor([0.1, 0.1, 0.7, 0.1]), atol=5 * 0.5 / math.sqrt(count))


def test_space_of_symbols_holds_exactly_the_messages() -> None:
    space = Symbols(5, 3).space()
    assert space.contains(np.array([0, 4, 2]))
    assert not space.contains(np.array([0, 5, 2]))


def test_vectors_without_noise_are_the_network_output() -> None:
    kind, params = Vectors(3), torch.randn(5, 3, generator=generator())
    assert torch.equal(kind.sample(params), params)
    assert kind.log_prob(params, params).tolist() == [0.0] * 5
    assert kind.entropy(params).tolist() == [0.0] * 5


def test_vectors_with_noise_follow_the_normal_distribution_they_are_scored_by() -> None:
    kind, mean = Vectors(2, std=0.5), torch.tensor([1.0, -2.0])
    samples = kind.sample(mean.expand(40_000, 2), generator())
    assert torch.allclose(samples.mean(0), mean, atol=5 * 0.5 / 200)
    assert torch.allclose(samples.std(0), torch.tensor([0.5, 0.5]), rtol=0.03)
    normal = torch.distributions.Normal(mean, 0.5)
    assert torch.allclose(kind.log_prob(mean, samples), normal.log_prob(samples).sum(-1), atol=1e-5)
    assert torch.allclose(kind.entropy(mean), normal.entropy().sum())


def test_vectors_pass_gradients_to_the_sender_unchanged() -> None:
    """What is heard is what the sender says now, with the noise of what it said then."""
    kind, params = Vectors(3, std=0.1), torch.tensor([5.0, 6.0, 7.0], requires_grad=True)
    noise = torch.tensor([1.0, -2.0, 0.0])
    stored = torch.zeros(3)  # said by other weights
    assert torch.equal(kind.straight_through(stored, None), stored)
    value = kind.straight_through(stored, kind.sample_with(params, noise))
    torch.testing.assert_close(value.detach(), torch.tensor([5.1, 5.8, 7.0]))
    weights = torch.tensor([1.0, -2.0, 3.0])
    (gradient,) = torch.autograd.grad((value * weights).sum(), params)
    assert torch.equal(gradient, weights)


def test_noise_on_vectors_is_normal_with_the_given_deviation() -> None:
    noisy = Vectors(2).corrupt(torch.ones(40_000, 2), 0.3, generator())
    assert torch.allclose(noisy.mean(0), torch.ones(2), atol=5 * 0.3 / 200)
    assert torch.allclose(noisy.std(0), torch.full((2,), 0.3), rtol=0.03)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "symbls", "vocab_size": 4, "length": 1}, "did you mean 'symbols'"),
        ({"vocab_size": 4}, "has no 'kind'"),
        ({"kind": "symbols", "vocab_size": 1, "length": 1}, "vocab_size is 1, and must be at least 2"),
        ({"kind": "symbols", "vocab_size": 4, "length": 0}, "length is 0, and must be at least 1"),
        ({"kind": "symbols", "vocab_size": 4.5, "length": 1}, "vocab_size is 4.5, and must be a whole number"),
        ({"kind": "symbols", "vocab_size": "4", "length": 1}, "vocab_size is '4', and must be a whole number"),
        ({"kind": "symbols", "vocab_size": 4, "length": 1, "temperature": 0}, "temperature is 0, and must be above 0"),
        ({"kind": "symbols", "vocab_size": 4, "lenght": 1}, "'lenght' does not exist; did you mean 'length'"),
        ({"kind": "symbols", "vocab_size": 4}, "missing 1 required positional argument: 'length'"),
        ({"kind": "vectors", "size": 0}, "size is 0, and must be at least 1"),
        ({"kind": "vectors", "size": 2, "std": -1.0}, "std is -1.0, and must not be negative"),
    ],
)
def test_mistakes_in_a_config_are_told_by_key_and_value(config: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        message_kind(config)


def test_config_mappings_make_the_kinds_they_name() -> None:
    assert message_kind({"kind": "symbols", "vocab_size": 64, "length": 5}) == Symbols(64, 5)
    assert message_kind({"kind": "vectors", "size": 8, "std": 0.1}) == Vectors(8, 0.1)
    assert message_kind(None) is None
