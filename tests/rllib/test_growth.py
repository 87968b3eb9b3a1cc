"""Networks whose rows come and go: watched, summed up over learners, grown, restored, inherited."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.gradients import MemberGuard
from popcomm.rllib.growth import Ownership, agreed_seed, inherit
from popcomm.rllib.learner import PopulationPPOLearner
from popcomm.rllib.module import check_member_axis
from popcomm.rllib.ppo import clip_owned, clip_values
from tests.rllib.growing_agent import Budding, TwoLearners
from tests.rllib.test_learner import changed, learner_of, update, weights
from tests.rllib.test_rollout import runner_of
from tests.rllib.worlds import ClockWorld


def config_of(members: int = 2, epochs: int = 2, minibatch: int | None = 6, **agent: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(ClockWorld, env_config={"speakers": 2, "listeners": 2})
        .communication(messages=None)
        .population(agent=Budding, members=members, agent_config=agent)
        .env_runners(num_worlds_per_env_runner=12, rollout_fragment_length=7)
        .training(num_epochs=epochs, minibatch_size=minibatch, lr=0.02)
        .debugging(seed=3)
    )


def agent_of(learner: PopulationPPOLearner) -> Budding:
    return learner.networks["speaker"].agent


# ---- growing ----


def test_an_agent_grows_after_steps_of_the_first_epoch_and_its_optimizer_goes_on() -> None:
    config = config_of()
    learner, runner = learner_of(config), runner_of(config)
    parameter = agent_of(learner).leave
    update(learner, runner)  # 2 epochs of 2 minibatches
    assert len(agent_of(learner).unit_of) == 4 + 2
    assert agent_of(learner).leave is parameter
    assert parameter.shape == (6, 4)
    moved = parameter.detach()[4:].clone()
    assert moved.abs().max() > 0  # new rows learned in the second epoch
    update(learner, runner, 1)
    assert not torch.equal(parameter[4:6], moved)


def test_statistics_add_up_over_the_updates_of_first_epochs_until_it_grows() -> None:
    """4 updates are watched in 2 iterations: none of the second epochs, and it grows after the 4th."""
    config = config_of(patience=4)
    learner, runner = learner_of(config), runner_of(config)
    update(learner, runner)
    assert learner.growth.sums["speaker"][-1] == 2
    assert len(agent_of(learner).unit_of) == 4
    update(learner, runner, 1)
    assert not learner.growth.sums
    assert len(agent_of(learner).unit_of) == 5
    assert not agent_of(learner).watching


def test_what_is_not_watched_is_not_hooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks hold activations: only scored updates may pay for them."""
    hooked: list[bool] = []
    forward = Budding.forward

    def spy(self: Budding, *args: Any) -> Any:
        if torch.is_grad_enabled():
            hooked.append(self.watching)
        return forward(self, *args)

    monkeypatch.setattr(Budding, "forward", spy)
    config = config_of(epochs=3, minibatch=None)
    config.env_runners(num_worlds_per_env_runner=12)
    learner = learner_of(config)
    update(learner, runner_of(config))
    assert hooked == [True, True, False, False, False, False]  # both species, three epochs


def test_statistics_are_those_of_gradients_before_they_are_clipped() -> None:
    sums = []
    for limit in (1e-6, 1e6):
        config = config_of(patience=9, epochs=1, minibatch=None).training(grad_clip=limit)
        learner = learner_of(config)
        update(learner, runner_of(config))
        sums.append(learner.growth.sums["speaker"])
    assert torch.equal(*sums)
    assert (sums[0] > 0).all()


def test_a_frozen_species_does_not_grow() -> None:
    config = config_of()
    config.multi_agent(policies_to_train=["listener"])
    learner = learner_of(config)
    update(learner, runner_of(config))
    assert len(agent_of(learner).unit_of) == 4
    assert len(learner.networks["listener"].agent.unit_of) == 6


def test_statistics_that_are_not_finite_decide_nothing() -> None:
    config = config_of(epochs=1, minibatch=None)
    learner, runner = learner_of(config), runner_of(config)
    batch = runner.sample()
    batch["speaker"]["values"][...] = float("nan")
    learner.update_from_fragments([batch], [12], 0, {})
    assert len(agent_of(learner).unit_of) == 4
    assert "speaker" not in learner.growth.sums
    assert len(learner.networks["listener"].agent.unit_of) == 5


def test_the_same_seed_grows_the_same_and_another_does_not() -> None:
    def grown(seed: int) -> list[torch.Tensor]:
        config = config_of().debugging(seed=seed)
        learner, runner = learner_of(config), runner_of(config)
        for iteration in range(2):
            update(learner, runner, iteration)
        return [agent_of(learner).unit_of, agent_of(learner).enter.detach()]

    one, same, other = grown(3), grown(3), grown(4)
    assert all(map(torch.equal, one, same))
    assert not torch.equal(one[1], other[1])


def test_two_learners_grow_as_one_does_from_the_same_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics are summed before anything is decided, so both have the same rows, in the same order."""
    config = config_of(minibatch=None)
    batches = [runner_of(config).sample() for _ in range(2)]
    alone, pair = learner_of(config), [learner_of(config) for _ in range(2)]
    alone.update_from_fragments(copy.deepcopy(batches), [12, 12], 0, {})
    both = TwoLearners()
    both.patch(monkeypatch)
    both.run(lambda rank: pair[rank].update_from_fragments(copy.deepcopy(batches), [12, 12], 0, {}))
    for name, network in alone.networks.items():
        state = network.state_dict()
        assert len(state["agent.unit_of"]) == 5
        for learner in pair:
            for key, value in learner.networks[name].state_dict().items():
                torch.testing.assert_close(value, state[key], atol=1e-5, rtol=1e-4, msg=key)
        for key, value in pair[0].networks[name].state_dict().items():
            assert torch.equal(value, pair[1].networks[name].state_dict()[key])


def test_learners_without_a_seed_agree_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    both = TwoLearners()
    both.patch(monkeypatch)
    one, other = both.run(lambda rank: agreed_seed(None, "cpu", 2))
    assert one == other
    assert agreed_seed(5, "cpu", 1) == agreed_seed(5, "cpu", 1) != agreed_seed(6, "cpu", 1)


# ---- elsewhere ----


def test_an_env_runner_takes_what_has_grown_with_the_weights() -> None:
    config = config_of()
    learner, runner = learner_of(config), runner_of(config)
    update(learner, runner)
    runner.module.set_state(learner.module.get_state())
    obs = torch.randn(2, 5, 3)
    for name, network in learner.networks.items():
        theirs = runner.module[name].agent
        assert torch.equal(theirs.unit_of, network.agent.unit_of)
        if name == "speaker":
            assert torch.equal(theirs(obs, None, {}).value, network.agent(obs, None, {}).value)
    runner.sample()


def test_a_restored_learner_goes_on_bit_for_bit() -> None:
    """Also in the middle of what it sums up, and from more rows than a new network has."""
    config = config_of(patience=3)
    learner, runner = learner_of(config), runner_of(config)
    for iteration in range(2):
        update(learner, runner, iteration)
    assert learner.growth.sums
    restored = learner_of(config)
    restored.set_state(copy.deepcopy(learner.get_state()))
    batch = runner.sample()
    for each in (learner, restored):
        each.update_from_fragments([copy.deepcopy(batch)], [12], 2, {})
    assert len(agent_of(learner).unit_of) > 5
    for name, network in learner.networks.items():
        assert not changed(restored.networks[name], weights(network))


def test_weights_alone_bring_no_sums_and_a_state_without_sums_clears_them() -> None:
    config = config_of(patience=3)
    learner, runner = learner_of(config), runner_of(config)
    fresh = copy.deepcopy(learner.get_state())
    assert "growth" not in fresh
    update(learner, runner)
    assert "growth" not in learner.get_state(components="rl_module")
    learner.set_state(learner.get_state(components="rl_module"))
    assert learner.growth.sums
    learner.set_state(fresh)
    assert not learner.growth.sums


def test_rows_of_what_is_no_parameter_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budding, "grow", lambda self, sums, generator: {nn.Parameter(torch.zeros(1)): [0]})
    config = config_of()
    with pytest.raises(UserError, match=r"agent Budding: grow\(\) has rows for what is no parameter of it"):
        update(learner_of(config), runner_of(config))


# ---- members of unequal size ----


def test_a_gradient_is_clipped_with_all_rows_of_its_owner() -> None:
    rows, own = torch.tensor([[3.0, 0.0], [0.3, 0.0], [0.0, 4.0]]), torch.tensor([[12.0], [0.4]])
    owner = torch.tensor([0, 1, 0])
    norms = clip_owned([rows, own], 2, 1.0, [owner, None])
    assert norms.tolist() == pytest.approx([13, 0.5])
    assert rows.tolist() == [pytest.approx([3 / 13, 0], abs=1e-5), pytest.approx([0.3, 0]), pytest.approx([0, 4 / 13])]
    assert own.flatten().tolist() == pytest.approx([12 / 13, 0.4], abs=1e-5)


@pytest.mark.parametrize("clip", [clip_owned, clip_values])
def test_a_member_that_owns_no_row_has_no_norm_and_vectors_have_owners_too(clip: Any) -> None:
    vector = torch.tensor([3.0, 4.0, 1.0])
    assert clip([vector], 3, 9.0, [torch.tensor([2, 2, 0])]).tolist() == pytest.approx([1, 0, 5])
    empty = torch.zeros(0, 2, 2)
    assert clip([empty], 2, 1.0, [torch.zeros(0, dtype=torch.int64)]).tolist() == [0, 0]


def test_the_rows_of_a_member_without_a_finite_gradient_do_not_move() -> None:
    parameter = nn.Parameter(torch.zeros(4, 2))
    owner = torch.tensor([1, 0, 1, 0])
    optimizer, guard = torch.optim.Adam([parameter], lr=0.1), MemberGuard("a", 2, patience=9)
    for broken in (False, True):
        parameter.grad = torch.ones(4, 2)
        parameter.grad[2, 0] = float("nan") if broken else 1.0
        before = parameter.detach().clone()
        norms = clip_owned([parameter.grad], 2, 1.0, [owner])
        assert norms.isfinite().tolist() == [True, not broken]
        guard.step([optimizer], norms, {parameter: owner})
    assert (parameter != before).any(1).tolist() == [False, True, False, True]
    assert parameter.isfinite().all()


def test_a_collective_with_weights_of_all_is_clipped_as_one_network() -> None:
    agent = nn.Module()
    agent.collective = True
    agent.own, agent.mixed = nn.Parameter(torch.zeros(2, 1)), nn.Parameter(torch.zeros(3))
    agent.own.grad, agent.mixed.grad = torch.tensor([[3.0], [0.0]]), torch.tensor([0.0, 4.0, 0.0])
    ownership = Ownership.of(agent, list(agent.parameters()), 2)
    norms = ownership.clip(clip_owned, list(agent.parameters()), 1.0)
    assert norms.tolist() == [5, 5]
    assert agent.own.grad.flatten().tolist() == pytest.approx([0.6, 0])
    assert agent.mixed.grad.tolist() == pytest.approx([0, 0.8, 0])


@pytest.mark.parametrize(
    ("owner", "sentence"),
    [
        (torch.zeros(3, dtype=torch.int64), r"owners\(\) has torch.int64 of shape \(3,\) for it"),
        (torch.zeros(4), r"owners\(\) has torch.float32"),
        (torch.tensor([0, 1, 2, 0]), r"owners\(\) names members 0 to 2 of 2"),
        (None, r"its first axis must be the 2 members"),
    ],
)
def test_every_row_must_be_some_members(owner: Any, sentence: str) -> None:
    agent = nn.Module()
    agent.weight = nn.Parameter(torch.zeros(4, 1))
    agent.owners = lambda: {} if owner is None else {agent.weight: owner}
    with pytest.raises(UserError, match=sentence):
        check_member_axis(agent, 2, "Odd")


# ---- inheriting ----


def test_a_member_inherits_weights_moments_and_statistics_of_another() -> None:
    config = config_of(members=3, most=9)
    config.env_runners(num_worlds_per_env_runner=12)
    learner, runner = learner_of(config), runner_of(config)
    update(learner, runner)
    network, parents = learner.networks["speaker"], torch.tensor([2, 0, 2])
    obs = torch.randn(1, 5, 3).expand(3, -1, -1)  # all see the same
    value, means = network.agent(obs, None, {}).value, network.returns.running_mean.clone()
    units, optimizer = network.agent.unit_of, learner.get_optimizers_for_module("speaker")[0][1]
    moment = optimizer.state[network.agent.leave]["exp_avg"].clone()
    inherit(learner.networks["speaker"], learner._optimizers("speaker"), parents)
    assert torch.equal(network.agent(obs, None, {}).value, value[parents])
    assert torch.equal(network.returns.running_mean, means[parents])
    rows = torch.cat([(units == parent).nonzero()[:, 0] for parent in parents])
    assert torch.equal(optimizer.state[network.agent.leave]["exp_avg"], moment[rows])
    update(learner, runner, 1)


def test_an_agent_whose_axes_are_the_members_inherits_without_a_word() -> None:
    config = config_of().population(agent="mlp", agent_config={"hidden": 4})
    learner, runner = learner_of(config), runner_of(config)
    update(learner, runner)
    network = learner.networks["listener"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inherit(learner.networks["listener"], learner._optimizers("listener"), torch.tensor([1, 1]))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name][[1, 1]])
    assert not torch.equal(before["agent.first.weight"][0], before["agent.first.weight"][1])
    update(learner, runner, 1)
