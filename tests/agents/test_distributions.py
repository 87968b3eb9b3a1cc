"""Action distributions against torch.distributions, and samples against their probabilities."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import distributions as D

from popcomm.agents.distributions import action_distribution
from popcomm.agents.openness import openness
from popcomm.errors import UserError

SPACES = {
    "discrete": spaces.Discrete(4),
    "square": spaces.MultiDiscrete([3, 3]),
    "ragged": spaces.MultiDiscrete([2, 4, 3]),
    "box": spaces.Box(-1, 1, (2,), np.float32),
}
SIZES = {"discrete": 4, "square": 6, "ragged": 9, "box": 4}


def reference(name, params):
    """torch.distributions, one per component."""
    if name == "box":
        mean, log_std = params.chunk(2, -1)
        return [D.Independent(D.Normal(mean, log_std.exp()), 1)]
    sizes = [4] if name == "discrete" else SPACES[name].nvec.tolist()
    return [D.Categorical(logits=logits) for logits in params.split(sizes, -1)]


def components(name, actions):
    return [actions] if name in ("discrete", "box") else list(actions.unbind(-1))


def params_of(name, *lead):
    return torch.randn(*lead, SIZES[name], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SPACES)
def test_log_prob_and_entropy_are_torchs(name):
    distribution, params = action_distribution(SPACES[name]), params_of(name, 3, 7)
    actions = distribution.sample(params, torch.Generator().manual_seed(1))
    expected = reference(name, params)
    log_prob = sum(d.log_prob(a) for d, a in zip(expected, components(name, actions), strict=True))
    entropy = sum(d.entropy() for d in expected)
    torch.testing.assert_close(distribution.log_prob(params, actions), log_prob)
    torch.testing.assert_close(distribution.entropy(params), entropy)
    both = distribution.log_prob_and_entropy(params, actions)
    torch.testing.assert_close(both[0], log_prob)
    torch.testing.assert_close(both[1], entropy)


@pytest.mark.parametrize("name", SPACES)
def test_samples_have_the_spaces_shape_and_depend_on_the_generator_alone(name):
    distribution, params = action_distribution(SPACES[name]), params_of(name, 3, 7)
    actions = distribution.sample(params, torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    assert torch.equal(actions, distribution.sample(params, torch.Generator().manual_seed(1)))
    assert actions.shape == (3, 7, *SPACES[name].shape)
    if name != "box":
        assert all(a.numpy() in SPACES[name] for a in actions.flatten(0, 1))


@pytest.mark.parametrize("name", ["discrete", "square", "ragged"])
def test_categorical_frequencies_are_the_probabilities(name):
    distribution, params, draws = action_distribution(SPACES[name]), params_of(name), 40_000
    actions = distribution.sample(params.expand(draws, -1), torch.Generator().manual_seed(2))
    for distribution_of_one, chosen in zip(reference(name, params), components(name, actions), strict=True):
        frequency = torch.bincount(chosen, minlength=distribution_of_one.probs.numel()) / draws
        assert (frequency - distribution_of_one.probs).abs().max() < 5 * 0.5 / draws**0.5


def test_gaussian_samples_have_the_mean_and_deviation():
    distribution, params, draws = action_distribution(SPACES["box"]), torch.tensor([1.0, -2.0, 0.0, -1.0]), 40_000
    actions = distribution.sample(params.expand(draws, -1), torch.Generator().manual_seed(3))
    deviation = torch.tensor([1.0, np.exp(-1.0)])
    assert ((actions.mean(0) - params[:2]).abs() < 5 * deviation / draws**0.5).all()
    torch.testing.assert_close(actions.std(0), deviation.float(), rtol=0.02, atol=0)


@pytest.mark.parametrize("name", ["discrete", "square", "ragged"])
def test_a_forbidden_action_is_never_taken_and_the_rest_is_renormalised(name):
    distribution, params = action_distribution(SPACES[name]), params_of(name)
    mask = torch.ones(SIZES[name], dtype=torch.bool)
    mask[2 + params[2:].argmax()] = False
    mask[1] = False
    allowed = params.masked_fill(~mask, -torch.inf)
    many = (params.expand(2000, -1), mask.expand(2000, -1))
    actions = distribution.sample(many[0], torch.Generator().manual_seed(4), many[1])
    expected = reference(name, allowed)
    log_prob = sum(d.log_prob(a) for d, a in zip(expected, components(name, actions), strict=True))
    assert log_prob.isfinite().all()
    torch.testing.assert_close(distribution.log_prob(*many[:1], actions, many[1]), log_prob)
    probs = [d.probs for d in expected]
    torch.testing.assert_close(distribution.entropy(params, mask), -sum(torch.xlogy(p, p).sum() for p in probs))
    assert distribution.mode(params, mask).reshape(-1).tolist() == [int(p.argmax()) for p in probs]
    assert distribution.log_prob_and_entropy(*many[:1], actions, many[1])[1][0] == distribution.entropy(params, mask)


@pytest.mark.parametrize("name", ["discrete", "square", "ragged"])
def test_openness_of_independent_actions_is_the_sum_of_each_ones(name):
    distribution, params = action_distribution(SPACES[name]), 8 * params_of(name)
    expected = sum(openness(d.logits) for d in reference(name, params))
    assert expected < 0
    torch.testing.assert_close(distribution.openness(params), expected)


def test_a_box_rules_nothing_out():
    distribution = action_distribution(SPACES["box"])
    assert distribution.openness(params_of("box").expand(3, -1)).tolist() == [0.0, 0.0, 0.0]


def test_a_seat_with_nothing_allowed_gives_numbers():
    distribution, params = action_distribution(SPACES["discrete"]), params_of("discrete").requires_grad_()
    nothing = torch.zeros(4, dtype=torch.bool)
    log_prob, entropy = distribution.log_prob_and_entropy(params, torch.tensor(2), nothing)
    (log_prob + entropy + distribution.openness(params, nothing)).backward()
    assert entropy.item() == pytest.approx(np.log(4))
    assert not params.grad.any()


@pytest.mark.parametrize("name", SPACES)
def test_the_mode_is_the_likeliest_action(name):
    distribution, params = action_distribution(SPACES[name]), params_of(name, 5)
    samples = torch.stack([distribution.sample(params, torch.Generator().manual_seed(i)) for i in range(50)])
    best = distribution.log_prob(params, distribution.mode(params))
    assert (distribution.log_prob(params.expand(50, -1, -1), samples) <= best + 1e-6).all()


def test_features_are_one_hots_side_by_side():
    assert action_distribution(SPACES["discrete"]).features(torch.tensor([2])).tolist() == [[0, 0, 1, 0]]
    assert action_distribution(SPACES["ragged"]).features(torch.tensor([1, 3, 0])).tolist() == [
        0,
        1,
        0,
        0,
        0,
        1,
        1,
        0,
        0,
    ]
    box = torch.tensor([[0.5, -3.0]])
    assert torch.equal(action_distribution(SPACES["box"]).features(box), box)
    assert [action_distribution(s).num_features for s in SPACES.values()] == [4, 6, 9, 2]


def test_unsupported_spaces_and_masks_of_boxes_are_refused():
    with pytest.raises(UserError, match="must be Discrete"):
        action_distribution(spaces.MultiBinary(3))
    with pytest.raises(UserError, match="action mask"):
        action_distribution(SPACES["box"]).entropy(torch.zeros(4), torch.ones(4, dtype=torch.bool))
