"""Exceptions that the command line prints as a sentence: a user's mistake (exit code 2), and a loss (exit code 1)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What others call what is called otherwise here; by its letters alone none would be found.
# The first lines are RLlib's of before and Stable-Baselines3's, the last PettingZoo's and everybody's.
ALSO_CALLED = {
    "num_workers": "num_env_runners",
    "num_rollout_workers": "num_env_runners",
    "num_envs_per_worker": "num_worlds_per_env_runner",
    "num_envs_per_env_runner": "num_worlds_per_env_runner",
    "num_cpus_per_worker": "num_cpus_per_env_runner",
    "num_gpus_per_worker": "num_gpus_per_env_runner",
    "num_learner_workers": "num_learners",
    "num_gpus_per_learner_worker": "num_gpus_per_learner",
    "num_cpus_per_learner_worker": "num_cpus_per_learner",
    "rollouts": "env_runners",
    "num_sgd_iter": "num_epochs",
    "sgd_minibatch_size": "minibatch_size",
    "lambda": "lambda_",
    "entropy_coeff_schedule": "entropy_coeff",
    "lr_schedule": "lr",
    "episode_reward_mean": "episode_return_mean",
    "timesteps_total": "num_env_steps_sampled_lifetime",
    "checkpoint_frequency": "checkpoint_every",
    "n_steps": "rollout_fragment_length",
    "n_epochs": "num_epochs",
    "n_envs": "num_worlds_per_env_runner",
    "batch_size": "minibatch_size",
    "gae_lambda": "lambda_",
    "ent_coef": "entropy_coeff",
    "vf_coef": "vf_loss_coeff",
    "max_grad_norm": "grad_clip",
    "clip_range": "clip_param",
    "clip_range_vf": "vf_clip_param",
    "total_timesteps": "num_env_steps_sampled_lifetime",
    "tensorboard_log": "run_dir",
    "learning_rate": "lr",
    "discount": "gamma",
    "discount_factor": "gamma",
    "epochs": "num_epochs",
    "minibatch": "minibatch_size",
    "unroll_length": "rollout_fragment_length",
    "num_steps": "rollout_fragment_length",
    "num_envs": "num_worlds_per_env_runner",
    "n_agents": "num_agents",
    "num_players": "num_agents",
    "max_cycles": "max_steps",
    "max_episode_steps": "max_steps",
    "horizon": "max_steps",
    "hidden_size": "hidden_dim",
    "checkpoint_freq": "checkpoint_every",
    "save_freq": "checkpoint_every",
    "log_dir": "run_dir",
    "logdir": "run_dir",
    "output_dir": "run_dir",
}


class UserError(ValueError):
    """A mistake in what the user asked for, said in one sentence and raised before any work starts."""


def sentence(error: UserError) -> str:
    """What a mistake says; one that Ray brought from another process prints as a traceback, and has it as its cause."""
    return str(getattr(error, "cause", None) or error)


class LostError(RuntimeError):
    """What a training cannot go on without was lost: it goes on from its newest checkpoint, in another process."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint that names the valid word nearest to `name`, or the whole list when nothing is near.

    >>> nearest("symbls", ["symbols", "vectors"])
    "did you mean 'symbols'?"
    >>> nearest("learning_rate", ["lr", "learner_class"])
    "did you mean 'lr'?"
    """
    words = sorted(map(str, allowed))
    if ALSO_CALLED.get(name) in words:
        return f"did you mean '{ALSO_CALLED[name]}'?"
    close = difflib.get_close_matches(str(name), words, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(words)}"


def unknown(what: str, name: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest one that does."""
    return UserError(f"{what} '{name}' does not exist; {nearest(name, allowed)}")
