"""GRUAgent: the reader is torch's GRU, what reaches what, and which parts a species has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from popcomm.agents.contract import Agent, AgentSpec
from popcomm.agents.gru import GRUAgent, MessageReader
from popcomm.agents.population import extract, insert
from popcomm.channels import Inbox, Symbols, Vectors, Words
from popcomm.channels.mailbox import PostedInbox
from popcomm.errors import UserError

KIND = Symbols(vocab_size=5, length=3)
P, R, K, OBS, HIDDEN = 2, 4, 3, 6, 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reader_of(members: int = P) -> MessageReader:
    return MessageReader(members, KIND, HIDDEN, 4, generator()).double()


def inbox_of(members: int = P, soft: Tensor | None = None, seed: int = 1) -> Inbox:
    messages = torch.randint(KIND.vocab_size, (members, R, K, KIND.length), generator=generator(seed))
    mask = torch.ones(members, R, K, dtype=torch.bool)
    return Inbox(messages, torch.arange(K).expand(members, R, K), mask, soft)


def spec_of(members: int = P, **changes: Any) -> AgentSpec:
    known: dict[str, Any] = {
        "obs_size": OBS,
        "action_space": spaces.MultiDiscrete([3, 2]),
        "messages": KIND,
        "inbox_size": K,
        "members": members,
    }
    return AgentSpec(**{**known, **changes})


def agent_of(members: int = P, **changes: Any) -> GRUAgent:
    agent = GRUAgent(spec_of(members, **changes), HIDDEN, 4, generator(2)).double()
    with torch.no_grad():  # the start's policy is nearly zero
        for parameter in agent.policy.parameters():
            parameter.normal_(generator=generator(3))
    return agent


def obs_of(members: int = P, seed: int = 4) -> Tensor:
    return torch.randn(members, R, OBS, generator=generator(seed), dtype=torch.float64)


# ---- reading ----


def torch_reading(reader: MessageReader, member: int, inputs: Tensor) -> Tensor:
    """inputs [M, L, embedding] -> [M, hidden], by torch's GRU with the member's weights."""
    cell = {name: value for name, value in extract(reader, member).items() if name.startswith("cell.")}
    gru = nn.GRU(inputs.shape[-1], HIDDEN, batch_first=True).double()
    gru.load_state_dict({f"{name.removeprefix('cell.')}_l0": value for name, value in cell.items()})
    return gru(inputs)[1].squeeze(0)


def test_the_reader_is_torchs_gru_over_the_embedded_symbols() -> None:
    reader, inbox = reader_of(), inbox_of()
    got = reader(inbox)
    assert got.shape == (P, R, K, HIDDEN)
    for member in range(P):
        expected = torch_reading(reader, member, reader.symbols[member][inbox.messages[member].flatten(0, 1)])
        torch.testing.assert_close(got[member].flatten(0, 1), expected, atol=1e-12, rtol=1e-12)


def test_the_order_of_the_symbols_matters() -> None:
    reader, inbox = reader_of(), inbox_of()
    turned = inbox._replace(messages=inbox.messages.flip(-1))
    different = (inbox.messages != turned.messages).any(-1)
    assert ((reader(inbox) - reader(turned)).abs().amax(-1) > 1e-6)[different].all()


def test_the_gradient_goes_through_soft_as_if_the_symbols_were_its_one_hots() -> None:
    """Against torch's GRU on one-hot times table; the symbols' own values stay those that were sent."""
    hard = nn.functional.one_hot(inbox_of().messages, KIND.vocab_size).double()
    soft = torch.full_like(hard, 0.2).requires_grad_()
    reader, inbox = reader_of(), inbox_of(soft=soft)
    weights = torch.randn(P, R, K, HIDDEN, generator=generator(6), dtype=torch.float64)
    got = reader(inbox)
    torch.testing.assert_close(got, reader(inbox_of()))
    (got * weights).sum().backward()
    for member in range(P):
        one_hot = hard[member].clone().requires_grad_()
        inputs = (one_hot @ reader.symbols[member].detach()).flatten(0, 1)
        (torch_reading(reader, member, inputs) * weights[member].flatten(0, 1)).sum().backward()
        torch.testing.assert_close(soft.grad[member], one_hot.grad, atol=1e-12, rtol=1e-12)
    assert soft.grad.abs().min() > 0


def test_mail_that_is_read_once_for_all_is_read_the_same() -> None:
    """Shared weights: two posted messages, heard by four receivers in any order."""
    reader = reader_of(1)
    posted = torch.randint(KIND.vocab_size, (2, KIND.length), generator=generator(8))
    index = torch.randint(2, (1, R, K), generator=generator(9))
    mask = torch.ones(1, R, K, dtype=torch.bool)
    shared = PostedInbox(posted, index, index, mask)
    torch.testing.assert_close(reader(shared), reader(Inbox(posted[index], index, mask)))


# ---- the agent ----


def test_actions_are_linear_in_what_was_heard_and_seen_and_in_their_product() -> None:
    agent, obs, inbox = agent_of(), obs_of(), inbox_of()
    got = agent(obs, inbox, {}).action_logits
    for member in range(P):
        weight, bias = agent.policy.layers[0].weight[member], agent.policy.layers[0].bias[member]
        heard = agent.reader(inbox)[member].mean(1)
        seen = (obs[member] @ agent.see.weight[member] + agent.see.bias[member]).tanh()
        features = torch.cat([obs[member], heard, heard * seen], -1)
        torch.testing.assert_close(got[member], features @ weight + bias)


def test_messages_that_are_not_real_are_not_heard() -> None:
    agent, obs, inbox = agent_of(), obs_of(), inbox_of()
    mask = torch.tensor([True, False, True]).expand(P, R, K)
    kept = agent(obs, inbox._replace(mask=mask), {}).action_logits
    other = inbox.messages.clone()
    other[:, :, 1] = (other[:, :, 1] + 1) % KIND.vocab_size
    torch.testing.assert_close(agent(obs, inbox._replace(messages=other, mask=mask), {}).action_logits, kept)
    two = Inbox(inbox.messages[:, :, [2, 0]], inbox.senders[:, :, [2, 0]], mask[:, :, [2, 0]])
    torch.testing.assert_close(agent(obs, two, {}).action_logits, kept)
    assert not torch.allclose(agent(obs, inbox, {}).action_logits, kept)


def test_nobody_heard_is_as_nobody_there() -> None:
    agent, obs, inbox = agent_of(), obs_of(), inbox_of()
    said = inbox.messages[:, :, 0]
    alone = agent(obs, inbox._replace(mask=torch.zeros(P, R, K, dtype=torch.bool)), {}, said=said)
    nobody = agent(obs, None, {}, said=said)
    torch.testing.assert_close(alone.action_logits, nobody.action_logits)
    torch.testing.assert_close(alone.message, nobody.message)
    assert alone.action_logits.isfinite().all()


def test_what_it_heard_and_saw_decides_what_it_says() -> None:
    agent, inbox = agent_of(), inbox_of()
    said = inbox.messages[:, :, 0]
    base = agent(obs_of(), inbox, {}, said=said).message
    assert base.shape == (P, R, *KIND.params_shape)
    assert not torch.allclose(agent(obs_of(seed=5), inbox, {}, said=said).message, base)
    assert not torch.allclose(agent(obs_of(), inbox_of(seed=7), {}, said=said).message, base)


def touched(agent: GRUAgent, loss: Tensor) -> set[str]:
    """The parts of the agent that a loss moves."""
    agent.zero_grad()
    loss.backward()
    return {n.split(".")[0] for n, p in agent.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


def test_values_move_nothing_but_the_critic_and_decisions_everything_else() -> None:
    agent, obs, inbox = agent_of(), obs_of(), inbox_of()
    said = inbox.messages[:, :, 0]

    def output() -> Any:
        return agent(obs, inbox, {}, said=said)

    assert touched(agent, output().value.square().sum()) == {"critic"}
    assert touched(agent, output().action_logits.square().sum()) == {"reader", "see", "policy"}
    assert touched(agent, KIND.log_prob(output().message, said).sum()) == {"reader", "speech"}


def test_the_distribution_of_what_it_said_is_what_it_is_told_again() -> None:
    agent, obs, inbox = agent_of(), obs_of(), inbox_of()
    spoken = agent(obs, inbox, {}, generator=generator(1))
    again = agent(obs, inbox, {}, said=spoken.said)
    torch.testing.assert_close(again.message, spoken.message)
    greedy = agent(obs, inbox, {}, greedy=True)
    assert torch.equal(greedy.said, greedy.message.argmax(-1))
    assert not torch.equal(spoken.said, greedy.said)


def test_a_member_alone_is_what_it_is_in_the_population() -> None:
    crowd, alone, obs, inbox = agent_of(3), agent_of(1), obs_of(3), inbox_of(3)
    insert(alone, 0, extract(crowd, 2))
    said = inbox.messages[:, :, 0]
    whole = crowd(obs, inbox, {}, said=said)
    single = alone(obs[2:], Inbox(*(x[2:] for x in inbox[:3])), {}, said=said[2:])
    for name in ("action_logits", "message", "value"):
        torch.testing.assert_close(getattr(single, name)[0], getattr(whole, name)[2])


# ---- who has which parts ----


def parts(**changes: Any) -> set[str]:
    return {name for name, _ in GRUAgent(spec_of(**changes), HIDDEN, 4).named_children()}


def test_parts_for_which_a_species_has_no_use_do_not_exist() -> None:
    everything = {"reader", "see", "speech", "policy", "critic"}
    assert parts() == everything
    assert parts(speaks=False) == everything - {"speech"}
    assert parts(hears=False) == {"speech", "policy", "critic"}
    assert parts(messages=None) == {"policy", "critic"}


def test_the_mute_say_nothing_and_the_deaf_hear_nothing() -> None:
    mute, deaf = agent_of(speaks=False), agent_of(hears=False)
    output = mute(obs_of(), inbox_of(), {})
    assert output.message is output.said is None
    assert not mute.autoregressive
    said = inbox_of().messages[:, :, 0]
    torch.testing.assert_close(
        deaf(obs_of(), inbox_of(), {}, said=said).message, deaf(obs_of(), None, {}, said=said).message
    )


def test_silence_takes_no_width_from_the_policy() -> None:
    """The silent twin has the same policy and critic, on zeros in place of what would be heard."""
    talking, silent = GRUAgent(spec_of(), HIDDEN, 4), GRUAgent(spec_of(messages=None, inbox_size=0), HIDDEN, 4)
    assert [p.shape for p in silent.parameters()] == [
        p.shape for n, p in talking.named_parameters() if n.startswith(("policy", "critic"))
    ]
    assert silent(obs_of().float(), None, {}).action_logits.shape == (P, R, 5)


def test_it_keeps_the_contract_of_agents() -> None:
    agent = agent_of()
    assert isinstance(agent, Agent)
    assert agent.initial_state(R) == {}
    assert all(parameter.shape[0] == P for parameter in agent.parameters())


@pytest.mark.parametrize(
    ("changes", "sizes", "sentence"),
    [
        ({}, {"hidden": 0}, "agent_config.hidden is 0, and must be at least 1"),
        ({}, {"embedding": -1}, "agent_config.embedding is -1, and must be at least 1"),
        ({"messages": Vectors(3)}, {}, "population.agent 'gru' speaks in symbols, and messages are vectors"),
        ({"messages": Words()}, {}, "population.agent 'gru' speaks in symbols, and messages are words"),
    ],
)
def test_what_it_cannot_be_is_refused(changes: dict[str, Any], sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        GRUAgent(spec_of(**changes), **sizes)


def test_few_and_many_rows_are_read_the_same() -> None:
    """Of many rows the products with symbols are made in the table, of fewer rows than symbols they are not."""
    reader, inbox = reader_of(), inbox_of()
    few = Inbox(*(part[:, :1, :1] for part in inbox[:3]))
    assert few.messages[0].numel() < KIND.vocab_size <= inbox.messages[0].numel()
    again = Inbox(*(part.expand(-1, 8, *part.shape[2:]) for part in few[:3]))
    torch.testing.assert_close(reader(again), reader(few).expand(-1, 8, -1, -1), atol=1e-12, rtol=1e-12)
