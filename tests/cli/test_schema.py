"""YAML -> config: what is read, what reaches the config, and the exact sentence for each kind of mistake."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Set
from pathlib import Path
from typing import Any

import pytest

from popcomm.agents import AGENTS
from popcomm.cli import schema
from popcomm.cli.documents import dump, shipped
from popcomm.cli.types import convert
from popcomm.envs import WORLDS
from popcomm.envs.swarm_v0 import SwarmWorld
from popcomm.errors import ALSO_CALLED, UserError
from popcomm.rllib import PopulationPPOConfig

ENVIRONMENT = {"env": "swarm_v0", "env_config": {"num_agents": 4}}


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    return file


def applied(**sections: dict[str, Any]) -> PopulationPPOConfig:
    return schema.apply({"environment": ENVIRONMENT, **sections}, PopulationPPOConfig())


def mistake(**sections: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        applied(**sections)
    return str(caught.value)


# ---- reading ----


def test_a_number_in_scientific_notation_without_a_point_is_a_number(tmp_path: Path) -> None:
    assert schema.load(written(tmp_path, "training: {lr: 3e-4, seed: 7}")) == {"training": {"lr": 0.0003, "seed": 7}}


def test_text_that_only_begins_like_a_number_stays_text(tmp_path: Path) -> None:
    assert schema.load(written(tmp_path, "a: {b: 3e-4x, c: 1e}")) == {"a": {"b": "3e-4x", "c": "1e"}}


def test_a_duplicate_key_is_told_with_file_and_line(tmp_path: Path) -> None:
    file = written(tmp_path, "training:\n  lr: 1.0\n  gamma: 0.9\n  lr: 2.0\n")
    with pytest.raises(UserError, match=r"run.yaml: line 4, column 3: the key 'lr' stands twice"):
        schema.load(file)


def test_a_duplicate_section_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2, column 1: the key 'training' stands twice"):
        schema.load(written(tmp_path, "training: {}\ntraining: {}\n"))


def test_a_key_stands_once_where_what_is_merged_has_it_too(tmp_path: Path) -> None:
    text = "a: &a {x: 1}\nz: {y: &b {<<: *a, x: 2}}\nc: {<<: *b}\n"
    assert schema.load(written(tmp_path, text)) == {"a": {"x": 1}, "z": {"y": {"x": 2}}, "c": {"x": 2}}
    with pytest.raises(UserError, match="line 2, column 19: the key 'x' stands twice"):
        schema.load(written(tmp_path, "a: &a {x: 1}\nb: {<<: *a, x: 2, x: 3}\n"))


def test_what_is_merged_replaces_nothing_and_of_several_the_first_counts(tmp_path: Path) -> None:
    text = "a: &a {lr: 1, x: 1}\nb: &b {lr: 2, y: 2}\nc: {<<: [*a, *b], x: 3}\n"
    assert schema.load(written(tmp_path, text))["c"] == {"lr": 1, "x": 3, "y": 2}
    with pytest.raises(UserError, match="line 1, column 9: << takes a mapping, or a list of them"):
        schema.load(written(tmp_path, "a: {<<: 3}"))


def test_broken_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run.yaml: line 3, column 1: expected"):
        schema.load(written(tmp_path, "training:\n  lr: [1\n"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("2020-13-45", "'2020-13-45' is no timestamp"),
        ("!!int abc", "'abc' is no int"),
        ("!!float abc", "'abc' is no float"),
        ("!!bool abc", "'abc' is no bool"),
        ("!!timestamp abc", "'abc' is no timestamp"),
        ("!!int ''", "'' is no int"),
    ],
)
def test_a_value_that_is_not_what_it_says_is_told_with_its_place(tmp_path: Path, value: str, said: str) -> None:
    with pytest.raises(UserError, match=f"run.yaml: line 2, column 5: {said}"):
        schema.load(written(tmp_path, f"a:\n b: {value}"))
    with pytest.raises(UserError, match=f"--set training.lr={value}: line 1, column 1: {said}"):
        schema.load(written(tmp_path, "training: {}"), [f"training.lr={value}"])


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "word"])
def test_a_file_without_sections_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="must hold sections such as 'environment:'"):
        schema.load(written(tmp_path, text))


def test_a_section_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.yaml: the section 'training' is 3, and must be a mapping"):
        schema.load(written(tmp_path, "training: 3"))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(b"\xff\xfe\x00training")
    with pytest.raises(UserError, match="cannot be read as text"):
        schema.load(file)


def test_an_unknown_file_names_the_nearest_shipped_one() -> None:
    with pytest.raises(UserError, match="'swarn' does not exist; did you mean 'swarm'"):
        schema.load("swarn")


def test_an_unknown_path_names_its_nearest_sibling(tmp_path: Path) -> None:
    file = written(tmp_path, "training: {}")
    with pytest.raises(UserError, match=f"did you mean '{file}'"):
        schema.load(tmp_path / "runn.yaml")


def test_a_shipped_config_is_found_with_and_without_its_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert schema.load("swarm") == schema.load("swarm.yaml")


def test_a_file_of_the_user_comes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "swarm.yaml").write_text("debugging: {seed: 99}")
    assert schema.load("swarm.yaml") == {"debugging": {"seed": 99}}


def test_what_is_dumped_is_loaded_again(tmp_path: Path) -> None:
    document = schema.load("swarm", ["training.lr=1e-7", "communication.messages=null"])
    dump(document, tmp_path / "config.yaml")
    assert schema.load(tmp_path / "config.yaml") == document


# ---- overrides ----


def test_overrides_replace_add_and_make_sections(tmp_path: Path) -> None:
    file = written(tmp_path, "training: {lr: 1.0}\nenvironment:\n")
    overrides = [
        "training.lr=3e-4",
        "training.gamma=0.5",
        "environment.env_config.num_agents=7",
        "stop.training_iteration=2",
    ]
    assert schema.load(file, overrides) == {
        "training": {"lr": 0.0003, "gamma": 0.5},
        "environment": {"env_config": {"num_agents": 7}},
        "stop": {"training_iteration": 2},
    }


def test_an_override_may_be_any_yaml(tmp_path: Path) -> None:
    file = written(tmp_path, "a: {}")
    assert schema.load(file, ["a.b={x: 1}", "a.c=null", "a.d=[1, 2]", "a.e=m:f", "a.f=a=b"])["a"] == {
        "b": {"x": 1},
        "c": None,
        "d": [1, 2],
        "e": "m:f",
        "f": "a=b",
    }


def test_an_override_of_the_search_space_names_a_key_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "tune: {param_space: {training.lr: {choice: [1]}}}")
    overrides = [
        "tune.param_space.training.lr={choice: [2]}",
        "tune.param_space.population.agent_config.depth={grid_search: [1, 2]}",
        "tune.scheduler.kind=asha",
    ]
    assert schema.load(file, overrides)["tune"] == {
        "param_space": {
            "training.lr": {"choice": [2]},
            "population.agent_config.depth": {"grid_search": [1, 2]},
        },
        "scheduler": {"kind": "asha"},
    }
    assert schema.load(file, ["tune.param_space=3"])["tune"] == {"param_space": 3}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.lr", "--set training.lr: not of the form section.key=value"),
        ("=3", "--set =3: not of the form section.key=value"),
        ("training..lr=3", "--set training..lr=3: not of the form section.key=value"),
        ("training.lr=[1", "--set training.lr=.1: line 1"),
        ("training.lr.x=1", "training.lr is 1.0, and has no key 'x'"),
        ("training=5", "the section 'training' is 5, and must be a mapping"),
    ],
)
def test_a_wrong_override_is_told(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        schema.load(written(tmp_path, "training: {lr: 1.0}"), [override])


# ---- names ----


def test_an_unknown_section_names_the_nearest() -> None:
    assert mistake(trainig={"lr": 1.0}) == "the section 'trainig' does not exist; did you mean 'training'?"


def test_methods_that_are_no_settings_are_no_sections() -> None:
    for name in ("build_algo", "validate", "copy", "get_config_for_module", "update_from_dict", "freeze", "to_dict"):
        assert f"the section '{name}' does not exist" in mistake(**{name: {}})


def test_a_key_in_place_of_a_section_names_its_section() -> None:
    assert mistake(members={}) == "members is no section; it is a key of 'population'"


def test_an_unknown_key_names_the_nearest() -> None:
    assert mistake(training={"gama": 0.9}) == "training.gama does not exist; did you mean 'gamma'?"


def test_a_key_of_another_section_names_that_section() -> None:
    said = mistake(training={"num_worlds_per_env_runner": 2})
    assert said == (
        "training.num_worlds_per_env_runner does not exist; 'num_worlds_per_env_runner' is a key of 'env_runners'"
    )


def test_a_deprecated_key_of_rllib_does_not_exist() -> None:
    assert "training.num_sgd_iter does not exist" in mistake(training={"num_sgd_iter": 3})


# As the scripts of RLlib's users, old and new, and of Stable-Baselines3's have them.
MEANT = {
    "learning_rate": "lr",
    "batch_size": "minibatch_size",
    "sgd_minibatch_size": "minibatch_size",
    "num_sgd_iter": "num_epochs",
    "n_epochs": "num_epochs",
    "gae_lambda": "lambda_",
    "lambda": "lambda_",
    "ent_coef": "entropy_coeff",
    "vf_coef": "vf_loss_coeff",
    "max_grad_norm": "grad_clip",
    "clip_range": "clip_param",
    "discount_factor": "gamma",
}


@pytest.mark.parametrize("name", MEANT)
def test_what_others_call_otherwise_is_understood(name: str) -> None:
    assert mistake(training={name: 1}) == f"training.{name} does not exist; did you mean '{MEANT[name]}'?"


@pytest.mark.parametrize(
    ("name", "meant", "home"),
    [
        ("num_workers", "num_env_runners", "'env_runners'"),
        ("num_rollout_workers", "num_env_runners", "'env_runners'"),
        ("n_envs", "num_worlds_per_env_runner", "'env_runners'"),
        ("n_steps", "rollout_fragment_length", "'env_runners'"),
        ("num_learner_workers", "num_learners", "'learners'"),
        ("checkpoint_freq", "checkpoint_every", "'recording'"),
        ("total_timesteps", "num_env_steps_sampled_lifetime", "'stop'"),
    ],
)
def test_what_others_call_otherwise_and_keep_elsewhere_is_understood(name: str, meant: str, home: str) -> None:
    assert mistake(training={name: 1}) == (f"training.{name} does not exist; did you mean '{meant}', a key of {home}?")


def test_a_section_of_before_names_the_one_of_today() -> None:
    assert mistake(rollouts={"num_workers": 1}) == "the section 'rollouts' does not exist; did you mean 'env_runners'?"


def test_every_name_that_others_use_leads_to_one_that_exists() -> None:
    known = {key for takes in schema.sections(PopulationPPOConfig).values() for key in takes.annotations}
    known |= {*schema.STOP_KEYS, *schema.sections(PopulationPPOConfig)}
    for world in WORLDS.values():
        known |= set(inspect.signature(world).parameters)
    for agent in AGENTS.values():
        known |= set(inspect.signature(agent).parameters)
    assert {name for name in ALSO_CALLED.values() if name not in known} == set()
    assert not {name for name in ALSO_CALLED if name in schema.STOP_KEYS}


def test_a_missing_environment_is_told() -> None:
    with pytest.raises(UserError, match=r"environment.env is missing; for example one of .*swarm_v0"):
        schema.apply({"training": {"lr": 1.0}}, PopulationPPOConfig())


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"environment": {"env": "swarm"}}, "environment.env 'swarm' does not exist; did you mean 'swarm_v0'?"),
        (
            {"environment": {"env": "swarm_v0", "env_config": {"num_agent": 3}}},
            "environment.env_config.num_agent does not exist; did you mean 'num_agents'?",
        ),
        (
            {"environment": {"env": "swarm_v0", "env_config": {"num_worlds": 3}}},
            "environment.env_config.num_worlds does not exist",
        ),
        ({"population": {"agent": "symbolc"}}, "population.agent 'symbolc' does not exist; did you mean 'symbolic'?"),
        (
            {"population": {"agent": "mlp", "agent_config": {"hiden": 3}}},
            "population.agent_config.hiden does not exist; did you mean 'hidden'?",
        ),
        (
            {"communication": {"messages": {"kind": "symbls"}}},
            "communication.messages.kind 'symbls' does not exist; did you mean 'symbols'?",
        ),
        (
            {"communication": {"messages": {"kind": "symbols", "vocab": 3}}},
            "communication.messages.vocab does not exist; did you mean 'vocab_size'?",
        ),
        (
            {"communication": {"topology": {"kind": "k_neares"}}},
            "communication.topology.kind 'k_neares' does not exist; did you mean 'k_nearest'?",
        ),
        ({"communication": {"topology": {"k": 3}}}, "communication.topology has no 'kind'"),
        ({"communication": {"topology": "full"}}, "must be a mapping such as {kind: full}"),
        ({"stop": {"training_iterations": 3}}, "stop.training_iterations does not exist; did you mean 'training_iter"),
    ],
)
def test_nested_names_are_checked_too(sections: dict[str, Any], said: str) -> None:
    assert said in mistake(**sections)


# ---- values ----


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"training": {"lr": "abc"}}, "training.lr is 'abc', and must be a number or "),
        ({"training": {"gamma": True}}, "training.gamma is true, and must be a number or null"),
        ({"training": {"gamma": float("nan")}}, "training.gamma is nan, and must be a number or null"),
        ({"training": {"num_epochs": 2.5}}, "training.num_epochs is 2.5, and must be a whole number or null"),
        ({"training": {"num_epochs": True}}, "training.num_epochs is true, and must be a whole number or null"),
        ({"training": {"normalize_returns": 1}}, "training.normalize_returns is 1, and must be true or false"),
        ({"training": {"normalize_returns": "yes"}}, "training.normalize_returns is 'yes', and must be true or false"),
        ({"population": {"seating": 3}}, "population.seating is 3, and must be a text"),
        ({"population": {"members": [3]}}, "population.members is [3], and must be a whole number or a mapping"),
        (
            {"environment": {"env": "swarm_v0", "env_config": {"size": "big"}}},
            "env_config.size is 'big', and must be a n",
        ),
        (
            {"communication": {"messages": {"kind": "symbols", "vocab_size": "abc"}}},
            "communication.messages.vocab_size is 'abc', and must be a whole number",
        ),
        (
            {"communication": {"topology": {"kind": "ring", "k": 1.5}}},
            "communication.topology.k is 1.5, and must be a wh",
        ),
        ({"stop": {"training_iteration": 0}}, "stop.training_iteration is 0, and must be a positive number"),
        ({"stop": {"time_total_s": float("inf")}}, "stop.time_total_s is inf, and must be a positive number"),
        ({"stop": {"time_total_s": "soon"}}, "stop.time_total_s is 'soon', and must be a number"),
    ],
)
def test_a_value_of_the_wrong_type_is_told(sections: dict[str, Any], said: str) -> None:
    assert said in mistake(**sections)


@pytest.mark.parametrize("given", [["swarm"], [], None])
def test_the_species_that_learn_are_a_list(given: Any) -> None:
    assert applied(multi_agent={"policies_to_train": given}).policies_to_train == given


@pytest.mark.parametrize("annotation", [Collection[str], Iterable[str], Set[str], Collection])
def test_a_list_stands_for_whatever_is_walked_through(annotation: Any) -> None:
    assert convert("a.b", ["x", "y"], annotation | None) == ["x", "y"]
    with pytest.raises(UserError, match=r"a.b is 'x', and must be a list.* or null"):
        convert("a.b", "x", annotation | None)


def test_a_setting_that_yaml_cannot_hold_is_told_as_a_name_of_it_and_not_as_null_alone() -> None:
    """Of every setting whose values are not all plain."""
    assert mistake(multi_agent={"policies_to_train": "swarm"}) == (
        "multi_agent.policies_to_train is 'swarm', and must be a list of texts or null or a module:attribute"
    )
    sentences = []
    for section, takes in schema.sections(PopulationPPOConfig).items():
        for key, annotation in takes.annotations.items():
            try:
                convert(f"{section}.{key}", 2.5j, annotation)
            except UserError as error:
                sentences.append(str(error))
    assert len(sentences) > 100
    assert not [sentence for sentence in sentences if sentence.endswith("must be null")]


def test_what_a_method_itself_refuses_is_a_users_mistake_with_its_section() -> None:
    # RLlib's own check inside .training().
    assert mistake(training={"grad_clip_by": "colour"}).startswith("training: ")


def test_a_quoted_number_and_a_whole_one_become_what_the_key_wants() -> None:
    config = applied(training={"lr": "3e-4", "gamma": 1, "num_epochs": 2.0})
    assert (config.lr, config.gamma, config.num_epochs) == (0.0003, 1.0, 2)
    assert isinstance(config.num_epochs, int)


def test_each_section_reaches_the_config() -> None:
    config = applied(
        communication={"messages": {"kind": "vectors", "size": 3}, "topology": {"kind": "ring", "k": 2}},
        population={"agent": "mlp", "members": {"swarm": 4}, "agent_config": {"hidden": 8}},
        env_runners={"num_env_runners": 0, "num_worlds_per_env_runner": 3, "rollout_fragment_length": 6},
        debugging={"seed": 5},
        stop={"training_iteration": 3, "episode_return_mean": -2.5},
        tune={"num_samples": 2},
    )
    assert config.messages == {"kind": "vectors", "size": 3}
    assert config.members == {"swarm": 4}
    assert config.agent_config == {"hidden": 8}
    assert (config.num_worlds_per_env_runner, config.rollout_fragment_length, config.seed) == (3, 6, 5)


def test_an_argument_that_is_a_mapping_is_no_species() -> None:
    growth = {"criterion": "raw", "edges": 3}
    config = applied(population={"agent": "bottom_up", "agent_config": {"growth": growth}})
    assert config.agent_config == {"growth": growth}


def test_silence_is_null() -> None:
    assert applied(communication={"messages": None}).messages is None


def test_stop_bounds_are_numbers_and_returns_may_be_negative() -> None:
    document = {"stop": {"episode_return_mean": -2.5, "num_env_steps_sampled_lifetime": "1e6"}}
    assert schema.stop_bounds(document) == {"episode_return_mean": -2.5, "num_env_steps_sampled_lifetime": 1e6}


def test_a_list_of_the_wrong_items_says_what_they_must_be() -> None:
    with pytest.raises(UserError, match=r"a.b is \['x'\], and must be a list of whole numbers or null"):
        convert("a.b", ["x"], list[int] | None)


def test_an_annotation_that_yaml_cannot_hold_is_not_checked() -> None:
    assert convert("a.b", 3, "Unresolvable") == 3
    assert convert("a.b", 3, type[int]) == 3


# ---- module:attribute ----


def test_a_world_class_is_imported_and_its_config_checked() -> None:
    env = "popcomm.envs.swarm_v0:SwarmWorld"
    assert applied(environment={"env": env, "env_config": {"num_agents": 3}}).layout.num_agents == 3
    said = mistake(environment={"env": env, "env_config": {"num_agent": 3}})
    assert said == "environment.env_config.num_agent does not exist; did you mean 'num_agents'?"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("no_such_module:make", "importing no_such_module says: No module named 'no_such_module'"),
        ("popcomm.envs.swarm_v0:SwarmWrld", "has no 'SwarmWrld'; did you mean 'SwarmWorld'?"),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(env: str, said: str) -> None:
    assert f"environment.env '{env}' cannot be imported: " in mistake(environment={"env": env})
    assert said in mistake(environment={"env": env})


def test_a_reference_may_name_any_class() -> None:
    assert convert("environment.env", "popcomm.envs.swarm_v0:SwarmWorld", Any) is SwarmWorld


# ---- what ships ----


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_config_is_valid_and_ends(name: str) -> None:
    document = schema.load(name)
    schema.apply(document, PopulationPPOConfig()).validate()
    assert schema.stop_bounds(document)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_line_of_a_shipped_config_has_a_comment(name: str) -> None:
    lines = shipped()[name].read_text().splitlines()
    # Sections are explained by their keys; every key below one explains itself.
    bare = [line for line in lines if line.startswith(" ") and "#" not in line]
    assert lines[0].startswith("# ")
    assert bare == []


# What decides how agents learn, and has defaults that follow what was found out.
SETTLED = {"lr", "gamma", "entropy_coeff", "vf_clip_param", "num_epochs", "minibatch_size"}
SETTLED |= {"quality_coeff", "message_balance_coeff", "rare_action_share", "entropy_over_worlds"}


@pytest.mark.parametrize(
    "name",
    ["swarm", "swarm_silent", "swarm_large", "jargon", "referential", "referential_population", "model_size_sweep"],
)
def test_a_published_experiment_does_not_follow_the_defaults(name: str) -> None:
    training = schema.load(name)["training"]
    # An entropy bonus acts on no action that is learned from answers, and naming it would be warned of.
    idle = {"entropy_coeff"} if training.get("learn_from") == "answers" else set()
    assert SETTLED - set(training) == idle


def test_the_silent_ablation_differs_in_its_communication_only() -> None:
    loud, silent = schema.load("swarm"), schema.load("swarm_silent")
    del loud["communication"]
    assert silent.pop("communication") == {"messages": None}
    assert silent == loud


def test_the_entropys_weight_may_follow_rllibs_schedule():
    pairs = [[0, 0.05], [1000, 0.0]]
    config = schema.apply(schema.load("switch_riddle", [f"training.entropy_coeff={pairs}"]), PopulationPPOConfig())
    config.validate()
    assert config.entropy_coeff == pairs


def test_environments_of_a_source_are_kept_as_names() -> None:
    document = {"environment": {"env": "vmas:navigation", "env_config": {"n_agents": 3}}}
    config = schema.apply(document, PopulationPPOConfig())
    assert (config.world, config.env_config) == ("vmas:navigation", {"n_agents": 3})
