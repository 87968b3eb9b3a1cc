"""What a training holds no longer than it needs it: with many members each of these is gigabytes."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.benchmarks.memory import status

from popcomm.rllib import learner as learner_module
from popcomm.rllib import memory
from popcomm.rllib.learner import PopulationPPOLearner
from popcomm.rllib.ppo import same
from tests.rllib.test_joint_learning import both_right, of_bits
from tests.rllib.test_learner import learner_of, update, weights
from tests.rllib.test_rollout import clock_config, runner_of


def with_members() -> Any:
    """Listeners reconstruct what speakers saw, so that their unroll has a differentiable form of all they heard."""
    config = clock_config(agent="symbolic", members=3)
    return config.training(num_epochs=2, minibatch_size=6)


def test_no_weight_has_a_gradient_when_an_update_is_over() -> None:
    config = with_members()
    learner = learner_of(config)
    update(learner, runner_of(config))
    assert all(p.grad is None for network in learner.networks.values() for p in network.parameters())


def test_a_frozen_species_is_left_with_no_gradient_either() -> None:
    config = with_members().multi_agent(policies_to_train=["listener"])
    learner = learner_of(config)
    update(learner, runner_of(config))
    assert all(p.grad is None for network in learner.networks.values() for p in network.parameters())


def test_a_joint_critic_has_no_gradient_when_it_has_learned() -> None:
    learning = of_bits()
    learning.learn({"player": both_right()}, [None], same)
    assert all(p.grad is None for p in learning.critic.parameters())


def test_an_unroll_is_let_go_before_gradients_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_members()
    learner, heard, there = learner_of(config), list[Any](), list[bool]()
    unroll, compute = learner._unroll, learner.compute_gradients

    def watched(arrays: Any) -> Any:
        run = unroll(arrays)
        heard.append(weakref.ref(run["listener"].inbox.soft))
        return run

    def computed(losses: Any) -> Any:
        there.append(heard[-1]() is not None)
        return compute(losses)

    monkeypatch.setattr(learner, "_unroll", watched)
    monkeypatch.setattr(learner, "compute_gradients", computed)
    update(learner, runner_of(config))
    assert there == [False] * 4


def test_letting_go_changes_no_bit_of_what_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    def learned() -> dict[str, dict[str, torch.Tensor]]:
        config = with_members()
        runner, learner = runner_of(config), learner_of(config)
        for iteration in range(2):
            runner.module.set_state(learner.module.get_state())
            update(learner, runner, iteration)
        return {name: weights(network) for name, network in learner.networks.items()}

    def as_it_was(self: PopulationPPOLearner, arrays: Any, totals: Any, diagnose: bool) -> None:
        kept.append(unroll(self, arrays))
        gradients = self.compute_gradients(self._losses(arrays, totals, diagnose))
        self.apply_gradients(self.postprocess_gradients(gradients))

    one, kept = learned(), list[Any]()
    unroll = PopulationPPOLearner._unroll
    monkeypatch.setattr(PopulationPPOLearner, "_unroll", lambda self, arrays: kept[-1])
    monkeypatch.setattr(PopulationPPOLearner, "_update_once", as_it_was)
    for name, two in learned().items():
        for key, value in two.items():
            assert torch.equal(one[name][key], value), key
    assert len(kept) == 8


@pytest.mark.parametrize(("many", "times"), [(1, 1), (2**40, 0)])
def test_memory_is_given_back_before_the_update_of_many_weights_alone(
    many: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[None] = []
    monkeypatch.setattr(learner_module, "MANY_WEIGHTS", many)
    monkeypatch.setattr(learner_module, "give_back", lambda: given.append(None))
    config = with_members()
    update(learner_of(config), runner_of(config))
    assert len(given) == times


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads what Linux says of memory")
def test_what_was_freed_below_something_that_stays_is_given_back() -> None:
    memory.give_back()
    pieces = [np.ones(10_000) for _ in range(1000)]  # 80 kB each, which malloc takes from its heap: 80 MB
    stays = np.ones(10_000)
    pieces.clear()
    before = status("VmRSS")
    memory.give_back()
    assert before - status("VmRSS") > 60e6
    assert stays.sum() == 10_000
