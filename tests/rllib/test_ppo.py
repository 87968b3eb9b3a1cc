"""PPO's parts against answers on paper and against RLlib's own learner."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
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
from popcomm.agents.distributions import action_distribution
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.ppo import (
    ReturnNormaliser,
    clip_owned,
    clip_values,
    generalised_advantages,
    member_moments,
    same,
    standardise,
    value_error,
)
from popcomm.rllib.species_loss import SpeciesLoss
from popcomm.rllib.unroll import SpeciesUnroll
from tests.rllib.worlds import BanditWorld


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
    assert normaliser.normalise_of(torch.tensor([5.0, 7.0]), torch.tensor([0, 1])).tolist() == [5, 7]
    returns = torch.tensor([2.0, 4.0]).view(1, 2, 1)
    moments = member_moments(returns, torch.zeros(1, 2, 1), flags(1, 1), 2)
    for _ in range(3):
        normaliser.update(moments)
    assert normaliser.mean.tolist() == pytest.approx([3, 0])
    assert normaliser.std.tolist() == pytest.approx([1, 1])
    values = torch.tensor([[0.5, -2.0], [1.0, 1.0]])
    own = torch.tensor([[0, 0], [1, 1]])
    torch.testing.assert_close(normaliser.normalise_of(normaliser.denormalise(values), own), values)
    mixed = torch.tensor([[1, 0], [0, 1]])
    expected = torch.where(mixed == 0, values * normaliser.std[0] + normaliser.mean[0], values).float()
    torch.testing.assert_close(normaliser.denormalise_of(values, mixed), expected)


def test_returns_that_are_not_finite_leave_the_normaliser_as_it_was() -> None:
    normaliser = ReturnNormaliser(2, rate=0.5)
    normaliser.update(torch.tensor([[2.0, 2.0], [3.0, 3.0], [1.0, 1.0]]))
    before = normaliser.mean.clone()
    normaliser.update(torch.tensor([[2.0, 2.0], [float("nan"), 4.0], [1.0, 1.0]]))
    assert normaliser.mean[0] == before[0]
    assert normaliser.mean[1] > before[1]


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
def test_statistics_of_returns_far_from_zero_keep_their_deviation(offset: float) -> None:
    normaliser, returns = ReturnNormaliser(1), offset + row(-1, 1, -1, 1)
    mask, members = torch.ones(1, 4, 1, dtype=torch.bool), torch.zeros(1, 4, 1)
    for _ in range(200):
        normaliser.update(member_moments(returns, members, mask, 1))
    assert normaliser.mean.item() == pytest.approx(offset, abs=1e-6)
    assert normaliser.std.item() == pytest.approx(1, abs=1e-6)
    assert normaliser.normalise_of(returns, members.long()).flatten().tolist() == pytest.approx([-1, 1, -1, 1])
    assert standardise(returns, members, mask, 1).flatten().tolist() == pytest.approx([-1, 1, -1, 1])


def test_moments_of_two_learners_are_those_of_all_rows_however_far_from_zero() -> None:
    """The reduction adds the sums of a second learner, worked out on paper."""
    values = 1e8 + torch.arange(6, dtype=torch.float64).view(6, 1, 1)
    members, mask = torch.zeros(6, 1, 1), torch.ones(6, 1, 1, dtype=torch.bool)
    whole = member_moments(values, members, mask, 1)
    assert whole.flatten().tolist() == pytest.approx([6, 1e8 + 2.5, 35 / 12], rel=1e-12)
    # Of 2, 3, 4, 5: count and sum, then the sums of deviations from 2.5 and of their squares.
    other = torch.tensor([[[4], [4e8 + 14]], [[4], [9]]], dtype=torch.float64)
    rounds = iter(other)
    got = member_moments(values[:2], members[:2], mask[:2], 1, reduce=lambda sums: sums + next(rounds))
    assert got.flatten().tolist() == pytest.approx(whole.flatten().tolist(), rel=1e-12)


def test_running_statistics_are_the_weighted_ones_of_all_batches() -> None:
    """Batches {0, 2} and {4, 8} at rate 1/4: weights 3/16 and 4/16, so 3/7 and 4/7 of the whole."""
    normaliser, zeros, both = ReturnNormaliser(1, rate=0.25), torch.zeros(1, 2, 1), flags(1, 1)
    for batch in (row(0, 2), row(4, 8)):
        normaliser.update(member_moments(batch, zeros, both, 1))
    mean = 3 / 7 * 1 + 4 / 7 * 6
    square = 3 / 7 * (0 + 4) / 2 + 4 / 7 * (16 + 64) / 2
    assert normaliser.mean.item() == pytest.approx(mean)
    assert normaliser.std.item() == pytest.approx((square - mean**2) ** 0.5)


def test_statistics_of_an_earlier_popcomm_are_refused_in_a_sentence() -> None:
    old = {name: torch.zeros(1) for name in ("returns.mean_sum", "returns.square_sum", "returns.weight")}
    module = nn.ModuleDict({"returns": ReturnNormaliser(1)})
    with pytest.raises(RuntimeError, match="return statistics are in float32, as an earlier popcomm kept them"):
        module.load_state_dict(old)


def test_an_error_of_five_deviations_still_teaches_unless_it_is_clipped() -> None:
    for limit, slope in ((PopulationPPOConfig().vf_clip_param, -10.0), (10.0, 0.0)):
        value = torch.zeros(1, 1, requires_grad=True)
        value_error(value, torch.full((1, 1), 5.0), limit).sum().backward()
        assert value.grad is not None
        assert value.grad.item() == slope


def test_no_clip_of_the_value_can_be_written_in_yaml_and_goes_into_checkpoints() -> None:
    read = yaml.safe_load("{vf_clip_param: .inf}")
    config = PopulationPPOConfig().environment(BanditWorld).communication(messages=None).training(**read)
    config.validate()
    assert yaml.safe_load(yaml.safe_dump(read)) == json.loads(json.dumps(read)) == read
    assert cloudpickle.loads(cloudpickle.dumps(config)).vf_clip_param == config.vf_clip_param == math.inf


def test_one_members_large_gradient_does_not_shrink_anothers() -> None:
    weight, bias = torch.tensor([[3.0, 0.0], [0.3, 0.0]]), torch.tensor([[4.0], [0.4]])
    norms = clip_owned([weight, bias], 2, 1.0)
    assert norms.tolist() == pytest.approx([5, 0.5])
    assert weight.flatten().tolist() == pytest.approx([0.6, 0, 0.3, 0], abs=1e-5)
    assert bias.flatten().tolist() == pytest.approx([0.8, 0.4], abs=1e-5)


@pytest.mark.parametrize("members", [1, 2])
def test_clipping_by_value_clamps_every_number_and_tells_the_norms_from_before(members: int) -> None:
    weight, bias = torch.tensor([[3.0, 0.0], [0.3, -9.0]]), torch.tensor([[4.0], [0.4]])
    norms = clip_values([weight, bias], members, 1.0)
    expected = [5.0, (81 + 0.25) ** 0.5] if members == 2 else [(25 + 81.25) ** 0.5]
    assert norms.tolist() == pytest.approx(expected)
    assert weight.tolist() == [[1, 0], [pytest.approx(0.3), -1]]
    assert bias.flatten().tolist() == [1, pytest.approx(0.4)]


def test_clipping_one_member_is_torchs_clipping() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(1, 4, 3, generator=generator), torch.randn(3, generator=generator)]
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.clone()
    nn.utils.clip_grad_norm_(parameters, 0.7)
    clip_owned(gradients, 1, 0.7)
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
        "targets": batch[Postprocessing.VALUE_TARGETS].view(1, ROWS, 1),
    }
    output = AgentOutput(logits.view(1, ROWS, 4), None, values.view(1, ROWS), {}, {})
    run = SpeciesUnroll(output, None, None, arrays["alive"].view(1, ROWS))
    agent = SimpleNamespace(auxiliary_losses=lambda batch, outputs: {})
    module = SimpleNamespace(
        spec=SimpleNamespace(members=1, rounds=0, judged=True),
        agent=agent,
        auxiliary_weights={},
        value=lambda value, obs, state: value,
        quality=None,
        scale=lambda hyperparameter: None,
    )
    config = SimpleNamespace(
        **settings, normalize_returns=False, message_gradient="none", message_entropy_coeff=0.0, message_kl_coeff=0.0,
    )  # fmt: skip
    weights = {"quality_weight": 0.0, "balance_weight": 0.0, "sharpness": 0.0, "rare_share": 0.0, "over_worlds": 0.0}
    silent = SimpleNamespace(messages=None)
    plan = SimpleNamespace(settings=config, spec=silent, gradient="none", joint_critic=None, rise=None, **weights)
    loss, _ = SpeciesLoss(module, plan, action_distribution(gym.spaces.Discrete(4)))(
        arrays, run, settings["entropy_coeff"], {"a": arrays}, same, diagnose=False
    )
    loss.backward()
    return loss.item(), [logits.grad, values.grad]
