"""Schedules of mutation, of the pressure of selection, and of losses: one clock, kept by the driver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments.local_training import LocalTraining

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.training_schedules import MUTATION, PRESSURE, TrainingSchedules
from popcomm.schedules import Clock, Linear
from tests.rllib.test_survival import config_of, parts

FADE = {"kind": "linear", "begin": 0, "end": 100}
RISE = {"kind": "linear", "begin": 0, "end": 64, "start": 0.0, "stop": 1.0}


def schedules(**survival: Any) -> TrainingSchedules:
    return TrainingSchedules(config_of(**survival).training(loss_schedules={"message_cost": RISE}))


def test_strengths_follow_the_clock_and_what_has_no_schedule_stays() -> None:
    own = schedules(mutation_schedule=FADE)
    assert (own.strength(MUTATION), own.strength(PRESSURE), own.losses()) == (1.0, 1.0, {"message_cost": 1.0})
    own.observe(Clock(25))
    assert (own.strength(MUTATION), own.losses()) == (0.75, {"message_cost": pytest.approx(25 / 64)})
    assert own.scalars() == {"schedules/mutation": 0.75, "schedules/loss_message_cost": pytest.approx(25 / 64)}


def test_what_a_gated_schedule_remembers_is_in_the_state_and_not_in_the_config() -> None:
    gated = {"kind": "gated", "measure": "reward", "begin": 0.0, "end": 1.0, "smoothing": 0.0}
    first, second = schedules(pressure=gated), schedules(pressure=gated)
    first.observe(Clock(1, {"reward": 0.6}))
    second.set_state(first.get_state())
    second.observe(Clock(2))
    assert second.strength(PRESSURE) == pytest.approx(0.4)
    assert schedules(pressure=gated).strength(PRESSURE) == 1.0


def test_without_pressure_nobody_is_replaced_and_at_a_half_about_half() -> None:
    training = LocalTraining(config_of(members=32, every=99, strategy={"kind": "top_k", "k": 1}), 8)
    for _ in range(4):
        training.iterate()
    survival = training.survival
    assert survival is not None

    def replaced(pressure: float) -> int:
        state = survival.get_state()
        chosen = survival.select(2, pressure=pressure).successions["swarm"].newborn.sum()
        survival.set_state(state)
        return int(chosen)

    whole = replaced(1.0)
    assert whole > 20
    assert replaced(0.0) == 0
    assert 0.25 * whole < replaced(0.5) < 0.75 * whole


def test_mutation_is_multiplied_by_its_strength() -> None:
    training = LocalTraining(config_of(mutation_std=0.08), 8)
    training.iterate()
    assert training.survival is not None
    assert training.survival.select(2, mutation=0.25).successions["swarm"].mutation_std == pytest.approx(0.02)


def test_a_loss_of_strength_0_is_as_if_it_were_not_there() -> None:
    def after(weight: float, **training: Any) -> dict[str, torch.Tensor]:
        config = config_of(strategy=None).population(agent_config={"hidden_dim": 8, "cost_weight": weight})
        one = LocalTraining(config.training(**training), 8)
        one.iterate()
        return parts(one)

    scheduled = after(5.0, loss_schedules={"message_cost": 0.0})
    without, with_it = after(0.0), after(5.0)
    assert all(torch.allclose(scheduled[key], without[key], atol=1e-6) for key in without)
    assert not all(torch.allclose(with_it[key], without[key], atol=1e-6) for key in without)


@pytest.mark.parametrize(
    ("loss", "key"),
    [
        ("quality", "quality_coeff"),
        ("message_balance", "message_balance_coeff"),
        ("message_sharpness", "message_sharpness"),
        ("message_kl", "message_kl_coeff"),
        ("message_entropy", "message_entropy_coeff"),
    ],
)
def test_losses_on_messages_have_schedules_too(loss: str, key: str) -> None:
    def after(weight: float, **training: Any) -> dict[str, torch.Tensor]:
        others = {"message_balance_coeff": 0.1, "message_sharpness": 0.0}  # of which the second is a share
        config = config_of(strategy=None).training(**{**others, key: weight}, **training, num_epochs=2)
        one = LocalTraining(config, 8)
        one.iterate()
        return {name: part for name, part in parts(one).items() if "quality" not in name}

    half = after(0.5, loss_schedules={loss: 0.5})
    same, whole = after(0.25), after(0.5)
    assert all(torch.allclose(half[name], same[name], atol=1e-6) for name in same)
    assert not all(torch.allclose(whole[name], same[name], atol=1e-6) for name in same)


def test_a_sharpness_that_is_left_open_weighs_a_sixth_at_first_and_all_of_it_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def after(**training: Any) -> dict[str, torch.Tensor]:
        one = LocalTraining(config_of(strategy=None).training(message_balance_coeff=0.5, **training), 8)
        one.iterate()
        return parts(one)

    def rising(env_steps: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
        with monkeypatch.context() as patch:
            patch.setattr(Linear, "strength", lambda self, clock: between(self, Clock(env_steps)))
            return after()

    between = Linear.strength
    for env_steps, same, other in ((0, 0.1, 0.6), (10**9, 0.6, 0.1)):
        found, alike, unlike = (
            rising(env_steps, monkeypatch),
            after(message_sharpness=same),
            after(message_sharpness=other),
        )
        assert all(torch.allclose(found[key], value, atol=1e-6) for key, value in alike.items())
        assert not all(torch.allclose(found[key], value, atol=1e-6) for key, value in unlike.items())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            config_of().training(loss_schedules={"message_costs": 0.5}),
            "the loss 'message_costs' does not exist; did",
        ),
        (
            config_of().training(loss_schedules={"message_kl": 0.5}),
            "the loss 'message_kl' does not exist",
        ),
        (config_of(mutation_schedule={"kind": "lin"}), "survival.mutation_schedule.*did you mean 'linear'"),
        (config_of(pressure=1.5), r"survival.pressure is 1.5, and must lie in \[0, 1\]"),
        (
            config_of(pressure={"kind": "gated", "measure": "rewards"}),
            "survival.pressure: measure 'rewards' does not exist; did you mean 'reward'",
        ),
        (
            config_of().training(loss_schedules={"message_cost": {"kind": "load_linear", "begin": 0, "end": 9}}),
            "training.loss_schedules.message_cost has the schedule 'load_linear', .*use 'linear'",
        ),
        (config_of().training(loss_schedules=[1]), "training.loss_schedules is .1., and must be a mapping"),
    ],
    ids=["loss", "no weight", "kind", "range", "measure", "load", "mapping"],
)
def test_what_cannot_be_is_told(config: PopulationPPOConfig, said: str) -> None:
    with pytest.raises(UserError, match=said):
        LocalTraining(config, 8)


def test_the_same_seed_gives_the_same_weights_under_schedules() -> None:
    def after() -> np.ndarray:
        config = config_of(mutation_schedule=FADE, pressure=0.5).training(loss_schedules={"message_cost": RISE})
        one = LocalTraining(config, 8)
        for _ in range(4):
            one.iterate()
        return torch.cat([value.double().flatten() for value in parts(one).values()]).numpy()

    assert np.array_equal(after(), after())


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ({"kind": "vectors", "size": 4}, "messages of the kind 'vectors' are no words, or too many, to agree on"),
        (
            {"kind": "symbols", "vocab_size": 64, "length": 11},
            "messages of the kind 'symbols' are no words, or too many",
        ),
        (None, "all are silent"),
    ],
)
def test_nothing_follows_an_agreement_that_nobody_could_measure(messages: Any, said: str) -> None:
    gated = {"kind": "gated", "measure": "agreement", "begin": 0.1, "end": 0.9}
    config = config_of(pressure=gated)
    config.validate()
    with pytest.raises(UserError) as caught:
        config.communication(messages=messages).validate()
    assert f"survival.pressure: measure is 'agreement', and {said}" in str(caught.value)
