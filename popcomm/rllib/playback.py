"""Playback: frames of a trained population at play, with the messages that are heard drawn as links."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from popcomm.errors import UserError
from popcomm.rllib.env_runner import PopulationEnvRunner


def player(algorithm: Any, seed: int = 0, greedy: bool = False, worlds: int | None = None) -> PopulationEnvRunner:
    """A runner of its own with the algorithm's weights and fades; worlds start anew from `seed`."""
    config = algorithm.config.copy(copy_frozen=False)
    config.seed = seed
    config.num_env_runners = 0
    config.rollout_fragment_length = 1
    config.run_dir = None
    if worlds is not None:
        config.num_worlds_per_env_runner = worlds
    runner = PopulationEnvRunner(config=config, worker_index=0)
    runner.module.set_state(algorithm.learner_group.get_weights())
    runner.set_fades(algorithm.env_steps, algorithm.fades())
    runner.explore = not greedy
    return runner


def frames(algorithm: Any, num_steps: int = 100, seed: int = 0, greedy: bool = False) -> Iterator[np.ndarray]:
    """RGB pictures [H, W, 3] uint8 of world 0, one a step.

    Raises:
        UserError: the environment has no picture.
    """
    # As many worlds as seat the members evenly: the first of them is shown.
    runner = player(algorithm, seed, greedy)
    try:
        for _ in range(num_steps):
            runner.sample()
            try:
                yield runner.env.render(world=0, links=heard_links(runner))
            except NotImplementedError as error:
                raise UserError(f"{error}; popcomm play needs an environment that can be rendered") from error
    finally:
        runner.stop()


def heard_links(runner: PopulationEnvRunner) -> torch.Tensor | None:
    """(sender, receiver) pairs [M, 2] of world 0 in the present step; None in silence and where all hear all."""
    if runner.channel is None or runner.channel.topology.latents:
        return None
    senders, mask = runner.links.senders[0], runner.links.mask[0]
    receivers = torch.arange(len(senders), device=senders.device).unsqueeze(1).expand_as(senders)
    return torch.stack([senders[mask], receivers[mask]], 1)
