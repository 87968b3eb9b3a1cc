"""What listeners would have made of a step had one message been another one, or missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.agents import GRUAgent, MLPAgent
from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.agents.counterfactuals import Alternatives, Scene, alternatives, instead, lived, said_again, without
from popcomm.channels import Symbols, Words
from popcomm.channels.mail import LogOf, Mail

WORLDS, SEATS, SLOTS = 4, 3, 2
KIND = Symbols(3, 1)


def scene(agent: Any, members: int = 1) -> Scene:
    """Four worlds of three seats that hear both others; some slots are empty."""
    torch.manual_seed(0)
    spec = AgentSpec(
        obs_size=2, action_space=spaces.Discrete(4), messages=KIND, inbox_size=SLOTS, members=members, num_agents=SEATS
    )
    network = SimpleNamespace(spec=spec, agent=agent(spec))
    slots = torch.tensor([[1, 2], [0, 2], [0, 1]]).expand(WORLDS, -1, -1)
    mask = torch.rand(WORLDS, SEATS, SLOTS) < 0.8
    mail = Mail(torch.randint(3, (WORLDS, SEATS, 1)), slots, mask)
    seats = torch.arange(WORLDS * SEATS).view(WORLDS, SEATS) % members
    memory = {}
    if agent is GRUAgent:
        start = network.agent.initial_state(1)
        memory = {name: torch.randn(WORLDS, SEATS, *value.shape[2:]) for name, value in start.items()}
    return Scene(network, slice(0, SEATS), torch.randn(WORLDS, SEATS, 2), memory, seats, mail)


AGENTS = [(MLPAgent, 1), (MLPAgent, 3), (GRUAgent, 1), (GRUAgent, 2)]


@pytest.mark.parametrize(("agent", "members"), AGENTS)
@pytest.mark.parametrize("rows", [1, 10_000])
def test_each_slot_is_answered_as_if_that_message_had_been_said(agent: Any, members: int, rows: int) -> None:
    """Against an ordinary pass for each sender and each message, on which that one says it to everybody."""
    found = scene(agent, members)
    assert found.mail is not None
    every = torch.arange(3).view(1, 1, 3, 1).expand(WORLDS, SEATS, 3, 1)
    other = Alternatives(every, torch.full((WORLDS, SEATS, 3), 1 / 3))
    answers = list(instead(found, other, KIND, rows=rows))
    logits = torch.cat([answer.logits for _, answer in answers], 2)
    assert len(answers) == (SLOTS if rows == 1 else 1)
    for sender in range(SEATS):
        for message in range(3):
            said = found.mail.messages.clone()
            said[:, sender] = message
            expected, _ = lived(found._replace(mail=found.mail._replace(messages=said)))
            at = found.mail.slots == sender
            torch.testing.assert_close(logits[:, :, :, message][at], expected.logits[at.any(2)])


@pytest.mark.parametrize(("agent", "members"), AGENTS)
def test_a_slot_is_answered_without_its_message(agent: Any, members: int) -> None:
    found = scene(agent, members)
    assert found.mail is not None
    values = torch.cat([answer.value for _, answer in without(found, rows=1)], 2)
    for slot in range(SLOTS):
        mask = found.mail.mask.clone()
        mask[..., slot] = False
        expected, _ = lived(found._replace(mail=found.mail._replace(mask=mask)))
        torch.testing.assert_close(values[..., slot], expected.value)


class Loudspeaker:
    """Its action is the number of messages in its inbox; its value the sum of their senders."""

    def __init__(self, spec: AgentSpec) -> None:
        self.spec = spec

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def __call__(self, obs: Tensor, inbox: Any, state: Any) -> Any:
        count = inbox.mask.sum(-1, keepdim=True).float()
        message = torch.zeros(*obs.shape[:2], 1, 3)
        return AgentOutput(count.expand(-1, -1, 4), message, (inbox.senders * inbox.mask).sum(-1).float(), {}, {})


def test_senders_stay_who_they_are_and_silence_is_not_heard() -> None:
    found = scene(Loudspeaker)
    assert found.mail is not None
    log = LogOf(torch.tensor([[2, 0, SEATS]]).expand(WORLDS, -1), torch.tensor([[True, False, False]]).expand(4, -1))
    heard = found.mail._replace(mask=torch.ones_like(found.mail.mask))
    words = Words(2, 1, 1)
    said = torch.tensor([0, 1]).expand(WORLDS, SEATS, 2)
    other = Alternatives(said, torch.full((WORLDS, SEATS, 2), 0.5))
    for mail in (heard, heard._replace(messages=torch.ones(WORLDS, 3, dtype=torch.int64), log=log)):
        plain = mail._replace(messages=mail.messages.reshape(WORLDS, SEATS))
        ((_, answer),) = instead(found._replace(mail=plain), other, words)
        # The word 0 is silence: one message less.
        assert answer.logits[..., 0].unique(dim=0).tolist() == [[[[1.0, 2.0]] * SLOTS] * SEATS]
        # What nobody said there is nobody to ask about.
        asked, expected = mail.said[0], mail.senders[0].sum(-1, keepdim=True).expand(-1, SLOTS).float()
        torch.testing.assert_close(answer.value[0, :, :, 1][asked], expected[asked])


def test_few_messages_are_all_looked_at_and_of_many_some_are_drawn() -> None:
    params = torch.randn(2, 3, 1, 3)
    few = alternatives(KIND, params)
    assert few.messages[0, 0].flatten().tolist() == [0, 1, 2]
    torch.testing.assert_close(few.weights, params.squeeze(2).softmax(-1))
    many, generator = Symbols(3, 3), torch.Generator().manual_seed(1)
    drawn = alternatives(many, torch.zeros(2, 3, 3, 3), generator, count=5)
    assert drawn.messages.shape == (2, 3, 5, 3)
    torch.testing.assert_close(drawn.weights.sum(-1), torch.ones(2, 3))
    sure = alternatives(many, torch.tensor([0.0, 50.0, 0.0]).expand(2, 3, 3, 3), generator)
    assert sure.messages.unique().tolist() == [1]


def test_who_speaks_symbol_by_symbol_is_asked_again() -> None:
    found = scene(GRUAgent)
    said = said_again(found, torch.Generator().manual_seed(0), 64)
    assert said.shape == (WORLDS, SEATS, 64, 1)
    assert len(said[0, 0].unique()) > 1
