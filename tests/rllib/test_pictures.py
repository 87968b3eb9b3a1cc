"""Pictures in the trainer: bytes in fragments and in the learner, floats only inside the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from popcomm.analysis.experiments.local_training import LocalTraining

from popcomm.agents import TinyAgent
from popcomm.agents.acting import spec_for
from popcomm.channels import Full
from popcomm.envs.messaging import with_messages
from popcomm.envs.world import Species, World, WorldStep
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.fragment import nbytes
from tests.agents.test_testing import SMALL
from tests.envs.test_sight import GREY, LAST, WHERE, Painter
from tests.rllib.test_learner import learner_of, update
from tests.rllib.test_relaxed_messages import assert_repeats, sampled, unrolled
from tests.rllib.test_rollout import runner_of

SYMBOLS = {"kind": "symbols", "vocab_size": 3, "length": 2}


def paint(space: str = "last") -> Painter:
    return Painter({"last": LAST, "beside": spaces.Dict({"eye": GREY, "where": WHERE})}[space])


def painted(agent: str, space: str = "last", encoder: str | None = None, **population: Any) -> PopulationPPOConfig:
    config = dict(SMALL[agent])
    if agent != "tiny":
        config["encoder"] = encoder
    return (
        PopulationPPOConfig()
        .environment(paint, env_config={"space": space})
        .communication(messages=SYMBOLS, topology={"kind": "full"}, gradient="straight_through")
        .population(agent=agent, agent_config=config, members=2, **population)
        .env_runners(num_worlds_per_env_runner=4, rollout_fragment_length=6)
        .debugging(seed=3)
    )


@pytest.mark.parametrize("space", ["last", "beside"])
@pytest.mark.parametrize(
    ("agent", "encoder"), [("mlp", None), ("mlp", "flat"), ("symbolic", None), ("gru", None), ("tiny", None)]
)
def test_the_unroll_sees_what_the_runner_saw(agent: str, encoder: str | None, space: str) -> None:
    runner = runner_of(painted(agent, space, encoder))
    arrays = sampled(runner)
    (name,) = arrays
    assert arrays[name]["obs"].dtype == arrays[name]["previous_obs"].dtype
    assert arrays[name]["obs"].dtype == (torch.uint8 if space == "last" else torch.float32)
    assert_repeats(runner, arrays, unrolled(runner, arrays))


@pytest.mark.parametrize("agent", ["mlp", "symbolic", "gru", "tiny"])
def test_an_update_teaches_the_eye(agent: str) -> None:
    runner = runner_of(config := painted(agent))
    learner = learner_of(config)
    network: Any = next(iter(learner.networks.values())).agent
    before = [value.detach().clone() for value in network.parameters()]
    update(learner, runner)
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert all(value.isfinite().all() for value in network.parameters())
    assert sum(moved) > 0.9 * len(moved)


def test_fragments_take_a_byte_for_a_number() -> None:
    """Beside the picture an agent step takes what it takes of one number."""
    runner = runner_of(painted("mlp"))
    batch = runner.sample()
    per_step = nbytes(batch) / (4 * 6 * 2)
    # T + 1 rows, and one from before the fragment.
    pictures = 90 * (7 + 1) / 6
    assert pictures < per_step < pictures + 150


def test_transcripts_hold_a_glimpse(tmp_path: Path) -> None:
    config = painted("mlp")
    config.recording(run_dir=tmp_path, conversation_every=1, conversation_worlds=2)
    runner = runner_of(config)
    runner.sample()
    seen = np.stack(runner.transcript.rows()["observation"])
    assert seen.shape[1] == 90  # no side is longer than eight
    assert 0.0 <= seen.min() <= seen.max() <= 1.0


class Lamp(World):
    """The left or the right half of a picture is lit, and the action that names it is worth 1."""

    def __init__(self, num_worlds: int = 1, device: Any = "cpu") -> None:
        self.num_worlds, self.device = num_worlds, torch.device(device)
        shown = spaces.Box(0, 255, (12, 12, 1), np.uint8)
        self.species = {"agent": Species("agent", 0, 1, 144, spaces.Discrete(2), structure=shown)}
        self.generator = torch.Generator()
        self.age = 0

    def _told(self, rewards: torch.Tensor) -> WorldStep:
        over, first = (torch.full((self.num_worlds, 1), self.age == age) for age in (4, 0))
        self.side = torch.randint(2, (self.num_worlds, 1), generator=self.generator)
        right = torch.arange(12) >= 6
        lit = (right == self.side.bool().unsqueeze(-1)).unsqueeze(2).expand(-1, -1, 12, -1)
        noise = torch.randint(100, lit.shape, generator=self.generator)
        picture = (lit * 120 + noise).to(torch.uint8).flatten(2)
        return WorldStep({"agent": picture}, rewards, over, torch.zeros_like(over), ~over, first)

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self.generator.manual_seed(seed)
        self.age = 0
        return self._told(torch.zeros(self.num_worlds, 1))

    def step(self, actions: dict[str, torch.Tensor], spoken: torch.Tensor | None = None) -> WorldStep:
        if self.age == 4:
            return self.reset()
        self.age += 1
        return self._told((actions["agent"] == self.side).float())

    def get_state(self) -> None:
        """It begins anew where it is restored."""

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        raise NotImplementedError


def test_what_is_in_a_picture_is_learned() -> None:
    config = (
        PopulationPPOConfig()
        .environment(Lamp)
        .communication(messages=None)
        .population(agent="mlp", agent_config={"hidden": 16})
        .env_runners(num_worlds_per_env_runner=32, rollout_fragment_length=10)
        .training(lr=3e-3)
        .debugging(seed=1)
    )
    training = LocalTraining(config, evaluation_worlds=64)
    for _ in range(8):
        training.iterate()
    assert training.point().greedy > 3.6  # of 4


@pytest.mark.parametrize("mode", ["withdraw", "noise"])
def test_a_picture_that_is_taken_away_is_a_picture_all_the_same(mode: str) -> None:
    words = {"kind": "words", "bits": 8, "min_on": 2, "max_on": 4}
    config = painted("mlp")
    config.communication(messages=words, reflexes=[{"kind": "sensory_deprivation", "when": 1.0, "mode": mode}])
    seen = next(iter(sampled(runner_of(config)).values()))["obs"]
    assert seen.dtype == torch.uint8
    # In the first step nothing was said yet that could take anything away.
    assert (seen[:, 1:4] == 0).float().mean() > 0.9 if mode == "withdraw" else seen.float().std() > 50


def test_an_agent_acts_on_pictures_outside_a_trainer() -> None:
    env = with_messages(paint(), SYMBOLS, Full())
    observations, _ = env.reset(seed=0)
    spec = spec_for(env, "a_0")
    agent = TinyAgent(spec, 8, 2, 2, 1)
    assert spec.obs_dtype == torch.uint8
    action, message = agent.act(observations["a_0"], greedy=True)
    inputs = torch.from_numpy(observations["a_0"]["observation"].ravel()).float()[None, None] / 255
    with torch.no_grad():
        expected = agent(inputs, None, agent.initial_state(1)).action_logits.argmax()
    assert int(action) == int(expected)
    assert message is not None
