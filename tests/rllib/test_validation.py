"""What cannot work is refused before any work, in one sentence that names the key and the nearest valid value."""

from __future__ import annotations

from typing import Any

import pytest

from popcomm.channels import Ring, Symbols
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from tests.rllib.worlds import BanditWorld, ClockWorld

SYMBOLS = {"kind": "symbols", "vocab_size": 8, "length": 2}
APART: dict[str, Any] = {"seating": "communities", "communities": 2}


def config() -> PopulationPPOConfig:
    return PopulationPPOConfig().environment(ClockWorld).communication(messages=SYMBOLS)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.environment("swarm_v1"), r"environment.env 'swarm_v1' does not exist; did you mean 'swarm_v0'"),
        (lambda c: c.environment("no.module:env"), r"environment.env 'no.module:env' cannot be imported"),
        (lambda c: c.communication(topology={"kind": "k_nearest", "k": 2}), r"KNearest needs positions"),
        (lambda c: c.communication(topology={"kind": "rings"}), r"topology.kind 'rings' .* did you mean 'ring'"),
        (
            lambda c: c.communication(gradient="through"),
            r"communication.gradient is 'through', and for symbols",
        ),
        (lambda c: c.communication(messages={"kind": "symbols", "vocab": 8}), r"'vocab' .* did you mean 'vocab_size'"),
        (lambda c: c.communication(dropout=1.5), r"communication.dropout is 1.5, and must lie in \[0, 1\]"),
        (lambda c: c.population(agent="symbolc"), r"population.agent 'symbolc' .* did you mean 'symbolic'"),
        (lambda c: c.population(agent_config={"hiden_dim": 3}), r"'hiden_dim' .* did you mean 'hidden_dim'"),
        (lambda c: c.population(critic="centrall"), r"population.critic is 'centrall'; did you mean 'central'"),
        (lambda c: c.population(seating="mixed"), r"population.seating is 'mixed'"),
        (lambda c: c.population(communities=2), r"communities is 2, and population.seating is 'shuffled'; it needs"),
        (lambda c: c.population(mixing=0.1), r"mixing is 0.1, and population.seating is 'shuffled'; it needs 'commu"),
        (lambda c: c.population(seating="communities"), r"population.communities is 1; it needs 2 or more"),
        (lambda c: c.population(**APART, members=4, mixing=1.5), r"population.mixing is 1.5, and must .* 0 and 1"),
        (lambda c: c.population(**APART, members=4, mixing="x"), r"population.mixing is 'x', and must be a number"),
        (lambda c: c.population(seating="communities", communities=0), r"population.communities is 0, and must be a"),
        (lambda c: c.population(**APART, members=9), r"communities is 2, and 9 members of 'speaker' .* allowed: 3, 9"),
        (lambda c: c.population(**APART, members=1), r"1 members of 'speaker' .*; give it more members"),
        (lambda c: c.population(**APART, members=6), r"16 worlds .* evenly in 2 communities; the nearest .* 12 or 18"),
        (lambda c: c.population(members={"speakr": 2}), r"species 'speakr' .* did you mean 'speaker'"),
        (lambda c: c.population(members=0), r"population.members is 0"),
        (lambda c: c.population(members=7), r"is 16: 16 worlds of 2 seats cannot seat 7 members evenly.*: 14 or 21"),
        (lambda c: c.training(minibatch_size=17), r"minibatch_size is 17 worlds, larger than .* at most 16"),
        (lambda c: c.learners(num_learners=3), r"num_learners is 3, and 16 worlds.* the nearest that can: 2"),
        (lambda c: c.env_runners(rollout_fragment_length="auto"), r"rollout_fragment_length is 'auto', and must be a"),
        (lambda c: c.training(use_kl_loss=True), r"training.use_kl_loss is true"),
        (lambda c: c.evaluation(evaluation_interval=2), r"evaluation.evaluation_interval is set"),
        (lambda c: c.communication(messages="symbols"), r"communication.messages of kind 'symbols'.*vocab_size"),
        (lambda c: c.communication(messages=7), r"communication.messages is 7, and must be a mapping with 'kind'"),
        (lambda c: c.communication(dropout="x"), r"communication.dropout is 'x', and must be a number"),
        (lambda c: c.environment("swarm_v0", env_config={"num_agents": "4"}), r"environment.env_config does not fit"),
        (lambda c: c.training(lr=-1.0), r"training.lr is -1.0, and must be a number at least 0"),
        (lambda c: c.training(gamma=1.5), r"training.gamma is 1.5, and must be a number between 0 and 1"),
        (lambda c: c.training(grad_clip=-1.0), r"training.grad_clip is -1.0, and must be a number above 0"),
        (lambda c: c.acceleration(autocast="fp8"), r"acceleration.autocast is 'fp8'"),
    ],
)
def test_a_mistake_is_told_by_key_and_value(change: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        change(config()).validate()
    assert "\n" not in str(caught.value)


def test_a_central_critic_needs_a_latent_state() -> None:
    with pytest.raises(UserError, match="critic is 'central', and this environment has no latent state"):
        PopulationPPOConfig().environment(BanditWorld).population(critic="central").validate()


def test_a_bare_name_and_an_object_are_as_good_as_a_mapping() -> None:
    config().communication(topology="full").population(agent_config=None).validate()
    config().communication(messages=Symbols(8, 2), topology=Ring(1)).validate()


def test_blocks_of_worlds_suit_all_species_at_once() -> None:
    """Two seats each: 4 speakers need 2 worlds, 6 listeners 3; both together 6."""
    several = config().population(members={"speaker": 4, "listener": 6}).env_runners(num_worlds_per_env_runner=12)
    several.validate()
    assert several.balanced_block == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.training(gamma=0.0).communication(credit="step"), "training.gamma is 0, and under .* 'step'"),
        (lambda c: c.env_runners(rollout_fragment_length=1), "rollout_fragment_length is 1, and communication.credit"),
        (
            lambda c: c.environment("referential_v0", env_config={"message_cost": 0.1}),
            "message_cost is 0.1, and must be 0 with training.learn_from 'answers'",
        ),
        (
            lambda c: c.environment("referential_v0", env_config={"message_cost": 0.1}).training(learn_from="rewards"),
            "credit is 'next', which does not count environment.env_config.message_cost = 0.1",
        ),
        (lambda c: c.environment("swarm_v0"), "learn_from is 'answers', and this environment tells none"),
        (lambda c: c.communication(credit="nxt"), "communication.credit is 'nxt'; did you mean 'next'"),
    ],
)
def test_messages_that_could_not_be_credited_are_refused(change: Any, words: str) -> None:
    config = (
        PopulationPPOConfig()
        .environment("referential_v0")
        .communication(messages={"kind": "symbols", "vocab_size": 5, "length": 2}, gradient="reinforce", credit="next")
        .population(agent="gru")
        .training(learn_from="answers", gamma=0.0)
    )
    config.validate()
    with pytest.raises(UserError, match=words):
        change(config).validate()
