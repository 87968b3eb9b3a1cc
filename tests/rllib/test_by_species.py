"""One value for all species, or one for each: networks, members, critics, what is learned with, and who is who."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from gymnasium import spaces
from ray import cloudpickle, tune
from ray.rllib.algorithms.ppo.ppo import PPOConfig
from ray.tune.search.variant_generator import generate_variants

from popcomm.agents import GRUAgent, MLPAgent, SymbolicAgent
from popcomm.cli.schema import apply
from popcomm.envs.world import Species
from popcomm.errors import UserError
from popcomm.evolution import TopK, Truncation
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.by_species import of_species
from tests.rllib.test_learner import changed, learner_of, update, weights
from tests.rllib.test_rollout import SYMBOLS, clock_config, population_of, runner_of
from tests.rllib.worlds import ClockWorld

BOTH = {"speaker": "mlp", "listener": "symbolic"}
OF_BOTH: dict[str, Any] = {"speaker": {"hidden": 8}, "listener": {"hidden_dim": 8, "num_heads": 2}}


def game(**population: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("referential_v0", env_config={"attributes": 1, "values": 4, "rounds": 3})
        .communication(messages={"kind": "symbols", "vocab_size": 4, "length": 1})
        .population(**{"agent": BOTH, "agent_config": OF_BOTH, **population})
        .env_runners(num_worlds_per_env_runner=8, rollout_fragment_length=6)
        .training(num_epochs=1)
        .debugging(seed=1)
    )


# ---- networks ----


def test_an_mlp_that_speaks_and_a_symbolic_agent_that_listens_learn_together() -> None:
    config = game()
    runner, learner = runner_of(config), learner_of(config)
    assert isinstance(learner.networks["speaker"].agent, MLPAgent)
    assert isinstance(learner.networks["listener"].agent, SymbolicAgent)
    assert (config.plan.gradient, learner.networks["speaker"].agent.hidden) == ("relaxed", 8)
    before = {name: weights(network) for name, network in learner.networks.items()}
    for iteration in range(2):
        update(learner, runner, iteration)
        runner.module.set_state(learner.module.get_state())
    for name, network in learner.networks.items():
        assert changed(network, before[name])
    # The listener's loss reaches the speaker through its messages.
    assert "agent.message_head.weight" in changed(learner.networks["speaker"], before["speaker"])


def test_they_are_restored_and_play() -> None:
    config = game()
    learner = learner_of(config)
    update(learner, runner_of(config))
    restored = learner_of(cloudpickle.loads(cloudpickle.dumps(config)))
    restored.set_state(learner.get_state())
    for name, network in learner.networks.items():
        assert not changed(restored.networks[name], weights(network))

    class Learners:
        def get_weights(self) -> Any:
            return restored.module.get_state()

    rollout = population_of(config, Learners()).rollout(seed=3, greedy=True)
    rollout.begin()
    for _ in range(4):
        turn, _ = rollout.step()
    assert set(turn.acts) == {"speaker", "listener"}


@pytest.mark.parametrize("agent", [{"default": "mlp"}, {"speaker": "mlp", "default": GRUAgent}])
def test_the_default_is_everybody_who_is_not_named(agent: Any) -> None:
    species = clock_config(agent=agent).plan.species
    expected = {name: {"mlp": MLPAgent}.get(a := agent.get(name, agent["default"]), a) for name in species}
    assert {name: s.agent_class for name, s in species.items()} == expected


def test_keyword_arguments_for_all_are_no_mapping_by_species() -> None:
    species = clock_config(agent="mlp", agent_config={"hidden": 5}).plan.species
    assert [dict(s.agent_config) for s in species.values()] == [{"hidden": 5}] * 2
    species = clock_config(agent="mlp", agent_config={"speaker": {"hidden": 5}, "default": {}}).plan.species
    assert [dict(s.agent_config) for s in species.values()] == [{"hidden": 5}, {}]


def test_messages_are_relaxed_only_where_all_species_can_read_them_so() -> None:
    assert clock_config(agent={"speaker": "mlp", "listener": "mlp"}, gradient=None).plan.gradient == "relaxed"
    assert clock_config(agent={"speaker": "mlp", "listener": "gru"}, gradient=None).plan.gradient == "straight_through"


def test_one_species_can_have_a_central_critic() -> None:
    config = clock_config(agent="mlp", critic={"speaker": "central", "default": "independent"})
    networks = learner_of(config).networks
    assert networks["speaker"].central_critic is not None
    assert networks["listener"].central_critic is None
    assert config.plan.reads_state
    update(learner_of(config), runner_of(config))


def test_the_state_is_read_where_any_network_looks_at_it() -> None:
    assert not clock_config(agent={"speaker": "mlp", "listener": "mlp"}).plan.reads_state
    assert clock_config(agent=BOTH).plan.reads_state


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"agent": {"speaker": "mlp"}},
            r"agent says nothing of species 'listener'; name it",
        ),
        ({"agent": {"speakr": "mlp", "default": "mlp"}}, r"population.agent: the species 'speakr' .* mean 'speaker'"),
        ({"agent": {"speaker": "mpl", "default": "mlp"}}, r"population.agent 'mpl' does not exist; did you mean 'mlp'"),
        (
            {"members": {"listener": 2}},
            "population.members says nothing of species 'speaker'; name it, or give a 'default'",
        ),
        ({"members": {"default": 0}}, "population.members is 0"),
        (
            {"critic": {"speaker": "centrl", "default": "central"}},
            "population.critic is 'centrl'; did you mean 'centra",
        ),
        ({"agent_config": {"speaker": {"hidden": 4}}}, "population.agent_config says nothing of species 'listener'"),
        ({"agent_config": {"listenr": {}, "default": {}}}, r"agent_config: the species 'listenr' .* mean 'listener'"),
        (
            {"agent": BOTH, "agent_config": {"speaker": {"hiden": 3}, "default": {}}},
            r"population.agent_config of MLPAgent of species 'speaker': the key 'hiden' .* mean 'hidden'",
        ),
    ],
)
def test_a_mapping_that_leaves_a_question_open_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        clock_config(**{"agent": "mlp", **change}).validate()


def test_the_class_of_all_networks_is_told_only_where_there_is_one() -> None:
    assert clock_config(agent="mlp").plan.agent_class is MLPAgent
    with pytest.raises(UserError, match=r"population.agent is another one for each species: speaker, listener"):
        _ = clock_config(agent=BOTH).plan.agent_class


def test_a_species_without_a_name_of_its_own_is_told_with_its_agents() -> None:
    species = Species("species_0", 0, 5, 1, spaces.Discrete(2), ("a", "b", "c", "d", "e"))
    with pytest.raises(UserError, match=r"k says nothing of species 'species_0' \(a, ..., e\); name it"):
        of_species("k", {"species_1": 2}, species)


# ---- learning ----


def test_a_species_can_have_a_learning_rate_of_its_own() -> None:
    config = clock_config(agent="mlp").training(lr={"speaker": 0.0, "default": 0.01})
    runner, learner = runner_of(config), learner_of(config)
    before = {name: weights(network) for name, network in learner.networks.items()}
    told = update(learner, runner)
    assert not changed(learner.networks["speaker"], before["speaker"])
    assert changed(learner.networks["listener"], before["listener"])
    assert told["listener"]["default_optimizer_learning_rate"].peek() == 0.01
    assert config.lr == 0.01


def test_every_setting_of_learning_can_be_one_of_a_species() -> None:
    """What RLlib and the losses read is that of the species; what holds for all stays as it was."""
    values: dict[str, Any] = {
        "gamma": 0.5,
        "lambda_": 0.6,
        "clip_param": 0.3,
        "vf_clip_param": 7.0,
        "vf_loss_coeff": 0.25,
        "grad_clip": 0.125,
        "grad_clip_by": "value",
        "entropy_coeff": [[0, 0.25], [10, 0.0]],
        "normalize_returns": False,
        "rare_action_share": 0.5,
        "entropy_over_worlds": 0.25,
        "message_entropy_coeff": 0.1,
        "quality_coeff": 0.75,
        "message_balance_coeff": 0.2,
        "message_kl_coeff": 0.3,
        "message_sharpness": 0.4,
    }
    config = clock_config(agent="mlp")
    kept = {key: getattr(config, key) for key in values}
    config.training(**{key: {"speaker": value, "listener": kept[key]} for key, value in values.items()})
    config.validate()
    speaker, listener = (config.plan.species[name].settings for name in ("speaker", "listener"))
    for key, value in values.items():
        assert getattr(speaker, key) == getattr(config.get_config_for_module("speaker"), key) == value, key
        assert getattr(listener, key) == getattr(config, key) == kept[key], key
    told = update(learner_of(config), runner_of(config), steps=5)
    assert told["speaker"]["curr_entropy_coeff"].peek() == pytest.approx(0.125)
    assert told["listener"]["curr_entropy_coeff"].peek() == pytest.approx(0.05)


def test_what_is_said_later_holds_for_all_and_rllibs_overrides_hold_above_all() -> None:
    config = clock_config(agent="mlp").training(lr={"speaker": 0.5, "default": 0.25}, gamma={"default": 0.5})
    assert config.get_config_for_module("speaker").lr == 0.5
    config.training(lr=0.125)
    assert config.get_config_for_module("speaker").lr == config.plan.species["speaker"].settings.lr == 0.125
    assert config.plan.species["speaker"].settings.gamma == 0.5
    config.multi_agent(algorithm_config_overrides_per_module={"speaker": PPOConfig.overrides(gamma=0.75)})
    assert [s.settings.gamma for s in config.plan.species.values()] == [0.75, 0.5]


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"lr": {"speaker": 0.1}}, "training.lr says nothing of species 'listener'; name it, or give a 'default'"),
        (
            {"lr": {"speakr": 0.1, "default": 0.1}},
            "training.lr: the species 'speakr' does not exist; did you mean 'spe",
        ),
        ({"gamma": {"speaker": 2, "default": 1}}, "training.gamma of species 'speaker' is 2, and must be a number bet"),
        ({"quality_coeff": {"speaker": -1, "default": 0}}, "training.quality_coeff of species 'speaker' is -1"),
        ({"normalize_returns": {"speaker": 1, "default": True}}, "normalize_returns of species 'speaker' is 1, and mu"),
        ({"grad_clip_by": {"speaker": "norm", "default": "value"}}, "grad_clip_by of species 'speaker' is 'norm'"),
    ],
)
def test_a_value_of_one_species_is_checked_as_that_of_all(training: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        clock_config(agent="mlp").training(**training).validate()


def test_gamma_1_of_one_species_is_warned_of(caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, "popcomm.rllib.validation"):
        clock_config(agent="mlp").training(gamma={"speaker": 1.0, "default": 0.9}).validate()
    assert "waiting for ever" in caplog.text


# ---- who is who ----


SEATS = {"early": ["speaker_0"], "late": ["speaker_1"], "listener": ["listener_0", "listener_1"]}


def named(**environment: Any) -> PopulationPPOConfig:
    config = clock_config(agent="mlp", members={"early": 2, "default": 1})
    return config.environment(ClockWorld, **environment)


def test_named_species_have_networks_members_and_learning_of_their_own() -> None:
    config = named(species=SEATS).training(lr={"late": 0.0, "default": 0.01})
    runner, learner = runner_of(config), learner_of(config)
    assert {name: s.members for name, s in config.plan.species.items()} == {"early": 2, "late": 1, "listener": 1}
    assert config.plan.species["late"].spec.seat_species == ("early", "late", "listener", "listener")
    before = {name: weights(network) for name, network in learner.networks.items()}
    update(learner, runner)
    assert {name: bool(changed(network, before[name])) for name, network in learner.networks.items()} == {
        "early": True,
        "late": False,
        "listener": True,
    }


def test_rllibs_mapping_of_policies_is_taken_for_the_species() -> None:
    config = named()
    config.multi_agent(policies=set(SEATS), policy_mapping_fn=lambda agent, episode, **kwargs: _seat(agent))
    config.validate()
    assert {name: list(s.agents) for name, s in config.layout.species.items()} == SEATS
    assert set(config.policies) == set(SEATS)
    again = cloudpickle.loads(cloudpickle.dumps(config))
    assert again.layout == config.layout
    config.validate()


def _seat(agent: str) -> str:
    return {"speaker_0": "early", "speaker_1": "late"}.get(agent, "listener")


def test_the_mapping_that_rllib_starts_with_says_nothing() -> None:
    config = cloudpickle.loads(cloudpickle.dumps(clock_config(agent="mlp")))
    assert set(config.layout.species) == {"speaker", "listener"}


@pytest.mark.parametrize(
    ("multi_agent", "sentence"),
    [
        ({"policy_mapping_fn": lambda *_: "a"}, "environment.species and multi_agent.policy_mapping_fn both say"),
        ({"policy_mapping_fn": "mine"}, "multi_agent.policy_mapping_fn is 'mine', and must be a function"),
        ({"policies": {"early", "other"}}, "multi_agent.policies is .* species follow from"),
    ],
)
def test_what_contradicts_the_species_is_refused(multi_agent: dict[str, Any], sentence: str) -> None:
    config = named(species=SEATS)
    config.multi_agent(**multi_agent)
    with pytest.raises(UserError, match=sentence):
        config.validate()


def test_the_layout_follows_species_that_are_changed() -> None:
    config = named(species=SEATS)
    assert set(config.layout.species) == set(SEATS)
    config.environment(species=None)
    assert set(config.layout.species) == {"speaker", "listener"}
    config.environment(agent_id=True)
    assert config.layout.species["speaker"].obs_size == 5


def test_networks_see_the_seat_of_an_agent_at_the_end_of_what_it_observes() -> None:
    config = clock_config(agent="mlp").environment(ClockWorld, agent_id=True)
    runner = runner_of(config)
    for name, s in config.layout.species.items():
        obs = runner.sample().policy_batches[name]["obs"]
        assert (obs[..., -2:].argmax(-1) == [0, 1]).all()
        assert obs.shape[-1] == {"speaker": 3, "listener": 4}[name] + s.num_seats
    with pytest.raises(UserError, match=r"environment.agent_id is 1, and must be true or false"):
        clock_config(agent="mlp").environment(ClockWorld, agent_id=1).validate()


def test_all_of_it_can_be_written_in_yaml() -> None:
    document = {
        "environment": {
            "env": "referential_v0",
            "env_config": {"speakers": 2},
            "species": {"a": ["speaker_0"], "b": ["speaker_1"], "listener": ["listener_0"]},
            "agent_id": True,
        },
        "population": {
            "agent": {"a": "symbolic", "b": "popcomm.agents:MLPAgent", "default": "gru"},
            "agent_config": {"a": {"hidden_dim": 8}, "default": {"hidden": 8}},
            "members": {"a": 2, "default": 1},
            "critic": {"default": "independent"},
        },
        "training": {"lr": {"a": "1e-3", "default": [[0, 0.1], [10, 0.0]]}, "quality_coeff": {"default": 0}},
    }
    config = apply(document, PopulationPPOConfig())
    config.communication(messages=SYMBOLS).validate()
    species = config.plan.species
    assert [s.agent_class for s in species.values()] == [SymbolicAgent, MLPAgent, GRUAgent]
    assert [s.settings.lr for s in species.values()] == [0.001, [[0, 0.1], [10, 0.0]], [[0, 0.1], [10, 0.0]]]
    document["environment"]["species"] = f"{__name__}:_by_first_letter"
    config = apply(document, PopulationPPOConfig())
    assert set(config.layout.species) == {"s", "l"}


def _by_first_letter(agent: str) -> str:
    return agent[0]


@pytest.mark.parametrize(
    ("population", "sentence"),
    [
        ({"agent": {"a": "mpl"}}, r"population.agent.a 'mpl' does not exist; did you mean 'mlp'\?"),
        (
            {"agent_config": {"a": {"hiden": 1}}, "agent": "mlp"},
            r"population.agent_config.a.hiden does not .* 'hidden'",
        ),
        (
            {"agent": {"a": "mlp", "default": "gru"}, "agent_config": {"a": {"hidden": "x"}}},
            "population.agent_config.a.hidden is 'x', and must be a whole number",
        ),
        ({"members": {"a": "x"}}, "population.members is .*, and must be a whole number or a mapping"),
    ],
)
def test_a_mistake_in_yaml_is_told_with_its_species(population: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        apply({"environment": {"env": "referential_v0"}, "population": population}, PopulationPPOConfig())


# ---- values yet to be tried ----


def test_a_search_space_of_tune_is_no_mapping_by_species() -> None:
    """As Tune reads `param_space=config`: every value that it puts in is a setting of its own trial."""
    config = PopulationPPOConfig().environment("swarm_v0", env_config={"num_agents": 2}).population(agent="mlp")
    config.training(lr=tune.grid_search([1e-3, 2e-3]), entropy_coeff=tune.loguniform(1e-3, 1e-2))
    config.training(quality_coeff=tune.grid_search([0.0]), gamma={"default": tune.choice([0.8])})
    found = [spec["config"] for _, spec in generate_variants({"config": config.to_dict()})]
    trials = [PopulationPPOConfig().update_from_dict(one) for one in found]
    for trial in trials:
        trial.validate()
        own = trial.get_config_for_module("agents")
        assert own.lr == trial.lr
        assert own.quality_coeff == 0
        assert 1e-3 <= own.entropy_coeff <= 1e-2
        assert trial.learning_by_species == {"gamma": {"default": 0.8}}
    assert [trial.lr for trial in trials] == [1e-3, 2e-3]


def test_a_grid_of_tunes_is_one_value_for_all_until_a_trial_has_one() -> None:
    grid = {"grid_search": [0.1, 0.2]}
    config = PopulationPPOConfig().training(lr=grid, gamma={"speaker": grid, "default": 0.9})
    assert config.lr == grid
    assert config.learning_by_species == {"gamma": {"speaker": grid, "default": 0.9}}


# ---- selection ----

SIZES = {"speaker": 2, "listener": 10}


def selected(strategy: Any) -> PopulationPPOConfig:
    config = clock_config(agent="mlp", members=SIZES).env_runners(num_worlds_per_env_runner=10)
    return config.survival(strategy=strategy, every=1)


def test_a_strategy_that_does_not_fit_one_species_names_it() -> None:
    with pytest.raises(
        UserError, match=r"survival\.strategy of species 'speaker': k is 5, and must be at most the 2 members"
    ):
        selected({"kind": "top_k", "k": 5}).validate()


def test_each_species_may_have_a_strategy_of_its_own() -> None:
    config = selected({"speaker": {"kind": "top_k", "k": 1}, "default": {"kind": "truncation", "elites": 5}})
    config.validate()
    assert config.plan.survival is not None
    assert config.plan.survival.strategies == {"speaker": TopK(1), "listener": Truncation(5)}
    assert selected({"kind": "top_k", "k": 1}).plan.survival.strategies == {"speaker": TopK(1), "listener": TopK(1)}


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ({"speaker": {"kind": "top_k", "k": 1}}, "survival.strategy says nothing of species 'listener'"),
        (
            {"speaker": {"kind": "top_k", "k": 1}, "listner": {"kind": "top_k", "k": 1}},
            "survival.strategy: the species 'listner' does not exist; did you mean 'listener'",
        ),
        ({"k": 1}, "survival.strategy has no 'kind'"),
    ],
)
def test_strategies_by_species_are_told_when_they_are_none(strategy: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        selected(strategy).validate()


def test_a_strategy_of_a_species_that_nobody_is_selected_of_has_no_effect() -> None:
    each = {"speaker": {"kind": "top_k", "k": 1}, "listener": {"kind": "top_k", "k": 1}}
    config = selected(each).population(members={"speaker": 2, "listener": 1})
    with pytest.raises(UserError, match=r"strategy of species 'listener' has no effect: population.members of it is 1"):
        config.validate()
    with pytest.raises(UserError, match=r"strategy of species 'listener' has no effect: it does not learn; leave it"):
        selected(each).multi_agent(policies_to_train=["speaker"]).validate()
    selected({"speaker": each["speaker"]}).multi_agent(policies_to_train=["speaker"]).validate()
