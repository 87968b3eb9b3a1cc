"""Who matters to whom: populations whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.channels import Channel, Symbols, make_topology
from popcomm.envs.world import Species, World, WorldStep
from popcomm.errors import UserError
from popcomm.rollout import Rollout, Seeds
from popcomm.rollout.importance import message_importance

SEATS = 5
# Whom each seat follows; seat 4 follows nobody.
FOLLOWED = {0: 3, 1: 0, 2: 0, 3: 2}


class Meadow(World):
    """Seats that see who they are; nothing is paid, and it does not end."""

    def __init__(self, num_worlds: int) -> None:
        self.num_worlds, self.device = num_worlds, torch.device("cpu")
        self.species = {"seat": Species("seat", 0, SEATS, SEATS, spaces.Discrete(2))}

    def _row(self, first: bool) -> WorldStep:
        no = torch.zeros(self.num_worlds, SEATS, dtype=torch.bool)
        seen = torch.eye(SEATS).expand(self.num_worlds, -1, -1)
        return WorldStep({"seat": seen}, no.float(), no, no, ~no, torch.full_like(no, first))

    def reset(self, seed: int | None = None) -> WorldStep:
        return self._row(True)

    def step(self, actions: Mapping[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        return self._row(False)

    def get_state(self) -> None:
        return None

    def set_state(self, state: Any) -> WorldStep:
        raise NotImplementedError


class Sheep:
    """It says 1 with probability `chance`; its action leans to what the one it follows says, by 2 x .731 - 1 = .462."""

    def __init__(self, chance: float) -> None:
        self.chance = torch.tensor([1 - chance, chance]).log()

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def __call__(self, obs: Tensor, inbox: Any, state: Any) -> AgentOutput:
        who = obs.argmax(-1)
        followed = torch.tensor([FOLLOWED.get(seat, -1) for seat in range(SEATS)])[who].unsqueeze(-1)
        count = inbox.mask & (inbox.senders == followed)
        heard = (count * (2.0 * inbox.messages[..., 0] - 1)).sum(-1)
        logits = torch.stack([-heard / 2, heard / 2], -1)
        return AgentOutput(logits, self.chance.expand(*who.shape, 1, 2), 3 * heard, {}, {})


def population(chance: float = 0.5, topology: str = "full", silent: bool = False) -> Any:
    def rollout(seed: int = 0, greedy: bool = False, worlds: Any = None, env_config: Any = None) -> Rollout:
        world, kind = Meadow(worlds or 4), None if silent else Symbols(2, 1)
        channel = None if kind is None else Channel(kind, make_topology(topology), SEATS)
        spec = AgentSpec.of(world.species["seat"], messages=kind, inbox_size=SEATS - 1, num_agents=SEATS)
        network = SimpleNamespace(spec=spec, agent=Sheep(chance))
        return Rollout(world, {"seat": network}, channel, seeds=Seeds.of(seed), explore=not greedy)

    return SimpleNamespace(rollout=rollout)


def matters() -> np.ndarray:
    """[N, N] bool, who is followed by whom."""
    found = np.zeros((SEATS, SEATS), bool)
    for receiver, sender in FOLLOWED.items():
        found[sender, receiver] = True
    return found


def test_importance_is_that_of_those_who_are_followed() -> None:
    found, known = message_importance(population(), num_steps=6, seed=1), matters()
    lean = 2 * torch.tensor(1.0).sigmoid().item() - 1
    # One of two equally likely messages is the other one, and turns the lean round; without any there is no lean.
    assert found.replaced[known] == pytest.approx(0.5 * lean)
    assert found.removed[known] == pytest.approx(lean / 2)
    assert found.value_replaced[known] == pytest.approx(0.5 * 6)
    assert found.value_removed[known] == pytest.approx(3)
    others = ~known & ~np.eye(SEATS, dtype=bool)
    for values in found[:4]:
        assert np.abs(values[others]).max() < 1e-6
        assert np.isnan(np.diag(values)).all()
    # Five steps of four worlds; in the first nothing is heard.
    assert (found.messages[~np.eye(SEATS, dtype=bool)] == 20).all()


def test_who_would_have_said_the_same_mattered_little_and_is_missed_all_the_same() -> None:
    found, known = message_importance(population(chance=1 - 1e-6), num_steps=3), matters()
    assert found.replaced[known].max() < 1e-4
    assert found.removed[known].min() > 0.2


def test_only_who_is_linked_is_heard() -> None:
    found = message_importance(population(topology="chain"), num_steps=4)
    heard = found.messages > 0
    assert np.argwhere(heard).tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert found.replaced[0, 1] > 0.2
    assert np.isfinite(found.replaced).sum() == 4


def test_measuring_is_the_same_again_from_the_same_seed() -> None:
    one, other = (message_importance(population(), num_steps=4, seed=3) for _ in range(2))
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"silent": True}, "cannot be measured: this population is silent"),
        ({"topology": {"kind": "routed", "latents": 2}}, "through topology routed nobody hears a message of its own"),
    ],
)
def test_where_there_are_no_inboxes_there_is_nobody_to_ask(settings: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        message_importance(population(**settings))
