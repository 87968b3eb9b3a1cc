"""A setting of RLlib that would have no effect on a population is refused, and none that a user did not set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ray import cloudpickle
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from popcomm.cli import main as cli
from popcomm.cli.schema import sections
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.unsupported import REFUSED, load_paths
from tests.rllib.worlds import BanditWorld, ClockWorld

# What popcomm reads, or hands on to a method of RLlib's that it calls.
READ = """
    clip_param entropy_coeff env env_config env_runner_cls explore gamma grad_clip lambda_ lr minibatch_size
    num_env_runners num_epochs num_learners num_gpus_per_env_runner num_gpus_per_learner num_cpus_per_learner
    policies_to_train policy_mapping_fn restart_failed_sub_environments rollout_fragment_length sample_timeout_s seed
    vf_clip_param vf_loss_coeff algorithm_config_overrides_per_module _learner_class _rl_module_spec
    evaluation_duration evaluation_config evaluation_sample_timeout_s
"""
# What RLlib's Algorithm, its groups of runners and learners, and its metrics do with it, a population does, too.
RLLIBS = """
    custom_resources_for_main_process custom_resources_per_env_runner custom_resources_per_learner
    num_cpus_for_main_process num_cpus_per_env_runner placement_strategy validate_env_runners_after_construction
    max_requests_in_flight_per_env_runner delay_between_env_runner_restarts_s env_runner_health_probe_timeout_s
    env_runner_restore_timeout_s ignore_env_runner_failures max_num_env_runner_restarts restart_failed_env_runners
    min_sample_timesteps_per_iteration min_time_s_per_iteration min_train_timesteps_per_iteration stats_cls_lookup
    evaluation_interval evaluation_num_env_runners evaluation_unhealthy_workers_timeout_s
    evaluation_error_after_n_consecutive_skips log_level _use_msgpack_checkpoints _validate_config
    _dont_auto_sync_env_runner_states
"""
# What it calls, and what is a matter of popcomm.rllib.callbacks.
CALLBACKS = """
    callbacks_class callbacks_on_algorithm_init callbacks_on_checkpoint_loaded callbacks_on_env_runners_recreated
    callbacks_on_environment_created callbacks_on_episode_created callbacks_on_episode_end callbacks_on_episode_start
    callbacks_on_episode_step callbacks_on_evaluate_end callbacks_on_evaluate_offline_end callbacks_on_sample_end
    callbacks_on_evaluate_offline_start callbacks_on_evaluate_start callbacks_on_offline_eval_runners_recreated
    callbacks_on_train_result
"""
# What it keeps for itself, in a config.
KEPT = "_is_frozen _is_online _per_module_overrides _prior_exploration_config algo_class in_evaluation simple_optimizer"


def config() -> PopulationPPOConfig:
    own = PopulationPPOConfig().environment(ClockWorld)
    return own.communication(messages={"kind": "symbols", "vocab_size": 4, "length": 1})


def another(value: object) -> object:
    """A value that is not that one, of its kind where it has one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return {"mine": 1}
    return ["mine"] if isinstance(value, list) else "mine"


def test_every_setting_of_ray_is_either_used_or_refused() -> None:
    used = {*READ.split(), *RLLIBS.split(), *CALLBACKS.split(), *KEPT.split()}
    assert not used & set(REFUSED)
    assert used | set(REFUSED) == set(vars(PPOConfig()))


@pytest.mark.parametrize("attribute", REFUSED)
def test_a_refused_setting_is_told_by_its_key_and_what_to_use_instead(attribute: str) -> None:
    own = config()
    setattr(own, attribute, another(getattr(own, attribute)))
    key, instead = REFUSED[attribute]
    with pytest.raises(UserError) as caught:
        own.validate()
    assert str(caught.value).startswith(f"{key} is ")
    assert str(caught.value).endswith(instead)
    assert "\n" not in str(caught.value)


def test_keys_are_methods_and_their_keywords() -> None:
    known = {
        f"{method}.{name}" for method, takes in sections(PopulationPPOConfig).items() for name in takes.annotations
    }
    assert {key for key, _ in REFUSED.values() if "." in key} <= known


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.training(use_critic=False), r"training.use_critic is false, .*; use vf_loss_coeff 0"),
        (lambda c: c.training(grad_clip_by="norm"), r"training.grad_clip_by is 'norm', .* or 'value'"),
        (lambda c: c.training(train_batch_size_per_learner=4), r"training.train_batch_size_per_learner is 4, "),
        (lambda c: c.training(model={"fcnet_hiddens": [8]}), r"training.model is .*; use population.agent"),
        (lambda c: c.env_runners(num_envs_per_env_runner=7), r"num_envs_per_env_runner is 7, .*; use num_worlds_per_"),
        (lambda c: c.env_runners(env_to_module_connector=lambda *_: None), r"env_to_module_connector is <lambda>, "),
        (lambda c: c.multi_agent(policies={"mine"}), r"multi_agent.policies is \['mine'\], .*; species follow from"),
        (
            lambda c: c.multi_agent(policy_mapping_fn=lambda *_: "mine"),
            r"'mine' has .* which differ in what they obser",
        ),
        (lambda c: c.rl_module(model_config={"fcnet_hiddens": [8]}), r"rl_module.model_config is .*; use population"),
        (lambda c: c.rl_module(rl_module_spec=RLModuleSpec()), r"rl_module_spec is of one module, and a population"),
        (lambda c: c.rl_module(rl_module_spec=spec(model_config={})), r"of 'speaker' says more than load_state_path"),
        (lambda c: c.rl_module(rl_module_spec=spec("speakr")), r"species 'speakr' .* did you mean 'speaker'"),
        (lambda c: c.learners(local_gpu_idx=3), r"learners.local_gpu_idx is 3, .*; .* use learners.num_gpus_per_"),
        (lambda c: overridden(c, "speaker", use_gae=False), r"training.use_gae of species 'speaker' is false"),
        (lambda c: overridden(c, "speakr", lr=0.1), r"the species 'speakr' .* did you mean 'speaker'"),
        (lambda c: c.framework(tf_session_args={"a": np.zeros(3)}), r"framework.tf_session_args is "),
        (lambda c: c.training(learning_rate=0.1), r"training.learning_rate does not exist; did you mean 'lr'"),
    ],
)
def test_what_users_of_rllib_write_is_answered(change: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        change(config()).validate()


def spec(species: str = "speaker", **settings: Any) -> MultiRLModuleSpec:
    return MultiRLModuleSpec(rl_module_specs={species: RLModuleSpec(**settings)})


def overridden(own: PopulationPPOConfig, species: str, **settings: Any) -> PopulationPPOConfig:
    return own.multi_agent(algorithm_config_overrides_per_module={species: PPOConfig.overrides(**settings)})


def test_nothing_is_refused_that_validation_itself_filled_in() -> None:
    own = config()
    PopulationPPOConfig.from_dict(own.to_dict()).validate()  # as RLlib's Algorithm does with it
    own.validate()
    own.validate()
    own.env_runners(num_worlds_per_env_runner=8).validate()
    own.environment(BanditWorld).validate()  # other species
    own.get_evaluation_config_object().validate()
    copies = own.copy(copy_frozen=False), cloudpickle.loads(cloudpickle.dumps(own))
    for copy in (*copies, PopulationPPOConfig.from_dict(own.to_dict())):
        copy.env_runners(num_worlds_per_env_runner=4).validate()


def test_the_species_by_their_names_and_what_acts_after_all_are_taken() -> None:
    config().multi_agent(policies={"speaker", "listener"}).validate()
    config().training(grad_clip_by="value").validate()
    config().learners(local_gpu_idx=1, num_gpus_per_learner=1).validate()
    overridden(config(), "speaker", lr=0.1).validate()


def test_the_folder_of_a_species_weights_is_handed_to_rllib() -> None:
    own = config().rl_module(rl_module_spec=spec(load_state_path="weights"))
    own.validate()
    assert load_paths(own) == {"speaker": "weights"}
    paths = {name: s.load_state_path for name, s in own.get_multi_rl_module_spec().rl_module_specs.items()}
    assert paths == {"speaker": "weights", "listener": None}


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"use_critic": False}, "training.use_critic is false, and has no effect here; use vf_loss_coeff 0"),
        ({"learning_rate": 0.1}, "training.learning_rate does not exist; did you mean 'lr'?"),
    ],
)
def test_a_yaml_file_gets_the_same_sentence_before_any_work(
    training: dict[str, Any],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    document = {"environment": {"env": "swarm_v0"}, "training": training, "stop": {"training_iteration": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    assert cli.main(["train", "run.yaml", "--run-dir", "r"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_key_of_a_dict_that_does_not_exist_is_told_with_the_nearest() -> None:
    space = {"env": "swarm_v0", "env_config": {"num_agents": 2}, "learning_rate": 0.1}
    with pytest.raises(UserError, match="the setting 'learning_rate' does not exist; did you mean 'lr'"):
        PopulationPPOConfig().update_from_dict(space)
    space["lr"] = space.pop("learning_rate")
    config = PopulationPPOConfig().update_from_dict(space)
    config.validate()
    assert (config.layout.num_agents, config.lr) == (2, 0.1)


@pytest.mark.parametrize("settings", [{"num_epochs": 5}, {"minibatch_size": 3}, {"seed": 9}])
def test_what_is_one_for_all_species_cannot_be_one_species_own(settings: dict[str, Any]) -> None:
    ((key, value),) = settings.items()
    with pytest.raises(UserError, match=rf"of 'speaker' has {key} {value}, which is one for all species; .* lr, "):
        overridden(config(), "speaker", **settings).validate()
    overridden(config(), "speaker", lr=0.1, gamma=0.5).validate()


def test_a_key_of_one_species_that_does_not_exist_is_told() -> None:
    own = config().multi_agent(algorithm_config_overrides_per_module={"speaker": {"learning_rate": 0.1}})
    with pytest.raises(UserError, match="'learning_rate' does not exist; did you mean 'lr'"):
        own.validate()


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("env_runners", "num_workers", "env_runners.num_workers does not exist; did you mean 'num_env_runners'"),
        ("training", "n_steps", "training.n_steps does not exist; 'rollout_fragment_length' is a key of 'env_runners'"),
        ("training", "num_env_runners", "'num_env_runners' is a key of 'env_runners'"),
        ("environment", "env_name", "environment.env_name does not exist"),
        ("fault_tolerance", "max_empty_iteration", "did you mean 'max_empty_iterations'"),
    ],
)
def test_a_keyword_that_a_method_does_not_take_is_told(method: str, given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        getattr(config(), method)(**{given: 1})
