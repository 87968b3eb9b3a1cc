"""The entropy of what is done in all worlds together, by hand, and what it lets listeners do."""

from __future__ import annotations

import math

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.agents.distributions import action_distribution
from popcomm.agents.evenness import RARE
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.exploration import exploration
from popcomm.rllib.settings import LEFT_OPEN
from tests.rllib.test_plan import PushedWorld, two_species

FOUR = action_distribution(spaces.Discrete(4))
SHARE = LEFT_OPEN["entropy_over_worlds"]


def together(values: Tensor) -> Tensor:
    """All rows are one group."""
    return values.detach().mean((0, 1), keepdim=True).expand_as(values)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def even(p: Tensor) -> Tensor:
    """H(m) + RARE / V sum log m of m [V]: what the surrogate has the gradients of."""
    return (-(p * p.log()) + RARE * p.log() / len(p)).sum()


def same_gradients(given: Tensor, found: Tensor, true: Tensor, wanted: Tensor) -> None:
    found.backward()
    wanted.backward()
    assert true.grad is not None
    assert true.grad.abs().max() > 1e-3
    torch.testing.assert_close(given.grad, true.grad)


def test_of_one_action_its_mean_and_gradient_are_those_of_the_entropy_of_the_mean() -> None:
    logits = drawn(1, 9, 4)
    given, true = (logits.clone().requires_grad_() for _ in range(2))
    found = FOUR.entropy_of_all(given, together).mean()
    mean = true.softmax(-1).mean((0, 1))
    assert found.item() == pytest.approx(-(mean * mean.log()).sum().item())
    same_gradients(given, found, true, even(mean))


def test_of_several_actions_it_is_the_sum_each_with_as_many_possibilities_as_it_has() -> None:
    logits = drawn(1, 9, 5)
    given, true = (logits.clone().requires_grad_() for _ in range(2))
    found = action_distribution(spaces.MultiDiscrete([2, 3])).entropy_of_all(given, together).mean()
    parts = [part.softmax(-1).mean((0, 1)) for part in true.split([2, 3], -1)]
    assert found.item() == pytest.approx(sum(-(p * p.log()).sum().item() for p in parts))
    same_gradients(given, found, true, even(parts[0]) + even(parts[1]))


def test_of_a_box_it_is_the_entropy_of_a_normal_as_wide_as_all_of_them() -> None:
    params = drawn(1, 9, 4)
    given, true = (params.clone().requires_grad_() for _ in range(2))
    found = action_distribution(spaces.Box(-1, 1, (2,))).entropy_of_all(given, together).mean()
    mean, log_std = true.split(2, -1)
    variance = (mean.square() + (2 * log_std).exp()).mean((0, 1)) - mean.mean((0, 1)).square()
    wanted = 0.5 * (2 * math.pi * math.e * variance).log().sum()
    assert found.item() == pytest.approx(wanted.item())
    same_gradients(given, found, true, wanted)


def test_what_is_forbidden_in_all_worlds_pulls_at_nothing() -> None:
    logits = drawn(1, 6, 4).requires_grad_()
    allowed = torch.tensor([True, True, True, False]).expand(1, 6, 4)
    FOUR.entropy_of_all(logits, together, allowed).mean().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[..., 3].any()


def bonus(logits: Tensor, over_worlds: float, rare: float = 0.0, scale: Tensor | None = None) -> Tensor:
    entropy = FOUR.entropy(logits)
    return exploration(FOUR, logits, None, entropy, together, lambda v: v.mean(1).sum(), over_worlds, rare, scale)


def test_who_answers_by_what_is_heard_pays_for_it_in_each_world_and_not_over_worlds() -> None:
    """Four worlds in which four things are heard: all answers are given, each where it belongs."""
    knows = 8 * torch.eye(4, dtype=torch.float64).unsqueeze(0)
    deaf = torch.zeros(1, 4, 4, dtype=torch.float64)
    assert bonus(deaf, 0.0) - bonus(knows, 0.0) == pytest.approx(math.log(4), abs=0.02)
    assert bonus(deaf, 1.0) - bonus(knows, 1.0) == pytest.approx(0.0, abs=1e-6)


def test_who_gives_one_answer_in_all_worlds_pays_either_way() -> None:
    stuck = 8 * torch.eye(4, dtype=torch.float64)[:1].expand(1, 4, 4)
    deaf = torch.zeros(1, 4, 4, dtype=torch.float64)
    for share in (0.0, SHARE, 1.0):
        assert bonus(deaf, share) - bonus(stuck, share) > 1.2


def test_without_a_share_it_is_the_entropy_and_each_members_scale_and_the_openness_come_in() -> None:
    logits, scale = drawn(2, 5, 4), torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert torch.equal(bonus(logits, 0.0), FOUR.entropy(logits).mean(1).sum())
    own = FOUR.entropy(logits).mean(1) + 0.5 * FOUR.openness(logits).mean(1)
    torch.testing.assert_close(bonus(logits, 0.0, rare=0.5, scale=scale), (own * scale).sum())
    open_ = SHARE * FOUR.entropy_of_all(logits, together).mean(1) + (1 - SHARE) * FOUR.entropy(logits).mean(1)
    torch.testing.assert_close(bonus(logits, SHARE, scale=scale), (open_ * scale).sum())


def over_worlds(config: PopulationPPOConfig) -> dict[str, float]:
    config.validate()
    return {name: species.over_worlds for name, species in config.plan.species.items()}


def test_it_is_on_where_one_of_several_actions_is_chosen_and_messages_are_heard() -> None:
    assert set(over_worlds(two_species()).values()) == {SHARE}
    assert set(over_worlds(two_species().communication(messages=None)).values()) == {0.0}
    assert over_worlds(two_species().environment(PushedWorld)) == {"speaker": 0.0, "listener": SHARE}
    assert set(over_worlds(two_species().training(entropy_over_worlds=0.25)).values()) == {0.25}


def test_a_species_may_have_its_own_share() -> None:
    config = two_species().training(entropy_over_worlds={"speaker": 0.5, "default": 0.0})
    assert over_worlds(config) == {"speaker": 0.5, "listener": 0.0}
