"""CommNet, IC3Net and TarMAC: the equations of their papers, and what of a message is their own to decide."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from popcomm.agents import AGENTS, AgentSpec, extract
from popcomm.agents.testing import agent_api_test
from popcomm.channels import Inbox, Symbols, Vectors
from popcomm.errors import UserError

P, R, K, OBS, HIDDEN = 2, 5, 3, 4, 6
PAPERS = ("commnet", "ic3net", "tarmac")


def spec_of(messages: Any, members: int = P, **changes: Any) -> AgentSpec:
    about = {"obs_size": OBS, "action_space": spaces.Discrete(3), "num_agents": 4, "inbox_size": K}
    return AgentSpec(**{**about, "messages": messages, "members": members, **changes})  # type: ignore[arg-type]


def agent_of(name: str, messages: Any, **config: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    return AGENTS[name](spec_of(messages), hidden=HIDDEN, generator=generator, **config)


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inbox_of(size: int, mask: Tensor | None = None) -> Inbox:
    there = torch.rand(P, R, K, generator=torch.Generator().manual_seed(3)) < 0.6 if mask is None else mask
    there[:, 0] = False
    return Inbox(random(P, R, K, size), torch.zeros(P, R, K, dtype=torch.int64), there)


def mean_of(inbox: Inbox) -> Tensor:
    """[P, R, size], by a loop."""
    mean = torch.zeros(P, R, inbox.messages.shape[-1])
    for p in range(P):
        for r in range(R):
            heard = [inbox.messages[p, r, k] for k in range(K) if inbox.mask[p, r, k]]
            if heard:
                mean[p, r] = torch.stack(heard).mean(0)
    return mean


@pytest.mark.parametrize("gates", [(), ("receiver",), ("sender",), ("receiver", "sender")])
@pytest.mark.parametrize("name", PAPERS)
def test_they_keep_the_contract_with_gates_and_with_priorities(name: str, gates: tuple[str, ...]) -> None:
    spec = spec_of(Vectors(HIDDEN), members=3, gates=gates, urgency=True)
    agent_api_test(AGENTS[name], {"hidden": HIDDEN}, spec)


@pytest.mark.parametrize("name", ["commnet", "ic3net"])
def test_a_message_as_wide_as_the_hidden_state_is_the_hidden_state(name: str) -> None:
    agent = agent_of(name, Vectors(HIDDEN))
    output = agent(random(P, R, OBS), inbox_of(HIDDEN), agent.initial_state(R))
    assert torch.equal(output.message, output.state["h"])
    assert not hasattr(agent, "message_head")
    assert hasattr(agent_of(name, Vectors(HIDDEN - 1)), "message_head")


def test_commnet_is_a_tanh_of_what_is_seen_kept_and_heard_in_the_mean() -> None:
    """Equations 1 and 2 of Sukhbaatar et al. 2016, with the skip connection."""
    agent, obs, inbox, before = agent_of("commnet", Vectors(HIDDEN)), random(P, R, OBS), inbox_of(HIDDEN), None
    before = random(P, R, HIDDEN, seed=9)
    got, mean = agent(obs, inbox, {"h": before}), mean_of(inbox)
    for p in range(P):
        seen = obs[p] @ agent.see.weight[p] + agent.see.bias[p]
        hidden = torch.tanh(seen + before[p] @ agent.keep.weight[p] + mean[p] @ agent.encoder.weight[p])
        torch.testing.assert_close(got.state["h"][p], hidden)
        torch.testing.assert_close(got.action_logits[p], hidden @ agent.policy.weight[p] + agent.policy.bias[p])


def test_ic3net_is_torchs_lstm_on_what_is_seen_and_heard_in_the_mean() -> None:
    """Section 3.2 of Singh et al. 2019."""
    agent, obs, inbox = agent_of("ic3net", Vectors(HIDDEN)), random(P, R, OBS), inbox_of(HIDDEN)
    state = {"h": random(P, R, HIDDEN, seed=7), "c": random(P, R, HIDDEN, seed=8)}
    got, mean = agent(obs, inbox, state), mean_of(inbox)
    for p in range(P):
        lstm = nn.LSTMCell(HIDDEN, HIDDEN)
        lstm.load_state_dict(extract(agent.lstm, p))
        known = torch.tanh(obs[p] @ agent.see.weight[p] + agent.see.bias[p]) + mean[p] @ agent.encoder.weight[p]
        hidden, cell = lstm(known, (state["h"][p], state["c"][p]))
        torch.testing.assert_close(got.state["h"][p], hidden)
        torch.testing.assert_close(got.state["c"][p], cell)


def test_tarmac_hears_values_by_how_well_signatures_answer_its_question() -> None:
    """Equations 3 to 5 of Das et al. 2019: with a query of ones, a signature of large numbers is heard alone."""
    agent = agent_of("tarmac", Vectors(5), signature=2)
    with torch.no_grad():
        agent.query.weight.zero_()
        agent.query.bias.fill_(1.0)
    mask = torch.ones(P, R, K, dtype=torch.bool)
    inbox = inbox_of(5, mask)
    inbox.messages[..., :2] = 0.0
    inbox.messages[:, 1, 2, :2] = 30.0
    aux: dict[str, Tensor] = {}
    heard = agent._attend(inbox, random(P, R, HIDDEN), aux)
    torch.testing.assert_close(heard[:, 1], inbox.messages[:, 1, 2, 2:])
    torch.testing.assert_close(heard[:, 2], inbox.messages[:, 2, :, 2:].mean(1))
    assert not heard[:, 0].any()
    inbox.messages[:, 3, 0, :2] = 2.0  # exp(2 * 2 / sqrt(2)) times as loud as each of the others
    agent._attend(inbox, random(P, R, HIDDEN), aux)
    ratio = aux["attention"][:, 3, 0] / aux["attention"][:, 3, 1]
    torch.testing.assert_close(ratio, torch.full((P,), 2.718281828 ** (4 / 2**0.5)))


def test_tarmac_asks_by_what_it_knew_before_the_step() -> None:
    agent = agent_of("tarmac", Vectors(6))
    inbox, state = inbox_of(6, torch.ones(P, R, K, dtype=torch.bool)), {"h": random(P, R, HIDDEN, seed=5)}
    one, other = (agent(random(P, R, OBS, seed=seed), inbox, state).aux["attention"] for seed in (1, 2))
    assert torch.equal(one, other)
    asked = agent(random(P, R, OBS), inbox, agent.initial_state(R)).aux["attention"]
    assert not torch.allclose(one[:, 1:], asked[:, 1:])


@pytest.mark.parametrize("name", PAPERS)
def test_the_value_teaches_the_hidden_state_nothing(name: str) -> None:
    agent = agent_of(name, Symbols(4, 2))
    inbox = Inbox(torch.ones(P, R, K, 2, dtype=torch.int64), *inbox_of(4)[1:3])
    agent(random(P, R, OBS), inbox, agent.initial_state(R)).value.sum().backward()
    assert {key.split(".")[0] for key, value in agent.named_parameters() if value.grad is not None} == {"critic"}


@pytest.mark.parametrize(
    ("messages", "config", "said"),
    [
        (Vectors(1), {}, "messages.size is 1, and population.agent 'tarmac' says a signature and a value"),
        (Vectors(4), {"signature": 4}, "agent_config.signature is 4, and leaves nothing of messages.size = 4"),
        (Vectors(8), {"signature": 2, "value": 5}, "agent_config.value is 5, and messages.size = 8 less a signature"),
        (Vectors(8), {"signature": 0}, "agent_config.signature is 0"),
    ],
)
def test_tarmac_says_what_does_not_fit(messages: Any, config: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        agent_of("tarmac", messages, **config)
