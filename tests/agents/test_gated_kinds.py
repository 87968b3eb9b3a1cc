"""All agents that have gates, with all kinds of messages that they can say and hear."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces

from popcomm.agents import AGENTS, AgentSpec
from popcomm.agents.testing import agent_api_test
from popcomm.channels import message_kind

WIDE = 8
CONFIGS: dict[str, dict[str, Any]] = {
    "symbolic": {"hidden_dim": WIDE, "num_heads": 2},
    "heterogeneous": {"features": [WIDE]},
}
SYMBOLS = {"kind": "symbols", "vocab_size": 4, "length": 2}
WORDS = {"kind": "words", "bits": 6, "min_on": 1, "max_on": 3}
VECTORS = {"kind": "vectors", "size": 5}
KINDS: dict[str, dict[str, Any]] = {
    "symbols": SYMBOLS,
    "symbols that end": {**SYMBOLS, "end_symbol": True},
    "relaxed symbols": {**SYMBOLS, "relaxed": True},
    "words": WORDS,
    "words of a lexicon": {**WORDS, "vocab": 8},
    "bits": {"kind": "dru", "size": 4},
    "vectors": VECTORS,
    "vectors as wide as a state": {"kind": "vectors", "size": WIDE},
    "private vectors": {**VECTORS, "privacy": {"epsilon": 1.0, "delta": 1e-5, "clip": 1.0}},
    "superposed vectors": {**VECTORS, "superposition": {"encoders": 2, "measure": "learned"}},
    "vectors superposed at random": {"kind": "vectors", "size": WIDE, "superposition": {"encoders": 3}},
}


def spec_of(kind: str, members: int = 2, gates: tuple[str, ...] = ("receiver", "sender")) -> AgentSpec:
    about: dict[str, Any] = {"obs_size": 4, "action_space": spaces.Discrete(3), "num_agents": 4, "inbox_size": 3}
    return AgentSpec(**about, messages=message_kind(KINDS[kind]), members=members, gates=gates, urgency=True)


def config_of(name: str) -> dict[str, Any]:
    return CONFIGS.get(name, {"hidden": WIDE})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name, agent in AGENTS.items() if getattr(agent, "gates_messages", False)])
def test_agents_keep_the_contract_with_gates_whatever_they_say(name: str, kind: str) -> None:
    agent_api_test(AGENTS[name], config_of(name), spec_of(kind))


@pytest.mark.parametrize("name", ["commnet", "ic3net"])
def test_the_hidden_state_is_no_message_that_is_put_together_of_several(name: str) -> None:
    spec = spec_of("vectors superposed at random")
    agent = AGENTS[name](spec, **config_of(name))
    output = agent(torch.randn(2, 3, 4), None, agent.initial_state(3))
    assert output.message.shape == (2, 3, 3, WIDE + 1)


@pytest.mark.parametrize("kind", ["vectors", "superposed vectors", "vectors superposed at random"])
def test_a_codec_bounds_the_numbers_of_a_message_and_neither_phases_nor_scores(kind: str) -> None:
    """With weights of 0 the parameters are the biases: numbers become their tanh, what is beside them stays."""
    spec = spec_of(kind)
    agent = AGENTS["heterogeneous"](spec, **config_of("heterogeneous"))
    assert spec.messages is not None
    shape, size = spec.messages.params_shape, spec.messages.shape[0]
    with torch.no_grad():
        agent.codec.encoder.weight.zero_()
        agent.codec.encoder.bias.fill_(3.0)
    said = agent(torch.randn(2, 3, 4), None, {}).message
    expected = torch.full((2, 3, *shape), 3.0)
    expected[..., :size] = torch.tensor(3.0).tanh()
    torch.testing.assert_close(said, expected)


def test_a_codec_can_turn_an_encoder_off_and_around() -> None:
    """Two encoders that say 1 with weights of a half: one in phase, the other by 90 and by 180 degrees out of it."""
    spec = spec_of("superposed vectors", members=1)
    agent = AGENTS["heterogeneous"](spec, **config_of("heterogeneous"))
    for phase, heard in ((0.0, 1.0), (torch.pi / 2, 0.5), (torch.pi, 0.0)):
        with torch.no_grad():
            agent.codec.encoder.weight.zero_()
            bias = agent.codec.encoder.bias.view(2, 7)
            bias[:, :5], bias[:, 5:] = 20.0, 0.0
            bias[1, 5] = phase
        message = spec.messages.mode(agent(torch.randn(1, 1, 4), None, {}).message)  # type: ignore[union-attr]
        torch.testing.assert_close(message, torch.full((1, 1, 5), heard))
