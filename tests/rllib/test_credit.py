"""What messages are credited with, where that is what became of those who heard them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.world import Species, World, WorldStep
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.credit import receivers_credit, senders_of
from popcomm.rllib.fragment import as_tensors
from tests.rllib.test_learner import learner_of
from tests.rllib.test_rollout import runner_of

NOBODY = 3


def heard(*inboxes: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Senders and mask [1, T, 3, 2] from the lists of whom every seat hears in every step; -1: an empty slot."""
    senders = torch.tensor([[[[*seat, -1, -1][:2] for seat in step] for step in inboxes]])
    return senders.clamp(min=0), senders >= 0


def all_live(mask: Tensor) -> Tensor:
    """[B, T, N]: no life ends."""
    return torch.ones(mask.shape[:3], dtype=torch.bool)


def test_a_message_is_credited_with_the_mean_of_those_who_hear_it_in_the_next_step() -> None:
    advantages = torch.tensor([[[1.0, 2.0, 6.0], [10.0, 20.0, 60.0], [0.0, 0.0, 0.0]]])
    senders, mask = heard([[1], [0], [0]], [[], [0], [0, 1]], [[], [], [0]])
    credit = receivers_credit(advantages, senders, mask, all_live(mask))
    # Said by seat 0 at step 0 and heard by 1 and 2 at step 1: the mean of 2 and 6. By seat 1: heard by 2 alone.
    assert credit.values[0, 0].tolist() == [4.0, 6.0, 0.0]
    assert credit.values[0, 1].tolist() == [60.0, 0.0, 0.0]
    assert credit.heard[0, 0].tolist() == [True, True, False]


def test_who_is_dead_does_not_dilute_the_credit() -> None:
    advantages = torch.tensor([[[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]])
    senders, mask = heard([[], [], []], [[1], [0], [0]])
    # Seat 2 is empty in step 0, and seat 0 ends there: what stands in their inboxes at step 1 nobody reads.
    goes_on = torch.tensor([[[False, True, False], [False, True, False]]])
    credit = receivers_credit(advantages, senders, mask, goes_on)
    assert credit.values[0, 0].tolist() == [2.0, 0.0, 0.0]
    assert credit.heard[0, 0].tolist() == [True, False, False]


def test_what_is_said_in_the_last_row_has_no_credit_yet() -> None:
    senders, mask = heard([[1], [0], [0]], [[1], [0], [0]])
    credit = receivers_credit(torch.ones(1, 2, 3), senders, mask, all_live(mask))
    assert not credit.heard[:, -1].any()
    assert not credit.values[:, -1].any()
    alone = mask[:, :1]
    assert not receivers_credit(torch.ones(1, 1, 3), senders[:, :1], alone, all_live(alone)).heard.any()


def test_what_nobody_said_is_nobodys_credit() -> None:
    senders, mask = heard([[], [], []], [[NOBODY], [0], [NOBODY, 1]])
    advantages = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    credit = receivers_credit(advantages, senders, mask, all_live(mask))
    assert credit.values[0, 0].tolist() == [2.0, 3.0, 0.0]


def test_of_a_log_only_what_the_sender_itself_said_counts() -> None:
    arrays = {
        "inbox_mask": torch.tensor([[[[True, True, True]]]]),
        "slots": torch.tensor([[[[0, 1, 2]]]], dtype=torch.int32),
        "log_sources": torch.tensor([[[1, 2, 1]]]),
        "log_direct": torch.tensor([[[True, False, True]]]),
    }
    senders, mask = senders_of({"seat": arrays})
    assert senders.tolist() == [[[[1, 2, 1]]]]
    assert mask.tolist() == [[[[True, False, True]]]]


class ToldWorld(World):
    """In step 0 seat 0 sees a bit, in step 1 seat 1 must name it, and is paid alone. Two seats of one species."""

    def __init__(self, num_worlds: int, device: Any = "cpu") -> None:
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self.species = {"pair": Species("pair", 0, 2, 4, spaces.Discrete(2))}
        self.generator = torch.Generator().manual_seed(0)

    def _row(self, rewards: Tensor, ended: bool, first: bool) -> WorldStep:
        seat = torch.eye(2).expand(self.num_worlds, -1, -1)
        bit = torch.nn.functional.one_hot(self.bit, 2).float() * (self.time == 0)
        seen = torch.stack([bit, torch.zeros_like(bit)], 1)
        over = torch.full((self.num_worlds, 2), ended)
        return WorldStep(
            {"pair": torch.cat([seat, seen], -1)},
            rewards,
            over,
            torch.zeros_like(over),
            ~over,
            torch.full_like(over, first),
        )

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self.generator.manual_seed(seed)
        self.time, self.bit = 0, torch.randint(2, (self.num_worlds,), generator=self.generator)
        return self._row(torch.zeros(self.num_worlds, 2), ended=False, first=True)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        if self.time == 2:
            return self.reset()
        right = (actions["pair"][:, 1] == self.bit).float() * (self.time == 1)
        self.time += 1
        return self._row(torch.stack([torch.zeros_like(right), right], 1), ended=self.time == 2, first=False)

    def get_state(self) -> None:
        return None

    def set_state(self, state: Any) -> WorldStep:
        raise NotImplementedError


def config_of(credit: str, **training: Any) -> PopulationPPOConfig:
    config = (
        PopulationPPOConfig()
        .environment(ToldWorld)
        .communication(messages={"kind": "symbols", "vocab_size": 2, "length": 1}, gradient="reinforce", credit=credit)
        .population(agent="mlp", agent_config={"hidden": 16})
        .env_runners(num_worlds_per_env_runner=64, rollout_fragment_length=9)
        .training(**training)
        .debugging(seed=1)
    )
    config.validate()
    return config


def test_the_sender_is_credited_where_only_the_receiver_is_paid() -> None:
    config = config_of("receivers")
    arrays = {n: as_tensors(dict(a)) for n, a in runner_of(config).sample().policy_batches.items()}
    learner_of(config)._add_advantages(arrays)
    pair = arrays["pair"]
    # Steps 0, 3 and 6 open episodes; what is said there is heard, and its hearer is right or wrong.
    right = pair["rewards"][:, [1, 4, 7], 1]
    credit = pair["message_advantages"][:, [0, 3, 6], 0]
    assert credit[right == 1].mean() > credit[right == 0].mean() + 0.5
    # Steps 1, 4 and 7 end them: what is said there comes too late for anybody.
    assert not pair["message_advantages"][:, [1, 4, 7]].any()


def test_the_silenced_control_learns_under_credit_of_receivers() -> None:
    config = config_of("receivers").communication(messages=None)
    config.validate()
    arrays = {n: as_tensors(dict(a)) for n, a in runner_of(config).sample().policy_batches.items()}
    learner_of(config)._add_advantages(arrays)
    assert arrays["pair"]["advantages"].abs().sum() > 0


def test_credit_of_receivers_is_refused_where_nobody_hears_a_message_of_its_own() -> None:
    config = config_of("receivers").communication(topology={"kind": "routed", "latents": 2})
    config.population(agent="symbolic", agent_config={})
    with pytest.raises(UserError, match=r"communication.credit is 'receivers', and through topology routed"):
        config.validate()
