"""The settings of RLlib that a population has no use for, and what to use instead."""

from __future__ import annotations

SPACES = "spaces are those that the environment declares"
BOUNDS = "Box actions are mapped to the bounds of their space; a Box without bounds takes the networks' own numbers"
SPECIES = (
    "species follow from the environment's spaces, or from environment.species or multi_agent.policy_mapping_fn; see "
    "population.members and multi_agent.policies_to_train"
)
NETWORK = "use population.agent and population.agent_config"
CONNECTORS = "observations and actions pass no connectors; wrap the environment, or write a population.agent"
FILTER = "agents see observations as they are; scale them in the environment"
WHOLE_BATCH = "a batch is what all runners sample; use num_worlds_per_env_runner and rollout_fragment_length"
COMPILE = "use acceleration.compile"
TORCH = "populations are torch networks"
STACK = "populations live on RLlib's new API stack alone"
WORLDS = "worlds are stepped as one tensor; use num_worlds_per_env_runner"
EVALUATION = "an evaluation is of whole episodes, between iterations; use evaluation_interval and evaluation_duration"
OFFLINE = "populations learn from what they live through; use recording.run_dir to keep what was said"
ITERATION = "metrics are those of each iteration; smooth them where you draw them"
ENVIRON = 'use ray.init(runtime_env={"env_vars": ...})'
OWN_LEARNER = "use training.learner_class, a PopulationPPOLearner of your own"
GONE = "RLlib gave it up"

EVALUATION_KEYS = """
    evaluation_duration_unit evaluation_auto_duration_min_env_steps_per_sample
    evaluation_auto_duration_max_env_steps_per_sample evaluation_parallel_to_training
    evaluation_force_reset_envs_before_iteration off_policy_estimation_methods ope_split_batch_by_episode
    custom_evaluation_function offline_evaluation_interval num_offline_eval_runners offline_evaluation_type
    offline_eval_runner_class offline_loss_for_module_fn offline_evaluation_timeout_s
    num_cpus_per_offline_eval_runner num_gpus_per_offline_eval_runner custom_resources_per_offline_eval_runner
    restart_failed_offline_eval_runners ignore_offline_eval_runner_failures max_num_offline_eval_runner_restarts
    offline_eval_runner_restore_timeout_s max_requests_in_flight_per_offline_eval_runner
    validate_offline_eval_runners_after_construction offline_eval_runner_health_probe_timeout_s
    offline_eval_rl_module_inference_only broadcast_offline_eval_runner_states offline_eval_batch_size_per_runner
"""
OFFLINE_KEYS = """
    input_ offline_data_class input_read_method input_read_method_kwargs input_read_schema input_read_episodes
    input_read_sample_batches input_read_batch_size input_filesystem input_filesystem_kwargs input_compress_columns
    materialize_data materialize_mapped_data map_batches_kwargs iter_batches_kwargs
    ignore_final_observation prelearner_class prelearner_buffer_class prelearner_buffer_kwargs
    prelearner_module_synch_period prelearner_use_recorded_module_states dataset_num_iters_per_learner input_config
    actions_in_input_normalized postprocess_inputs shuffle_buffer_size output output_config output_compress_columns
    output_max_file_size output_max_rows_per_file output_write_remaining_data output_write_method
    output_write_method_kwargs output_filesystem output_filesystem_kwargs output_write_episodes offline_sampling
"""
# Attributes that no method sets any more.
GONE_KEYS = """
    env_task_fn enable_connectors monitor evaluation_num_episodes metrics_smoothing_episodes timesteps_per_iteration
    min_iter_time_s collect_metrics_timeout min_time_s_per_reporting min_train_timesteps_per_reporting
    min_sample_timesteps_per_reporting input_evaluation policy_map_cache worker_cls synchronize_filters
    enable_async_evaluation custom_async_evaluation_function _enable_rl_module_api auto_wrap_old_gym_envs
    always_attach_evaluation_results buffer_size prioritized_replay learning_starts replay_batch_size
    replay_sequence_length replay_mode prioritized_replay_alpha prioritized_replay_beta prioritized_replay_eps
    _disable_execution_plan_api offline_evaluation_duration offline_evaluation_parallel_to_training
    input_spaces_jsonable sync_filters_on_rollout_workers_timeout_s
"""

# {attribute: (its key as users write it, what to use instead)}
REFUSED: dict[str, tuple[str, str]] = {
    "observation_space": ("environment.observation_space", SPACES),
    "action_space": ("environment.action_space", SPACES),
    "clip_rewards": ("environment.clip_rewards", "use training.normalize_returns, or clip in the environment"),
    "normalize_actions": ("environment.normalize_actions", BOUNDS),
    "clip_actions": ("environment.clip_actions", BOUNDS),
    "_is_atari": ("environment.is_atari", "wrap the environment"),
    "disable_env_checking": ("environment.disable_env_checking", "try an environment with popcomm check-env"),
    "render_env": ("environment.render_env", "use popcomm play"),
    "action_mask_key": ("environment.action_mask_key", "the entry of a Dict observation is called 'action_mask'"),
    "create_local_env_runner": ("env_runners.create_local_env_runner", "the driver's own runner is needed"),
    "create_env_on_local_worker": ("env_runners.create_env_on_local_worker", "the driver's runner has its own world"),
    "num_envs_per_env_runner": ("env_runners.num_envs_per_env_runner", "use num_worlds_per_env_runner"),
    "gym_env_vectorize_mode": ("env_runners.gym_env_vectorize_mode", WORLDS),
    "remote_worker_envs": ("env_runners.remote_worker_envs", WORLDS),
    "remote_env_batch_wait_ms": ("env_runners.remote_env_batch_wait_ms", WORLDS),
    "episodes_to_numpy": ("env_runners.episodes_to_numpy", "runners send tensors, not episodes"),
    "episode_lookback_horizon": ("env_runners.episode_lookback_horizon", "use an agent with memory, such as 'gru'"),
    "_env_to_module_connector": ("env_runners.env_to_module_connector", CONNECTORS),
    "_module_to_env_connector": ("env_runners.module_to_env_connector", CONNECTORS),
    "add_default_connectors_to_env_to_module_pipeline": (
        "env_runners.add_default_connectors_to_env_to_module_pipeline",
        CONNECTORS,
    ),
    "add_default_connectors_to_module_to_env_pipeline": (
        "env_runners.add_default_connectors_to_module_to_env_pipeline",
        CONNECTORS,
    ),
    "merge_env_runner_states": ("env_runners.merge_env_runner_states", CONNECTORS),
    "broadcast_env_runner_states": ("env_runners.broadcast_env_runner_states", CONNECTORS),
    "use_env_runner_state_server": ("env_runners.use_env_runner_state_server", "runners wait for their weights"),
    "env_runner_state_server_max_concurrency": (
        "env_runners.env_runner_state_server_max_concurrency",
        "runners wait for their weights",
    ),
    "batch_mode": (
        "env_runners.batch_mode",
        "fragments have rollout_fragment_length steps, and what is cut goes on in the next; use a length that is "
        "an episode's",
    ),
    "compress_observations": ("env_runners.compress_observations", "fragments are sent as they are"),
    "sample_collector": ("env_runners.sample_collector", "runners write fragments of tensors"),
    "preprocessor_pref": ("env_runners.preprocessor_pref", FILTER),
    "observation_filter": ("env_runners.observation_filter", FILTER),
    "update_worker_filter_stats": ("env_runners.update_worker_filter_stats", FILTER),
    "use_worker_filter_stats": ("env_runners.use_worker_filter_stats", FILTER),
    "sampler_perf_stats_ema_coef": ("env_runners.sampler_perf_stats_ema_coef", ITERATION),
    "exploration_config": ("env_runners.exploration_config", "use env_runners.explore and training.entropy_coeff"),
    "enable_tf1_exec_eagerly": ("env_runners.enable_tf1_exec_eagerly", TORCH),
    "num_aggregator_actors_per_learner": ("learners.num_aggregator_actors_per_learner", WHOLE_BATCH),
    "max_requests_in_flight_per_aggregator_actor": (
        "learners.max_requests_in_flight_per_aggregator_actor",
        WHOLE_BATCH,
    ),
    "max_requests_in_flight_per_learner": ("learners.max_requests_in_flight_per_learner", "learners are waited for"),
    "local_gpu_idx": ("learners.local_gpu_idx", "it chooses among GPUs; use learners.num_gpus_per_learner"),
    "_learner_connector": ("learners.learner_connector", OWN_LEARNER),
    "add_default_connectors_to_learner_pipeline": ("learners.add_default_connectors_to_learner_pipeline", OWN_LEARNER),
    "learner_config_dict": ("learners.learner_config_dict", "it is for a learners.learner_class of your own"),
    "train_batch_size": ("training.train_batch_size", WHOLE_BATCH),
    "_train_batch_size_per_learner": ("training.train_batch_size_per_learner", WHOLE_BATCH),
    "grad_clip_by": ("training.grad_clip_by", "use 'global_norm' (of each member) or 'value'"),
    "shuffle_batch_per_epoch": ("training.shuffle_batch_per_epoch", "worlds are always drawn anew"),
    "model": ("training.model", NETWORK),
    "optimizer": ("training.optimizer", OWN_LEARNER),
    "use_critic": (
        "training.use_critic",
        "use vf_loss_coeff 0 for a critic that is not learned",
    ),
    "use_gae": ("training.use_gae", "use lambda_ 1 for returns without estimates in between"),
    "use_kl_loss": ("training.use_kl_loss", "the population's PPO has no KL penalty; use clip_param"),
    "kl_coeff": ("training.kl_coeff", "the population's PPO has no KL penalty; use clip_param"),
    "kl_target": ("training.kl_target", "the population's PPO has no KL penalty; use clip_param"),
    "entropy_coeff_schedule": ("training.entropy_coeff_schedule", "use entropy_coeff: [[step, weight], ...]"),
    "lr_schedule": ("training.lr_schedule", "use lr: [[step, rate], ...]"),
    "sgd_minibatch_size": ("sgd_minibatch_size", "use minibatch_size"),
    "vf_share_layers": ("vf_share_layers", "use population.critic and population.agent_config"),
    "policies": ("multi_agent.policies", SPECIES),
    "policy_map_capacity": ("multi_agent.policy_map_capacity", SPECIES),
    "policy_states_are_swappable": ("multi_agent.policy_states_are_swappable", SPECIES),
    "observation_fn": ("multi_agent.observation_fn", "agents tell each other what they see: communication.messages"),
    "count_steps_by": ("multi_agent.count_steps_by", "both are counted: num_env_steps_* and num_agent_steps_*"),
    "_model_config": ("rl_module.model_config", NETWORK),
    "num_gpus": ("resources.num_gpus", "use learners.num_gpus_per_learner"),
    "_fake_gpus": ("resources._fake_gpus", "use learners.num_gpus_per_learner 0"),
    "framework_str": ("framework.framework", TORCH),
    "eager_tracing": ("framework.eager_tracing", TORCH),
    "eager_max_retraces": ("framework.eager_max_retraces", TORCH),
    "tf_session_args": ("framework.tf_session_args", TORCH),
    "local_tf_session_args": ("framework.local_tf_session_args", TORCH),
    "torch_compile_learner": ("framework.torch_compile_learner", COMPILE),
    "torch_compile_learner_what_to_compile": ("framework.torch_compile_learner_what_to_compile", COMPILE),
    "torch_compile_learner_dynamo_backend": ("framework.torch_compile_learner_dynamo_backend", COMPILE),
    "torch_compile_learner_dynamo_mode": ("framework.torch_compile_learner_dynamo_mode", COMPILE),
    "torch_compile_worker": ("framework.torch_compile_worker", COMPILE),
    "torch_compile_worker_dynamo_backend": ("framework.torch_compile_worker_dynamo_backend", COMPILE),
    "torch_compile_worker_dynamo_mode": ("framework.torch_compile_worker_dynamo_mode", COMPILE),
    "torch_ddp_kwargs": ("framework.torch_ddp_kwargs", "gradients are summed over learners without DDP"),
    "torch_skip_nan_gradients": (
        "framework.torch_skip_nan_gradients",
        "members without a finite gradient are always left out; see fault_tolerance.max_nonfinite_updates",
    ),
    "keep_per_episode_custom_metrics": ("reporting.keep_per_episode_custom_metrics", ITERATION),
    "metrics_episode_collection_timeout_s": (
        "reporting.metrics_episode_collection_timeout_s",
        "use env_runners.sample_timeout_s",
    ),
    "metrics_num_episodes_for_smoothing": ("reporting.metrics_num_episodes_for_smoothing", ITERATION),
    "log_gradients": ("reporting.log_gradients", OWN_LEARNER),
    "export_native_model_files": ("checkpointing.export_native_model_files", "checkpoints hold the weights"),
    "checkpoint_trainable_policies_only": (
        "checkpointing.checkpoint_trainable_policies_only",
        "checkpoints hold all species",
    ),
    "log_sys_usage": ("debugging.log_sys_usage", "see Ray's dashboard"),
    "fake_sampler": ("debugging.fake_sampler", "use a small environment"),
    "num_consecutive_env_runner_failures_tolerance": (
        "fault_tolerance.num_consecutive_env_runner_failures_tolerance",
        "use fault_tolerance.max_empty_iterations",
    ),
    "enable_rl_module_and_learner": ("api_stack.enable_rl_module_and_learner", STACK),
    "enable_env_runner_and_connector_v2": ("api_stack.enable_env_runner_and_connector_v2", STACK),
    "extra_python_environs_for_driver": ("python_environment.extra_python_environs_for_driver", ENVIRON),
    "extra_python_environs_for_worker": ("python_environment.extra_python_environs_for_worker", ENVIRON),
    "_torch_grad_scaler_class": ("experimental._torch_grad_scaler_class", "use acceleration.autocast"),
    "_torch_lr_scheduler_classes": ("experimental._torch_lr_scheduler_classes", "use training.lr: [[step, rate], ...]"),
    "_tf_policy_handles_more_than_one_loss": ("experimental._tf_policy_handles_more_than_one_loss", TORCH),
    "_disable_preprocessor_api": ("experimental._disable_preprocessor_api", FILTER),
    "_disable_action_flattening": ("experimental._disable_action_flattening", SPACES),
    "_disable_initialize_loss_from_dummy_batch": ("experimental._disable_initialize_loss_from_dummy_batch", GONE),
    "dataset_num_iters_per_eval_runner": ("evaluation.dataset_num_iters_per_offline_eval_runner", EVALUATION),
    **{key: (f"evaluation.{key}", EVALUATION) for key in EVALUATION_KEYS.split()},
    **{key: (f"offline_data.{key}", OFFLINE) for key in OFFLINE_KEYS.split()},
    **{key: (key, GONE) for key in GONE_KEYS.split()},
}
