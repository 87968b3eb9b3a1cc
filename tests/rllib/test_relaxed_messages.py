"""Messages that are made anew when they are learned from: what was heard, what would be heard, and gradients of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.rows import Rows
from popcomm.rllib.unroll import SpeciesUnroll, Unroller
from tests.rllib.test_learner import learner_of
from tests.rllib.test_rollout import runner_of
from tests.rllib.worlds import ClockWorld

KINDS: dict[str, dict[str, Any]] = {
    "relaxed": {"kind": "symbols", "vocab_size": 3, "length": 2, "relaxed": True},
    "ending": {"kind": "symbols", "vocab_size": 3, "length": 2, "relaxed": True, "end_symbol": True},
    "dru": {"kind": "dru", "size": 2, "noise": 1.0},
    "vectors": {"kind": "vectors", "size": 3, "std": 0.5},
    "exact": {"kind": "vectors", "size": 3},
}
SMALL: dict[str, dict[str, Any]] = {
    "symbolic": {"hidden_dim": 8, "num_heads": 2},
    "mlp": {"hidden": 8},
    "tiny": {"hidden_dim": 8, "num_heads": 2, "latent_tokens": 2, "depth": 1, "memory": "flare"},
}
Arrays = dict[str, dict[str, torch.Tensor]]


class OneWayWorld(ClockWorld):
    """Speakers are deaf and listeners mute, so that a fragment without memories is learned from all at once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        speaker, listener = self.species.values()
        self.species = {"speaker": replace(speaker, hears=False), "listener": replace(listener, speaks=False)}


def talking(
    kind: str, agent: str = "mlp", members: int = 1, world: type = ClockWorld, topology: Any = None, **channel: Any
) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(world, env_config={"death": 2})
        .communication(messages=KINDS[kind], topology=topology or {"kind": "full"}, **channel)
        .population(agent=agent, agent_config=SMALL[agent], members=members)
        .env_runners(num_worlds_per_env_runner=6, rollout_fragment_length=7)
        .debugging(seed=3)
    )


def sampled(runner: PopulationEnvRunner) -> Arrays:
    batches = runner.sample().policy_batches
    return {n: {k: torch.from_numpy(np.array(v)) for k, v in a.items()} for n, a in batches.items()}


def unrolled(runner: PopulationEnvRunner, arrays: Arrays, through: bool = True) -> dict[str, SpeciesUnroll]:
    seats = {name: s.seats for name, s in runner.layout.species.items()}
    networks = {name: runner.module[name] for name in arrays}
    explores = runner.config.explore
    return Unroller(networks, seats, runner.config.message_kind, through, explores=explores).run(arrays)


def assert_repeats(runner: PopulationEnvRunner, arrays: Arrays, run: dict[str, SpeciesUnroll]) -> None:
    """The unroll finds the values and log-probabilities that stand in the arrays."""
    for name, species in run.items():
        rows, mask = Rows(arrays[name], species.places, runner.module[name].spec.members), species.mask
        log_prob = runner.distributions[name].log_prob(species.outputs.action_logits, rows["actions"])
        torch.testing.assert_close(log_prob[mask], rows["action_logp"][mask], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(species.outputs.value[mask], rows["values"][mask], atol=1e-5, rtol=1e-5)
        assert int(mask.sum()) == int(arrays[name]["alive"].sum())


CHANNELS = [{}, {"noise": 0.3, "dropout": 0.2}]


@pytest.mark.parametrize("channel", CHANNELS, ids=["clean", "noisy"])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize(
    ("agent", "world"), [("mlp", ClockWorld), ("mlp", OneWayWorld), ("symbolic", ClockWorld)], ids=str
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_unroll_repeats_what_the_runner_did(
    kind: str, agent: str, world: type, members: int, channel: dict[str, float]
) -> None:
    """Over seats that change hands in the middle of a fragment, a death, and what is carried from one to the next."""
    runner = runner_of(talking(kind, agent, members, world, **channel))
    for _ in range(2):
        arrays = sampled(runner)
        assert_repeats(runner, arrays, unrolled(runner, arrays))


@pytest.mark.parametrize("agent", ["symbolic", "tiny"])
@pytest.mark.parametrize("kind", ["relaxed", "dru"])
def test_listeners_of_a_routed_channel_hear_the_same_when_they_learn(kind: str, agent: str) -> None:
    runner = runner_of(talking(kind, agent, topology={"kind": "routed", "latents": 2}, noise=0.3))
    arrays = sampled(runner)
    assert_repeats(runner, arrays, unrolled(runner, arrays))


def shift(runner: PopulationEnvRunner, size: float) -> None:
    """Other weights for what is said, the same ones for everything else."""
    generator = torch.Generator().manual_seed(11)
    for name, species in runner.layout.species.items():
        if species.speaks:
            for parameter in runner.agent(name).message_head.parameters():
                parameter.data += size * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("channel", CHANNELS, ids=["clean", "noisy"])
@pytest.mark.parametrize(
    ("agent", "world", "members"),
    [("mlp", ClockWorld, 2), ("mlp", OneWayWorld, 1), ("mlp", OneWayWorld, 2), ("symbolic", ClockWorld, 2)],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_after_a_step_receivers_hear_what_the_present_sender_says(
    kind: str, agent: str, world: type, members: int, channel: dict[str, float]
) -> None:
    """Observations do not depend on actions here: new weights and the same seed give the fragment that old noise with
    new weights stands for, and the learner's values in the old one must be those that act in the new one."""
    config = talking(kind, agent, members, world, **channel)
    old, new = runner_of(config), runner_of(config)
    arrays = sampled(old)
    shift(old, 1.0)
    shift(new, 1.0)
    again = sampled(new)
    run = unrolled(old, arrays)["listener"]
    rows = Rows({**arrays["listener"], "said_again": again["listener"]["values"]}, run.places, members)
    torch.testing.assert_close(run.outputs.value[run.mask], rows["said_again"][run.mask], atol=1e-5, rtol=1e-5)
    if agent == "mlp":  # the other's messages reach its critic in the step itself
        assert (rows["values"] - rows["said_again"])[run.mask].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("agent", "world"), [("mlp", OneWayWorld), ("mlp", ClockWorld), ("symbolic", ClockWorld)], ids=str
)
@pytest.mark.parametrize("kind", ["relaxed", "ending", "dru", "vectors"])
def test_gradients_through_messages_are_those_of_finite_differences(kind: str, agent: str, world: type) -> None:
    """Of the actions' logits of listeners, weighted at random, along a random direction of the speakers' weights; two
    members of own weights, a noisy channel, seats drawn anew within the fragment."""
    runner = runner_of(talking(kind, agent, 2, world, noise=0.3))
    arrays = {name: {key: _doubled(v) for key, v in a.items()} for name, a in sampled(runner).items()}
    runner.module.foreach_module(lambda _, module: module.double())
    parameters = list(runner.agent("speaker").parameters())
    generator = torch.Generator().manual_seed(9)
    direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]

    def functional() -> torch.Tensor:
        run = unrolled(runner, arrays)["listener"]
        logits = run.outputs.action_logits
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        return (logits * weights * run.mask.unsqueeze(-1)).sum()

    gradients = torch.autograd.grad(functional(), parameters, allow_unused=True)
    along = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None)
    ends = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            for p, d in zip(parameters, direction, strict=True):
                p += step * d
            ends.append(float(functional()))
    assert abs(along) > 1e-3
    assert along == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def _doubled(values: torch.Tensor) -> torch.Tensor:
    return values.double() if values.is_floating_point() else values


def test_no_gradient_reaches_senders_where_none_is_wanted() -> None:
    runner = runner_of(talking("relaxed", world=OneWayWorld, gradient="none"))
    arrays = sampled(runner)
    run = unrolled(runner, arrays, through=False)
    assert_repeats(runner, arrays, run)
    run["listener"].outputs.action_logits.sum().backward()
    assert all(p.grad is None for p in runner.agent("speaker").parameters())


@pytest.mark.parametrize("kind", ["relaxed", "dru"])
def test_without_exploration_what_is_said_is_discrete(kind: str) -> None:
    config = talking(kind)
    config.explore = False
    messages = sampled(runner_of(config))["speaker"]["messages"]
    assert set(messages.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("channel", [*CHANNELS, {"rounds": 1}], ids=["clean", "noisy", "rounds"])
@pytest.mark.parametrize("world", [ClockWorld, OneWayWorld])
@pytest.mark.parametrize("kind", KINDS)
def test_without_exploration_learners_hear_what_was_heard_and_senders_learn_from_it(
    kind: str, world: type, channel: dict[str, Any]
) -> None:
    config = talking(kind, world=world, **channel).env_runners(explore=False)
    runner = runner_of(config)
    for _ in range(2):
        arrays = sampled(runner)
        run = unrolled(runner, arrays)
        assert_repeats(runner, arrays, run)
    run["listener"].outputs.action_logits.square().sum().backward()
    head = runner.agent("speaker").message_head.weight
    assert head.grad is not None
    assert head.grad.abs().max() > 0
    learner = learner_of(config.training(num_epochs=1))
    told = learner.update_from_fragments([runner.sample()], [6], 0, {})
    assert told["listener"]["clipfrac"].peek() == 0
    assert told["listener"]["approx_kl"].peek() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "agent"), [("relaxed", "mlp"), ("relaxed", "tiny"), ("dru", "symbolic"), ("vectors", "mlp")]
)
def test_every_agent_that_takes_the_kind_learns_from_it(kind: str, agent: str) -> None:
    """Two members, both losses of talk, the bf16 of accelerators, language statistics and transcripts."""
    config = talking(kind, agent, 2).training(message_kl_coeff=0.1, minibatch_size=3).recording(conversation_worlds=2)
    config.autocast = "bf16"
    config.run_dir = "unwritten"
    runner, learner = runner_of(config), learner_of(config)
    before = {k: v.clone() for k, v in learner.networks["speaker"].agent.message_head.named_parameters()}
    for iteration in range(2):
        results = learner.update_from_fragments([runner.sample()], [6], iteration, {})
    for name in ("quality_loss", "message_kl", *(["message_balance"] if kind != "vectors" else [])):
        assert np.isfinite(results["speaker"][name].peek())
    assert results["__all_modules__"]["num_non_finite_updates"].peek() == 0
    for key, now in learner.networks["speaker"].agent.message_head.named_parameters():
        assert not torch.equal(now, before[key])
    rows = runner.transcript.rows()
    assert ("symbols" in rows) == (kind != "vectors")
    if kind != "vectors":
        symbols = np.stack([message for message in rows["symbols"] if message is not None])
        assert symbols.shape[1] == 2
        assert symbols.max() < (3 if kind == "relaxed" else 2)
        assert 0 < runner.statistics.language["symbol_entropy"] <= np.log2(3)


@pytest.mark.parametrize("kind", ["relaxed", "dru"])
def test_words_of_labels_are_counted_of_real_messages_too(kind: str) -> None:
    config = PopulationPPOConfig().environment("alarm_v0").communication(messages={**KINDS[kind]})
    config.population(agent="mlp", agent_config={"hidden": 8})
    config.env_runners(num_worlds_per_env_runner=4, rollout_fragment_length=8).debugging(seed=1)
    runner = runner_of(config)
    runner.sample()
    assert runner.statistics.language["distinct_modal_words"] >= 1
    # One network speaks, and agrees with itself.
    assert "agreement" not in runner.statistics.language
    assert 0 <= runner.statistics.performance["agreement"] <= 1


@pytest.mark.parametrize(
    ("agent", "agent_config", "sentence"),
    [
        ("gru", {}, r"population.agent 'gru' speaks in symbols, and messages are "),
        (
            "tiny",
            {**SMALL["tiny"], "message_head": "autoregressive"},
            r"'autoregressive' speaks in symbols, and messages",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["relaxed", "dru"])
def test_agents_that_speak_symbol_by_symbol_refuse_real_messages(
    kind: str, agent: str, agent_config: dict[str, Any], sentence: str
) -> None:
    config = talking(kind).population(agent=agent, agent_config=agent_config)
    with pytest.raises(UserError, match=sentence):
        runner_of(config)
