"""Kinds of message of a user's own: a class that says which gradients it knows is learned with like popcomm's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from popcomm.analysis.experiments.local_training import LocalTraining
from torch import Tensor

from popcomm.agents import MLPAgent
from popcomm.agents.pretrained import spec_from_json, spec_to_json
from popcomm.agents.testing import agent_api_test
from popcomm.channels import Symbols
from popcomm.channels.kinds import gradients_of
from popcomm.channels.sampling import sample_categorical
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from tests.agents.test_testing import place
from tests.rllib.test_learner import learner_of, update
from tests.rllib.test_learns_to_talk import CopyWorld
from tests.rllib.test_relaxed_messages import assert_repeats, sampled, unrolled
from tests.rllib.test_rollout import runner_of
from tests.rllib.worlds import ClockWorld


@dataclass(frozen=True)
class Letters:
    """Symbols, as a stranger would write them: `length` of `size` letters."""

    size: int
    length: int = 1
    kind: ClassVar[str] = "letters"
    gradients: ClassVar[tuple[str, ...]] = ("straight_through", "reinforce")
    dtype: ClassVar[torch.dtype] = torch.int64

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def params_shape(self) -> tuple[int, ...]:
        return (self.length, self.size)

    features_shape = params_shape

    @property
    def alphabet(self) -> int:
        return self.size

    def rule(self) -> str:
        return f"{self.length} letters"

    def space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete(np.full(self.length, self.size))

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return sample_categorical(params, generator)

    def mode(self, params: Tensor) -> Tensor:
        return params.argmax(-1)

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        return params.log_softmax(-1).gather(-1, messages.unsqueeze(-1)).sum((-1, -2))

    def entropy(self, params: Tensor) -> Tensor:
        return torch.distributions.Categorical(logits=params).entropy().sum(-1)

    def soft(self, params: Tensor) -> Tensor:
        return params.softmax(-1)

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        hard = F.one_hot(messages, self.size).float()
        return hard if soft is None else hard + soft - soft.detach()

    def probabilities(self, params: Tensor) -> Tensor:
        return params.softmax(-1)

    def load(self, messages: Tensor) -> Tensor:
        return torch.full(messages.shape[:-1], float(self.length))

    def spoken(self, messages: Tensor) -> Tensor:
        return torch.ones(messages.shape[:-1], dtype=torch.bool)

    def as_symbols(self, messages: Tensor) -> Tensor:
        return messages

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        return messages


def talking(messages: Any, agent: str = "mlp", world: Any = ClockWorld, **channel: Any) -> PopulationPPOConfig:
    sizes = {"mlp": {"hidden": 8}, "symbolic": {"hidden_dim": 8, "num_heads": 2}}
    return (
        PopulationPPOConfig()
        .environment(world, env_config={"death": 2} if world is ClockWorld else {})
        .communication(messages=messages, topology={"kind": "full"}, **channel)
        .population(agent=agent, agent_config=sizes[agent], members=2)
        .env_runners(num_worlds_per_env_runner=6, rollout_fragment_length=7)
        .debugging(seed=3)
    )


@pytest.mark.parametrize("gradient", ["straight_through", "reinforce", "none"])
@pytest.mark.parametrize("agent", ["mlp", "symbolic"])
def test_the_unroll_repeats_what_was_said_in_letters(agent: str, gradient: str) -> None:
    runner = runner_of(talking(Letters(3, 2), agent, gradient=gradient))
    for _ in range(2):
        arrays = sampled(runner)
        assert_repeats(runner, arrays, unrolled(runner, arrays, gradient == "straight_through"))


@pytest.mark.parametrize("agent", ["mlp", "symbolic"])
def test_letters_are_sampled_and_learned_like_symbols(agent: str) -> None:
    """The same weights say the same, and the gradients of what listeners do on all weights are the same."""
    own, theirs = (
        runner_of(talking(kind, agent, gradient="straight_through")) for kind in (Letters(3, 2), Symbols(3, 2))
    )
    for name in own.layout.species:
        # A stranger's message is not taken apart into symbols where it is decoded: there are no scores of them.
        own.agent(name).load_state_dict(
            {k: v for k, v in theirs.agent(name).state_dict().items() if k != "decoder.scores"}
        )
    arrays = sampled(own)
    for name, expected in sampled(theirs).items():
        assert torch.equal(arrays[name]["messages"], expected["messages"])
    for runner in (own, theirs):
        outputs = unrolled(runner, arrays)["listener"].outputs
        (outputs.value.sum() + outputs.action_logits.square().sum()).backward()
    for name in own.layout.species:
        known = dict(theirs.agent(name).named_parameters())
        for key, got in own.agent(name).named_parameters():
            assert (got.grad is None) == (known[key].grad is None)
            if got.grad is not None:
                torch.testing.assert_close(got.grad, known[key].grad, atol=1e-6, rtol=1e-4)
    assert own.agent("speaker").message_head.weight.grad.any()


def test_an_update_as_actions_changes_what_is_said() -> None:
    runner = runner_of(config := talking(Letters(3, 2), gradient="reinforce"))
    learner = learner_of(config)
    before = learner.networks["speaker"].agent.message_head.weight.detach().clone()
    update(learner, runner)
    assert not torch.equal(learner.networks["speaker"].agent.message_head.weight, before)
    assert {"symbol_entropy", "vocabulary_used"} <= runner.statistics.language.keys()


def test_a_speaker_and_a_listener_learn_a_code_of_letters() -> None:
    config = talking(f"{__name__}:Letters", world=CopyWorld)
    config.communication(messages={"kind": f"{__name__}:Letters", "size": 4})
    config.population(members=1, agent_config={"hidden": 32}).env_runners(
        num_worlds_per_env_runner=64, rollout_fragment_length=6
    )
    training = LocalTraining(config, evaluation_worlds=256)
    for _ in range(60):
        training.iterate()
    assert training.point().greedy >= 0.9


def test_agents_keep_their_contract_with_letters() -> None:
    agent_api_test(MLPAgent, {"hidden": 8}, place(Letters(4, 2)))


def test_letters_are_saved_by_the_name_of_their_class() -> None:
    spec = place(Letters(4, 2))
    saved = spec_to_json(spec)
    assert saved["messages"] == {"kind": "tests.rllib.test_own_kinds:Letters", "size": 4, "length": 2}
    assert spec_from_json(saved).messages == spec.messages


class Mute(Letters):
    """Knows no gradient."""

    gradients = ()


class Bold(Letters):
    """Knows a gradient that there is none of."""

    gradients = ("straight_thru",)


class Hasty(Letters):
    """Would be made anew from noise, and has none."""

    gradients = ("through",)


class Twofold(Letters):
    """Is said in training as symbols on the simplex."""

    gradients = ("reinforce", "relaxed")

    def on_simplex(self) -> Any:
        return Symbols(self.size, self.length).on_simplex()


class Wordless:
    """No kind of message, but for the one method by which objects are told from mappings."""

    kind = "wordless"

    def sample(self, params: Tensor) -> Tensor:
        return params


@pytest.mark.parametrize(
    ("messages", "gradient", "sentence"),
    [
        (
            Letters(3),
            "through",
            "gradient is 'through', and for letters must be one of: straight_through, reinforce, none",
        ),
        (Letters(3), "relaxed", "gradient is 'relaxed', and for letters must be one of"),
        (Mute(3), "reinforce", r"must be one of: none \(a class of your own names what else it knows in `gradients`\)"),
        (
            Bold(3),
            None,
            r"the kind 'letters': in gradients, the name 'straight_thru' .* did you mean 'straight_through'",
        ),
        (
            Hasty(3),
            None,
            "the kind 'letters' has no 'noise_shape', which 'through' in its gradients needs",
        ),
        (Wordless(), None, "the kind 'wordless' has no 'shape'; popcomm.channels.MessageKind says"),
    ],
)
def test_what_a_kind_does_not_know_is_refused_by_name(messages: Any, gradient: str | None, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        talking(messages, gradient=gradient).validate()


def test_the_gradient_that_a_kind_names_first_is_its_usual_one() -> None:
    assert talking(Letters(3)).plan.gradient == "straight_through"
    assert talking(Mute(3)).plan.gradient == "none"
    assert talking(Twofold(3)).plan.gradient == "reinforce"
    assert gradients_of(Letters(3)) == ("straight_through", "reinforce", "none")


def test_relaxed_is_learned_with_what_the_kind_is_in_training() -> None:
    config = talking(Twofold(3), gradient="relaxed")
    config.validate()
    assert config.plan.message_kind == Symbols(3, 1).on_simplex()
