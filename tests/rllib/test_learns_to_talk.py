"""The thing itself: one agent sees a digit, another must name it, and they learn to, within seconds."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from popcomm.analysis.experiments.local_training import LocalTraining
from torch import Tensor

from popcomm.envs.world import Species, World, WorldStep
from popcomm.rllib import PopulationPPOConfig

DIGITS = 4


class CopyWorld(World):
    """The speaker sees one of four digits in the first of two steps; the listener names one in the second. Both get 1
    if it is that digit: the best return of the deaf is 1/4."""

    def __init__(self, num_worlds: int = 1, device: Any = "cpu") -> None:
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self.species = {
            "speaker": Species("speaker", 0, 1, DIGITS, spaces.Discrete(1), hears=False),
            "listener": Species("listener", 1, 2, 1, spaces.Discrete(DIGITS), speaks=False),
        }
        self.generator = torch.Generator()
        self.time = 0

    def _say(self, rewards: Tensor) -> WorldStep:
        shown = torch.nn.functional.one_hot(self.digits, DIGITS).float() * (self.time == 0)
        clock = torch.full((self.num_worlds, 1, 1), float(self.time))
        over = torch.full((self.num_worlds, 2), self.time == 2)
        first = torch.full((self.num_worlds, 2), self.time == 0)
        return WorldStep(
            {"speaker": shown.unsqueeze(1), "listener": clock}, rewards, over, torch.zeros_like(over), ~over, first
        )

    def _begin(self) -> WorldStep:
        self.time = 0
        self.digits = torch.randint(DIGITS, (self.num_worlds,), generator=self.generator)
        return self._say(torch.zeros(self.num_worlds, 2))

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self.generator.manual_seed(seed)
        return self._begin()

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        if self.time == 2:
            return self._begin()
        named = actions["listener"][:, 0] == self.digits
        self.time += 1
        return self._say((named & (self.time == 2)).float().unsqueeze(1).expand(-1, 2).clone())

    def get_state(self) -> None:
        """It begins anew where it is restored."""

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        raise NotImplementedError


def trained(messages: Any, iterations: int) -> LocalTraining:
    config = (
        PopulationPPOConfig()
        .environment(CopyWorld)
        .communication(messages=messages)
        .population(agent="mlp", agent_config={"hidden": 32})
        .env_runners(num_worlds_per_env_runner=64, rollout_fragment_length=6)
        .debugging(seed=1)
    )
    training = LocalTraining(config, evaluation_worlds=256)
    for _ in range(iterations):
        training.iterate()
    return training


def test_a_speaker_and_a_listener_learn_a_code_for_digits() -> None:
    point = trained({"kind": "symbols", "vocab_size": DIGITS, "length": 1, "relaxed": True}, 60).point()
    assert point.greedy >= 0.9
    assert point.sampled >= 0.9


def test_without_messages_nobody_can_know_the_digit() -> None:
    """Five standard deviations of a share of 1/4 among 256 and more episodes."""
    point = trained(None, 20).point()
    assert abs(point.greedy - 1 / DIGITS) < 0.135


def picking(iterations: int, **training: Any) -> float:
    """The share of targets that a listener picks among four candidates after so many iterations."""
    config = (
        PopulationPPOConfig()
        .environment("referential_v0", env_config={"task": "pick", "distractors": 3, "values": 4, "rounds": 15})
        .communication(messages={"kind": "symbols", "vocab_size": 8, "length": 2})
        .population(agent="mlp", agent_config={"hidden": 32})
        .training(gamma=0.0, lr=5e-3, message_entropy_coeff=0.02, minibatch_size=32, **training)
        .env_runners(num_worlds_per_env_runner=64, rollout_fragment_length=8)
        .debugging(seed=1)
    )
    played = LocalTraining(config)
    for _ in range(iterations):
        played.iterate()
    return played.evaluate(False)[1]["accuracy"]


def test_a_listener_learns_to_pick_what_it_is_told_of_whichever_place_it_has() -> None:
    assert picking(60, learn_from="answers") >= 0.9


def test_a_listener_finds_out_by_trial_what_to_pick() -> None:
    assert picking(80, num_epochs=2) >= 0.8
