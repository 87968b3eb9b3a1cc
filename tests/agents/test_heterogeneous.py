"""HeterogeneousAgent: bodies by type, one thought from seeing and hearing, messages through the codec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.agents import AgentSpec, HeterogeneousAgent
from popcomm.agents.testing import agent_api_test
from popcomm.channels import Inbox, Vectors
from popcomm.errors import UserError

P, R, K, OBS, SIZE, WIDTH = 2, 4, 3, 5, 3, 8


def spec_of(species: str = "", **changes: Any) -> AgentSpec:
    about = {"obs_size": OBS, "action_space": spaces.Discrete(3), "messages": Vectors(SIZE), "inbox_size": K}
    return AgentSpec(**{**about, "members": P, "num_agents": 4, "species": species, **changes})  # type: ignore[arg-type]


def agent_of(**config: Any) -> HeterogeneousAgent:
    return HeterogeneousAgent(spec_of(), **{"features": [6, WIDTH], **config}, generator=generator())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def inbox_of() -> Inbox:
    mask = torch.tensor([[False, False, False], [True, True, True], [True, False, True], [False, True, False]])
    return Inbox(random(P, R, K, SIZE), torch.zeros(P, R, K, dtype=torch.int64), mask.expand(P, R, K))


@pytest.mark.parametrize(
    ("species", "config", "widths"),
    [
        ("sensor", {}, [128, 128]),
        ("processor", {}, [256, 128]),
        ("actuator", {}, [64, 128]),
        ("truck", {}, [128, 128]),
        ("truck", {"type": "actuator"}, [64, 128]),
        ("sensor", {"features": [7, 5, 4]}, [7, 5, 4]),
    ],
)
def test_the_type_says_how_wide_a_body_is_unless_told(species: str, config: dict[str, Any], widths: list[int]) -> None:
    agent = HeterogeneousAgent(spec_of(species), **config)
    assert [layer.weight.shape[-1] for layer in agent.body.layers] == widths  # type: ignore[union-attr]


@pytest.mark.parametrize("gates", [(), ("receiver", "sender")])
@pytest.mark.parametrize("aggregation", ["mean", "attention"])
def test_it_keeps_the_contract_however_it_listens(aggregation: str, gates: tuple[str, ...]) -> None:
    config = {"features": [WIDTH], "aggregation": aggregation, "num_heads": 2}
    agent_api_test(HeterogeneousAgent, config, spec_of("actuator", members=3, gates=gates))


def test_it_thinks_by_what_it_sees_and_the_mean_of_what_is_decoded() -> None:
    agent, obs, inbox = agent_of(), random(P, R, OBS), inbox_of()
    got = agent(obs, inbox, {})
    for p in range(P):
        one, two = (layer for layer in agent.body.layers)
        known = obs[p] @ one.weight[p] + one.bias[p]
        known = (known.tanh() @ two.weight[p] + two.bias[p]).tanh()
        decoded, real = (inbox.messages[p] @ agent.codec.decoder.weight[p]).tanh(), inbox.mask[p].unsqueeze(-1)
        heard = (decoded * real).sum(1) / real.sum(1).clamp(min=1)
        mind = agent.mind.layers[0]
        thought = (torch.cat([known, heard], -1) @ mind.weight[p] + mind.bias[p]).tanh()
        torch.testing.assert_close(got.aux["features"][p], thought)
        said = (thought @ agent.codec.encoder.weight[p] + agent.codec.encoder.bias[p]).tanh()
        torch.testing.assert_close(got.message[p], said)


def test_attention_listens_to_what_the_features_ask_for() -> None:
    agent, inbox = agent_of(aggregation="attention", num_heads=1), inbox_of()
    one, other = (agent(random(P, R, OBS, seed=seed), inbox, {}).aux["attention"] for seed in (1, 2))
    torch.testing.assert_close(one.sum(-1), inbox.mask.any(-1).float())
    assert not torch.allclose(one[:, 1], other[:, 1])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"type": "actor"}, "agent_config.type 'actor' does not exist; did you mean 'actuator'"),
        ({"aggregation": "meen"}, "agent_config.aggregation is 'meen'; did you mean 'mean'"),
        ({"codec": "common"}, "agent_config.codec is 'common'"),
        ({"features": []}, r"agent_config.features is \[\], and must be a list of widths"),
        ({"features": [8, 0]}, "agent_config.features is 0"),
        ({"features": [9], "aggregation": "attention"}, "agent_config.num_heads is 4, and must divide the last width"),
    ],
)
def test_it_says_what_does_not_fit(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        HeterogeneousAgent(spec_of(), **config)


def test_what_was_saved_keeps_the_body_of_its_species(tmp_path: Path) -> None:
    agent = HeterogeneousAgent(spec_of("actuator"), aggregation="attention", generator=generator())
    again = HeterogeneousAgent.from_pretrained(agent.save_pretrained(tmp_path / "agent"))
    obs, inbox = random(P, R, OBS), inbox_of()
    assert torch.equal(agent(obs, inbox, {}).action_logits, again(obs, inbox, {}).action_logits)
    assert again.body.layers[0].weight.shape[-1] == 64  # type: ignore[union-attr]
