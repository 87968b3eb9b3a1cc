"""Values keep their meaning when returns are normalised in one training and not in the next, or the other way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from popcomm.evolution import NOBODY
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.ppo import ReturnNormaliser
from popcomm.rllib.succession import Succession, carry_out
from tests.rllib.test_learner import learner_of, update
from tests.rllib.test_rollout import clock_config, runner_of

MOMENTS = [[9.0, 9.0], [1000.0, -3.0], [1e4, 0.25]]  # counts, means, variances: deviations are 100 and 0.5


def normaliser_of(*batches: Any) -> ReturnNormaliser:
    made = ReturnNormaliser(2)
    for moments in batches:
        made.update(torch.tensor(moments, dtype=torch.float64))
    return made


def predicted(returns: ReturnNormaliser, output: torch.Tensor) -> list[list[float]]:
    """In the units of rewards."""
    return returns.denormalise(returns.of_output(output)).tolist()


def test_an_output_means_the_same_return_before_and_after_the_units_change() -> None:
    output, returns = torch.tensor([[0.0, 2.0], [1.0, -4.0]]), normaliser_of(MOMENTS)
    assert predicted(returns, output) == [[1000, 1200], [-2.5, -5]]
    returns.stay_raw()
    assert returns.of_output(output).tolist() == [[1000, 1200], [-2.5, -5]]
    assert predicted(returns, output) == [[1000, 1200], [-2.5, -5]]
    assert returns.normalise_of(torch.tensor([7.0, 8.0]), torch.tensor([0, 1])).tolist() == [7, 8]
    returns.update(torch.tensor([[9.0, 0.0], [1100.0, 0.0], [2500.0, 0.0]], dtype=torch.float64))  # member 1 had none
    assert returns.of_output(output).tolist() == [[-2, 2], [-2.5, -5]]
    assert predicted(returns, output) == [[1000, 1200], [-2.5, -5]]
    assert returns.mean.tolist() == [1100, 0]
    assert returns.std.tolist() == [50, 1]


def test_what_changed_its_units_goes_through_a_state_and_what_did_not_leaves_no_trace_there() -> None:
    output, returns, other = torch.tensor([[0.5], [0.5]]), normaliser_of(MOMENTS), ReturnNormaliser(2)
    assert sorted(returns.state_dict()) == ["running_mean", "running_variance", "weight"]
    before = {name: values.clone() for name, values in returns.state_dict().items()}
    returns.stay_raw()
    other.load_state_dict(returns.state_dict())
    assert other.of_output(output).tolist() == [[1050], [-2.75]]
    other.load_state_dict(before)  # an older one
    assert other.of_output(output).tolist() == [[0.5], [0.5]]


def config_of(normalised: Any, lr: float = 0.0, **population: Any) -> PopulationPPOConfig:
    config = clock_config(agent="mlp", **population)
    return config.training(normalize_returns=normalised, lr=lr, num_epochs=1)


def state_of(normalised: bool) -> dict[str, Any]:
    """Of a learner whose listeners' values are near 1000, whatever their units."""
    learner = learner_of(config_of(normalised))
    update(learner, runner_of(config_of(normalised)))
    listener = learner.networks["listener"]
    if normalised:
        listener.returns.running_mean.fill_(1000.0)
        listener.returns.running_variance.fill_(1e4)
    else:
        listener.agent.value_head.bias.data.add_(1000.0)
    return learner.module.get_state()


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("by_species", [False, True])
def test_a_resumed_value_network_predicts_what_it_did_in_the_units_of_what_it_learns_from(
    normalised: bool, by_species: bool
) -> None:
    """normalised: whether returns were; then the listener's are what they were not."""
    config = config_of({"listener": not normalised, "speaker": normalised} if by_species else not normalised)
    learner, runner = learner_of(config), runner_of(config)
    learner.module.set_state(state_of(normalised))
    runner.module.set_state(learner.module.get_state())
    before = runner.sample().policy_batches["listener"]["values"]
    assert before.mean() == pytest.approx(1000, rel=0.3)
    update(learner, runner)  # at a rate of 0
    listener, speaker = learner.networks["listener"], learner.networks["speaker"]
    assert listener.returns.gain is not None
    assert (speaker.returns.gain is None) == by_species
    runner.module.set_state(learner.module.get_state())
    batch = runner.sample().policy_batches["listener"]
    assert batch["values"].mean() == pytest.approx(before.mean(), rel=0.1)
    obs = torch.from_numpy(batch["obs"]).flatten(1, 2).flatten(0, 1).unsqueeze(0)
    assert listener.compute_values({"obs": obs}).mean().item() == pytest.approx(before.mean(), rel=0.1)
    learned = listener.value(listener.agent(obs, None, {}).value, obs, None).mean().item()
    assert learned == pytest.approx(before.mean(), rel=0.1) if normalised else abs(learned) < 30


def test_networks_that_are_made_anew_mean_their_output_as_it_is() -> None:
    learner = learner_of(config_of(True, members=2))
    listener = learner.networks["listener"]
    listener.returns.update(torch.tensor(MOMENTS, dtype=torch.float64))
    listener.returns.stay_raw()
    sources, nobody = np.array([NOBODY, 1]), np.array([NOBODY, NOBODY])
    carry_out(Succession(sources, nobody, False, 0, 0.0, 0.0, {}, 1), listener, learner._optimizers("listener"))
    assert listener.returns.of_output(torch.tensor([[0.5], [0.5]])).tolist() == [[0.5], [-2.75]]
