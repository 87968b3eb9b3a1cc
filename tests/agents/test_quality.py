"""What an action is worth: the number of the action taken, learned by regression, each member by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from popcomm.agents.quality import QualityHead


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_of_discrete_actions_it_is_the_number_of_the_one_taken() -> None:
    head = QualityHead(2, 3, spaces.Discrete(4), generator=generator())
    features, actions = torch.randn(2, 5, 3, generator=generator(1)), torch.tensor([[0, 1, 2, 3, 0], [3, 3, 2, 1, 0]])
    every = head.net(features)
    assert every.shape == (2, 5, 4)
    expected = every.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(head(features, actions), expected)


def test_of_several_components_it_is_the_sum_of_their_numbers() -> None:
    head = QualityHead(1, 3, spaces.MultiDiscrete([2, 3]), generator=generator())
    features, actions = torch.randn(1, 2, 3, generator=generator(1)), torch.tensor([[[1, 0], [0, 2]]])
    every = head.net(features)[0]
    expected = torch.stack([every[0, 1] + every[0, 2], every[1, 0] + every[1, 4]])
    torch.testing.assert_close(head(features, actions)[0], expected)


def test_real_actions_are_heard_by_the_network() -> None:
    head = QualityHead(1, 3, spaces.Box(-1.0, 1.0, (2,), np.float32), generator=generator())
    features, actions = torch.randn(1, 4, 3, generator=generator(1)), torch.randn(1, 4, 2, generator=generator(2))
    assert head(features, actions).shape == (1, 4)
    torch.testing.assert_close(head(features, actions), head.net(torch.cat([features, actions], -1)).squeeze(-1))
    assert (head(features, actions) - head(features, -actions)).abs().min() > 1e-3


def regress(head: QualityHead, features: torch.Tensor, actions: torch.Tensor, worth: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        (head(features, actions) - worth).square().sum().backward()
        optimizer.step()


def test_a_table_of_situations_and_actions_is_learned_by_each_member_for_itself() -> None:
    """Member 0 learns the exclusive or of situation and action, member 1 its negation."""
    head = QualityHead(2, 2, spaces.Discrete(2), hidden=16, generator=generator())
    situation, actions = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    worth = torch.stack([(situation ^ actions).float(), 1.0 - (situation ^ actions).float()])
    regress(head, torch.eye(2)[situation].expand(2, -1, -1), actions.expand(2, -1), worth)
    found = head(torch.eye(2)[situation].expand(2, -1, -1), actions.expand(2, -1))
    torch.testing.assert_close(found, worth, atol=0.05, rtol=0.0)


def test_real_actions_have_a_worth_that_is_learned() -> None:
    """1 less the square of the distance from the situation."""
    head = QualityHead(1, 1, spaces.Box(-1.0, 1.0, (1,), np.float32), hidden=32, generator=generator())
    situation, action = (torch.rand(1, 200, 1, generator=generator(seed)) * 2 - 1 for seed in (1, 2))
    worth = 1 - (situation - action).square().squeeze(-1)
    regress(head, situation, action, worth)
    error = (head(situation, action) - worth).square().mean() / worth.var()
    assert float(error.detach()) < 0.05


def test_members_learn_nothing_from_one_another() -> None:
    """The gradient of one member's error is zero on the weights of all others."""
    head = QualityHead(3, 2, spaces.Discrete(2), generator=generator())
    features = torch.randn(3, 4, 2, generator=generator(1))
    head(features, torch.zeros(3, 4, dtype=torch.int64))[1].sum().backward()
    for parameter in head.parameters():
        assert parameter.grad is not None
        norms = parameter.grad.flatten(1).norm(dim=1)
        assert norms[1] > 0
        assert not norms[[0, 2]].any()


@pytest.mark.parametrize("action_space", [spaces.Discrete(3), spaces.Box(-1.0, 1.0, (1,), np.float32)], ids=str)
def test_its_error_tells_features_what_helped(action_space: spaces.Space) -> None:
    head = QualityHead(1, 2, action_space, generator=generator())
    features = torch.randn(1, 4, 2, generator=generator(1), requires_grad=True)
    actions = (
        torch.zeros(1, 4, dtype=torch.int64) if isinstance(action_space, spaces.Discrete) else torch.zeros(1, 4, 1)
    )
    (head(features, actions) - 1).square().sum().backward()
    assert features.grad is not None
    assert (features.grad.abs().sum(-1) > 0).all()
