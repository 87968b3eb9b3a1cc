"""A butterfly environment whose pictures SuperSuit made small, in the trainer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.fragment import nbytes
from tests.rllib.test_learner import learner_of
from tests.rllib.test_rollout import runner_of

needed = "it comes with the extra: pip install popcomm[butterfly]"
supersuit = pytest.importorskip("supersuit", reason=needed)
pytest.importorskip("pygame", reason=needed)


def small_pong(size: int = 42, frames: int = 2, **config: Any) -> Any:
    """The example of docs/environments.md."""
    pong = pytest.importorskip("pettingzoo.butterfly.cooperative_pong_v6", reason=needed)
    env = supersuit.color_reduction_v0(pong.parallel_env(render_mode="rgb_array", **config), mode="B")
    env = supersuit.resize_v1(env, x_size=size, y_size=size)
    return supersuit.frame_stack_v1(env, frames)


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def test_what_the_environment_shows_is_what_the_trainer_keeps() -> None:
    world = ParallelEnvWorld(small_pong, 1)
    seen = world.reset(seed=0).observations["paddle"]
    assert seen.dtype == torch.uint8
    assert seen.shape == (1, 2, 42 * 42 * 2)
    assert seen.max() > 200  # the walls are white


def test_pong_is_trained_on_its_pictures_at_a_byte_a_pixel() -> None:
    config = (
        PopulationPPOConfig()
        .environment(small_pong, env_config={"max_cycles": 30})
        .communication(messages={"kind": "symbols", "vocab_size": 4, "length": 1}, topology={"kind": "full"})
        .population(agent="mlp", agent_config={"hidden": 16}, members=2)
        .env_runners(num_worlds_per_env_runner=2, rollout_fragment_length=8)
        .debugging(seed=0)
    )
    runner = runner_of(config)
    learner = learner_of(config)
    eye = learner.networks["paddle"].agent.eye
    before = [value.detach().clone() for value in eye.parameters()]
    batch = runner.sample()
    learner.update_from_fragments([batch], [2], 0, {})
    assert all(not torch.equal(a, b) for a, b in zip(before, eye.parameters(), strict=True))
    assert nbytes(batch) / (2 * 8 * 2) < 1.4 * 42 * 42 * 2
