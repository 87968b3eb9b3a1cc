"""Gradients that are missing on some learners, or not finite for some members: the others learn as they would."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from popcomm.agents.inbox import kept_finite
from popcomm.rllib.gradients import MemberGuard, sum_over_learners
from popcomm.rllib.ppo import generalised_advantages
from tests.rllib.test_learner import changed, learner_of, update, weights
from tests.rllib.test_rollout import clock_config, runner_of

NAN = float("nan")


def parameters(*gradients: list[int] | None) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.zeros(2)) for _ in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = None if gradient is None else torch.tensor(gradient, dtype=torch.float32)
    return made


def test_a_gradient_that_one_learner_lacks_counts_as_zeros_and_one_that_all_lack_stays_away() -> None:
    here: list[Any] = [[1, 2], None, None, [5, 6]]
    there: list[Any] = [[10, 20], [3, 4], None, None]
    sent: list[torch.Tensor] = []
    # What a learner sends does not depend on the others: the first round only listens.
    for learner in (here, there):
        sum_over_learners(parameters(*learner), lambda flat: (sent.append(flat.clone()), flat)[1])
    assert sent[0].shape == sent[1].shape
    for gradients, other in ((here, sent[1]), (there, sent[0])):
        learner = parameters(*gradients)
        sum_over_learners(learner, lambda flat, other=other: flat + other)
        got = [None if p.grad is None else p.grad.tolist() for p in learner]
        assert got == [[11, 22], [3, 4], None, [5, 6]]


def adam(weight: nn.Parameter) -> torch.optim.Optimizer:
    return torch.optim.Adam([weight], lr=0.1, fused=True)


def norms(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.norm(dim=1)


@pytest.mark.parametrize("good_before", [0, 2])
def test_a_member_without_a_finite_gradient_does_not_move_and_the_others_move_as_ever(good_before: int) -> None:
    """Adam's momentum would carry it on with a gradient of zero."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(good_before + 2, 3, 4, generator=generator)
    start = torch.randn(3, 4, generator=generator)
    guarded, free = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer, other = adam(guarded), adam(free)
    guard, before = MemberGuard("a", 3, patience=9), {}
    for step, gradient in enumerate(gradients):
        broken = gradient.clone()
        if step == good_before:
            broken[1, 2] = NAN
            before = {"weight": guarded.detach()[1].clone()}
            before |= {k: v[1].clone() for k, v in optimizer.state.get(guarded, {}).items() if v.ndim}
        guarded.grad, free.grad = broken, gradient.clone()
        guard.step([optimizer], norms(broken))
        other.step()
        if step == good_before:
            assert torch.equal(guarded[1], before["weight"])
            for key in ("exp_avg", "exp_avg_sq"):
                expected = before.get(key, torch.zeros(4))
                assert torch.equal(optimizer.state[guarded][key][1], expected)
    assert torch.equal(guarded[[0, 2]], free[[0, 2]])
    assert guarded.isfinite().all()
    assert guard.read() == 1
    assert guard.read() == 0


def test_a_member_without_rows_stays_where_it_is_and_is_not_counted_as_one_that_is_not_finite(caplog: Any) -> None:
    """Alone it would have had no update; whoever has rows, or a gradient from elsewhere, moves as ever."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(3, 4, 2, generator=generator)
    gradients[1, :2], rows = 0.0, torch.tensor([0, 5, 0, 5])  # 1 has rows and no gradient, 2 the other way
    guarded, free = nn.Parameter(torch.zeros(4, 2)), nn.Parameter(torch.zeros(4, 2))
    optimizer, other, guard = adam(guarded), adam(free), MemberGuard("a", 4, patience=1)
    for step, gradient in enumerate(gradients):
        guarded.grad, free.grad = gradient.clone(), gradient.clone()
        before, moments = guarded.detach().clone(), {k: v.clone() for k, v in optimizer.state.get(guarded, {}).items()}
        guard.step([optimizer], norms(gradient), None, rows if step == 1 else torch.full((4,), 5))
        other.step()
        if step == 1:
            assert torch.equal(guarded[0], before[0])
            for key in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(optimizer.state[guarded][key][0], moments[key][0])
    assert torch.equal(guarded[1:], free[1:])
    assert not torch.equal(guarded[0], free[0])
    guarded.grad, before = torch.zeros(4, 2), guarded.detach().clone()
    guard.step([optimizer], norms(guarded.grad), None, torch.zeros(4))
    assert torch.equal(guarded, before)
    assert guard.read() == 0
    assert not caplog.records


def test_minibatches_below_a_balanced_block_move_those_alone_who_play_in_them(monkeypatch: Any) -> None:
    config = clock_config(agent="mlp", members=4, seating="worlds", gradient="none")
    config.training(num_epochs=1, minibatch_size=1).env_runners(num_worlds_per_env_runner=4)
    runner, learner = runner_of(config), learner_of(config)
    once, seen = learner._update_once, []

    def noted(arrays: Any, *args: Any, **kwargs: Any) -> None:
        parameters = list(learner.networks["speaker"].agent.parameters())
        before = [p.detach().clone() for p in parameters]
        once(arrays, *args, **kwargs)
        moved = [(p != b).flatten(1).any(1) for p, b in zip(parameters, before, strict=True)]
        seen.append((arrays["speaker"]["members"].unique().tolist(), torch.stack(moved).any(0).nonzero().flatten()))

    monkeypatch.setattr(learner, "_update_once", noted)
    for iteration in range(2):
        runner.module.set_state(learner.module.get_state())
        update(learner, runner, iteration)
    assert len(seen) == 8
    assert all(moved.tolist() == playing for playing, moved in seen)


def test_members_are_named_once_and_training_ends_only_when_no_member_is_left(caplog: Any) -> None:
    weight = nn.Parameter(torch.zeros(3, 1))
    optimizer, guard = adam(weight), MemberGuard("ants", 3, patience=3)

    def step(*gradient: float) -> None:
        weight.grad = torch.tensor(gradient).view(3, 1)
        guard.step([optimizer], norms(weight.grad))

    with caplog.at_level(logging.WARNING, "popcomm.rllib.gradients"):
        for _ in range(5):
            step(1.0, NAN, float("inf"))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("the loss of members 1, 2 of species 'ants' was not finite:")
    assert told[1].startswith("the loss of members 1, 2 of species 'ants' was not finite in 3 updates in a row:")
    assert guard.read() == 10
    for _ in range(2):
        step(NAN, NAN, NAN)
    with pytest.raises(FloatingPointError, match="members 0, 1, 2 of species 'ants' was not finite in 3 updates"):
        step(NAN, NAN, NAN)
    assert weight[0] < 0
    assert not weight[1:].any()


def test_a_member_that_comes_back_counts_from_the_start_again() -> None:
    weight = nn.Parameter(torch.zeros(1, 1))
    optimizer, guard = adam(weight), MemberGuard("ant", 1, patience=2)
    for value in (NAN, 1.0, NAN, 1.0):
        weight.grad = torch.full((1, 1), value)
        guard.step([optimizer], norms(weight.grad))
    assert weight.item() == pytest.approx(-0.2, abs=1e-5)


@pytest.mark.parametrize("members", [1, 2])
def test_a_listener_whose_loss_is_not_finite_teaches_its_speakers_nothing(members: int) -> None:
    said = torch.ones(2, 3, requires_grad=True)
    heard = kept_finite(said, members)
    assert heard is not None
    (heard * torch.tensor([[1.0, 2.0, 3.0], [4.0, NAN, 5.0]])).sum().backward()
    assert said.grad is not None
    assert said.grad.tolist() == [[1, 2, 3] if members == 2 else [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("gradient", ["straight_through", "reinforce"])
def test_one_bad_member_leaves_the_others_and_the_other_species_learning(gradient: str) -> None:
    """Its values are not numbers: they must not pass through messages, seats that change hands, or norms."""
    config = clock_config(agent="mlp", members=4, gradient=gradient).training(num_epochs=2)
    config.fault_tolerance(max_nonfinite_updates=3)
    runner, learner = runner_of(config), learner_of(config)
    with torch.no_grad():
        learner.networks["listener"].agent.value_head.weight[1] = NAN
    before = {name: weights(m) for name, m in learner.networks.items()}
    for iteration in range(2):
        runner.module.set_state(learner.module.get_state())
        told = update(learner, runner, iteration)
    assert told["listener"]["num_non_finite_updates"].peek() == 2
    assert told["speaker"]["num_non_finite_updates"].peek() == 0
    assert changed(learner.networks["speaker"], before["speaker"])
    actor = learner.networks["listener"].agent.actor.weight
    moved = (actor != before["listener"]["agent.actor.weight"]).flatten(1).any(1)
    assert moved.tolist() == [True, False, True, True]
    assert learner.networks["listener"].returns.weight.tolist() == pytest.approx([0.0396, 0, 0.0396, 0.0396])


def test_a_life_whose_values_are_not_numbers_leaves_the_lives_before_and_after_on_its_seat_alone() -> None:
    """Rows: a life of one step that is cut, its final row, one that is not a number, its final row, one more."""

    def row(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32).view(1, -1, 1)

    alive, cut = row(1, 0, 1, 0, 1).bool(), row(1, 0, 1, 0, 0).bool()
    values = row(1, 2, NAN, NAN, 3, 4)
    got = generalised_advantages(row(1, 0, 1, 0, 1), values, cut & False, cut, alive, 0.5, 1.0).advantages
    assert got.flatten().isnan().tolist() == [False, False, True, False, False]
    assert got.flatten()[[0, 4]].tolist() == [1, 0]
