"""What cannot work is refused before any work, in one sentence that names the key and the nearest valid value."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from popcomm.agents import AgentSpec
from popcomm.channels import Ring, Symbols
from popcomm.cli import documents, schema
from popcomm.cli import main as cli
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.settings import LEFT_OPEN
from tests.rllib.worlds import BanditWorld, ClockWorld

SYMBOLS = {"kind": "symbols", "vocab_size": 8, "length": 2}
VECTORS = {"kind": "vectors", "size": 2}
APART: dict[str, Any] = {"seating": "communities", "communities": 2}


def config() -> PopulationPPOConfig:
    own = PopulationPPOConfig().environment(ClockWorld).communication(messages=SYMBOLS)
    return own.env_runners(num_worlds_per_env_runner=16)


class Plain(nn.Module):
    """A network of a user's own, which does not say what its policy acts on."""

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__()


class Featureless(Plain):
    """One that says that it has none, as a variant of an agent that has."""

    gives_features = False


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
        (
            lambda c: c.environment(time_limit="terminal"),
            r"environment.time_limit is 'terminal'; allowed: bootstrap, end",
        ),
        (lambda c: c.training(quality_coeff=-0.1), r"training.quality_coeff is -0.1, and must be a number at least 0"),
        (
            lambda c: c.training(message_balance_coeff="x"),
            r"training.message_balance_coeff is 'x', and must be a number",
        ),
        (
            lambda c: c.training(message_sharpness=1.5),
            r"training.message_sharpness is 1.5, and must be a number between 0 and 1",
        ),
        (
            lambda c: c.communication(messages=VECTORS).training(message_sharpness=0.1),
            r"message_sharpness is 0.1, a share of training.message_balance_coeff, and that is 0",
        ),
        (
            lambda c: c.communication(gradient="none").training(message_sharpness=0.1),
            r"message_sharpness is 0.1, a share of training.message_balance_coeff, and that is 0",
        ),
        (lambda c: c.training(entropy_coeff=-0.1), r"training.entropy_coeff is -0.1, and must be a number at least 0"),
        (
            lambda c: c.training(entropy_coeff=0.0, rare_action_share=0.5),
            r"rare_action_share is 0.5, a share of training.entropy_coeff, and that is 0",
        ),
        (lambda c: c.training(rare_action_share=2), r"rare_action_share is 2, and must be a number between 0 and 1"),
        (
            lambda c: c.training(entropy_coeff=0.0, entropy_over_worlds=0.5),
            r"entropy_over_worlds is 0.5, a share of training.entropy_coeff, and that is 0",
        ),
        (lambda c: c.training(entropy_over_worlds=-1), r"entropy_over_worlds is -1, and must be a number between 0"),
        (lambda c: c.training(message_kl_coeff=None), r"training.message_kl_coeff is None, and must be a number"),
        (lambda c: c.training(quality_coeff=0.5).population(agent=Plain), r"quality_coeff is 0.5, .* Plain gives no"),
        (lambda c: c.training(quality_coeff=0.5).population(agent=Featureless), r"quality_coeff .* Featureless gives"),
        (
            lambda c: c.communication(messages=VECTORS).training(message_balance_coeff=0.1),
            r"message_balance_coeff is 0.1, and messages of kind vectors have no symbols",
        ),
        (
            lambda c: c.communication(messages=VECTORS).training(message_kl_coeff=0.1),
            r"message_kl_coeff is 0.1, and vectors without noise have no probabilities",
        ),
        (
            lambda c: c.communication(messages=SYMBOLS, credit="receivers"),
            r"credit is 'receivers', and communication.gradient is 'relaxed', under which messages are no actions",
        ),
        (
            lambda c: c.communication(messages={**SYMBOLS, "relaxed": True}, gradient="reinforce"),
            r"gradient is 'reinforce', and for relaxed symbols must be one of: relaxed, through, none",
        ),
        (lambda c: c.learners(num_learners=3), r"num_learners is 3, and 16 worlds.* the nearest that can: 2"),
        (lambda c: c.env_runners(rollout_fragment_length="auto"), r"rollout_fragment_length is 'auto', and must be a"),
        (lambda c: c.training(use_kl_loss=True), r"training.use_kl_loss is true"),
        (lambda c: c.evaluation(evaluation_parallel_to_training=True), r"parallel_to_training is true, and has no"),
        (lambda c: c.communication(messages="symbols"), r"communication.messages of kind 'symbols'.*vocab_size"),
        (lambda c: c.communication(messages=7), r"communication.messages is 7, and must be a mapping with 'kind'"),
        (lambda c: c.communication(dropout="x"), r"communication.dropout is 'x', and must be a number"),
        (
            lambda c: c.environment("swarm_v0", env_config={"num_agents": "4"}),
            r"num_agents is '4', and must be",
        ),
        (lambda c: c.environment("swarm_v0", env_config={"acceleration": "4"}), r"environment.env_config does not fit"),
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


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.debugging(seed="a"), r"debugging.seed is 'a', and must be a whole number"),
        (lambda c: c.debugging(seed=1.5), r"debugging.seed is 1.5, and must be a whole number"),
        (lambda c: c.debugging(seed=True), r"debugging.seed is True, and must be a whole number"),
        (lambda c: c.debugging(seed=-3), r"debugging.seed is -3, and must be at least 0"),
        (lambda c: c.debugging(seed=2**32), r"debugging.seed is 4294967296, and must be at most 4000000000"),
        (lambda c: c.env_runners(explore="no"), r"env_runners.explore is 'no', and must be true or false"),
        (lambda c: c.env_runners(explore=None), r"env_runners.explore is None, and must be true or false"),
        (lambda c: c.acceleration(compile="no"), r"acceleration.compile is 'no', and must be true or false"),
        (lambda c: c.acceleration(tf32="yes"), r"acceleration.tf32 is 'yes', and must be true or false"),
        (
            lambda c: c.fault_tolerance(restart_failed_sub_environments="no"),
            r"fault_tolerance.restart_failed_sub_environments is 'no', and must be true or false",
        ),
        (
            lambda c: c.multi_agent(policies_to_train="speaker"),
            r"multi_agent.policies_to_train is 'speaker', and must be a list of species, a function or None",
        ),
        (
            lambda c: c.update_from_dict({"policies_to_train": "speaker"}),
            r"multi_agent.policies_to_train is 'speaker', and must be a list of species, a function or None",
        ),
        (
            lambda c: c.multi_agent(policies_to_train=["speakr"]),
            r"multi_agent.policies_to_train: the species 'speakr' does not exist; did you mean 'speaker'",
        ),
    ],
)
def test_what_is_set_in_python_is_checked_as_what_yaml_says(change: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        change(config()).validate()


@pytest.mark.parametrize("given", [["speaker"], {"speaker"}, [], None, lambda species, batch: False])
def test_the_species_that_learn_are_a_list_or_what_a_function_says(given: Any) -> None:
    made = config().multi_agent(policies_to_train=given).debugging(seed=4 * 10**9)
    made.validate()
    assert made.policies_to_train == given


@pytest.mark.parametrize("by_species", [False, True])
@pytest.mark.parametrize("key", ["lr", "entropy_coeff"])
@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        ([[0, 1e-3]], r" is \[\[0, 0.001\]\], and as a schedule must be two or more \[environment step, value\] pairs"),
        ([[0, 1e-3], [100]], r" is \[\[0, 0.001\], \[100\]\], and as a schedule must be two or more"),
        ([1e-3, 1e-4], r" is \[0.001, 0.0001\], and as a schedule must be two or more"),
        ([[100, 1e-3], [200, 1e-4]], r" begins with step 100, and its first pair must be of step 0"),
        ([[0, 1e-3], [200, 1e-4], [100, 1e-5]], r" has step 100 after 200, and its steps must ascend"),
        ([[0, -1e-3], [9, 1e-3]], r": the value at step 0 is -0.001, and must be a number at least 0, and finite"),
        ([[0, 1e-3], [9, float("inf")]], r": the value at step 9 is inf, and must be a number at least 0, and finite"),
        ([[0, "x"], [100, 1e-4]], r": the value at step 0 is 'x', and must be a number at least 0, and finite"),
        ([[0, 1e-3], ["x", 1e-4]], r": the step is 'x', and must be a number at least 0, and finite"),
        ([[0, 1e-3], [float("nan"), 1e-4]], r": the step is nan, and must be a number at least 0, and finite"),
        (float("inf"), r" is inf, and must be a number at least 0, and finite"),
    ],
)
def test_a_schedule_of_a_rate_is_checked_pair_by_pair(schedule: Any, sentence: str, key: str, by_species: bool) -> None:
    given, whose = ({"speaker": schedule, "default": 1e-3}, " of species 'speaker'") if by_species else (schedule, "")
    with pytest.raises(UserError, match=f"^training.{key}{whose}{sentence}"):
        config().training(**{key: given}).validate()


def test_a_schedule_of_a_rate_may_jump_and_end_at_zero() -> None:
    config().training(lr=[[0, 1e-3], [1e5, 1e-3], (1e5, 1e-4), [200_000, 0]]).validate()


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
    assert several.plan.balanced_block == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.training(gamma=0.0).communication(credit="step"), "training.gamma is 0, and under .* 'step'"),
        (
            lambda c: c.training(gamma=0.0).communication(credit="receivers"),
            "training.gamma is 0, and under .* 'receivers'",
        ),
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


# ---- words and reflexes ----

WORDS = {"kind": "words", "bits": 8, "min_on": 2, "max_on": 4}


def repeating(**decision: Any) -> dict[str, Any]:
    return {"reflexes": [{"kind": "word_repetition", "decision": decision}]}


def fading(reflex: str = "immediate_feedback", /, **schedule: Any) -> dict[str, Any]:
    return {"reflexes": [{"kind": reflex, "schedule": schedule}]}


# {change of `communication`: what is said of it}; the world is swarm_v0, of four agents.
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"messages": {**WORDS, "min_on": 5}}, r"messages.min_on is 5, above messages.max_on = 4; no word would pass"),
    ({"messages": {**WORDS, "bits": 65}}, r"messages.bits is 65, and must be between 1 and 64"),
    ({"messages": {**WORDS, "min_on": 0}}, r"messages.min_on is 0, and must be at least 1: .* is silence"),
    ({"messages": {**WORDS, "max_on": 9}}, r"messages.max_on is 9, and must be at most messages.bits = 8"),
    ({"messages": {**WORDS, "vocab": 155}}, r"messages.vocab is 155, and must be at most 154, the number of words"),
    ({"messages": {**WORDS, "min_onn": 2}}, r"messages.min_onn does not exist; did you mean 'min_on'"),
    ({"messages": {**WORDS, "speak_gate": 1}}, r"messages.speak_gate is 1, and must be true or false"),
    (repeating(kind="bernoulli", p=1.5), r"decision.p is 1.5, and must be a probability, from 0 to 1"),
    (repeating(kind="bernoulli", p=-0.1), r"decision.p is -0.1, and must be a probability"),
    (repeating(kind="bernoulli", p="half"), r"decision.p is 'half', and must be a number"),
    (repeating(kind="bernoulli"), r"decision of kind 'bernoulli': missing 1 required positional argument: 'p'"),
    (repeating(kind="bernouli", p=0.5), r"decision.kind 'bernouli' does not exist; did you mean 'bernoulli'"),
    (repeating(kind="per_agent", p=[0.1, 0.2]), r"decision.p has 2 probabilities, and there are 4 agents"),
    (repeating(kind="per_agent", p=[0.1, 0.2, 0.3, 2]), r"decision.p\[3\] is 2, and must be a probability"),
    (repeating(kind="local_rule", target=1.0), r"decision.target is 1.0, and must be below 1: .* 'controlled'"),
    (repeating(kind="controlled", target=1.2, brake=False), r"decision.target is 1.2 without a brake"),
    (repeating(kind="controlled", target=0.97, brake=False), r"target is 0.97 without a brake, .* at most 0.95"),
    (repeating(kind="count_min", cap=0), r"decision.cap is 0, and must be at least 1"),
    ({"reflexes": ["word_repitition"]}, r"reflexes\[0\].kind 'word_repitition' does not exist; did you mean 'word_rep"),
    ({"reflexes": [{"kind": "publishing", "rat": 2}]}, r"of kind 'publishing': .* 'rat' .*; did you mean 'rate'"),
    ({"reflexes": [{"kind": "publishing", "rate": -1}]}, r"publishing: rate is -1, and must be a number of words, 0"),
    ({"reflexes": [{"kind": "publishing", "source": [1]}]}, r"source has 1, and it is no word"),
    ({"reflexes": [{"kind": "sensory_deprivation", "mode": "noize"}]}, r"mode is 'noize'; did you mean 'noise'"),
    ({"reflexes": [{"kind": "sensory_deprivation", "who": [4]}]}, r"who has 4, and seats are 0 to 3"),
    ({"reflexes": [{"kind": "word_repetition", "slot": "hijak"}]}, r"slot is 'hijak'; did you mean 'hijack'"),
    (fading(kind="linear", begin=10, end=5), r"schedule.end is 5, before schedule.begin = 10"),
    (fading(kind="linear", begin=10), r"schedule of kind 'linear': missing 1 required positional argument: 'end'"),
    (fading(kind="lineer", begin=0, end=5), r"schedule.kind 'lineer' does not exist; did you mean 'linear'"),
    (fading(kind="gated", begin=0.9, end=0.5), r"schedule.begin is 0.9, and must be below schedule.end = 0.5"),
    (fading(kind="gated", measure="rewrad"), r"immediate_feedback: measure 'rewrad' .*; did you mean 'reward'"),
    (fading(kind="load_linear", begin=0, end=9), r"immediate_feedback has the schedule 'load_linear', .*use 'linear'"),
    ({"reflexes": "immediate_feedback"}, r"communication.reflexes"),
    ({"capacity": 0}, r"communication.capacity is 0, and must be at least 1"),
    ({"inbox": 0}, r"communication.inbox is 0, and must be at least 1"),
    ({"messages": SYMBOLS}, r"communication.reflexes act on words, and messages are symbols; use kind words"),
    (
        {"messages": {"kind": "vectors", "size": 3}},
        r"communication.reflexes act on words, and messages are vectors; use kind words",
    ),
    ({"messages": SYMBOLS, "reflexes": [], "capacity": 9}, r"communication.capacity act on words, .* are symbols"),
    ({"topology": {"kind": "routed"}}, r"communication.reflexes need inboxes, and topology routed has none"),
]


@pytest.mark.parametrize(("change", "sentence"), MISTAKES)
def test_a_mistake_with_reflexes_is_told_on_the_command_line_before_any_work(
    change: dict[str, Any],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    document = {
        "environment": {"env": "swarm_v0", "env_config": {"num_agents": 4}},
        "communication": {"messages": WORDS, "topology": {"kind": "full"}, "reflexes": ["immediate_feedback"]} | change,
        "population": {"agent": "mlp"},
        "stop": {"training_iteration": 1},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    assert cli.main(["train", "run.yaml", "--run-dir", "r"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("popcomm: run.yaml: ")
    with pytest.raises(UserError, match=sentence):
        raise UserError(said[0])
    assert not (tmp_path / "r").exists()


class Told(ClockWorld):
    """The same world, with labels."""

    num_labels = 3


def test_what_acts_in_events_needs_a_world_that_tells_them() -> None:
    def published(world: type) -> PopulationPPOConfig:
        reflexes = [{"kind": "publishing", "when": "events"}]
        return config().environment(world).communication(messages=WORDS, reflexes=reflexes).population(agent="mlp")

    published(Told).validate()
    with pytest.raises(UserError, match=r"reflexes: publishing acts in events, .* has no labels .*; use when 'always'"):
        published(ClockWorld).validate()


def test_a_gated_fade_looks_at_what_the_trainer_measures() -> None:
    def gated(measure: str, world: type) -> PopulationPPOConfig:
        change = fading("word_repetition", kind="gated", measure=measure)
        return config().environment(world).communication(messages=WORDS, **change).population(agent="mlp")

    for measure, world in (("reward", ClockWorld), ("reward", Told), ("agreement", Told)):
        gated(measure, world).validate()
    with pytest.raises(UserError, match=r"word_repetition: measure 'agrement' .*; did you mean 'agreement'"):
        gated("agrement", Told).validate()
    with pytest.raises(UserError, match=r"measure is 'agreement', and this environment has no labels .*; use 'reward'"):
        gated("agreement", ClockWorld).validate()
    with pytest.raises(UserError, match=r"word_repetition: measure 'rewards' .*; did you mean 'reward'"):
        gated("rewards", ClockWorld).validate()


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"evaluation_interval": 0}, "evaluation.evaluation_interval is 0"),
        ({"evaluation_duration": "auto"}, "evaluation.evaluation_duration is 'auto'"),
        ({"evaluation_duration_unit": "timesteps"}, "an evaluation is of whole episodes"),
        ({"evaluation_config": {"lr": 1}}, "evaluation_config: the key 'lr' does not exist"),
        ({"evaluation_config": {"explore": 1}}, "evaluation_config.explore is 1, and must be true or false"),
        ({"evaluation_intervall": 1}, "evaluation.evaluation_intervall does not exist"),
    ],
)
def test_what_an_evaluation_cannot_be_told_is_refused(told: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        PopulationPPOConfig().environment("swarm_v0").population(agent="mlp").evaluation(**told).validate()


@pytest.mark.parametrize("gradient", ["relaxed", "straight_through", "none"])
def test_a_credit_of_messages_that_are_no_actions_is_refused(gradient: str) -> None:
    with pytest.raises(UserError, match=f"credit is 'next', and communication.gradient is '{gradient}', .* leave cre"):
        config().communication(gradient=gradient, credit="next").validate()
    config().communication(messages=None, gradient=gradient, credit="next").validate()  # silence, whatever else


def test_a_credit_that_is_left_open_follows_from_gamma() -> None:
    own = config().communication(gradient="reinforce")
    assert {s.credit for s in own.plan.species.values()} == {"step"}
    own.training(gamma={"speaker": 0.0, "default": 0.9}).validate()
    assert {name: s.credit for name, s in own.plan.species.items()} == {"speaker": "next", "listener": "step"}


@pytest.mark.parametrize("name", ["referential", "referential_population", "liquid_population"])
def test_games_of_answers_can_be_learned_by_rewards_of_messages(name: str) -> None:
    """As the first lines of the files say."""
    document = documents.load(name, ["communication.gradient=reinforce"])
    own = schema.apply(document, PopulationPPOConfig())
    own.validate()
    assert {s.credit for s in own.plan.species.values() if s.species.speaks} == {"next"}


@pytest.mark.parametrize(
    ("population", "said"),
    [
        ({"agent": "gru"}, "population.agent 'gru' speaks in symbols, and messages are relaxed symbols"),
        (
            {"agent": "tiny", "agent_config": {"message_head": "autoregressive"}},
            "message_head 'autoregressive' speaks in symbols, and messages are relaxed symbols",
        ),
    ],
)
def test_agents_that_do_not_speak_in_relaxed_symbols_are_told_before_any_is_built(
    population: dict[str, Any], said: str
) -> None:
    before = torch.get_rng_state()
    with pytest.raises(UserError, match=said):
        config().communication(gradient="relaxed").population(**population).validate()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_goes_on_with_what_its_open_weights_stood_for() -> None:
    own = config()
    state = {**own.get_state(), "left_open": {**LEFT_OPEN, "quality_coeff": 0.3}}
    restored = PopulationPPOConfig.from_state(state)
    assert {s.quality_weight for s in restored.plan.species.values()} == {0.3}
    assert {s.quality_weight for s in own.plan.species.values()} == {LEFT_OPEN["quality_coeff"]}


def test_a_config_from_before_a_credit_without_effect_was_refused_still_restores() -> None:
    own = config().communication(gradient="straight_through")
    state = {key: value for key, value in own.get_state().items() if key != "left_open"}
    PopulationPPOConfig.from_state({**state, "message_credit": "next"}).validate()
    acting = PopulationPPOConfig.from_state({**state, "message_gradient": "reinforce", "message_credit": "next"})
    assert {s.credit for s in acting.plan.species.values()} == {"next"}


def test_how_many_checkpoints_are_kept_is_a_whole_number_or_all() -> None:
    assert config().keep_checkpoints is None
    config().recording(keep_checkpoints=1).validate()
    with pytest.raises(UserError, match=r"recording\.keep_checkpoints is 0, and must be a whole number of at least 1"):
        config().recording(keep_checkpoints=0).validate()
