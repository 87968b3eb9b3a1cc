"""Weights that species have in common: one tensor in all networks, trained by all of them, kept once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.learner import PopulationPPOLearner

SPECIES = ("sensor", "processor", "actuator")
CODEC = ("codec.encoder.weight", "codec.encoder.bias", "codec.decoder.weight")
WORLDS = 12


def config_of(agent_config: Any = None, members: Any = 1, **codec: str) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("factory_v0", env_config={"machines": 2})
        .communication(messages={"kind": "vectors", "size": 3, "std": 0.1})
        .population(agent="heterogeneous", agent_config=agent_config or {"features": [8], **codec}, members=members)
        .env_runners(num_worlds_per_env_runner=WORLDS, rollout_fragment_length=6)
        .training(num_epochs=1, minibatch_size=WORLDS, grad_clip=1e6)
        .debugging(seed=3)
    )


def learner_of(config: PopulationPPOConfig) -> PopulationPPOLearner:
    config.validate()
    learner = PopulationPPOLearner(config=config, module_spec=config.get_multi_rl_module_spec())
    learner.build()
    return learner


def runner_of(learner: PopulationPPOLearner) -> PopulationEnvRunner:
    runner = PopulationEnvRunner(config=learner.config, worker_index=0)
    runner.module.set_state(learner.module.get_state())
    return runner


def codecs(networks: Any) -> dict[str, dict[str, Tensor]]:
    return {n: {k: networks[n].unwrapped().agent.get_parameter(k) for k in CODEC} for n in SPECIES}


def updated(learner: PopulationPPOLearner, iterations: int = 1) -> PopulationPPOLearner:
    for iteration in range(iterations):
        batch = runner_of(learner).sample()
        learner.update_from_fragments([batch], [WORLDS], iteration, {})
    return learner


@pytest.mark.parametrize("members", [1, 3])
def test_the_gradient_of_the_codec_is_the_sum_over_the_species(members: int) -> None:
    """Against codecs of their own with the same weights, on the same fragment."""
    shared, own = learner_of(config_of(members=members)), learner_of(config_of(members=members, codec="own"))
    with torch.no_grad():
        for name in SPECIES:
            for key, value in codecs(own.module)[name].items():
                value.copy_(codecs(shared.module)["sensor"][key])
    batch = runner_of(shared).sample()
    found = {learner: gradients_of(learner, batch) for learner in (shared, own)}
    for key in CODEC:
        parts = [found[own][codecs(own.module)[name][key]] for name in SPECIES]
        assert all(part.any() for part in parts)
        torch.testing.assert_close(
            found[shared][codecs(shared.module)["actuator"][key]], sum(parts), rtol=1e-4, atol=1e-6
        )


def gradients_of(learner: Any, batch: Any) -> dict[nn.Parameter, Tensor]:
    """Those of an update that is not made, as they are when they would be applied."""
    found: dict[nn.Parameter, Tensor] = {}

    def keep(gradients: Any) -> None:
        optimizers = [o for name in SPECIES for _, o in learner.get_optimizers_for_module(name)]
        parameters = [p for o in optimizers for p in o.param_groups[0]["params"]]
        found.update({p: p.grad.clone() for p in parameters if p.grad is not None})

    learner.apply_gradients = keep
    learner.update_from_fragments([batch], [WORLDS], 0, {})
    return found


def test_the_codec_is_one_trained_once_and_kept_once() -> None:
    learner = updated(learner_of(config_of()), 2)
    first, *others = codecs(learner.module).values()
    assert all(other[key] is first[key] for other in others for key in CODEC)
    trained = [
        p for name in SPECIES for _, o in learner.get_optimizers_for_module(name) for p in o.param_groups[0]["params"]
    ]
    assert len(trained) == len(set(trained))
    used = {id(p) for name in SPECIES for p in learner.module[name].unwrapped().parameters()}
    assert {id(p) for p in trained} == used
    kept = learner.module.get_state()
    assert {name for name in SPECIES for key in CODEC if f"agent.{key}" in kept[name]} == {"sensor"}


def test_who_plays_speaks_with_the_trained_codec() -> None:
    learner = learner_of(config_of())
    runner = runner_of(learner)
    before = [value.clone() for value in codecs(runner.module)["actuator"].values()]
    updated(learner)
    runner.module.set_state(learner.module.get_state())
    after = codecs(runner.module)["actuator"]
    assert not any(torch.equal(value, then) for value, then in zip(after.values(), before, strict=True))
    for name in SPECIES:
        for key, value in codecs(learner.module)[name].items():
            assert torch.equal(codecs(runner.module)[name][key], value)


def test_training_goes_on_bit_for_bit_from_a_state() -> None:
    one = updated(learner_of(config_of()), 2)
    other = learner_of(config_of())
    other.set_state(one.get_state())
    batch = runner_of(one).sample()
    for learner in (one, other):
        learner.update_from_fragments([batch], [WORLDS], 2, {})
    for name in SPECIES:
        weights = other.module[name].unwrapped().state_dict()
        for key, value in one.module[name].unwrapped().state_dict().items():
            assert torch.equal(value, weights[key]), key


def test_a_codec_of_its_own_is_nobody_elses() -> None:
    learner = learner_of(config_of(codec="own"))
    assert len({id(value) for of in codecs(learner.module).values() for value in of.values()}) == 9
    kept = learner.module.get_state()
    assert all(f"agent.{key}" in kept[name] for name in SPECIES for key in CODEC)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"agent_config": {"default": {"features": [8]}, "actuator": {"features": [4]}}},
            r"'codec.encoder' of population.agent is shared by species 'sensor' and 'actuator', and its weight .* is "
            r"\(1, 8, 3\) of the one and \(1, 4, 3\) of the other",
        ),
        ({"members": {"processor": 2, "default": 1}}, r"is \(1, 3\) of the one and \(2, 3\) of the other"),
        ({"agent_config": {"type": "sensors"}}, "agent_config.type 'sensors' does not exist; did you mean 'sensor'"),
    ],
)
def test_parts_that_do_not_fit_are_told_before_work_starts(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        config_of(**changes).validate()


def test_selection_of_one_species_would_tear_the_codec_apart() -> None:
    survival: dict[str, Any] = {"strategy": {"kind": "top_k", "k": 2}, "every": 2}
    with pytest.raises(UserError, match=r"shares weights between species .* use agent_config.codec 'own'"):
        config_of(members=4).survival(**survival).validate()
    config_of(members=4, codec="own").survival(**survival).validate()
