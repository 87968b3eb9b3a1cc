"""PPO's parts against answers on paper and against RLlib's own learner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.models.torch.torch_distributions import TorchCategorical
from torch import nn

from popcomm.agents.contract import AgentOutput
from popcomm.agents.distributions import action_law
from popcomm.rllib.ppo import (
    ReturnNormaliser,
    clip_per_member,
    generalised_advantages,
    member_moments,
    same,
    standardise,
)
from popcomm.rllib.species_loss import SpeciesLoss
from popcomm.rllib.unroll import SpeciesUnroll


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1)


def flags(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool).view(1, -1, 1)


def test_advantages_of_three_steps_by_hand() -> None:
    """gamma = lambda = 1/2, rewards 1 2 3, values 4 5 6 7: deltas -0.5, 0, 0.5."""
    got = generalised_advantages(
        row(1, 2, 3), row(4, 5, 6, 7), flags(0, 0, 0), flags(0, 0, 0), flags(1, 1, 1), 0.5, 0.5
    )
    assert got.advantages.flatten().tolist() == pytest.approx([-0.5 + 0.25 * 0.125, 0.125, 0.5])
    assert got.targets.flatten().tolist() == pytest.approx([3.53125, 5.125, 6.5])


def test_a_terminated_life_has_no_future_and_a_truncated_one_has_its_last_value() -> None:
    """Step 1 ends the life; row 2 is its final observation with value 10, and nobody lives there."""
    rewards, values, alive = row(0, 1, 0, 1), row(0, 0, 10, 0, 0), flags(1, 1, 0, 1)
    ended, not_ended = flags(0, 1, 0, 0), flags(0, 0, 0, 0)
    died = generalised_advantages(rewards, values, ended, not_ended, alive, 0.5, 1.0)
    assert died.advantages.flatten().tolist() == pytest.approx([0.5, 1, 0, 1])
    cut = generalised_advantages(rewards, values, not_ended, ended, alive, 0.5, 1.0)
    assert cut.advantages.flatten().tolist() == pytest.approx([3, 6, 0, 1])


def test_each_member_is_standardised_by_its_own_moments() -> None:
    values = torch.tensor([1.0, 3.0, 10.0, 30.0, 99.0]).view(1, 5, 1)
    members = torch.tensor([0, 0, 1, 1, 1]).view(1, 5, 1)
    mask = flags(1, 1, 1, 1, 0)
    got = standardise(values, members, mask, 2)
    assert got[mask].tolist() == pytest.approx([-1, 1, -1, 1])


def test_the_return_normaliser_is_unbiased_from_the_first_batch_on() -> None:
    normaliser = ReturnNormaliser(2, rate=0.1)
    assert normaliser.normalise(torch.tensor([[5.0], [7.0]])).flatten().tolist() == [5, 7]
    returns = torch.tensor([2.0, 4.0]).view(1, 2, 1)
    moments = member_moments(returns, torch.zeros(1, 2, 1), flags(1, 1), 2)
    for _ in range(3):
        normaliser.update(moments.float())
    assert normaliser.mean.tolist() == pytest.approx([3, 0])
    assert normaliser.std.tolist() == pytest.approx([1, 1])
    values = torch.tensor([[0.5, -2.0], [1.0, 1.0]])
    torch.testing.assert_close(normaliser.normalise(normaliser.denormalise(values)), values)


def test_returns_that_are_not_finite_leave_the_normaliser_as_it_was() -> None:
    normaliser = ReturnNormaliser(2, rate=0.5)
    normaliser.update(torch.tensor([[2.0, 2.0], [6.0, 6.0], [20.0, 20.0]]))
    before = normaliser.mean.clone()
    normaliser.update(torch.tensor([[2.0, 2.0], [float("nan"), 8.0], [1.0, 34.0]]))
    assert normaliser.mean[0] == before[0]
    assert normaliser.mean[1] > before[1]


def test_one_members_large_gradient_does_not_shrink_anothers() -> None:
    weight, bias = torch.tensor([[3.0, 0.0], [0.3, 0.0]]), torch.tensor([[4.0], [0.4]])
    norms = clip_per_member([weight, bias], 2, 1.0)
    assert norms.tolist() == pytest.approx([5, 0.5])
    assert weight.flatten().tolist() == pytest.approx([0.6, 0, 0.3, 0], abs=1e-5)
    assert bias.flatten().tolist() == pytest.approx([0.8, 0.4], abs=1e-5)


def test_clipping_one_member_is_torchs_clipping() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(1, 4, 3, generator=generator), torch.randn(3, generator=generator)]
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.clone()
    nn.utils.clip_grad_norm_(parameters, 0.7)
    clip_per_member(gradients, 1, 0.7)
    for p, g in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(g, p.grad)


class TableModule(TorchRLModule, ValueFunctionAPI):
    """RLlib's side of the comparison: logits and values are parameters, one row per sample."""

    def setup(self) -> None:
        self.logits = nn.Parameter(torch.zeros(ROWS, 4))
        self.values = nn.Parameter(torch.zeros(ROWS))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.logits}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        return self.values

    def get_train_action_dist_cls(self) -> type:
        return TorchCategorical

    get_exploration_action_dist_cls = get_train_action_dist_cls


ROWS = 60


def test_the_loss_and_its_gradients_are_those_of_rllibs_ppo_learner() -> None:
    rng = torch.Generator().manual_seed(5)
    logits, values = torch.randn(ROWS, 4, generator=rng), torch.randn(ROWS, generator=rng)
    batch = {
        Columns.ACTIONS: torch.randint(4, (ROWS,), generator=rng),
        Columns.ACTION_LOGP: -torch.rand(ROWS, generator=rng) * 3,
        Columns.ACTION_DIST_INPUTS: torch.randn(ROWS, 4, generator=rng),
        Postprocessing.ADVANTAGES: torch.randn(ROWS, generator=rng),
        Postprocessing.VALUE_TARGETS: torch.randn(ROWS, generator=rng) * 3,
        Columns.LOSS_MASK: torch.rand(ROWS, generator=rng) < 0.8,
    }
    settings = {"clip_param": 0.15, "vf_clip_param": 2.0, "vf_loss_coeff": 0.7, "entropy_coeff": 0.03}
    theirs, their_grads = rllib_loss(settings, batch, logits, values)
    ours, our_grads = population_loss(settings, batch, logits, values)
    assert ours == pytest.approx(theirs, abs=1e-5)
    for a, b in zip(our_grads, their_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def rllib_loss(settings: dict[str, float], batch: dict[str, Any], logits: Any, values: Any) -> tuple[float, list[Any]]:
    space = gym.spaces.Box(-1, 1, (1,), np.float32), gym.spaces.Discrete(4)
    config = (
        PPOConfig()
        .training(**settings, use_kl_loss=False)
        .environment(observation_space=space[0], action_space=space[1])
    )
    spec = RLModuleSpec(module_class=TableModule, observation_space=space[0], action_space=space[1])
    learner = PPOTorchLearner(config=config, module_spec=spec)
    learner.build()
    module = learner.module["default_policy"]
    with torch.no_grad():
        module.logits.copy_(logits)
        module.values.copy_(values)
    loss = learner.compute_loss_for_module(
        module_id="default_policy", config=config, batch=batch, fwd_out=module.forward_train(batch)
    )
    loss.backward()
    return loss.item(), [module.logits.grad, module.values.grad]


def population_loss(
    settings: dict[str, float], batch: dict[str, Any], logits: Any, values: Any
) -> tuple[float, list[Any]]:
    """The same numbers as one world of 60 steps with one seat and one member."""
    logits, values = logits.clone().requires_grad_(), values.clone().requires_grad_()
    arrays = {
        "alive": batch[Columns.LOSS_MASK].view(1, ROWS, 1),
        "first": torch.zeros(1, ROWS + 1, 1, dtype=torch.bool),
        "obs": torch.zeros(1, ROWS + 1, 1, 1),
        "actions": batch[Columns.ACTIONS].view(1, ROWS, 1),
        "action_logp": batch[Columns.ACTION_LOGP].view(1, ROWS, 1),
        "advantages": batch[Postprocessing.ADVANTAGES].view(1, ROWS, 1),
        "value_targets": batch[Postprocessing.VALUE_TARGETS].view(1, ROWS, 1),
    }
    output = AgentOutput(logits.view(1, ROWS, 4), None, values.view(1, ROWS), {}, {})
    run = SpeciesUnroll(output, None, None, arrays["alive"].view(1, ROWS))
    agent = SimpleNamespace(auxiliary_losses=lambda batch, outputs: {})
    module = SimpleNamespace(
        spec=SimpleNamespace(members=1),
        agent=agent,
        auxiliary_weights={},
        value=lambda value, obs, state: value,
        quality=None,
    )
    config = SimpleNamespace(
        **settings, normalize_returns=False, message_gradient="none", message_entropy_coeff=0.0,
        get_config_for_module=lambda name: config,
    )  # fmt: skip
    loss, _ = SpeciesLoss("a", module, config, None, action_law(gym.spaces.Discrete(4)))(
        arrays, run, settings["entropy_coeff"], {"a": arrays}, same, diagnose=False
    )
    loss.backward()
    return loss.item(), [logits.grad, values.grad]
